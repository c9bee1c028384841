"""`tailrace doctor`: is everything as it should be? Ends by sending a span and reading it back."""

import http.client
import os
import platform
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from core.clock import Clock, SystemClock
from core.errors import TailraceError
from server.clients import Target, ask
from server.commands.errors import fail_politely
from server.settings import Settings, read_settings

READ_BACK_S = 10.0
"""How long the doctor waits for its span."""
READ_PAUSE_S = 0.05
CONNECT_S = 3.0
ENGINES = ("bytewax", "datafusion", "deltalake", "pyarrow", "grpcio", "fastapi", "uvicorn", "sqlalchemy")


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer of one check."""

    good: bool
    text: str


@fail_politely()
def doctor(
    *,
    data: Annotated[Path | None, typer.Option(help="Data directory.")] = None,
    token: Annotated[str | None, typer.Option(help="Write token; on the server's machine none is needed.")] = None,
) -> None:
    """Check versions, disk and ports, then send a span and read it back."""
    settings = read_settings(data=data)
    console = Console(highlight=False)
    bad = 0
    for finding in examine(settings, Target.of(settings, None, token, None), SystemClock()):
        bad += not finding.good
        console.print(f"[{'green' if finding.good else 'red'}]{'ok  ' if finding.good else 'FAIL'}[/] {finding.text}")
    if bad:
        raise typer.Exit(1)


def examine(settings: Settings, target: Target, clock: Clock) -> Generator[Finding]:
    """All checks, in order."""
    yield Finding(True, f"Tailrace {version('tailrace-server')}, Python {platform.python_version()}")
    yield Finding(True, ", ".join(f"{name} {version(name)}" for name in ENGINES))
    yield from _disk(settings)
    ports = {
        "HTTP": settings.http_port,
        "OTLP/HTTP": settings.otlp_http_port,
        "OTLP/gRPC": settings.otlp_grpc_port,
        "Flight SQL": settings.flight_port,
    }
    for name, port in ports.items():
        yield _port(name, settings.host, port)
    yield _guarded("health", lambda: _health(settings))
    yield _guarded("a span there and back", lambda: _round_trip(settings, target, clock))


def _disk(settings: Settings) -> Generator[Finding]:
    place = settings.data if settings.data.exists() else settings.data.parent
    writable = os.access(place, os.W_OK)
    yield Finding(writable, f"{place} is {'' if writable else 'not '}writable")
    free = shutil.disk_usage(place).free
    least = max(settings.disk.log_free_bytes_min, settings.disk.lake_free_bytes_min)
    yield Finding(free > least, f"{free / 1e9:.1f} GB free; ingest stops below {least / 1e9:.1f} GB")


def _port(name: str, host: str, port: int) -> Finding:
    try:
        socket.create_connection((host, port), CONNECT_S).close()
    except OSError as error:
        return Finding(
            False, f"{name} does not answer on {host}:{port} ({error.strerror or error}); run tailrace serve"
        )
    return Finding(True, f"{name} answers on {host}:{port}")


def _guarded(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except (OSError, http.client.HTTPException, TailraceError) as error:
        return Finding(False, f"{name}: {error}")


def _health(settings: Settings) -> Finding:
    status, body = _request(settings, "GET", "/v1/health", {}, b"")
    return Finding(
        status == http.client.OK, "all parts are ready" if status == http.client.OK else f"not ready: {body}"
    )


def _round_trip(settings: Settings, target: Target, clock: Clock) -> Finding:
    trace_id, now = secrets.token_hex(16), clock.now_ns()
    span = {
        "traceId": trace_id, "spanId": secrets.token_hex(8), "name": "tailrace doctor", "kind": 1,
        "startTimeUnixNano": str(now), "endTimeUnixNano": str(now),
    }  # fmt: skip
    service = {"key": "service.name", "value": {"stringValue": "tailrace-doctor"}}
    body = {"resourceSpans": [{"resource": {"attributes": [service]}, "scopeSpans": [{"spans": [span]}]}]}
    headers = {"Content-Type": "application/json"} | ({"Authorization": target.token} if target.token else {})
    sent = time.monotonic()
    status, answer = _request(settings, "POST", "/v1/traces", headers, orjson.dumps(body))
    if status != http.client.OK:
        return Finding(False, f"the span was refused with {status}: {answer}")
    while time.monotonic() - sent < READ_BACK_S:
        with ask(target, f"SELECT count(*) AS n FROM records WHERE trace_id = '{trace_id}'") as rows:  # noqa: S608  # hex digits
            if rows.read_all().column("n")[0].as_py() == 1:
                return Finding(True, f"a span was sent and read back by SQL after {time.monotonic() - sent:.2f} s")
        time.sleep(READ_PAUSE_S)
    return Finding(False, f"the span was accepted, but SQL did not show it within {READ_BACK_S:.0f} s")


def _request(settings: Settings, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
    connection = http.client.HTTPConnection(settings.host, settings.http_port, timeout=CONNECT_S)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    finally:
        connection.close()
