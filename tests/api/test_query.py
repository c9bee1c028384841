"""The HTTP API as its clients see it: formats, errors, tokens; rows come from a real DataFusion behind it."""

import asyncio
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api import query
from api.app import create_app
from api.health import Health
from core.clock import SystemClock
from core.errors import BadQuery, Overloaded, StatementLimit, TailraceError, Unavailable
from core.projects import DEFAULT_PROJECT_ID, Asker, TokenKind
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
        self.fails: TailraceError | None = None
        """What breaks the rows off."""
        self.plans = self.measured = TABLE.slice(0, 0)

    def run(self, statement: Statement) -> Rows:
        self.asked.append(statement)
        if isinstance(self.answer, TailraceError):
            raise self.answer
        answer = self.answer
        if statement.sql.startswith("EXPLAIN"):
            answer = self.measured if "ANALYZE" in statement.sql else self.plans

        def batches() -> Iterator[pa.RecordBatch]:
            yield from answer.to_batches()
            if self.fails:
                raise self.fails

        return Rows(answer.schema, batches(), lambda: None)


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


def test_json_lines_have_schema_rows_and_end(client: TestClient, engine: Engine) -> None:
    accept = {"accept": "application/x-ndjson"}
    lines = [json.loads(line) for line in client.post("/v2/query", json={"sql": "x"}, headers=accept).text.splitlines()]
    assert [line["type"] for line in lines] == ["schema", "data", "end"]
    assert (lines[1]["rows"][0]["kind"], lines[2]["row_count"], lines[2]["truncated"]) == ("log", 2, False)
    assert engine.asked[0].row_limit == query.HTTP_ROWS_MAX + 1
    engine.fails = StatementLimit("too long")
    lines = [json.loads(line) for line in client.post("/v2/query", json={"sql": "x"}, headers=accept).text.splitlines()]
    assert lines[-1] == {"type": "error", "message": "too long"}


def test_what_is_cut_off_ends_with_a_mark(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "HTTP_ROWS_MAX", 1)

    def answer(media_type: str, **asked: object) -> bytes:
        return client.post("/v2/query", json={"sql": "x", **asked}, headers={"accept": media_type}).content

    assert answer("text/csv").splitlines()[2:] == [b"# truncated after 1 rows"]
    with pa.ipc.open_stream(answer("application/vnd.apache.arrow.stream")) as stream:
        read = [stream.read_next_batch_with_custom_metadata() for _ in range(2)]
    assert [(each.batch.num_rows, each.custom_metadata) for each in read] == [(1, None), (0, {b"truncated": b"1"})]
    assert json.loads(answer("application/x-ndjson").splitlines()[-1])["truncated"]


@pytest.mark.parametrize("media_type", ["application/json", "text/csv"])
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_answers_are_compressed_for_who_can_read_it(
    client: TestClient, engine: Engine, coding: str, media_type: str
) -> None:
    engine.answer = pa.concat_tables([TABLE] * 50)
    plain = client.post("/v2/query", json={"sql": "x"}, headers={"accept": media_type, "accept-encoding": "identity"})
    packed = client.post("/v2/query", json={"sql": "x"}, headers={"accept": media_type, "accept-encoding": coding})
    assert (plain.headers.get("content-encoding"), packed.headers["content-encoding"]) == (None, coding)
    content = packed.content
    if content.startswith(b"\x28\xb5\x2f\xfd"):  # not every httpx reads zstd
        content = b"".join(zstandard.ZstdDecompressor().read_to_iter(content))
    assert content == plain.content
    assert "accept-encoding" in packed.headers["vary"]
    refused = client.post("/v2/query", json={"sql": "x"}, headers={"accept-encoding": "gzip;q=0, br"})
    assert "content-encoding" not in refused.headers


def test_plans_come_with_what_the_steps_took(client: TestClient, engine: Engine) -> None:
    engine.plans = pa.table({"plan_type": ["logical_plan", "physical_plan"], "plan": ["a", "b"]})
    engine.measured = pa.table({"plan_type": ["Plan with Metrics"], "plan": ["c"]})
    answer = client.post("/v2/query", json={"sql": "x", "explain": True, "include_schema": False}).json()
    assert "schema" not in answer
    assert [answer[name] for name in ("logical_plan", "physical_plan", "physical_plan_with_metrics")] == ["a", "b", "c"]


def test_a_client_that_leaves_ends_its_statement(ledger: str) -> None:
    closed, began = threading.Event(), threading.Event()

    class Endless:
        def run(self, statement: Statement) -> Rows:
            def batches() -> Iterator[pa.RecordBatch]:
                began.set()
                assert closed.wait(20)
                raise Unavailable("cancelled")
                yield

            return Rows(TABLE.schema, batches(), closed.set)

    async def leave(app: FastAPI) -> None:
        body = json.dumps({"sql": "x"}).encode()
        messages: list[dict[str, object]] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, object]:
            if messages:
                return messages.pop()
            await asyncio.to_thread(began.wait, 20)
            return {"type": "http.disconnect"}

        async def send(message: object) -> None:
            raise AssertionError(message)

        scope = {
            "type": "http", "method": "POST", "path": "/v2/query", "raw_path": b"/v2/query", "query_string": b"",
            "headers": [(b"content-type", b"application/json")], "client": ("127.0.0.1", 1), "scheme": "http",
            "server": ("127.0.0.1", 8000), "http_version": "1.1", "asgi": {"version": "3.0"}, "root_path": "",
        }  # fmt: skip
        await app(scope, receive, send)  # pyright: ignore[reportArgumentType]  # plain dictionaries are messages

    with open_keys(ledger, open_to_all=True, operator_token=None, clock=SystemClock()) as keys:
        asyncio.run(leave(create_app(keys, Endless(), lambda: WELL, otlp_http_port=4318)))
    assert closed.is_set()


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
            deployment_environments=("prod", ""), owner=engine.asked[0].owner, asker=Asker.ANYONE,
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
        info = client.get("/v1/read-token-info", headers=read).json()
        assert (info["organization_name"], info["project_name"], info["expires_at"]) == ("local", "shop", None)
        assert info["token_id"]


def test_health_names_the_part_that_does_not_work(engine: Engine, ledger: str) -> None:
    with open_keys(ledger, open_to_all=True, operator_token=None, clock=SystemClock()) as keys:
        down = client_of(keys, engine, Health("unavailable", {"flow": "down"})).get("/v1/health")
        assert (down.status_code, down.json()["parts"]) == (503, {"flow": "down"})
        assert client_of(keys, engine, Health("degraded", {"workers": "degraded"})).get("/v1/health").status_code == 200
