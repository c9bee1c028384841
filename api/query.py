"""SQL over HTTP: `POST /v2/query`, and `GET /v1/query` for older clients (contract §3).

In:  one statement with its bounds.   Out: rows as JSON, which is made whole, or as CSV, Arrow or JSON lines, which are
sent while they are made. Flight SQL has no limit on rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Protocol

import pyarrow as pa
from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, Field

from api.answers import Answer, Body
from api.auth import Access
from api.errors import query_error
from api.formats import ARROW_STREAM, CSV, JSON, NDJSON, columns_json, old_rows_json, rows_json
from api.streams import Limited, arrow_pieces, csv_pieces, ndjson_pieces
from core.clock import is_time_zone
from core.errors import StatementLimit, TailraceError
from core.projects import TokenKind
from query.statements import Rows, Statement

JSON_ROWS_DEFAULT = 100
JSON_ROWS_MAX = 10_000
"""Rows of a JSON answer; a greater `limit` is refused with 422. It goes before the statement's own LIMIT."""
HTTP_ROWS_MAX = 1_000_000
"""Rows of any other answer, which is also its default; one that has more ends with a mark. A greater `limit` is 422."""
ANSWER_BYTES_MAX = 256 << 20
"""Arrow bytes of a JSON answer, which is made in memory; a larger one is refused (StatementLimit)."""


class Engine(Protocol):
    """Who runs statements: query.transport.QueryClient. Called from several threads at once."""

    def run(self, statement: Statement) -> Rows:
        """The rows; raises BadQuery, StatementLimit, Overloaded or Unavailable."""
        ...


def _known_zone(name: str) -> str:
    if not is_time_zone(name):
        raise ValueError(f"{name!r} is not the IANA name of a time zone")
    return name


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Moment = Annotated[datetime, AfterValidator(_aware)]
TimeZone = Annotated[str, AfterValidator(_known_zone)]


AsJson = Callable[[pa.Table, Mapping[str, object]], bytes]


class QueryRequest(BaseModel):
    """What is asked; members that are not known are ignored, since clients differ."""

    sql: str
    min_timestamp: Moment | None = None
    """Least `start_timestamp` of records, `recorded_timestamp` of metrics."""
    max_timestamp: Moment | None = None
    limit: Annotated[int, Field(ge=1, le=HTTP_ROWS_MAX)] | None = None
    timezone: TimeZone | None = None
    deployment_environment: tuple[str, ...] | None = None
    """Only these environments; the empty string stands for rows without one."""
    explain: bool = False
    """Answer with the plans too, also with what each step took; JSON and JSON lines only."""
    include_schema: bool = True
    """Answer with the schema; JSON of the newer endpoint only."""
    json_rows: bool = False
    """Rows rather than columns, in JSON answers of the older endpoint."""

    def statement(self, project_id: str, row_limit: int | None) -> Statement:
        """The statement about a project."""
        return Statement(
            self.sql, project_id, time_zone=self.timezone, min_timestamp=self.min_timestamp,
            max_timestamp=self.max_timestamp, deployment_environments=self.deployment_environment,
            row_limit=row_limit,
        )  # fmt: skip


def query_routes(access: Access, engine: Engine) -> APIRouter:
    """The two endpoints."""
    router = APIRouter()

    @router.post("/v2/query")
    def query(request: Request, asked: QueryRequest) -> Response:
        """Run a statement."""

        def as_json(table: pa.Table, plans: Mapping[str, object]) -> bytes:
            return rows_json(table, schema=asked.include_schema, extra=plans)

        return _answer(access, engine, request, asked, as_json)

    @router.get("/v1/query")
    def query_of_old(request: Request, asked: Annotated[QueryRequest, Query()]) -> Response:
        """Run a statement, as clients before the second version ask."""

        def as_json(table: pa.Table, _: Mapping[str, object]) -> bytes:
            return old_rows_json(table) if asked.json_rows else columns_json(table)

        return _answer(access, engine, request, asked, as_json)

    return router


def _answer(access: Access, engine: Engine, request: Request, asked: QueryRequest, as_json: AsJson) -> Response:
    """The answer in the format that is accepted."""
    media_type = _accepted(request)
    limit = _json_limit(asked) if media_type == JSON else asked.limit
    rows_max = limit or HTTP_ROWS_MAX
    try:
        project = access.project(request, TokenKind.READ)
    except TailraceError as error:
        return query_error(request, error)
    # one row more than the maximum tells whether there are more; a limit that was asked for cuts nothing off
    asker, owner = access.asker(request), access.owner(request, project)
    statement = replace(asked.statement(project.id, limit or HTTP_ROWS_MAX + 1), asker=asker, owner=owner)

    def body(rows: Limited) -> Body:
        plans = _plans(engine, statement) if asked.explain else {}
        match media_type:
            case accepted if accepted == ARROW_STREAM:
                return arrow_pieces(rows)
            case accepted if accepted == CSV:
                return csv_pieces(rows)
            case accepted if accepted == NDJSON:
                return ndjson_pieces(rows, plans)
            case _:
                return as_json(_whole(rows), plans)

    return Answer(request, lambda: engine.run(statement), rows_max, body, media_type)


def _json_limit(asked: QueryRequest) -> int:
    limit = asked.limit or JSON_ROWS_DEFAULT
    if limit > JSON_ROWS_MAX:
        fault = {"loc": ("limit",), "msg": f"a JSON answer has at most {JSON_ROWS_MAX} rows", "type": "less_than_equal"}
        raise RequestValidationError([fault])
    return limit


def _whole(rows: Limited) -> pa.Table:
    batches: list[pa.RecordBatch] = []
    size = 0
    for batch in rows:
        size += batch.nbytes
        if size > ANSWER_BYTES_MAX:
            raise StatementLimit(f"The answer is larger than {ANSWER_BYTES_MAX >> 20} MiB; ask for Arrow or CSV")
        batches.append(batch)
    return pa.Table.from_batches(batches, rows.schema)


def _plans(engine: Engine, statement: Statement) -> dict[str, object]:
    """`logical_plan`, `physical_plan`, and `physical_plan_with_metrics`, for which the statement runs once more."""
    plans: dict[str, object] = {}
    for explain in ("EXPLAIN", "EXPLAIN ANALYZE"):
        with engine.run(replace(statement, sql=f"{explain} {statement.sql}")) as rows:
            plans |= {str(row["plan_type"]): row["plan"] for batch in rows for row in batch.to_pylist()}
    measured = plans.pop("Plan with Metrics", None)
    return plans if measured is None else {**plans, "physical_plan_with_metrics": measured}


def _accepted(request: Request) -> str:
    """The first media type of Accept that is spoken here; JSON when there is none."""
    for part in request.headers.get("accept", "").split(","):
        media_type = part.partition(";")[0].strip()
        if media_type in {ARROW_STREAM, CSV, JSON, NDJSON}:
            return media_type
    return JSON
