"""The committer: gathers chunks and commits them as epochs, beside the dataflow in a thread of its own.

In:  chunks, in log order (`offer` blocks while too much waits).   Out: finished epochs, told to `on_epoch`.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from core.schema import TABLES
from core.telemetry import Chunk
from pipelines.settings import FlowSettings
from storage.epochs import Epochs, Progress

IDLE_WAIT_S = 60.0
"""How long the committer sleeps when nothing waits; any chunk wakes it."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """A finished epoch."""

    progress: Progress
    rows: Mapping[str, pa.Table]
    """What it committed, without `_epoch`."""


class Committer:
    """A `with` block around the committing thread; leaving it commits what was offered."""

    def __init__(self, epochs: Epochs, settings: FlowSettings, on_epoch: Callable[[Epoch], None]) -> None:
        self._epochs = epochs
        self._settings = settings
        self._on_epoch = on_epoch
        self._waiting: list[Chunk] = []
        self._changed = threading.Condition()
        self._closing = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        if error is None and self._failure is not None:
            raise self._failure

    @property
    def progress(self) -> Progress:
        """The last finished epoch."""
        return self._epochs.progress

    def offer(self, chunk: Chunk) -> None:
        """Queue a chunk; waits while the next epoch is full. Raises what stopped the committer, if anything has."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or not self._full())
            if self._failure is not None:
                raise self._failure
            self._waiting.append(chunk)
            self._changed.notify_all()

    def _full(self) -> bool:
        return bool(self._waiting) and (
            rows_of(self._waiting) >= self._settings.epoch_rows_max
            or self._waiting[-1].end - self._waiting[0].start >= self._settings.epoch_bytes_max
        )

    def _run(self) -> None:
        try:
            last = 0.0
            while chunks := self._take(last):
                last = time.monotonic()
                rows = join(chunks)
                self._on_epoch(Epoch(self._epochs.commit(rows, chunks[0].start, chunks[-1].end), rows))
        except BaseException as error:  # noqa: BLE001  # told to the dataflow by the next offer
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _take(self, last: float) -> list[Chunk]:
        """The chunks of the next epoch, when it is due; none when closed and empty."""
        with self._changed:
            while True:
                wait_s = self._due_in_s(last) if self._waiting else IDLE_WAIT_S
                if self._waiting and (wait_s <= 0 or self._closing):
                    chunks, self._waiting = self._waiting, []
                    self._changed.notify_all()
                    return chunks
                if self._closing:
                    return []
                self._changed.wait(wait_s)

    def _due_in_s(self, last: float) -> float:
        if self._full():
            return 0.0
        settings = self._settings
        loaded = rows_of(self._waiting) >= settings.loaded_rows
        interval = settings.commit_interval_loaded_s if loaded else settings.commit_interval_quiet_s
        interval = max(interval, settings.commit_interval_partition_s * _partitions(self._waiting))
        return last + interval - time.monotonic()


def rows_of(chunks: Sequence[Chunk]) -> int:
    """Rows of all tables."""
    return sum(batch.num_rows for chunk in chunks for batch in chunk.tables.values())


def join(chunks: Sequence[Chunk]) -> dict[str, pa.Table]:
    """The chunks' rows, table by table, in order."""
    return {
        table.name: pa.Table.from_batches(
            [chunk.tables[table.name] for chunk in chunks if table.name in chunk.tables], schema=table.chunk_schema
        )
        for table in TABLES
    }


def _partitions(chunks: Sequence[Chunk]) -> int:
    """How many projects the waiting rows belong to: each makes a file per table (days hardly differ)."""
    projects: set[object] = set()
    for chunk in chunks:
        for batch in chunk.tables.values():
            projects.update(pc.unique(batch.column("project_id")).to_pylist())
    return len(projects)
