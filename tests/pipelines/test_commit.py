"""The committer: chunks in, contiguous epochs out, without blocking the dataflow for long."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from core.schema import METRICS, RECORDS
from core.telemetry import Chunk
from pipelines.commit import Committer, Epoch, join, rows_of
from pipelines.settings import FlowSettings
from storage.epochs import Progress


def records(count: int) -> pa.RecordBatch:
    schema = RECORDS.chunk_schema

    def value(kind: pa.DataType) -> object:
        if pa.types.is_timestamp(kind):
            return datetime(2026, 1, 1, tzinfo=UTC)
        if pa.types.is_date(kind):
            return date(2026, 1, 1)
        return "x" if pa.types.is_string(kind) else None if pa.types.is_list(kind) else 1

    return pa.record_batch(
        [pa.array([None if f.nullable else value(f.type)] * count, f.type) for f in schema], schema=schema
    )


def chunk(start: int, rows: int = 1) -> Chunk:
    return Chunk(start, start + 10, {RECORDS.name: records(rows)})


@dataclass
class Recorder:
    """Stands for the tables; commits wait for the gate."""

    progress: Progress = field(default_factory=lambda: Progress(-1, 0, 0, 0))
    intervals: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    gate: threading.Event = field(default_factory=threading.Event)
    failure: Exception | None = None

    def commit(self, rows: Mapping[str, pa.Table], start: int, end: int) -> Progress:
        self.gate.wait(10)
        if self.failure is not None:
            raise self.failure
        self.intervals.append((start, end))
        self.progress = Progress(self.progress.epoch + 1, start, end, 0)
        return self.progress


QUICK = FlowSettings(commit_interval_quiet_s=0.0, commit_interval_loaded_s=0.0, commit_interval_partition_s=0.0)


def committer(epochs: Recorder, settings: FlowSettings, seen: list[Epoch]) -> Committer:
    return Committer(epochs, settings, seen.append)  # pyright: ignore[reportArgumentType]  # a recorder in its place


def test_chunks_that_wait_become_one_contiguous_epoch() -> None:
    epochs, seen = Recorder(), list[Epoch]()
    with committer(epochs, QUICK, seen) as running:
        for start in range(0, 100, 10):
            running.offer(chunk(start))
        epochs.gate.set()
    assert epochs.intervals[0][0] == 0
    assert epochs.intervals[-1][1] == 100
    assert all(a[1] == b[0] for a, b in zip(epochs.intervals, epochs.intervals[1:], strict=False))
    assert len(epochs.intervals) <= 2
    assert sum(epoch.rows[RECORDS.name].num_rows for epoch in seen) == 10


def test_leaving_the_block_commits_what_waits() -> None:
    epochs = Recorder()
    epochs.gate.set()
    slow = replace(QUICK, commit_interval_quiet_s=3_600.0)
    with committer(epochs, slow, []) as running:
        running.offer(chunk(0))
        running.offer(chunk(10))
    assert epochs.intervals[-1][1] == 20


def test_a_full_epoch_makes_the_dataflow_wait() -> None:
    epochs = Recorder()
    with committer(epochs, replace(QUICK, epoch_rows_max=5), []) as running:
        running.offer(chunk(0, rows=5))  # taken at once; its commit waits at the gate
        while running._waiting:
            pass
        running.offer(chunk(10, rows=5))
        third = threading.Thread(target=running.offer, args=(chunk(20, rows=5),))
        third.start()
        third.join(0.2)
        assert third.is_alive()
        epochs.gate.set()
        third.join(10)
        assert not third.is_alive()
    assert epochs.intervals == [(0, 10), (10, 20), (20, 30)]


def test_what_stops_the_committer_reaches_the_dataflow() -> None:
    epochs = Recorder(failure=ValueError("the tables are gone"))
    epochs.gate.set()

    def offer_for_ever() -> None:
        with committer(epochs, QUICK, []) as running:
            for start in range(0, 10_000_000, 10):
                running.offer(chunk(start, rows=0))

    with pytest.raises(ValueError, match="the tables are gone"):
        offer_for_ever()


def test_join_keeps_the_order_and_every_tables_schema() -> None:
    joined = join([chunk(0, rows=2), chunk(10, rows=3), Chunk(20, 30, {})])
    assert joined[RECORDS.name].num_rows == 5
    assert joined[METRICS.name].schema == METRICS.chunk_schema
    assert rows_of([chunk(0, rows=2), Chunk(10, 20, {})]) == 2
