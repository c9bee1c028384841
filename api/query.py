"""SQL over HTTP: `POST /v2/query`, and `GET /v1/query` for older clients (contract §3).

In:  one statement with its bounds.   Out: at most 10,000 rows as JSON, CSV or an Arrow stream. For more rows there is
Flight SQL, which streams.
"""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Protocol
from zoneinfo import ZoneInfo

import pyarrow as pa
from fastapi import APIRouter, Query, Request, Response
from pydantic import AfterValidator, BaseModel, Field

from api.auth import Access
from api.errors import query_error
from api.formats import ARROW_STREAM, CSV, JSON, arrow_stream, columns_json, csv_text, old_rows_json, rows_json
from core.errors import StatementLimit, TailraceError
from core.projects import TokenKind
from query.statements import Rows, Statement

ROWS_DEFAULT = 100
ROWS_MAX = 10_000
"""Rows of an answer; a greater `limit` is refused with 422. It goes before the statement's own LIMIT."""
ANSWER_BYTES_MAX = 256 << 20
"""Arrow bytes of an answer, which is made in memory; a larger one is refused (StatementLimit)."""


class Engine(Protocol):
    """Who runs statements: query.transport.QueryClient. Called from several threads at once."""

    def run(self, statement: Statement) -> Rows:
        """The rows; raises BadQuery, StatementLimit, Overloaded or Unavailable."""
        ...


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (LookupError, OSError, ValueError) as error:
        raise ValueError(f"{name!r} is not the IANA name of a time zone") from error
    return name


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Moment = Annotated[datetime, AfterValidator(_aware)]
TimeZone = Annotated[str, AfterValidator(_known_zone)]


class QueryRequest(BaseModel):
    """What is asked; members that are not known are ignored, since clients differ."""

    sql: str
    min_timestamp: Moment | None = None
    """Least `start_timestamp` of records, `recorded_timestamp` of metrics."""
    max_timestamp: Moment | None = None
    limit: Annotated[int, Field(ge=1, le=ROWS_MAX)] = ROWS_DEFAULT
    timezone: TimeZone | None = None
    deployment_environment: tuple[str, ...] | None = None
    """Only these environments; the empty string stands for rows without one."""
    explain: bool = False
    """Answer with the plans too; JSON only."""
    json_rows: bool = False
    """Rows rather than columns, in JSON answers of the older endpoint."""

    def statement(self, project_id: str) -> Statement:
        """The statement about a project."""
        return Statement(
            self.sql, project_id, time_zone=self.timezone, min_timestamp=self.min_timestamp,
            max_timestamp=self.max_timestamp, deployment_environments=self.deployment_environment,
            row_limit=self.limit,
        )  # fmt: skip


def query_routes(access: Access, engine: Engine) -> APIRouter:
    """The two endpoints."""
    router = APIRouter()

    @router.post("/v2/query")
    def query(request: Request, asked: QueryRequest) -> Response:
        """Run a statement."""
        try:
            statement = asked.statement(access.project(request, TokenKind.READ).id)
            table = _run(engine, statement)
            plans = _plans(engine, statement) if asked.explain else {}
        except TailraceError as error:
            return query_error(request, error)
        return _answer(request, table, rows_json(table, plans) if _accepted(request) == JSON else b"")

    @router.get("/v1/query")
    def query_of_old(request: Request, asked: Annotated[QueryRequest, Query()]) -> Response:
        """Run a statement, as clients before the second version ask."""
        try:
            table = _run(engine, asked.statement(access.project(request, TokenKind.READ).id))
        except TailraceError as error:
            return query_error(request, error)
        body = b""
        if _accepted(request) == JSON:
            body = old_rows_json(table) if asked.json_rows else columns_json(table)
        return _answer(request, table, body)

    return router


def _run(engine: Engine, statement: Statement) -> pa.Table:
    batches: list[pa.RecordBatch] = []
    size = 0
    with engine.run(statement) as rows:
        for batch in rows:
            size += batch.nbytes
            if size > ANSWER_BYTES_MAX:
                raise StatementLimit(f"The answer is larger than {ANSWER_BYTES_MAX >> 20} MiB; ask over Flight SQL")
            batches.append(batch)
        return pa.Table.from_batches(batches, rows.schema)


def _plans(engine: Engine, statement: Statement) -> dict[str, object]:
    """The plans of a statement: `logical_plan` and `physical_plan`."""
    table = _run(engine, replace(statement, sql=f"EXPLAIN {statement.sql}"))
    return {str(row["plan_type"]): row["plan"] for row in table.to_pylist()}


def _answer(request: Request, table: pa.Table, json: bytes) -> Response:
    match _accepted(request):
        case accepted if accepted == ARROW_STREAM:
            return Response(arrow_stream(table), media_type=ARROW_STREAM)
        case accepted if accepted == CSV:
            return Response(csv_text(table), media_type=f"{CSV}; charset=utf-8")
        case _:
            return Response(json, media_type=JSON)


def _accepted(request: Request) -> str:
    """The first media type of Accept that is spoken here; JSON when there is none."""
    for part in request.headers.get("accept", "").split(","):
        media_type = part.partition(";")[0].strip()
        if media_type in {ARROW_STREAM, CSV, JSON}:
            return media_type
    return JSON
