"""The door's work, put together: the log's writer, the keys, the receivers and the API (system.md D12).

In:  the settings.   Out: three open ports until told to stop; what was acknowledged by then is in the log.
"""

import asyncio
import threading
import time
from collections.abc import Callable

from api.app import create_app
from api.health import read_health
from core.clock import SystemClock
from core.errors import Refused
from pipelines.receive import otlp_http
from pipelines.receive.intake import FreeSpace, FreeSpaceLimit, Intake
from query.transport import QueryClient
from server.door import DoorSettings, open_doors
from server.settings import Settings
from storage.keys import open_keys
from storage.log import LogWriter

LOCK_WAIT_S = 5.0
"""How long to wait for the log while a door of before is still dying."""
LOCK_RETRY_S = 0.1
STOP_LOOK_S = 0.1
"""How often the doors look whether they should stop."""


async def serve_doors(settings: Settings, ready: Callable[[], None], stop: threading.Event) -> None:
    """Serve until `stop` is set. Raises Refused when the log or a port cannot be had."""
    clock = SystemClock()
    operator = settings.operator_token_file.read_text()
    with (
        open_keys(settings.ledger(), open_to_all=settings.open_to_all, operator_token=operator, clock=clock) as keys,
        open_log(settings) as log,
    ):
        intake = Intake(log, keys, clock, disk=_free_space(settings))
        api = create_app(
            keys,
            QueryClient(settings.flight_socket),
            lambda: read_health(settings.health_file),
            otlp_http_port=settings.otlp_http_port,
        )
        doors = DoorSettings(
            settings.host, settings.http_port, settings.otlp_http_port, settings.otlp_grpc_port,
            settings.allowed_hosts, settings.allowed_origins,
        )  # fmt: skip
        async with open_doors(doors, otlp_http.app(intake), api, intake):
            ready()
            while not stop.is_set():  # noqa: ASYNC110  # a signal sets it; a thread that waits would outlive an error here
                await asyncio.sleep(STOP_LOOK_S)


def open_log(settings: Settings) -> LogWriter:
    """The log's writer, after a wait if another process is still letting it go."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            return LogWriter(settings.log_directory, settings.log)
        except Refused:
            if time.monotonic() > deadline:
                raise
            time.sleep(LOCK_RETRY_S)


def _free_space(settings: Settings) -> FreeSpace:
    disk = settings.disk
    limits = [
        FreeSpaceLimit("the log", settings.log_directory, disk.log_free_bytes_min),
        FreeSpaceLimit("the lake", settings.lake_directory, disk.lake_free_bytes_min),
    ]
    if settings.ledger_url is None:
        limits.append(FreeSpaceLimit("the ledger", settings.data, disk.ledger_free_bytes_min))
    return FreeSpace(limits)
