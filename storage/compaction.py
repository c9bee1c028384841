"""Rewriting small files of one table into larger sorted ones, so that nobody can double a row.

The rewrite is one Delta commit of Add and Remove actions that carries the app transaction `upkeep`: a second
owner working from the same version fails cleanly. (deltalake's own optimize neither sorts nor can be fenced.)
"""

import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import accumulate
from pathlib import Path
from urllib.parse import unquote
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from core.clock import Clock
from core.schema import PARTITION_COLUMNS
from storage.failpoints import failpoint
from storage.lake import LakeTable

UPKEEP = "upkeep"
"""App transaction of upkeep's commits: the number of the commit."""
TIERS_BYTES = (256 << 10, 2 << 20, 16 << 20)
"""Files are merged with files of their own size class; one beyond the last class is left alone."""
MERGE_FILES_MIN = 8
"""Files of a size class that are worth a merge while their day is still being written."""
MERGE_FILES_MAX = 512
"""Files read in one merge."""
MERGE_BYTES_MAX = 32 << 20
"""Bytes of the files read in one merge; text is about ten times that in memory. Two small files always fit."""
ROW_GROUP_ROWS = 32_768
COMPRESSION_LEVEL = 3
BLOOM_COLUMNS = ("trace_id", "span_id")
BLOOM_FALSE_POSITIVE_RATE = 0.01

_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DataFile:
    """One active file of a table."""

    path: str
    """Relative to the table, as Delta spells it."""
    project_id: str
    day: date
    size_bytes: int
    rows: int


def data_files(table: LakeTable) -> list[DataFile]:
    """The active files at the version the table's handle has seen."""
    actions = pa.table(table.delta.get_add_actions(flatten=True))
    if actions.num_rows == 0:
        return []
    names = ("path", "partition.project_id", "partition.day", "size_bytes", "num_records")
    columns = [actions.column(name).to_pylist() for name in names]
    return [DataFile(*row) for row in zip(*columns, strict=True)]


def plan_merges(files: Iterable[DataFile], today: date) -> list[list[DataFile]]:
    """Which files to merge: enough of one size class in a partition, or anything small on a closed day."""
    classes: dict[tuple[str, date, int], list[DataFile]] = {}
    for file in files:
        tier = sum(file.size_bytes >= limit for limit in TIERS_BYTES)
        if tier < len(TIERS_BYTES):
            closed = file.day < today
            classes.setdefault((file.project_id, file.day, -1 if closed else tier), []).append(file)
    plans: list[list[DataFile]] = []
    for (_, day, _), group in sorted(classes.items()):
        least = 2 if day < today else MERGE_FILES_MIN
        if len(group) >= least:
            smallest = sorted(group, key=lambda file: file.size_bytes)[:MERGE_FILES_MAX]
            sizes = accumulate(file.size_bytes for file in smallest)
            plans.append(smallest[: sum(size <= MERGE_BYTES_MAX for size in sizes)])
    return plans


def merge(table: LakeTable, files: Sequence[DataFile], clock: Clock) -> int:
    """Rewrite files of one partition as one sorted file; returns how many files it replaced (0: lost a race)."""
    root = table.directory
    rows = _read(root, files).sort_by(table.definition.time_column)
    path = f"{files[0].path.rpartition('/')[0]}/part-{uuid4()}-merged.parquet"
    target = root / unquote(path)
    _write(target, rows)
    now_ms = clock.now_ns() // 1_000_000
    partition = {"project_id": files[0].project_id, "day": files[0].day.isoformat()}
    stats = json.dumps(_statistics(rows, table.definition.statistics_columns))
    add = AddAction(path, target.stat().st_size, partition, now_ms, False, stats)  # its signature
    if not commit(table, [add, *removals(files, now_ms)]):
        target.unlink(missing_ok=True)
        return 0
    return len(files)


def removals(files: Iterable[DataFile], now_ms: int, *, data_change: bool = False) -> list[RemoveAction]:
    """Remove actions for files."""
    return [
        RemoveAction(
            file.path, data_change, now_ms, file.size_bytes,
            {"project_id": file.project_id, "day": file.day.isoformat()},
        )
        for file in files
    ]  # fmt: skip


def commit(table: LakeTable, actions: Sequence[AddAction | RemoveAction]) -> bool:
    """Commit as the next upkeep; False when another commit stood in the way (nothing has happened then)."""
    number = (table.transaction(UPKEEP) or 0) + 1
    failpoint("upkeep.before_commit")
    try:
        table.delta.create_write_transaction(
            list(actions), "append", table.delta.schema(), list(PARTITION_COLUMNS),
            commit_properties=CommitProperties(app_transactions=[Transaction(UPKEEP, number)]),
            post_commithook_properties=_NO_HOOKS,
        )  # fmt: skip
    except CommitFailedError as error:
        _log.info("upkeep of %s lost a race and will look again: %s", table.definition.name, error)
        table.reload()
        return False
    failpoint("upkeep.after_commit")
    table.refresh()
    return True


def _read(root: Path, files: Sequence[DataFile]) -> pa.Table:
    """The files' rows; every row is accounted for."""
    tables: list[pa.Table] = []
    for file in files:
        with pq.ParquetFile(root / unquote(file.path)) as parquet:
            tables.append(parquet.read())
    rows = pa.concat_tables(tables)
    counted = sum(file.rows for file in files)
    assert rows.num_rows == counted, f"files hold {rows.num_rows} rows where the table counts {counted}"
    return rows


def _write(target: Path, rows: pa.Table) -> None:
    blooms = {
        name: {"ndv": min(rows.num_rows, ROW_GROUP_ROWS), "fpp": BLOOM_FALSE_POSITIVE_RATE}
        for name in BLOOM_COLUMNS
        if name in rows.column_names
    }
    pq.write_table(
        rows, target, row_group_size=ROW_GROUP_ROWS, compression="zstd", compression_level=COMPRESSION_LEVEL,
        bloom_filter_options=blooms or None,
    )  # fmt: skip
    written = pq.read_metadata(target).num_rows
    assert written == rows.num_rows, f"wrote {written} of {rows.num_rows} rows"
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _statistics(rows: pa.Table, columns: Iterable[str]) -> dict[str, object]:
    """Delta's per-file statistics (protocol, "Per-file Statistics"): least, greatest and null count a column."""
    least: dict[str, object] = {}
    greatest: dict[str, object] = {}
    nulls: dict[str, int] = {}
    for name in columns:
        column = rows.column(name)
        nulls[name] = column.null_count
        if column.null_count == len(column):
            continue
        least[name], greatest[name] = _spell(pc.min(column).as_py()), _spell(pc.max(column).as_py())
    return {"numRecords": rows.num_rows, "minValues": least, "maxValues": greatest, "nullCount": nulls}


def _spell(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return value
