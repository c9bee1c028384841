"""The command line as scripts use it: fixed names, results on stdout, messages on stderr, exit codes."""

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.acceptance.servers import ROOT, Server, running
from tests.acceptance.test_crashes import spans_body

pytestmark = pytest.mark.xdist_group("server")


def test_query_prints_each_format(server: Server) -> None:
    sql = "SELECT 1 AS n, 'naïve, \"q\"' AS t, NULL AS nothing"
    assert server.command("query", sql, "--format", "json").stdout == '[{"n":1,"t":"naïve, \\"q\\"","nothing":null}]\n'
    assert server.command("query", sql, "--format", "csv").stdout.startswith("n,t,nothing\n1,")
    table = server.command("query", sql)
    assert "naïve" in table.stdout
    assert table.stderr.strip() == "1 row"


def test_a_bad_statement_fails_politely(server: Server) -> None:
    done = server.command("query", "SELECT nope FROM records")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "nope" in done.stderr
    assert "Traceback" not in done.stderr


def test_export_streams_a_file_of_each_format(server: Server, tmp_path: Path) -> None:
    sql = "SELECT value AS n FROM generate_series(1, 100000)"
    for format_ in ("parquet", "csv", "arrow"):
        target = tmp_path / f"out.{format_}"
        done = server.command("export", sql, "--format", format_, "-o", str(target))
        assert done.returncode == 0, done.stderr
        assert not list(tmp_path.glob("*.part"))
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 100_000
    assert (tmp_path / "out.csv").read_text().count("\n") == 100_001
    with pa.ipc.open_file(str(tmp_path / "out.arrow")) as file:
        assert file.read_all().num_rows == 100_000


def test_status_counts_rows_files_and_bytes(server: Server) -> None:
    server.command("doctor")
    status = json.loads(server.command("status", "--json").stdout)
    records = next(table for table in status["tables"] if table["name"] == "records")
    assert records["rows"] == server.value("SELECT count(*) FROM records")
    assert records["files"] > 0
    assert records["size_bytes"] > 0
    assert set(status["parts"].values()) == {"ready"}


def test_the_doctor_sends_a_span_and_reads_it_back(server: Server) -> None:
    done = server.command("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "read back by SQL" in done.stdout
    assert "FAIL" not in done.stdout


def test_tail_shows_records_as_they_come(server: Server) -> None:
    tail = subprocess.Popen(
        [sys.executable, "-m", "server", "tail", "--seconds", "12"],
        cwd=ROOT, env=server.variables, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip

    time.sleep(4)
    server.command("doctor")
    out, _ = tail.communicate(timeout=40)
    assert tail.returncode == 0
    assert "tailrace-doctor" in out
    assert "tailrace doctor" in out


def test_projects_and_tokens_work_while_the_server_runs(server: Server) -> None:
    assert server.command("project", "create", "shop").returncode == 0
    token = server.command("token", "create", "--project", "shop", "--kind", "read").stdout.strip()
    assert token.startswith("pylf_v1_local_")
    done = server.command("query", "SELECT count(*) AS n FROM records", "--format", "json", "--token", token)
    assert done.stdout == '[{"n":0}]\n', done.stderr
    other = server.command("query", "SELECT count(*) AS n FROM records", "--format", "json", "--project", "shop")
    assert other.stdout == '[{"n":0}]\n', other.stderr
    unknown = server.command("token", "create", "--project", "nope", "--kind", "write")
    assert unknown.returncode == 1
    assert "tailrace project create nope" in unknown.stderr


def test_a_busy_port_is_named_with_its_option(server: Server) -> None:
    with socket.socket() as busy, tempfile.TemporaryDirectory() as directory:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        other = Server(Path(directory) / "data")
        other.ports[2] = busy.getsockname()[1]
        done = other.command("serve")
    assert done.returncode == 2
    assert f"Port {other.ports[2]} is in use; stop it or pass --otlp-grpc-port" in done.stderr


def test_a_second_start_on_the_same_data_is_refused(server: Server) -> None:
    done = Server(server.data).command("serve")
    assert done.returncode == 1
    assert "is in use by another tailrace" in done.stderr
    assert server.is_ready()


def test_a_data_directory_that_cannot_be_written_is_named() -> None:
    done = Server(Path("/proc/tailrace")).command("serve")
    assert done.returncode == 1
    assert "/proc/tailrace cannot be written" in done.stderr


def test_sigterm_drains_and_a_new_start_has_everything() -> None:

    with tempfile.TemporaryDirectory(prefix="tailrace-") as directory:
        data = Path(directory) / "data"
        with running(data) as server:
            ids = [f"{n:016x}" for n in range(1, 201)]
            for start in range(0, 200, 10):
                request = urllib.request.Request(
                    f"{server.otlp_http}/v1/traces",
                    spans_body(ids[start : start + 10]),
                    {"Content-Type": "application/json"},
                )
                urllib.request.urlopen(request, timeout=10).close()
            assert server.stop() == 0
            assert "Stopped; everything accepted is kept." in server.output
            status = json.loads(server.command("status", "--json").stdout)
            assert status["log_backlog_bytes"] == 0
            server.start()
            stored = server.query("SELECT span_id FROM records").column(0).to_pylist()
            assert sorted(map(str, stored)) == ids
