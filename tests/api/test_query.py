"""The HTTP API as its clients see it: formats, errors, tokens; rows come from a real DataFusion behind it."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.health import Health
from core.clock import SystemClock
from core.errors import BadQuery, Overloaded, StatementLimit, TailraceError, Unavailable
from core.projects import DEFAULT_PROJECT_ID, TokenKind
from query.statements import Rows, Statement
from storage.keys import Keys, open_keys
from storage.ledger import open_ledger

TABLE = pa.table({
    "kind": pa.array(["log", "span"]),
    "n": pa.array([1, None], pa.int64()),
    "at": pa.array([datetime(2026, 5, 27, 13, 16, 36, 517321, tzinfo=UTC)] * 2, pa.timestamp("ns", "UTC")),
    "tags": pa.array([["a", 'b"'], []], pa.list_(pa.string())),
    "attributes": pa.array(['{"x": 18446744073709551616}', "broken"]),
})  # fmt: skip


WELL = Health("ok", {"door": "ready"})


class Engine:
    """Answers with what it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Statement] = []
        self.answer: pa.Table | TailraceError = TABLE

    def run(self, statement: Statement) -> Rows:
        self.asked.append(statement)
        if isinstance(self.answer, TailraceError):
            raise self.answer
        return Rows(self.answer.schema, iter(self.answer.to_batches()), lambda: None)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'ledger.sqlite3'}"


def client_of(keys: Keys, engine: Engine, health: Health = WELL) -> TestClient:
    return TestClient(create_app(keys, engine, lambda: health, otlp_http_port=4318), base_url="http://127.0.0.1:8000")


@pytest.fixture
def client(engine: Engine, ledger: str) -> Iterator[TestClient]:
    with open_keys(ledger, open_to_all=True, operator_token="operator", clock=SystemClock()) as keys:
        yield client_of(keys, engine)


def test_rows_come_with_a_schema_in_arrow_rs_spelling(client: TestClient) -> None:
    answer = client.post("/v2/query", json={"sql": "SELECT 1", "min_timestamp": "2026-01-01T00:00:00Z"})
    assert answer.status_code == 200
    fields = {field["name"]: field["data_type"] for field in answer.json()["schema"]["fields"]}
    assert (fields["kind"], fields["n"], fields["at"]) == ("Utf8", "Int64", {"Timestamp": ["Nanosecond", "UTC"]})
    assert fields["tags"]["List"]["data_type"] == "Utf8"
    first, second = answer.json()["data"]
    assert first == {
        "kind": "log", "n": 1, "at": "2026-05-27T13:16:36.517321Z", "tags": ["a", 'b"'], "attributes": {"x": 2**64},
    }  # fmt: skip
    assert (second["n"], second["attributes"]) == (None, "broken")


def test_arrow_and_csv_by_accept(client: TestClient, engine: Engine) -> None:
    asked = {"sql": "SELECT 1"}
    arrow = client.post("/v2/query", json=asked, headers={"accept": "application/vnd.apache.arrow.stream, */*"})
    assert pa.ipc.open_stream(arrow.content).read_all() == TABLE
    csv = client.post("/v2/query", json=asked, headers={"accept": "text/csv"})
    assert csv.headers["content-type"].startswith("text/csv")
    assert csv.text.splitlines() == [
        "kind,n,at,tags,attributes",
        'log,1,2026-05-27T13:16:36.517321Z,"[""a"",""b\\""""]","{""x"": 18446744073709551616}"',
        "span,,2026-05-27T13:16:36.517321Z,[],broken",
    ]
    engine.answer = TABLE.slice(0, 0)
    assert len(client.post("/v2/query", json=asked, headers={"accept": "text/csv"}).text.splitlines()) == 1
    empty = client.post("/v2/query", json=asked, headers={"accept": "application/vnd.apache.arrow.stream"})
    assert pa.ipc.open_stream(empty.content).read_all().schema == TABLE.schema


def test_the_older_endpoint_answers_by_column_or_by_row(client: TestClient) -> None:
    columns = client.get("/v1/query", params={"sql": "SELECT 1"}).json()["columns"]
    assert columns[1] == {"name": "n", "nullable": True, "datatype": "Int64", "values": [1, None]}
    rows = client.get("/v1/query", params={"sql": "SELECT 1", "json_rows": "true"}).json()
    assert rows["rows"][0]["kind"] == "log"
    assert "datatype" in rows["columns"][0]


def test_what_is_asked_reaches_the_engine(client: TestClient, engine: Engine) -> None:
    asked = {
        "sql": "SELECT 1", "min_timestamp": "2026-01-01T00:00:00+02:00", "max_timestamp": "2026-01-02T00:00:00",
        "limit": 7, "timezone": "Europe/Paris", "deployment_environment": ["prod", ""], "include_schema": True,
    }  # fmt: skip
    assert client.post("/v2/query", json=asked).status_code == 200
    assert engine.asked == [
        Statement(
            "SELECT 1", DEFAULT_PROJECT_ID, time_zone="Europe/Paris", row_limit=7,
            min_timestamp=datetime(2025, 12, 31, 22, tzinfo=UTC), max_timestamp=datetime(2026, 1, 2, tzinfo=UTC),
            deployment_environments=("prod", ""),
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    "asked",
    [{}, {"sql": "x", "limit": 10_001}, {"sql": "x", "timezone": "Mars"}, {"sql": "x", "min_timestamp": "soon"}],
)
def test_a_request_that_makes_no_sense_is_422(client: TestClient, asked: dict[str, object]) -> None:
    answer = client.post("/v2/query", json=asked)
    assert answer.status_code == 422
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BadQuery("no such column", line=1, column=8), 400, "sql_syntax"),
        (StatementLimit("too long"), 400, "statement_limit"),
        (Overloaded("busy", retry_after_s=2.5), 429, "rate_limited"),
        (Unavailable("away"), 503, "unavailable"),
    ],
)
def test_an_error_has_the_shape_its_reader_knows(
    client: TestClient, engine: Engine, error: TailraceError, status: int, code: str
) -> None:
    engine.answer = error
    older = client.post("/v2/query", json={"sql": "x"})
    assert (older.status_code, older.json()["details"]["code"]) == (status, code)
    oldest = client.get("/v1/query", params={"sql": "x"})
    assert json.loads(oldest.json()["detail"]) == older.json()
    accept = {"accept": "application/json, application/problem+json;q=0.9"}
    problem = client.post("/v2/query", json={"sql": "x"}, headers=accept)
    assert problem.headers["content-type"] == "application/problem+json"
    said = problem.json()
    assert (said["status"], said["detail"], said["error_details"]) == (status, error.message, older.json()["details"])
    assert said["retryable"] == isinstance(error, Unavailable)
    if isinstance(error, Overloaded):
        assert (problem.headers["retry-after"], said["retry_after"]) == ("3", 3)
    if isinstance(error, BadQuery):
        assert said["error_details"]["span"]["start"] == {"line": 1, "column": 8}


def test_tokens_are_looked_at_when_they_are_required(engine: Engine, ledger: str) -> None:
    async def make() -> dict[TokenKind, str]:
        async with open_ledger(ledger) as opened:
            project = await opened.projects.create("shop", now=datetime.now(UTC))
            return {kind: (await opened.tokens.create(project, kind, now=datetime.now(UTC)))[1] for kind in TokenKind}

    secrets = asyncio.run(make())
    with open_keys(ledger, open_to_all=False, operator_token=None, clock=SystemClock()) as keys:
        client = client_of(keys, engine)
        for path in ("/v1/info", "/v1/read-token-info"):
            assert client.get(path).status_code == 401
            assert "token" in client.get(path).json()["detail"].lower()
        assert client.post("/v2/query", json={"sql": "x"}).status_code == 401
        write = {"authorization": secrets[TokenKind.WRITE]}
        read = {"authorization": f"Bearer {secrets[TokenKind.READ]}"}
        assert client.post("/v2/query", json={"sql": "x"}, headers=write).status_code == 403
        assert client.post("/v2/query", json={"sql": "x"}, headers=read).status_code == 200
        other = read | {"tailrace-project": "default"}
        assert client.post("/v2/query", json={"sql": "x"}, headers=other).status_code == 403
        assert client.get("/v1/info", headers=write).json() == {
            "project_name": "shop", "project_url": "http://127.0.0.1:8000/local/shop",
        }  # fmt: skip
        assert client.get("/v1/read-token-info", headers=read).json()["organization_name"] == "local"


def test_health_names_the_part_that_does_not_work(engine: Engine, ledger: str) -> None:
    with open_keys(ledger, open_to_all=True, operator_token=None, clock=SystemClock()) as keys:
        down = client_of(keys, engine, Health("unavailable", {"flow": "down"})).get("/v1/health")
        assert (down.status_code, down.json()["parts"]) == (503, {"flow": "down"})
        assert client_of(keys, engine, Health("degraded", {"workers": "degraded"})).get("/v1/health").status_code == 200
