"""One `tailrace serve`, from the checks before the start to the last line: it owns the data directory.

In:  the settings.   Out: running processes, and on standard output what a person wants to know of them.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from core.errors import BadSettings, Refused
from core.projects import DEFAULT_PROJECT_NAME
from server.settings import Settings
from server.supervisor import Report, Supervisor, stop_on_signals

SOCKET_PATH_BYTES_MAX = 90
"""Unix socket paths end at 108 bytes; a longer data path is refused."""

Print = Callable[[str], None]


class PortBusy(Refused):
    """A port is in use."""


def serve(settings: Settings, tell: Print) -> None:
    """Run until SIGTERM or SIGINT. Raises PortBusy, BadSettings or Refused before anything was started."""
    started = time.monotonic()
    check_ports(settings)
    with own(settings.data):
        prepare(settings)
        tell("Starting the processes …")
        asyncio.run(_supervise(settings, started, tell))


async def _supervise(settings: Settings, started: float, tell: Print) -> None:
    stop = asyncio.Event()
    stop_on_signals(asyncio.get_running_loop(), stop)

    def on_report(_: str, report: Report) -> None:
        if report.get("event") == "first_span":
            tell(f"First span received: {report['service']} {report['name']} ({report['seconds']:.1f} s)")

    supervisor = Supervisor(settings, on_report)
    running = asyncio.create_task(supervisor.run(stop))
    ready = asyncio.create_task(supervisor.all_ready.wait())
    await asyncio.wait([running, ready], return_when=asyncio.FIRST_COMPLETED)
    if ready.done() and not stop.is_set():
        tell(banner(settings, time.monotonic() - started))
    ready.cancel()
    await running
    tell("Stopped; everything accepted is kept.")


def banner(settings: Settings, seconds: float) -> str:
    """What a person sees when everything is ready."""
    host = "localhost" if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104  # a comparison
    token = "local" if settings.open_to_all else "<write token>"
    access = "no token needed on " + settings.host if settings.open_to_all else "tokens required: tailrace token create"
    web = f"http://{host}:{settings.http_port}"
    lines = (
        f"Tailrace {version('tailrace-server')} is ready after {seconds:.1f} s",
        "",
        f"  Data      {settings.data}",
        f"  Project   {DEFAULT_PROJECT_NAME} ({access})",
        f"  UI        {web}",
        f"  OTLP      http://{host}:{settings.otlp_http_port} (HTTP), {host}:{settings.otlp_grpc_port} (gRPC)",
        f"  Flight    {settings.flight.scheme}://{host}:{settings.flight_port}",
        "",
        "  Send the first span from an app that uses Logfire or any OpenTelemetry SDK:",
        f"    LOGFIRE_BASE_URL={web} LOGFIRE_TOKEN={token} python app.py",
        f"    OTEL_EXPORTER_OTLP_ENDPOINT=http://{host}:{settings.otlp_http_port} python app.py",
        "  or let the demo send some: tailrace demo",
        "",
        "Waiting for the first span …",
    )
    return "\n".join(lines)


def check_ports(settings: Settings) -> None:
    """PortBusy, naming the port and its option, when something listens there already."""
    options = {
        "--http-port": settings.http_port,
        "--otlp-http-port": settings.otlp_http_port,
        "--otlp-grpc-port": settings.otlp_grpc_port,
        "--flight-port": settings.flight_port,
    }
    for option, port in options.items():
        if list(options.values()).count(port) > 1:
            raise BadSettings(f"Port {port} is given twice; pass another {option}")
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise PortBusy(f"Port {port} is in use; stop it or pass {option}") from error
                raise BadSettings(f"{settings.host}:{port} cannot be bound: {error.strerror}") from error


@contextmanager
def own(data: Path) -> Generator[None]:
    """Own a data directory, made if missing; Refused while another start does or when it cannot be written."""
    if len(os.fsencode(data / "run" / "worker-00.sock")) > SOCKET_PATH_BYTES_MAX + len("/run/worker-00.sock"):
        raise BadSettings(f"The data directory's path is longer than {SOCKET_PATH_BYTES_MAX} bytes: {data}")
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / "lock").open("a+")
    except OSError as error:
        raise Refused(f"The data directory {data} cannot be written: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            owner = lock.read().strip() or "another process"
            raise Refused(
                f"The data directory {data} is in use by another tailrace ({owner}); stop it first"
            ) from error
        lock.truncate(0)
        lock.write(f"pid {os.getpid()}\n")
        lock.flush()
        yield


def prepare(settings: Settings) -> None:
    """A fresh run directory, and the operator's secret of this start."""
    shutil.rmtree(settings.run_directory, ignore_errors=True)
    settings.run_directory.mkdir(mode=0o700)
    with contextlib.suppress(FileNotFoundError):
        settings.operator_token_file.unlink()
    descriptor = os.open(settings.operator_token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(32))
