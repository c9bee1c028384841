"""The tables a statement sees, made of one project's files: `records`, `records_all`, `metrics`, `evaluations`.

In:  a directory of Parquet files for each lake table (storage/snapshots.py).   Out: views in a session. What bounds the
statement (times, environments) is part of the views, so that no text can reach around it.
"""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from datafusion import DataFrame, Expr, SessionContext, col, lit
from datafusion import functions as f

from core.schema import METRICS, PENDING_SPANS, RECORDS, TIMESTAMP, VALUE, VIEWS, Table
from query import evaluations, metrics
from query.statements import Statement, Task

CATALOG = "tailrace"
SCHEMA = "public"
SOURCES: Mapping[str, tuple[Table, ...]] = {
    "records": (RECORDS,),
    "records_all": (RECORDS, PENDING_SPANS),
    "metrics": (METRICS,),
    "evaluations": (RECORDS,),
}
"""The tables of SQL, and the lake tables each is the union of."""
ASKING = frozenset({"information_schema", "show", "describe", "desc"})
"""Words of a statement that may speak of tables it does not name."""


def register(context: SessionContext, task: Task, words: frozenset[str]) -> None:
    """Make the tables that a text's words name known to a session; all of them when it asks what there is.

    A lake table without a snapshot has no rows.
    """
    statement = task.statement
    for name in SOURCES if words & ASKING else SOURCES.keys() & words:
        frames = [
            _bounded(_open(context, source, task.snapshots.get(source.name)), source, statement)
            for source in SOURCES[name]
        ]
        whole = frames[0]
        for frame in frames[1:]:
            whole = whole.union(frame)
        if name == "evaluations":
            whole = evaluations.of_records(whole)
        context.register_view(name, whole.select(*_columns(name, statement.project_id)))


def _open(context: SessionContext, table: Table, directory: Path | None) -> DataFrame:
    """The files as a data frame; its base table is taken back, so that only the view can be named."""
    base = f"{table.name}_files"
    fields = [_viewed(field) for field in table.schema if field.name not in {"project_id", "day"}]
    if directory is None:
        schema = pa.schema([*fields, pa.field("day", pa.date32(), False)])
        context.register_record_batches(base, [[pa.RecordBatch.from_pylist([], schema)]])
    else:
        context.register_listing_table(base, directory, [("day", pa.date32())], schema=pa.schema(fields))
    frame = context.table(base)
    context.deregister_table(base)
    return frame


def _viewed(field: pa.Field) -> pa.Field:
    """Text read as views: comparing and grouping them needs no copies (D9)."""
    return field.with_type(pa.string_view()) if field.type == pa.string() else field


def _columns(name: str, project_id: str) -> list[Expr]:
    columns: list[Expr] = []
    for field in VIEWS[name].schema:
        if field.name == "project_id":
            columns.append(lit(project_id).alias("project_id"))
        elif field.type == VALUE:
            columns.append(metrics.value_column())
        else:
            columns.append(col(field.name))
    return columns


def _bounded(frame: DataFrame, table: Table, statement: Statement) -> DataFrame:
    time = col(table.time_column)
    if statement.min_timestamp is not None:
        frame = frame.filter(time >= lit(pa.scalar(statement.min_timestamp, TIMESTAMP)))
    if statement.max_timestamp is not None:
        frame = frame.filter(time <= lit(pa.scalar(statement.max_timestamp, TIMESTAMP)))
    if statement.deployment_environments is not None:
        environment = f.coalesce(col("deployment_environment"), lit(""))
        frame = frame.filter(f.in_list(environment, [lit(name) for name in statement.deployment_environments]))
    return frame
