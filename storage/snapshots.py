"""Snapshots: the files of one project at one version of a table, as a directory of hard links (system.md D8, D9).

In:  a table's name, a project, the least version to be seen.   Out: a pinned directory holding exactly those
files in `day=YYYY-MM-DD/`, whatever compaction, vacuum and retention remove meanwhile. A directory never
changes; it is shared by its pins, and goes when a newer one has replaced it or nobody has asked for a while.
"""

import contextlib
import errno
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, unquote
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from core.errors import DiskFull, Refused, Unavailable
from core.schema import TABLES, Table

HANDLE_COMMITS_MAX = 100
"""Commits after which a table handle is loaded anew: a long-lived one slows down."""
UNPINNED_KEEP_S = 60.0
"""How long the newest directory of a project outlives its last pin, for the next statement to reuse."""
LINK_TRIES = 3
"""Listings tried when files vanish between the listing and the linking; then Unavailable."""
NO_VERSION = -1
"""The version of a table that does not exist yet."""


class Pin:
    """A hold on one snapshot; a context manager, or call `release` (more than once is fine)."""

    def __init__(self, owner: "_TableSnapshots", directory: "_Directory", version: int) -> None:
        self.path: Path = directory.path
        """The directory; empty when the project has no rows in the table."""
        self.version = version
        """The Delta version it shows; NO_VERSION when there is no table yet."""
        self.schema: pa.Schema = owner.definition.schema
        """The table's columns; `project_id` is in no file, `day` in the directories' names."""
        self._owner = owner
        self._directory: _Directory | None = directory

    def release(self) -> None:
        """Let the directory go."""
        directory, self._directory = self._directory, None
        if directory is not None:
            self._owner.release(directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Snapshots:
    """Every table's snapshots. Thread-safe; one process owns the directory."""

    def __init__(self, lake_directory: Path, directory: Path) -> None:
        """Start with nothing pinned. Raises Refused when files cannot be hard-linked into the directory."""
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True, mode=0o700)
        lake_directory.mkdir(parents=True, exist_ok=True)
        _check_links(lake_directory, directory)
        self._tables = {
            table.name: _TableSnapshots(table, lake_directory / table.name, directory / table.name) for table in TABLES
        }

    def pin(self, table_name: str, project_id: str, *, version_min: int | None = None) -> Pin:
        """Pin the newest version, which is at least `version_min`.

        Raises Unavailable when that version cannot be seen, DiskFull when there is no room for links.
        """
        return self._tables[table_name].pin(project_id, version_min)

    def sweep(self) -> None:
        """Remove what nobody has pinned for UNPINNED_KEEP_S; links keep replaced files on the disk."""
        for table in self._tables.values():
            table.sweep()


@dataclass(slots=True, eq=False)
class _Directory:
    path: Path
    files: frozenset[str]
    """As Delta spells them, relative to the table."""
    pins: int = 0
    released: float = field(default_factory=time.monotonic)
    """When the last pin was released, by the monotonic clock."""


class _TableSnapshots:
    """One table's snapshots: at most one current directory a project, and older ones while they are pinned."""

    def __init__(self, definition: Table, source: Path, directory: Path) -> None:
        self.definition = definition
        self._source = source
        self._log = source / "_delta_log"
        self._log_changed_ns = 0
        self._directory = directory
        self._lock = threading.Lock()
        self._delta: DeltaTable | None = None
        self._loaded_version = NO_VERSION
        self._files: pa.Table | None = None
        self._current: dict[str, _Directory] = {}

    def pin(self, project_id: str, version_min: int | None) -> Pin:
        with self._lock:
            for _ in range(LINK_TRIES):
                version = self._refresh(version_min)
                try:
                    directory = self._directory_of(project_id, version)
                except FileNotFoundError:  # vacuumed since this version was current
                    self._delta = None
                    continue
                directory.pins += 1
                self._sweep()
                return Pin(self, directory, version)
        raise Unavailable(f"The files of {self.definition.name} change too fast to be read; try again")

    def release(self, directory: _Directory) -> None:
        with self._lock:
            directory.pins -= 1
            directory.released = time.monotonic()
            if directory.pins == 0 and directory not in self._current.values():
                shutil.rmtree(directory.path, ignore_errors=True)

    def sweep(self) -> None:
        with self._lock:
            self._sweep()

    def _sweep(self) -> None:
        oldest = time.monotonic() - UNPINNED_KEEP_S
        for project_id, directory in list(self._current.items()):
            if directory.pins == 0 and directory.released < oldest:
                del self._current[project_id]
                shutil.rmtree(directory.path, ignore_errors=True)

    def _refresh(self, version_min: int | None) -> int:
        """The newest version, after looking for new commits."""
        version = self._version()
        if self._moved(version) or (version_min is not None and version < version_min):
            with contextlib.suppress(FileNotFoundError):
                self._log_changed_ns = self._log.stat().st_mtime_ns  # first: what comes after it is seen next time
            self._load()
            if self._version() != version:
                self._files = None
                version = self._version()
        if version_min is not None and version < version_min:
            raise Unavailable(
                f"Version {version_min} of {self.definition.name} is not to be seen yet, only {version}; try again"
            )
        return version

    def _version(self) -> int:
        return NO_VERSION if self._delta is None else self._delta.version()

    def _moved(self, version: int) -> bool:
        """Whether there may be a newer version: two system calls, where asking Delta costs a millisecond."""
        if self._delta is None:
            return True
        next_commit = self._log / f"{version + 1:020}.json"
        # the directory's time catches commits whose files were already cleaned up behind a checkpoint
        return next_commit.exists() or self._log.stat().st_mtime_ns != self._log_changed_ns

    def _load(self) -> None:
        if self._delta is not None and self._delta.version() - self._loaded_version < HANDLE_COMMITS_MAX:
            self._delta.update_incremental()
        elif DeltaTable.is_deltatable(str(self._source)):
            self._delta = DeltaTable(self._source)
            self._loaded_version = self._delta.version()
            self._files = None

    def _directory_of(self, project_id: str, version: int) -> _Directory:
        """The project's directory at the handle's version, made if its files have changed."""
        files = dict(self._files_of(project_id))
        current = self._current.get(project_id)
        if current is not None and current.files == files.keys():
            return current
        path = self._directory / f"project_id={quote(project_id, safe='')}" / str(version)
        try:
            self._link(files, path)
        except OSError as error:
            shutil.rmtree(path, ignore_errors=True)
            if error.errno == errno.ENOSPC:
                raise DiskFull from error
            raise
        directory = _Directory(path, frozenset(files))
        self._current[project_id] = directory
        if current is not None and current.pins == 0:
            shutil.rmtree(current.path, ignore_errors=True)
        return directory

    def _files_of(self, project_id: str) -> Iterator[tuple[str, str]]:
        """Each file of a project with the name of its day's directory."""
        if self._delta is None:
            return
        if self._files is None:
            actions = pa.table(self._delta.get_add_actions(flatten=True))
            names = ["path", "partition.project_id", "partition.day"]
            self._files = actions.select(names) if actions.num_rows else pa.table({name: [] for name in names})
        if self._files.num_rows == 0:
            return
        mine = self._files.filter(pc.equal(self._files.column("partition.project_id"), pa.scalar(project_id)))
        paths = mine.column("path").to_pylist()
        for path, day in zip(paths, mine.column("partition.day").to_pylist(), strict=True):
            yield str(path), f"day={day}"

    def _link(self, files: dict[str, str], path: Path) -> None:
        path.mkdir(parents=True)
        for day in set(files.values()):
            (path / day).mkdir()
        for file, day in files.items():
            name = unquote(file)
            os.link(self._source / name, path / day / name.rpartition("/")[2])


def _check_links(lake_directory: Path, directory: Path) -> None:
    name = f".link-{uuid4()}"
    source, target = lake_directory / name, directory / name
    try:
        source.touch()
        os.link(source, target)
    except OSError as error:
        raise Refused(
            f"Files of {lake_directory} cannot be hard-linked into {directory} ({error.strerror}):"
            " the data directory must be on one file system that has hard links"
        ) from error
    finally:
        source.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
