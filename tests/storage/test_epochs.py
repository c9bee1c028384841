"""Epochs: whatever dies at whatever place, the tables hold every accepted request once."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest

from core.schema import DEAD_LETTERS, METRICS, PENDING_SPANS, RECORDS, TABLES, Table
from storage import epochs as epochs_module
from storage.epochs import EPOCH, Epochs, Fenced, read_progress
from storage.lake import Lake

LOG_ID = "11111111-1111-4111-8111-111111111111"
PROJECT = "00000000-0000-4000-8000-000000000000"


class Crash(BaseException):
    """Stands for a death of the process."""


@dataclass
class FixedClock:
    ns: int = 1_795_000_000_000_000_000

    def now_ns(self) -> int:
        return self.ns


def rows(table: Table, marks: list[str]) -> pa.Table:
    """Rows of a table that are told apart by a mark in their service_name."""

    def value(name: str, kind: pa.DataType, mark: str) -> object:
        known: dict[str, object] = {
            "project_id": PROJECT,
            "day": date(2026, 11, 24),
            "service_name": mark,
        }
        if name in known:
            return known[name]
        if pa.types.is_timestamp(kind):
            return datetime(2026, 11, 24, tzinfo=UTC)
        if pa.types.is_string(kind):
            return "x"
        if pa.types.is_binary(kind):
            return b"x"
        return 1 if pa.types.is_integer(kind) else None

    schema = table.chunk_schema
    columns = [pa.array([value(f.name, f.type, mark) for mark in marks], f.type) for f in schema]
    return pa.table(columns, schema=schema)


@dataclass
class FakeLog:
    """A log of entries; entry i is at position i and holds one row for some tables."""

    entries: list[list[Table]] = field(default_factory=list[list[Table]])

    def decode(self, start: int, end: int) -> dict[str, pa.Table]:
        return {
            table.name: rows(table, [f"entry-{i}" for i in range(start, end) if table in self.entries[i]])
            for table in TABLES
        }


def marks(lake: Lake, table: Table) -> list[str]:
    found = pa.table(lake[table.name].delta.to_pyarrow_table())
    return sorted(str(mark) for mark in found.column("service_name").to_pylist())


def flow_until_done(directory: Path, log: FakeLog, random: Random) -> None:
    """One life of the flow: resume, then commit to the end of the log, unless it dies."""
    lake = Lake(directory)
    epochs = Epochs(lake, LOG_ID, FixedClock())
    epochs.resume(log.decode)
    while (at := epochs.progress.end) < len(log.entries):
        end = min(len(log.entries), at + random.randint(1, 4))
        epochs.commit(log.decode(at, end), at, end)


@pytest.mark.parametrize("seed", range(4))
def test_every_entry_is_stored_once_whatever_dies_when(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(seed)
    tables = [RECORDS, PENDING_SPANS, METRICS, DEAD_LETTERS]
    log = FakeLog([random.sample(tables, random.randint(0, 3)) for _ in range(30)])
    crashes = 0

    def crash(name: str) -> None:
        nonlocal crashes
        if random.random() < 0.12:
            crashes += 1
            raise Crash(name)

    monkeypatch.setattr(epochs_module, "failpoint", crash)
    while True:
        try:
            flow_until_done(tmp_path, log, random)
            break
        except Crash:
            continue
    lake = Lake(tmp_path)
    assert crashes > 0
    for table in tables:
        assert marks(lake, table) == sorted(f"entry-{i}" for i, entry in enumerate(log.entries) if table in entry)


def test_an_epoch_without_records_still_moves_the_leader(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    epochs = Epochs(lake, LOG_ID, FixedClock())
    done = epochs.commit({METRICS.name: rows(METRICS, ["m"])}, 0, 10)
    assert (done.epoch, done.end) == (0, 10)
    assert read_progress(Lake(tmp_path), LOG_ID) == done
    assert marks(lake, METRICS) == ["m"]


def test_the_first_epoch_is_not_written_twice_by_a_restart(tmp_path: Path) -> None:
    log = FakeLog([[RECORDS, METRICS]])
    Epochs(Lake(tmp_path), LOG_ID, FixedClock()).commit(log.decode(0, 1), 0, 1)
    lake = Lake(tmp_path)
    Epochs(lake, LOG_ID, FixedClock()).resume(log.decode)
    assert marks(lake, METRICS) == ["entry-0"]


def test_rows_carry_their_epoch(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    epochs = Epochs(lake, LOG_ID, FixedClock())
    for number in range(3):
        epochs.commit({RECORDS.name: rows(RECORDS, [f"{number}"])}, number, number + 1)
    found = pa.table(lake[RECORDS.name].delta.to_pyarrow_table()).select(["service_name", "_epoch"]).to_pylist()
    assert {row["service_name"]: row["_epoch"] for row in found} == {"0": 0, "1": 1, "2": 2}


def test_a_new_log_begins_at_its_own_start(tmp_path: Path) -> None:
    Epochs(Lake(tmp_path), LOG_ID, FixedClock()).commit({}, 0, 500)
    progress = read_progress(Lake(tmp_path), "22222222-2222-4222-8222-222222222222", log_start=0)
    assert (progress.epoch, progress.start, progress.end) == (0, 0, 0)


def test_a_commit_that_failed_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochs_module, "RETRY_S", (0.0,))
    failures = iter([OSError("no space left on device"), OSError("no space left on device"), None, None])

    def fail(name: str) -> None:
        if name == "lake.commit" and (error := next(failures)):
            raise error

    monkeypatch.setattr(epochs_module, "failpoint", fail)
    lake = Lake(tmp_path)
    Epochs(lake, LOG_ID, FixedClock()).commit({RECORDS.name: rows(RECORDS, ["a"])}, 0, 1)
    assert marks(lake, RECORDS) == ["a"]


def test_a_second_writer_is_fenced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochs_module, "RETRY_S", (0.0,))
    zombie = Epochs(Lake(tmp_path), LOG_ID, FixedClock())
    owner = Epochs(Lake(tmp_path), LOG_ID, FixedClock())
    owner.commit({RECORDS.name: rows(RECORDS, ["owner"])}, 0, 1)
    with pytest.raises(Fenced):
        zombie.commit({RECORDS.name: rows(RECORDS, ["zombie"])}, 0, 2)
    assert marks(Lake(tmp_path), RECORDS) == ["owner"]


def test_transactions_survive_a_checkpoint(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    Epochs(lake, LOG_ID, FixedClock()).commit({RECORDS.name: rows(RECORDS, ["a"])}, 0, 7)
    lake[RECORDS.name].delta.create_checkpoint()
    lake[RECORDS.name].delta.cleanup_metadata()
    assert Lake(tmp_path)[RECORDS.name].transaction(EPOCH) == 0
    assert read_progress(Lake(tmp_path), LOG_ID).end == 7
