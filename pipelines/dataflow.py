"""The whole way of the data on one page: log → skip repeats → decode → tables.

One item is one portion of the log, thousands of records; the steps are plain functions. Positions are kept in
the tables (storage/epochs.py), so the engine needs no recovery of its own and may be replaced.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from typing_extensions import override

from core.telemetry import Chunk, Frame

POLL_INTERVAL = timedelta(milliseconds=20)
"""How often an idle flow looks at the log."""
PARTITION = "0"


@dataclass(frozen=True, slots=True)
class Portion:
    """The frames of one log interval [start, end), in order."""

    start: int
    end: int
    frames: Sequence[Frame]


@dataclass(frozen=True, slots=True)
class Steps:
    """What the dataflow does at each step."""

    read: Callable[[int], Portion | None]
    """The portion that begins at a position; None when nothing is there yet."""
    skip_repeats: Callable[[Portion], Portion]
    """The portion without requests that were accepted before."""
    decode: Callable[[Portion], Chunk]
    commit: Callable[[Chunk], None]
    """Takes a chunk; may wait."""


def build(steps: Steps, start: int, stop: threading.Event) -> Dataflow:
    """The dataflow from a log position on, until `stop` is set and the log is read to its end."""
    flow = Dataflow("tailrace")
    portions = op.input("log", flow, LogSource(steps.read, start, stop))
    fresh = op.map("skip-repeats", portions, steps.skip_repeats)
    chunks = op.map("decode", fresh, steps.decode)
    op.output("tables", chunks, TableSink(steps.commit))
    return flow


class LogSource(FixedPartitionedSource[Portion, None]):
    """The log as a source of one partition."""

    def __init__(self, read: Callable[[int], Portion | None], start: int, stop: threading.Event) -> None:
        self._read = read
        self._start = start
        self._stop = stop

    @override
    def list_parts(self) -> list[str]:
        return [PARTITION]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "LogPartition":
        return LogPartition(self._read, self._start, self._stop)


class LogPartition(StatefulSourcePartition[Portion, None]):
    """Reads on from a position; ends when told to stop and nothing is left."""

    def __init__(self, read: Callable[[int], Portion | None], start: int, stop: threading.Event) -> None:
        self._read = read
        self._position = start
        self._stop = stop
        self._awake: datetime | None = None

    @override
    def next_batch(self) -> list[Portion]:
        portion = self._read(self._position)
        if portion is None:
            if self._stop.is_set():
                raise StopIteration
            self._awake = datetime.now(UTC) + POLL_INTERVAL
            return []
        self._position = portion.end
        self._awake = None
        return [portion]

    @override
    def next_awake(self) -> datetime | None:
        return self._awake

    @override
    def snapshot(self) -> None:
        return None


class TableSink(DynamicSink[Chunk]):
    """Hands chunks to the committer."""

    def __init__(self, commit: Callable[[Chunk], None]) -> None:
        self._commit = commit

    @override
    def build(self, step_id: str, worker_index: int, worker_count: int) -> "TablePartition":
        return TablePartition(self._commit)


class TablePartition(StatelessSinkPartition[Chunk]):
    """The sink of the one worker."""

    def __init__(self, commit: Callable[[Chunk], None]) -> None:
        self._commit = commit

    @override
    def write_batch(self, items: list[Chunk]) -> None:
        for chunk in items:
            self._commit(chunk)
