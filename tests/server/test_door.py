"""The doors with real sockets: what is let in is in the log, and everything else gets its answer."""

import asyncio
import gzip
import threading
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import orjson
import pyarrow as pa
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from benchmarks.payload import trace_request
from core.clock import SystemClock
from core.errors import DiskFull, Unauthenticated
from core.telemetry import Frame, Signal
from pipelines.receive import otlp_http
from pipelines.receive.bodies import BODY_BYTES_MAX
from pipelines.receive.intake import Intake, Limits
from pipelines.receive.otlp_grpc import METHODS
from server.door import Doors, DoorSettings, open_doors
from storage.log import LogWriter
from storage.log_reader import LogReader
from storage.settings import LogSettings

PROTOBUF = "application/x-protobuf"
BODY = trace_request(1, 3)
LIMITS = Limits()
TRACES = next(name for name, signal in METHODS.items() if signal is Signal.TRACES)


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
    directory: Path
    doors: Doors
    disk: Disk
    client: httpx.Client = field(default_factory=httpx.Client)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.doors.http_port}"

    def post(self, body: Any = BODY, path: str = "/v1/traces", **headers: str) -> httpx.Response:
        sent = {"content-type": PROTOBUF, "authorization": "t"} | {k.replace("_", "-"): v for k, v in headers.items()}
        return self.client.post(self.url + path, content=body, headers=sent)

    def frames(self) -> list[Frame]:
        reader = LogReader(self.directory)
        found, position = list[Frame](), reader.start
        while frames := reader.read(position, bytes_max=1 << 30):
            found += frames
            position = frames[-1].end
        reader.close()
        return found

    def call(self, message: bytes, **metadata: str) -> bytes:
        with grpc.insecure_channel(f"127.0.0.1:{self.doors.otlp_grpc_port}") as channel:
            return channel.unary_unary(TRACES)(message, metadata=tuple(metadata.items()), timeout=20)


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
    disk, found, up, stop = Disk(), list[Doors](), threading.Event(), threading.Event()
    doors = replace(DoorSettings("127.0.0.1", 0, 0, 0), **settings)

    async def serve() -> None:
        with LogWriter(directory, LogSettings()) as log:
            intake = Intake(log, Gate(), SystemClock(), disk=disk, limits=limits)
            async with open_doors(doors, otlp_http.app(intake), api, intake) as ports:
                found.append(ports)
                up.set()
                await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert up.wait(20)
        door = Door(directory, found[0], disk)
        yield door
        door.client.close()
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with opened(tmp_path_factory.mktemp("door")) as door:
        yield door


def test_the_same_body_has_the_same_digest_however_it_is_packed(door: Door) -> None:
    before = len(door.frames())
    packed = {
        "identity": BODY, "gzip": gzip.compress(BODY), "deflate": zlib.compress(BODY),
        "zstd": pa.compress(BODY, "zstd", asbytes=True),
    }  # fmt: skip
    for coding, body in packed.items():
        answer = door.post(body, content_encoding=coding)
        assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"", PROTOBUF)
    frames = door.frames()[before:]
    assert [frame.body for frame in frames] == [BODY] * 4
    assert len({frame.digest for frame in frames}) == 1
    assert {frame.project_id for frame in frames} == {"project-of-t"}


@pytest.mark.parametrize("spelling", ["tok", "Bearer tok", "bearer tok"])
def test_the_token_is_read_in_each_spelling(door: Door, spelling: str) -> None:
    door.post(trace_request(2, 1), authorization=spelling)
    assert door.frames()[-1].project_id == "project-of-tok"


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        ({"authorization": "bad"}, BODY, 401, 16),
        ({}, b"hello", 400, 3),
        ({"content_encoding": "gzip"}, b"hello", 400, 3),
        ({"content_encoding": "br"}, BODY, 415, 3),
        ({"content_encoding": "gzip"}, gzip.compress(bytes(BODY_BYTES_MAX + 1), 1), 413, 11),
    ],
)
def test_a_refusal_is_a_status_in_the_requests_own_encoding(
    door: Door, headers: dict[str, str], body: bytes, status: int, code: int
) -> None:
    before = len(door.frames())
    answer = door.post(body, **headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROTOBUF)
    said = Status.FromString(answer.content)
    assert said.code == code
    assert said.message
    as_json = door.post(body, **headers, content_type="application/json; charset=utf-8")
    assert as_json.status_code == status
    assert as_json.json()["code"] == code
    assert len(door.frames()) == before
    if status == 401:
        assert "token" in answer.headers["x-logfire-warning"]
        assert "retry-after" not in answer.headers


def test_other_content_types_and_paths_are_told_so(door: Door) -> None:
    assert door.post(content_type="text/plain").status_code == 415
    assert door.client.get(f"{door.url}/v1/traces").status_code == 405
    other = httpx.post(f"http://127.0.0.1:{door.doors.otlp_http_port}/v2/query")
    assert other.status_code == 404
    assert f"port {door.doors.http_port}" not in door.client.get(f"{door.url}/").text
    assert "OTLP/HTTP port" in httpx.get(f"http://127.0.0.1:{door.doors.otlp_http_port}/").text
    assert door.client.get(f"{door.url}/anything").text == "api"


def test_a_preflight_is_answered_with_the_headers_of_the_contract(door: Door) -> None:
    answer = door.client.options(f"{door.url}/v1/traces", headers={"origin": "https://app.example"})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-headers"] == "Authorization,Content-type,X-Logfire-Context"


def test_json_is_logged_as_it_is(door: Door) -> None:
    body = orjson.dumps({"resourceSpans": []})
    answer = door.post(body, content_type="application/json")
    assert (answer.status_code, answer.json()) == (200, {})
    assert door.frames()[-1].body == body


def test_a_body_without_a_length_is_read_to_its_end(door: Door) -> None:
    body = trace_request(3, 200)
    pieces = (body[start : start + 10_000] for start in range(0, len(body), 10_000))
    assert door.post(pieces).status_code == 200
    assert door.frames()[-1].body == body


def test_a_full_disk_is_answered_with_when_to_try_again(door: Door) -> None:
    door.disk.full = True
    try:
        answer = door.post()
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
        with pytest.raises(grpc.RpcError) as caught:
            door.call(BODY)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # pyright: ignore[reportAttributeAccessIssue]  # a call too
        assert door.client.get(f"{door.url}/v2/anything").status_code == 200
    finally:
        door.disk.full = False
    assert door.post().status_code == 200


def test_pages_of_other_sites_are_kept_out_and_their_senders_let_in_by_setting(tmp_path: Path) -> None:
    with opened(tmp_path, allowed_hosts=("box.lan",), allowed_origins=("https://app.example",)) as door:
        assert door.post(host="evil.example").status_code == 403
        assert door.post(host="box.lan:8000").status_code == 200
        assert door.post(host="localhost").status_code == 200
        assert door.post(origin="https://evil.example").status_code == 403
        assert door.post(origin="https://app.example").status_code == 200
        assert door.post(origin="http://localhost:3000").status_code == 200
        assert "TAILRACE_ALLOWED_ORIGINS" in door.post(origin="null").text


def test_all_requests_together_are_bounded(tmp_path: Path) -> None:
    with opened(tmp_path, Limits(body_bytes_max=1 << 20, inflight_bytes_max=len(BODY))) as door:
        assert door.post().status_code == 200
        assert door.post(trace_request(1, 30)).status_code == 429
        assert door.post().status_code == 200, "what was claimed is given back"


def exporters(door: Door) -> list[SpanExporter]:
    endpoint = f"{door.url}/v1/traces"
    grpc_endpoint = f"http://127.0.0.1:{door.doors.otlp_grpc_port}"
    return [
        *(HttpExporter(endpoint, compression=compression) for compression in Compression),
        *(
            GrpcExporter(grpc_endpoint, insecure=True, compression=compression)
            for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate)
        ),
    ]


def test_real_exporters_are_understood(door: Door) -> None:
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("x" * 2_000) as span:
        pass
    bodies: list[bytes] = []
    for exporter in exporters(door):
        assert exporter.export([span]) is SpanExportResult.SUCCESS  # pyright: ignore[reportArgumentType]  # a readable span
        exporter.shutdown()
        bodies.append(door.frames()[-1].body)
    assert len(set(bodies)) == 1


def test_grpc_tells_what_is_wrong(tmp_path: Path) -> None:
    with opened(tmp_path, Limits(body_bytes_max=1_000_000)) as door:
        assert door.call(BODY, authorization="Bearer t") == b""
        bomb = gzip.compress(bytes(2_000_000))
        for message, metadata, code in (
            (BODY, {"authorization": "bad"}, grpc.StatusCode.UNAUTHENTICATED),
            (b"hello", {}, grpc.StatusCode.INVALID_ARGUMENT),
            (bomb, {}, grpc.StatusCode.OUT_OF_RANGE),
            (bytes(1_000_001), {}, grpc.StatusCode.OUT_OF_RANGE),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                door.call(message, **metadata)
            assert caught.value.code() is code  # pyright: ignore[reportAttributeAccessIssue]  # a call too
        assert len(door.frames()) == 1
