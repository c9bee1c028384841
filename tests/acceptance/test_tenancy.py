"""Two projects on one server: no query of one reaches a row of the other."""

from collections.abc import Iterator

import adbc_driver_flightsql
import pytest
import requests
from adbc_driver_manager import Error as AdbcError

from tests.acceptance.servers import Server, running, wait_for
from tests.acceptance.test_crashes import spans_body

AUTHORIZATION = adbc_driver_flightsql.DatabaseOptions.AUTHORIZATION_HEADER.value
SECRET = "secret-of-b"
PROBES = (
    "SELECT * FROM records_all",
    "SELECT count(*), max(message) FROM records WHERE project_id <> '' OR true",
    "SELECT CAST(message AS int) FROM records",
    "SELECT 1 / (length(message) - 11) FROM records_all",
    "SELECT message::timestamp FROM records_all",
    "SELECT arrow_cast(message, 'Int32') FROM records",
    "EXPLAIN ANALYZE VERBOSE SELECT CAST(message AS int) FROM records",
    "SELECT * FROM information_schema.columns",
    "SELECT * FROM 'data/lake/records'",
    "WITH r AS (SELECT message FROM records UNION ALL SELECT message FROM records_all) SELECT message::int FROM r",
    "SHOW TABLES",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("tenancy") / "data", TAILRACE_REQUIRE_TOKENS="true") as server:
        yield server


def token(server: Server, project: str, kind: str) -> str:
    done = server.command("token", "create", "--project", project, "--kind", kind)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def send(server: Server, secret: str, span_id: str, name: str) -> int:
    headers = {"content-type": "application/json", "authorization": f"Bearer {secret}"}
    body = spans_body([span_id], name=name)
    return requests.post(f"{server.url}/v1/traces", data=body, headers=headers, timeout=20).status_code


@pytest.fixture(scope="module")
def readers(server: Server) -> dict[str, str]:
    """Read tokens of two projects with one record each."""
    for project in ("project-a", "project-b"):
        assert server.command("project", "create", project).returncode == 0
    assert send(server, token(server, "project-a", "write"), "a" * 16, "mine") == 200
    assert send(server, token(server, "project-b", "write"), "b" * 16, SECRET) == 200
    secrets = {project: token(server, project, "read") for project in ("project-a", "project-b")}
    for project, secret in secrets.items():
        sql = "SELECT message FROM records"
        found = wait_rows(server, sql, secret)
        assert found == [SECRET if project == "project-b" else "mine"]
    return secrets


def wait_rows(server: Server, sql: str, secret: str) -> list[str]:
    found: list[str] = []

    def enough() -> bool:
        found[:] = map(str, server.query(sql, **{AUTHORIZATION: f"Bearer {secret}"}).column(0).to_pylist())
        return bool(found)

    wait_for(enough, 30, lambda: f"no rows: {sql}\n{server.output[-2_000:]}")
    return found


@pytest.mark.parametrize("probe", PROBES)
def test_no_probe_of_one_project_learns_of_the_other(server: Server, readers: dict[str, str], probe: str) -> None:
    secret = readers["project-a"]
    try:
        over_flight = str(server.query(probe, **{AUTHORIZATION: f"Bearer {secret}"}).to_pylist())
    except AdbcError as error:
        over_flight = str(error)
    headers = {"authorization": secret}
    over_http = requests.post(f"{server.url}/v2/query", json={"sql": probe}, headers=headers, timeout=30).text
    for answer in (over_flight, over_http):
        assert SECRET not in answer
        assert "secret" not in answer
        assert str(server.data) not in answer


def test_tokens_open_what_they_are_for_and_nothing_else(server: Server, readers: dict[str, str]) -> None:
    assert send(server, readers["project-a"], "c" * 16, "x") == 403
    assert send(server, "pylf_v1_local_unknown", "c" * 16, "x") == 401
    secret = token(server, "project-a", "write")
    assert send(server, secret, "d" * 16, "mine") == 200
    assert server.command("token", "revoke", secret).returncode == 0
    wait_for(lambda: send(server, secret, "e" * 16, "x") == 401, 10, lambda: "a revoked token still works")
