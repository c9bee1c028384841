"""The unmodified Logfire SDK, in processes of its own: every row, once, with the values that were sent."""

import json
import re
import signal
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import pyarrow as pa
import pytest

from tests.acceptance.servers import Server, wait_for

pytestmark = pytest.mark.xdist_group("server")

PREAMBLE = """
import logfire, sys
logfire.configure(service_name={service!r}, service_version='1.2.3', environment='test', console=False,
                  inspect_arguments=False, metrics={metrics})
"""


def app(server: Server, source: str, *, metrics: str = "None") -> str:
    """Run a Logfire app as a user would, to its end; returns its service name."""
    service = f"app-{uuid.uuid4().hex[:8]}"
    done = subprocess.run(
        [sys.executable, "-c", preamble(service, metrics) + textwrap.dedent(source)],
        env=environment(server), capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Failed to export" not in done.stderr
    return service


def preamble(service: str, metrics: str) -> str:
    return PREAMBLE.format(service=service, metrics=metrics)


def environment(server: Server) -> dict[str, str]:
    # under pytest the SDK sends nothing
    variables = {name: value for name, value in server.variables.items() if not name.startswith("PYTEST")}
    return variables | {"LOGFIRE_BASE_URL": server.url, "LOGFIRE_TOKEN": "local", "PYTHONWARNINGS": "default"}


def records(server: Server, service: str, count: int) -> list[dict[str, object]]:
    sql = f"SELECT * FROM records WHERE service_name = '{service}' ORDER BY start_timestamp, span_id"
    rows = server.wait_for_rows(sql, count).to_pylist()
    assert len(rows) == count, [row["message"] for row in rows]
    return rows


def test_nested_spans_logs_tags_and_attributes(server: Server) -> None:
    service = app(
        server,
        """
        with logfire.span('outer {x}', x=1, _tags=['a', 'b']):
            with logfire.span('inner', data={'k': [1, 2.5, None, True]}, text='naïve "q"'):
                logfire.warn('careful {n}', n=2**70)
        """,
    )
    rows = {str(row["span_name"]): row for row in records(server, service, 3)}
    outer, inner, log = rows["outer {x}"], rows["inner"], rows["careful {n}"]
    assert (outer["kind"], outer["message"], outer["level"], outer["tags"]) == ("span", "outer 1", 9, ["a", "b"])
    assert outer["parent_span_id"] is None
    assert inner["parent_span_id"] == outer["span_id"]
    assert (log["kind"], log["level"], log["parent_span_id"]) == ("log", 13, inner["span_id"])
    assert log["duration"] is None
    assert isinstance(outer["duration"], float)
    assert outer["duration"] >= inner["duration"]  # type: ignore[operator]
    attributes = json.loads(str(inner["attributes"]))
    assert attributes["data"] == {"k": [1, 2.5, None, True]}
    assert attributes["text"] == 'naïve "q"'
    assert not {"logfire.msg", "logfire.span_type", "logfire.level_num", "logfire.json_schema"} & set(attributes)
    assert json.loads(str(log["attributes"]))["n"] == str(2**70)
    assert (outer["service_version"], outer["deployment_environment"]) == ("1.2.3", "test")
    assert outer["otel_scope_name"] == "logfire"


def test_an_exception_fills_its_columns(server: Server) -> None:
    service = app(
        server,
        """
        try:
            with logfire.span('breaks'):
                raise ValueError('bad "input"')
        except ValueError:
            pass
        """,
    )
    [row] = records(server, service, 1)
    assert (row["is_exception"], row["exception_type"], row["exception_message"]) == (True, "ValueError", 'bad "input"')
    assert "Traceback (most recent call last)" in str(row["exception_stacktrace"])
    assert (row["level"], row["otel_status_code"]) == (17, "ERROR")
    assert (
        json.loads(str(row["otel_events"]))[0]["event_name" if "event_name" in str(row["otel_events"]) else "name"]
        == "exception"
    )


def test_metrics_of_every_instrument(server: Server) -> None:
    service = app(
        server,
        """
        logfire.metric_counter('jobs', unit='1').add(3, {'queue': 'a'})
        logfire.metric_gauge('temperature').set(21.5)
        logfire.metric_up_down_counter('open').add(-2)
        histogram = logfire.metric_histogram('latency', unit='s')
        for value in (0.1, 0.2, 0.4):
            histogram.record(value)
        logfire.shutdown()
        """,
    )
    sql = f"SELECT * FROM metrics WHERE service_name = '{service}' AND metric_name NOT LIKE 'otel%'"
    rows = {row["metric_name"]: row for row in server.wait_for_rows(sql, 4).to_pylist()}
    assert set(rows) == {"jobs", "temperature", "open", "latency"}
    jobs = rows["jobs"]
    assert (jobs["scalar_value"], jobs["metric_type"], jobs["is_monotonic"]) == (3.0, "sum", True)
    assert json.loads(jobs["attributes"]) == {"queue": "a"}
    assert (rows["temperature"]["scalar_value"], rows["temperature"]["metric_type"]) == (21.5, "gauge")
    assert rows["open"]["scalar_value"] == -2.0
    latency = rows["latency"]
    assert latency["metric_type"] == "exponential_histogram"
    assert (latency["histogram_count"], latency["histogram_min"], latency["histogram_max"]) == (3, 0.1, 0.4)
    assert sum(latency["exp_histogram_positive_bucket_counts"]) == 3


def test_a_process_killed_inside_a_span_leaves_its_pending_span(server: Server, tmp_path: Path) -> None:
    service = f"app-{uuid.uuid4().hex[:8]}"
    source = """
    import time
    with logfire.span('parent'):
        with logfire.span('never ends'):
            time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", preamble(service, "None") + textwrap.dedent(source)],
        env=environment(server), stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        sql = f"SELECT * FROM records_all WHERE service_name = '{service}' ORDER BY start_timestamp"
        rows: pa.Table = server.wait_for_rows(sql, 2)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    parent, child = rows.to_pylist()
    assert (parent["kind"], child["kind"]) == ("pending_span", "pending_span")
    assert (parent["span_name"], child["span_name"]) == ("parent", "never ends")
    assert parent["parent_span_id"] is None
    assert child["parent_span_id"] == parent["span_id"]
    assert child["duration"] is None
    assert server.value(f"SELECT count(*) FROM records WHERE service_name = '{service}'") == 0


def test_a_finished_span_has_its_pending_row_under_the_same_id(server: Server) -> None:
    service = app(
        server,
        """
        import time
        with logfire.span('slow'):
            time.sleep(0.4)
            logfire.force_flush()
        """,
    )
    [final] = records(server, service, 1)
    sql = f"SELECT kind, span_id FROM records_all WHERE service_name = '{service}'"
    both = server.wait_for_rows(sql, 2).to_pylist()
    assert {row["kind"] for row in both} == {"span", "pending_span"}
    assert {row["span_id"] for row in both} == {final["span_id"]}


def script(server: Server, source: str) -> "subprocess.CompletedProcess[str]":
    """Run a program that finds the server through its environment."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        env=environment(server), capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip


def test_the_sdk_finds_its_project_and_is_not_warned(server: Server) -> None:
    done = script(
        server,
        """
        import logfire, time
        logfire.configure(inspect_arguments=False)
        logfire.info('hi')
        time.sleep(2)  # it asks for the project in the background
        """,
    )
    assert done.returncode == 0, done.stderr
    assert f"{server.url}/local/default" in done.stdout + done.stderr
    assert "Logfire API returned" not in done.stderr


def test_the_query_client_of_the_sdk_sees_the_same_rows(server: Server) -> None:
    service = app(server, "logfire.info('for the client', answer=42)")
    records(server, service, 1)
    done = script(
        server,
        f"""
        import json
        from datetime import UTC, datetime
        from logfire.query_client import LogfireQueryClient
        sql = "SELECT message, attributes->>'answer' AS answer FROM records WHERE service_name = '{service}'"
        with LogfireQueryClient(read_token='local', base_url={server.url!r}) as client:
            print(json.dumps(client.query_json_rows(sql, min_timestamp=datetime(2020, 1, 1, tzinfo=UTC))['rows']))
        """,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [{"message": "for the client", "answer": "42"}]


def test_the_first_span_is_announced(server: Server) -> None:
    app(server, "logfire.info('hello')")
    line = re.compile(r"^First span received: \S+ .+ \(\d+\.\d s\)$", re.MULTILINE)
    wait_for(lambda: line.search(server.output) is not None, 20, lambda: server.output)
    assert "Waiting for the first span …" in server.output
