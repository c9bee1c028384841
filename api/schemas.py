"""What there is to ask for: `GET /v1/schemas`, the tables of SQL with their columns (contract §3.3)."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from fastapi import APIRouter, Request

from api.auth import Access
from api.formats import JSON_COLUMNS
from core.projects import TokenKind
from core.schema import TIMESTAMP, VIEWS, Column, Table

_TYPES: Mapping[pa.DataType, str] = {
    pa.string(): "TEXT",
    pa.int64(): "BIGINT",
    pa.int32(): "INTEGER",
    pa.float64(): "DOUBLE PRECISION",
    pa.bool_(): "BOOLEAN",
    pa.date32(): "DATE",
    TIMESTAMP: "TIMESTAMP WITH TIME ZONE",
}


def schema_routes(access: Access) -> APIRouter:
    """The endpoint."""
    router = APIRouter()

    @router.get("/v1/schemas")
    def schemas(request: Request) -> dict[str, list[dict[str, Any]]]:
        """The tables, which are the same in every project."""
        access.project(request, TokenKind.READ)
        return {"tables": [_table(table) for table in VIEWS.values()]}

    return router


def _table(table: Table) -> dict[str, Any]:
    columns = {
        column.name: {
            "data_type": sql_type(column), "nullable": column.nullable, "description": column.description,
        }
        for column in table.columns
    }  # fmt: skip
    return {"name": table.name, "description": table.description, "schema": columns}


def sql_type(column: Column) -> str:
    """The type of a column in PostgreSQL's words."""
    if column.name in JSON_COLUMNS:
        return "JSON"
    if pa.types.is_list(column.type):
        return f"{_TYPES[column.type.value_type]}[]"
    return _TYPES.get(column.type, "STRUCT")
