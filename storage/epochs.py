"""Epochs: every accepted request in the tables exactly once, whatever dies when (system.md D2).

Epoch n is one interval [from, to) of the log. Its first commit, to `records`, carries n and the interval;
the other tables that have rows follow; only then may epoch n+1 begin. So after a crash at most one epoch
is incomplete, and decoding its interval again completes it. Rows carry n in `_epoch`.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa
from deltalake.exceptions import DeltaError

from core.clock import NS_PER_US, Clock
from core.errors import Refused
from core.schema import PENDING_SPANS, RECORDS, TABLES
from storage.failpoints import failpoint
from storage.lake import Lake, LakeTable

EPOCH = "flow/epoch"
NOW_US = "flow/now_us"
RETRY_S = (0.05, 0.2, 1.0, 2.0, 5.0)
"""Pauses between tries of a commit that failed; the last one is repeated for ever: the log keeps what waits."""

_log = logging.getLogger(__name__)

Replay = Callable[[int, int], Mapping[str, pa.Table]]
"""Decodes the log interval [from, to) again, to the same rows (without `_epoch`)."""


class Fenced(Refused):
    """Another process has committed to these tables; this one must stop."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the tables stand."""

    epoch: int
    """The last finished epoch; -1 before the first."""
    start: int
    """Log position where it began."""
    end: int
    """Log position where it ended: the next one begins here."""
    now_us: int
    """The flow's wall clock at its commit, microseconds since the Unix epoch; 0 before the first."""


def read_progress(lake: Lake, log_id: str, *, log_start: int = 0) -> Progress:
    """Where the leader stands in the log of that id; in a new log, at its start."""
    leader = lake[RECORDS.name]
    start, end = (leader.transaction(f"log/{log_id}/0/{side}") for side in ("from", "to"))
    return Progress(
        epoch=_epoch_of(leader),
        start=log_start if start is None else start,
        end=log_start if end is None else end,
        now_us=leader.transaction(NOW_US) or 0,
    )


class Epochs:
    """The one writer of the tables. Not thread-safe: it belongs to the committer."""

    def __init__(self, lake: Lake, log_id: str, clock: Clock, *, log_start: int = 0) -> None:
        self._lake = lake
        self._log_id = log_id
        self._clock = clock
        self.progress = read_progress(lake, log_id, log_start=log_start)

    def resume(self, replay: Replay) -> None:
        """Finish the last epoch where a crash left followers behind the leader."""
        now = self.progress
        behind = [table for table in self._followers() if _epoch_of(table) < now.epoch]
        if now.epoch < 0 or now.start == now.end or not behind:
            return
        rows = replay(now.start, now.end)
        for table in behind:
            self._follow(table, rows.get(table.definition.name), now.epoch)

    def commit(self, rows: Mapping[str, pa.Table], start: int, end: int) -> Progress:
        """Commit the rows of the log interval [start, end) as the next epoch, and return it finished.

        `rows`: table name → rows in that table's chunk_schema. Raises Fenced when another writer has been here.
        A full disk or a lost race is tried again until it works.
        """
        assert start == self.progress.end, f"epochs must be contiguous: {start} after {self.progress.end}"
        after = Progress(self.progress.epoch + 1, start, end, self._clock.now_ns() // NS_PER_US)
        log = f"log/{self._log_id}/0"
        transactions = {EPOCH: after.epoch, f"{log}/from": start, f"{log}/to": end, NOW_US: after.now_us}
        leader = self._lake[RECORDS.name]
        failpoint("epoch.before_leader")
        self._append(leader, _numbered(leader, rows.get(RECORDS.name), after.epoch), transactions)
        failpoint("epoch.after_leader")
        for table in self._followers():
            self._follow(table, rows.get(table.definition.name), after.epoch)
        self.progress = after
        return after

    def _followers(self) -> list[LakeTable]:
        return [self._lake[definition.name] for definition in TABLES if definition is not RECORDS]

    def _follow(self, table: LakeTable, rows: pa.Table | None, epoch: int) -> None:
        if rows is None or rows.num_rows == 0:
            return
        self._append(table, _numbered(table, rows, epoch), {EPOCH: epoch})
        failpoint(f"epoch.after_{'pending' if table.definition is PENDING_SPANS else table.definition.name}")

    def _append(self, table: LakeTable, rows: pa.Table, transactions: Mapping[str, int]) -> None:
        """Append once: a failed try may have committed, so look before trying again."""
        epoch = transactions[EPOCH]
        before = _epoch_of(table)
        tries = 0
        while True:
            try:
                failpoint("lake.commit")
                table.append(rows, transactions)
                return
            except (DeltaError, OSError) as error:
                pause = RETRY_S[min(tries, len(RETRY_S) - 1)]
                _log.warning("commit of epoch %d to %s failed, again in %.2g s: %s",
                             epoch, table.definition.name, pause, error)  # fmt: skip
            time.sleep(pause)
            tries += 1
            table.reload()
            if all(table.transaction(name) == value for name, value in transactions.items()):
                return
            if (found := _epoch_of(table)) != before:
                raise Fenced(f"Epoch {found} of {table.definition.name!r} was committed by another process")


def _epoch_of(table: LakeTable) -> int:
    """The last epoch that wrote to a table; -1 when none has."""
    epoch = table.transaction(EPOCH)
    return -1 if epoch is None else epoch


def _numbered(table: LakeTable, rows: pa.Table | None, epoch: int) -> pa.Table:
    """The rows with their `_epoch`, in the table's column order."""
    if rows is None:
        return table.definition.schema.empty_table()
    numbers = pa.repeat(pa.scalar(epoch, pa.int64()), rows.num_rows)
    return pa.table([*rows.columns, numbers], schema=table.definition.schema)
