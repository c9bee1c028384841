"""Upkeep: fewer, sorted files with the very same rows, by one owner."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from core.clock import SystemClock, to_ns
from core.errors import Refused
from core.schema import PENDING_SPANS, RECORDS
from storage import compaction
from storage.compaction import MERGE_FILES_MIN, UPKEEP, DataFile, commit, data_files, merge, plan_merges
from storage.epochs import EPOCH
from storage.lake import Lake, LakeTable
from storage.settings import RetentionSettings, UpkeepSettings
from storage.upkeep import Upkeep, last_checkpoint, open_upkeep

TODAY = date(2020, 6, 15)
PROJECT = "00000000-0000-4000-8000-000000000000"
OTHER = "11111111-1111-4111-8111-111111111111"


@dataclass
class FixedClock:
    moment: datetime = datetime(2020, 6, 15, 12, tzinfo=UTC)

    def now_ns(self) -> int:
        return to_ns(self.moment)


def rows(start: int, count: int, *, project_id: str = PROJECT, day: date = TODAY) -> pa.Table:
    """Records numbered from `start`, newest first, so that a sort is seen."""
    numbers = list(reversed(range(start, start + count)))
    known: dict[str, Callable[[int], object]] = {
        "project_id": lambda _: project_id,
        "day": lambda _: day,
        "start_timestamp": lambda n: datetime(2020, 6, 15, tzinfo=UTC) + timedelta(microseconds=n),
        "trace_id": lambda n: f"{n:032x}",
        "span_id": lambda n: f"{n:016x}",
        "_epoch": lambda n: n,
    }

    def column(field: pa.Field) -> pa.Array:
        if field.name in known:
            return pa.array([known[field.name](n) for n in numbers], field.type)
        if pa.types.is_timestamp(field.type):
            return pa.array([datetime(2020, 6, 15, tzinfo=UTC)] * count, field.type)
        if field.nullable:
            return pa.nulls(count, field.type)
        return pa.array(["x" if pa.types.is_string(field.type) else 1] * count, field.type)

    return pa.table([column(field) for field in RECORDS.schema], schema=RECORDS.schema)


def fill(table: LakeTable, files: int, **partition: object) -> None:
    for number in range(files):
        table.append(rows(number * 10, 10, **partition), {EPOCH: number})  # pyright: ignore[reportArgumentType]  # project_id and day


def span_ids(directory: Path) -> list[str]:
    found = pa.table(DeltaTable(directory / "records").to_pyarrow_table(columns=["span_id"]))
    return sorted(str(value) for value in found.column("span_id").to_pylist())


def keeper(lake: Lake, **settings: int | float) -> Upkeep:
    return Upkeep(lake, UpkeepSettings(**settings), RetentionSettings(), FixedClock())  # pyright: ignore[reportArgumentType]  # by name


def test_small_files_become_one_sorted_file_with_the_same_rows(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    table = lake["records"]
    fill(table, MERGE_FILES_MIN)
    before = span_ids(tmp_path)
    assert keeper(lake).round() == MERGE_FILES_MIN
    assert span_ids(tmp_path) == before
    [file] = data_files(table)
    assert file.rows == MERGE_FILES_MIN * 10
    stored = pq.ParquetFile(table.directory / file.path)
    starts = stored.read(columns=["trace_id"]).column("trace_id").to_pylist()
    assert starts == [f"{n:032x}" for n in range(MERGE_FILES_MIN * 10)]
    assert stored.metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_merge_keeps_the_flows_position_and_counts_itself(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    fill(lake["records"], MERGE_FILES_MIN)
    keeper(lake).round()
    table = DeltaTable(tmp_path / "records")
    assert (table.transaction_version(EPOCH), table.transaction_version(UPKEEP)) == (MERGE_FILES_MIN - 1, 1)


def test_a_merged_file_has_statistics_that_prune(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    fill(lake["records"], MERGE_FILES_MIN)
    keeper(lake).round()
    [action] = pa.table(lake["records"].delta.get_add_actions(flatten=True)).to_pylist()
    assert action["num_records"] == MERGE_FILES_MIN * 10
    assert action["min.trace_id"] == f"{0:032x}"
    assert action["max.trace_id"] == f"{MERGE_FILES_MIN * 10 - 1:032x}"
    assert action["null_count.trace_id"] == 0
    assert action["max._epoch"] == MERGE_FILES_MIN * 10 - 1
    kept = DeltaTable(tmp_path / "records").to_pyarrow_dataset().to_table(filter=pc.field("trace_id") == f"{7:032x}")
    assert kept.num_rows == 1


def test_two_owners_cannot_double_a_row(tmp_path: Path) -> None:
    lake, rival = Lake(tmp_path), Lake(tmp_path)
    fill(lake["records"], MERGE_FILES_MIN)
    rival["records"].reload()
    before = span_ids(tmp_path)
    [plan] = plan_merges(data_files(lake["records"]), TODAY)
    assert merge(lake["records"], plan, FixedClock()) == MERGE_FILES_MIN
    assert merge(rival["records"], plan, FixedClock()) == 0
    assert span_ids(tmp_path) == before
    merged = list((tmp_path / "records").rglob("*-merged.parquet"))
    assert len(merged) == 1, "the loser's file is deleted"


def test_an_append_during_a_merge_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, flow = Lake(tmp_path), Lake(tmp_path)
    fill(flow["records"], MERGE_FILES_MIN)
    lake["records"].reload()

    def append_now(name: str) -> None:
        if name == "upkeep.before_commit":
            flow["records"].append(rows(1_000, 10), {EPOCH: MERGE_FILES_MIN})

    monkeypatch.setattr(compaction, "failpoint", append_now)
    keeper(lake).round()
    assert len(span_ids(tmp_path)) == len(set(span_ids(tmp_path))) == MERGE_FILES_MIN * 10 + 10
    flow["records"].append(rows(2_000, 10), {EPOCH: MERGE_FILES_MIN + 1})
    assert len(span_ids(tmp_path)) == MERGE_FILES_MIN * 10 + 20


def test_projects_are_never_merged_into_one_file(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    fill(lake["records"], MERGE_FILES_MIN)
    fill(lake["records"], MERGE_FILES_MIN, project_id=OTHER)
    keeper(lake).round()
    assert {file.project_id: file.rows for file in data_files(lake["records"])} == {PROJECT: 80, OTHER: 80}


def test_a_few_small_files_are_left_until_their_day_is_over() -> None:
    files = [DataFile(f"f{n}", PROJECT, TODAY, 1_000, 10) for n in range(MERGE_FILES_MIN - 1)]
    assert plan_merges(files, TODAY) == []
    assert plan_merges(files, TODAY + timedelta(days=1)) == [files]


def test_large_files_are_left_alone() -> None:
    files = [DataFile(f"f{n}", PROJECT, TODAY, 64 << 20, 10) for n in range(50)]
    assert plan_merges(files, TODAY + timedelta(days=1)) == []


def test_a_merge_is_bounded_and_always_has_two_files() -> None:
    files = [DataFile(f"f{n}", PROJECT, TODAY, (16 << 20) - 1, 10) for n in range(50)]
    [plan] = plan_merges(files, TODAY + timedelta(days=1))
    assert len(plan) == 2


def test_expired_days_are_dropped_and_newer_ones_kept(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake["records"].append(rows(0, 10, day=TODAY - timedelta(days=91)), {EPOCH: 0})
    lake["records"].append(rows(10, 10, day=TODAY - timedelta(days=90)), {EPOCH: 1})
    lake["pending_spans"].append(rows(0, 10, day=TODAY - timedelta(days=8)), {EPOCH: 1})
    assert keeper(lake).round() == 2
    assert span_ids(tmp_path) == [f"{n:016x}" for n in range(10, 20)]
    assert data_files(lake[PENDING_SPANS.name]) == []


def test_zero_days_keep_for_ever(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake["records"].append(rows(0, 10, day=date(2000, 1, 1)), {EPOCH: 0})
    Upkeep(lake, UpkeepSettings(), RetentionSettings(records_days=0), FixedClock()).round()
    assert len(span_ids(tmp_path)) == 10


def test_checkpoints_are_made(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    fill(lake["records"], 5)
    keeper(lake, checkpoint_commits=4).round()
    assert last_checkpoint(tmp_path / "records") >= 4
    assert json.loads((tmp_path / "records/_delta_log/_last_checkpoint").read_text())["version"] >= 4
    assert len(span_ids(tmp_path)) == 50


def test_vacuum_deletes_replaced_files_after_their_readers(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    fill(lake["records"], MERGE_FILES_MIN)
    for hours, files in ((1, MERGE_FILES_MIN + 1), (0, 1)):
        settings = UpkeepSettings(vacuum_interval_s=0.0, vacuum_hours=hours)
        Upkeep(lake, settings, RetentionSettings(records_days=0), SystemClock()).round()
        assert len(list((tmp_path / "records").rglob("part-*.parquet"))) == files
    assert len(span_ids(tmp_path)) == MERGE_FILES_MIN * 10


def test_a_second_owner_is_kept_out(tmp_path: Path) -> None:
    with (
        open_upkeep(tmp_path, UpkeepSettings(), RetentionSettings(), FixedClock()),
        pytest.raises(Refused, match="already keeps up"),
        open_upkeep(tmp_path, UpkeepSettings(), RetentionSettings(), FixedClock()),
    ):
        pass


def test_a_conflicting_delete_makes_the_merge_lose(tmp_path: Path) -> None:
    lake, rival = Lake(tmp_path), Lake(tmp_path)
    fill(lake["records"], MERGE_FILES_MIN)
    rival["records"].reload()
    [plan] = plan_merges(data_files(rival["records"]), TODAY)
    assert commit(lake["records"], compaction.removals(data_files(lake["records"]), 0, data_change=True))
    assert merge(rival["records"], plan, FixedClock()) == 0
    assert span_ids(tmp_path) == []
