"""Doors for tests: real sockets on free ports over a real log, with a gate and a disk that do as they are told."""

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import httpx

from benchmarks.payload import trace_request
from core.clock import SystemClock
from core.errors import DiskFull, Unauthenticated
from core.telemetry import Frame, Signal
from pipelines.receive import otlp_http
from pipelines.receive.intake import Intake, Limits
from pipelines.receive.otlp_grpc import METHODS
from server.door import Doors, DoorSettings, open_doors
from storage.log import LogSettings, LogWriter
from storage.log_reader import LogReader

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
BODY = trace_request(1, 3)
LIMITS = Limits()
EXPORT = {signal: method for method, signal in METHODS.items()}


class Gate:
    """Lets in any token but `bad`."""

    def write_project(self, token: str | None) -> str:
        if token == "bad":
            raise Unauthenticated("The token is not known …")
        return f"project-of-{token}"


@dataclass
class Disk:
    """A disk that can be said to be full."""

    full: bool = False

    def check(self) -> None:
        if self.full:
            raise DiskFull(retry_after_s=30)


@dataclass
class Door:
    log: LogWriter
    directory: Path
    doors: Doors
    disk: Disk
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=20))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.doors.http_port}"

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.doors.otlp_grpc_port}"

    def post(self, body: Any = BODY, path: str = "/v1/traces", **headers: str) -> httpx.Response:
        sent = {"content-type": PROTOBUF, "authorization": "t"} | {k.replace("_", "-"): v for k, v in headers.items()}
        return self.client.post(self.url + path, content=body, headers=sent)

    def call(self, message: bytes, signal: Signal = Signal.TRACES, **metadata: str) -> bytes:
        with grpc.insecure_channel(self.grpc_address) as channel:
            return channel.unary_unary(EXPORT[signal])(message, metadata=tuple(metadata.items()), timeout=20)

    def frames(self) -> list[Frame]:
        reader = LogReader(self.directory)
        found, position = list[Frame](), reader.start
        while frames := reader.read(position, bytes_max=1 << 30):
            found += frames
            position = frames[-1].end
        reader.close()
        return found


async def api(scope: Any, receive: Any, send: Any) -> None:
    """Stands for the API: says yes to everything."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await otlp_http.respond(send, 200, [], b"api")


@contextmanager
def opened(directory: Path, limits: Limits = LIMITS, **settings: Any) -> Generator[Door]:
    """Doors on free ports, over a real log, in a thread of their own."""
    disk, found, up, stop = Disk(), list[tuple[LogWriter, Doors]](), threading.Event(), threading.Event()
    doors = replace(DoorSettings("127.0.0.1", 0, 0, 0), **settings)

    async def serve() -> None:
        with LogWriter(directory, LogSettings()) as log:
            intake = Intake(log, Gate(), SystemClock(), disk=disk, limits=limits)
            async with open_doors(doors, otlp_http.app(intake), api, intake) as ports:
                found.append((log, ports))
                up.set()
                await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert up.wait(20)
        log, ports = found[0]
        door = Door(log, directory, ports, disk)
        yield door
        door.client.close()
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
