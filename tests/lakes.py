"""Small lakes for tests: rows with every required column filled, told apart by what a test cares about."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa

from core.schema import Table
from storage.lake import Lake

A = "aaaaaaaa-0000-4000-8000-000000000000"
B = "bbbbbbbb-0000-4000-8000-000000000000"
MOMENT = datetime(2026, 11, 24, 12, tzinfo=UTC)


def rows(table: Table, *given: Mapping[str, object]) -> pa.Table:
    """Rows of a table; columns that are required and not given get a plain value."""

    def value(field: pa.Field, row: Mapping[str, object]) -> object:
        if field.name in row:
            return row[field.name]
        if field.nullable:
            return None
        if field.name == "day":
            return date(2026, 11, 24)
        if pa.types.is_timestamp(field.type):
            return MOMENT
        if pa.types.is_string(field.type):
            return "x"
        return b"x" if pa.types.is_binary(field.type) else 1

    schema = table.schema
    return pa.table([pa.array([value(f, row) for row in given], f.type) for f in schema], schema=schema)


def append(lake_directory: Path, table: Table, *given: Mapping[str, object]) -> int:
    """Commit rows; the Delta version that holds them."""
    lake = Lake(lake_directory)
    lake[table.name].append(rows(table, *given), {})
    return lake[table.name].version
