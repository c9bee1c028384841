"""The flow process's work: from the log to the tables, beginning where the tables say it stopped.

It also owns the tail of the log: what every table has is trimmed, and remembered as digests.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bytewax.testing import run_main

from core.clock import NS_PER_S, Clock
from core.errors import Refused
from core.telemetry import Chunk
from pipelines import dataflow
from pipelines.commit import Committer, Epoch, join
from pipelines.dataflow import Portion
from pipelines.receive.decode import decode
from pipelines.settings import FlowSettings
from storage.digests import DigestIndex
from storage.epochs import Epochs, Progress, read_progress
from storage.lake import Lake
from storage.log_reader import LogReader

LOG_WAIT_S = 0.05
"""Pause between looks for a log that the door has not made yet."""
TRIM_INTERVAL_S = 5.0
"""Time between looks at what can be trimmed from the log."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FlowHooks:
    """Whom the flow tells, and who ends it."""

    ready: Callable[[Progress], None]
    """The flow goes on from here."""
    epoch: Callable[[Epoch, dict[str, int]], None]
    """A finished epoch, and the Delta version of each table that holds it."""
    stop: threading.Event
    """Set when the flow should finish what is in the log and return."""


def run_flow(
    log_directory: Path, lake_directory: Path, settings: FlowSettings, clock: Clock, *, hooks: FlowHooks
) -> None:
    """Run until `hooks.stop` is set and everything durable in the log is in the tables.

    Raises Refused when the tables and the log do not belong together.
    """
    reader = LogReader(log_directory)
    while (log_id := reader.log_id) is None:
        if hooks.stop.wait(LOG_WAIT_S):
            return
    lake = Lake(lake_directory)
    progress = read_progress(lake, log_id, log_start=reader.start)
    check_log(progress, reader)
    digests = DigestIndex(log_directory / "digests", reader)
    digests.catch_up(progress.start)
    epochs = Epochs(lake, log_id, clock, log_start=reader.start)
    steps = Steps(reader, digests, settings)
    epochs.resume(lambda start, end: join([steps.decode(steps.skip_repeats(steps.interval(start, end)))]))
    digests.catch_up(progress.end)
    _log.info("epoch %d, log position %d of %d", progress.epoch, progress.end, reader.durable)
    with Committer(epochs, settings, lambda epoch: hooks.epoch(epoch, lake.versions())) as committer:
        hooks.ready(progress)
        trimmer = Trimmer(reader, digests)

        def read(position: int) -> Portion | None:
            trimmer.trim(committer.progress)
            return steps.read(position)

        wired = dataflow.Steps(read, steps.skip_repeats, steps.decode, committer.offer)
        run_main(dataflow.build(wired, progress.end, hooks.stop))


def check_log(progress: Progress, reader: LogReader) -> None:
    """Refused unless the position the tables have reached is in the log."""
    if not reader.start <= progress.end <= reader.durable:
        raise Refused(
            f"The tables have read the log up to {progress.end}, but the log holds {reader.start} to {reader.durable}:"
            " one of them was restored without the other; see docs/operations.md, Restore"
        )


class Steps:
    """The steps of the dataflow over one log."""

    def __init__(self, reader: LogReader, digests: DigestIndex, settings: FlowSettings) -> None:
        self._reader = reader
        self._digests = digests
        self._settings = settings

    def read(self, position: int) -> Portion | None:
        """The next portion from a position on; None at the end."""
        frames = self._reader.read(position, bytes_max=self._settings.read_bytes_max)
        return Portion(position, frames[-1].end, frames) if frames else None

    def interval(self, start: int, end: int) -> Portion:
        """All frames of an interval that was committed before."""
        frames = self._reader.read(start, until=end, bytes_max=end - start)
        assert frames[-1].end == end, f"the log interval {start} to {end} ends at {frames[-1].end}"
        return Portion(start, end, frames)

    def skip_repeats(self, portion: Portion) -> Portion:
        """Without the requests whose bytes were accepted before: a client's retry after a lost answer."""
        keep = self._digests.admit(portion.frames)
        frames = [frame for frame, kept in zip(portion.frames, keep, strict=True) if kept]
        return Portion(portion.start, portion.end, frames)

    def decode(self, portion: Portion) -> Chunk:
        """The rows of a portion."""
        if not portion.frames:
            return Chunk(portion.start, portion.end, {})
        age_max_ns = int(self._settings.record_age_max_s * NS_PER_S)
        return Chunk(portion.start, portion.end, decode(portion.frames, age_max_ns=age_max_ns).tables)


class Trimmer:
    """Drops the part of the log that is finished in every table, once its digests are kept elsewhere."""

    def __init__(self, reader: LogReader, digests: DigestIndex) -> None:
        self._reader = reader
        self._digests = digests
        self._looked = time.monotonic()

    def trim(self, progress: Progress) -> None:
        """Trim now and then; cheap otherwise."""
        now = time.monotonic()
        if now - self._looked < TRIM_INTERVAL_S:
            return
        self._looked = now
        if not self._reader.trimmable(progress.start):
            return
        self._digests.seal(progress.start)
        os.sync()  # the tables' files are not fsynced one by one; a loss of power must not find them gone with the log
        self._reader.trim(min(progress.start, self._digests.sealed_to))
