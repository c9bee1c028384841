"""A real `tailrace serve` for the acceptance tests, started and stopped as a user would."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa

ROOT = Path(__file__).parents[2]
READY_S = 40.0
VISIBLE_S = 30.0


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@dataclass
class Server:
    """One data directory and the server on it, through several starts."""

    data: Path
    environment: dict[str, str] = field(default_factory=dict[str, str])
    ports: list[int] = field(default_factory=lambda: free_ports(4))
    process: "subprocess.Popen[str] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def otlp_http(self) -> str:
        return f"http://127.0.0.1:{self.ports[1]}"

    @property
    def otlp_grpc(self) -> str:
        return f"127.0.0.1:{self.ports[2]}"

    @property
    def flight(self) -> str:
        return f"grpc://127.0.0.1:{self.ports[3]}"

    @property
    def variables(self) -> dict[str, str]:
        """The environment in which the command line finds this server."""
        names = ("HTTP_PORT", "OTLP_HTTP_PORT", "OTLP_GRPC_PORT", "FLIGHT_PORT")
        ports = {f"TAILRACE_{name}": str(port) for name, port in zip(names, self.ports, strict=True)}
        return dict(os.environ) | {"TAILRACE_DATA": str(self.data)} | ports | self.environment

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run `tailrace …` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "server", *arguments],
            cwd=ROOT, env=self.variables, capture_output=True, text=True, timeout=50, check=False,
        )  # fmt: skip

    def start(self) -> None:
        """Start and wait until everything is ready."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start without waiting."""
        self.data.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "server", "serve"],
                cwd=ROOT,
                env=self.variables,
                stdout=log,
                stderr=log,
                text=True,
            )

    @property
    def log_file(self) -> Path:
        return self.data.parent / f"{self.data.name}.out"

    @property
    def output(self) -> str:
        """What it has printed and logged so far."""
        return self.log_file.read_text()

    def wait_until_ready(self) -> None:
        wait_for(self.is_ready, READY_S, lambda: f"not ready:\n{self.output[-4_000:]}")

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.output[-4_000:]}"
        try:
            with urllib.request.urlopen(f"{self.url}/v1/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def pids(self) -> dict[str, int]:
        """The process ids, by role."""
        health = json.loads((self.data / "run" / "health.json").read_text())
        return {role: pid for role, pid in health["pids"].items() if pid}

    def kill(self, role: str) -> None:
        """SIGKILL one process, by its own pid."""
        assert self.process is not None
        pid = self.process.pid if role == "supervisor" else self.pids().get(role)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if role == "supervisor":
            self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=50)

    def query(self, sql: str, **options: str) -> pa.Table:
        """Rows by ADBC over Flight SQL."""
        with (
            flightsql.connect(self.flight, db_kwargs=options, autocommit=True) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(sql)
            return cursor.fetch_arrow_table()

    def value(self, sql: str) -> Any:
        """The one value of a statement."""
        return self.query(sql).column(0)[0].as_py()

    def wait_for_rows(self, sql: str, count: int) -> pa.Table:
        """The rows of a statement, once there are as many as that."""
        found: list[pa.Table] = []

        def enough() -> bool:
            found[:] = [self.query(sql)]
            return found[0].num_rows >= count

        wait_for(
            enough,
            VISIBLE_S,
            lambda: f"{found[0].num_rows if found else 0} of {count} rows: {sql}\n{self.output[-3_000:]}",
        )
        return found[0]


def wait_for(condition: Callable[[], bool], seconds: float, explain: Callable[[], str]) -> None:
    """Wait until a condition holds, looking often; fail with an explanation."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, explain()
        time.sleep(0.05)


@contextlib.contextmanager
def running(data: Path, **environment: str) -> Generator[Server]:
    """A server that is stopped, by its own pid, when the block ends."""
    server = Server(data, environment)
    try:
        server.start()
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.process.terminate()
            try:
                server.process.wait(timeout=45)
            except subprocess.TimeoutExpired:
                server.process.kill()
                server.process.wait()
