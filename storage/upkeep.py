"""Upkeep of the lake: merging, checkpoints, vacuum and retention, by one owner at a time.

It runs in the jobs process, a round every few seconds; each round does what is due and no more. A lock file
keeps a second owner out on one machine, the commits' app transaction keeps one out anywhere.
"""

import fcntl
import json
import logging
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

from core.clock import Clock, at
from core.errors import Refused
from storage.compaction import commit, data_files, merge, plan_merges, removals
from storage.lake import Lake, LakeTable
from storage.settings import RetentionSettings, UpkeepSettings

_log = logging.getLogger(__name__)


class Upkeep:
    """The owner of the lake's upkeep."""

    def __init__(self, lake: Lake, settings: UpkeepSettings, retention: RetentionSettings, clock: Clock) -> None:
        self._lake = lake
        self._settings = settings
        self._retention = retention
        self._clock = clock
        self._vacuumed = {table.definition.name: time.monotonic() for table in lake}
        self._searched = dict.fromkeys(self._vacuumed, time.monotonic())

    def round(self) -> int:
        """Do what is due on every table; returns how many files were replaced or dropped."""
        return sum(self._table(table) for table in self._lake)

    def _table(self, table: LakeTable) -> int:
        table.refresh()
        today = at(self._clock.now_ns()).date()
        changed = self._expire(table, today)
        for files in plan_merges(data_files(table), today):
            replaced = merge(table, files, self._clock)
            changed += replaced
            if not replaced:
                break
        self._checkpoint(table)
        self._vacuum(table)
        return changed

    def _expire(self, table: LakeTable, today: date) -> int:
        days: int = getattr(self._retention, f"{table.definition.name}_days")
        if days <= 0:
            return 0
        oldest = today - timedelta(days=days)
        expired = [file for file in data_files(table) if file.day < oldest]
        if not expired:
            return 0
        now_ms = self._clock.now_ns() // 1_000_000
        if not commit(table, removals(expired, now_ms, data_change=True)):
            return 0
        _log.info("retention: dropped %d files of %s from before %s", len(expired), table.definition.name, oldest)
        return len(expired)

    def _checkpoint(self, table: LakeTable) -> None:
        if table.version - last_checkpoint(table.directory) >= self._settings.checkpoint_commits:
            table.delta.create_checkpoint()
            table.delta.cleanup_metadata()
            table.reload()

    def _vacuum(self, table: LakeTable) -> None:
        name, now = table.definition.name, time.monotonic()
        if now - self._vacuumed[name] < self._settings.vacuum_interval_s:
            return
        orphans = now - self._searched[name] >= self._settings.orphan_interval_s
        gone = table.delta.vacuum(
            retention_hours=self._settings.vacuum_hours, dry_run=False, enforce_retention_duration=False, full=orphans
        )
        table.refresh()
        self._vacuumed[name] = now
        if orphans:
            self._searched[name] = now
        if gone:
            _log.info("vacuum: deleted %d files of %s", len(gone), name)


@contextmanager
def open_upkeep(
    directory: Path, settings: UpkeepSettings, retention: RetentionSettings, clock: Clock
) -> Generator[Upkeep]:
    """Own the upkeep of a lake; Refused while another process does."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "upkeep.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Refused(f"Another process already keeps up the tables in {directory}; stop it first") from error
        yield Upkeep(Lake(directory), settings, retention, clock)


def last_checkpoint(directory: Path) -> int:
    """The version of a table's newest checkpoint; 0 when it has none."""
    try:
        return int(json.loads((directory / "_delta_log" / "_last_checkpoint").read_bytes())["version"])
    except (FileNotFoundError, ValueError, KeyError):
        return 0
