"""The doors with real sockets: who may knock, which application answers, and how they close."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.payload import trace_request
from core.clock import SystemClock
from core.errors import Refused
from pipelines.receive import otlp_http
from pipelines.receive.intake import Intake
from server import door as door_module
from server.door import DoorSettings, open_doors
from storage import log_tail
from tests.doors import BODY, Disk, Door, Gate, api, opened


class NoLog:
    """A log that is not to be reached."""

    def append(self, record: object) -> Future[int]:
        raise AssertionError(record)


def doors(settings: DoorSettings, application: Any = api) -> Any:
    intake = Intake(NoLog(), Gate(), SystemClock(), disk=Disk())
    return open_doors(settings, otlp_http.app(intake), application, intake)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with opened(tmp_path_factory.mktemp("door")) as door:
        yield door


def exchange(door: Door, sent: bytes) -> bytes:
    """What comes back on a connection of its own until the server closes it."""
    with socket.create_connection(("127.0.0.1", door.doors.http_port), timeout=10) as connection:
        connection.sendall(sent)
        received = b""
        while piece := connection.recv(1 << 16):
            received += piece
        return received


def test_the_otlp_port_serves_otlp_alone_and_the_other_port_all(door: Door) -> None:
    otlp_url = f"http://127.0.0.1:{door.doors.otlp_http_port}"
    sent = {"content-type": "application/x-protobuf"}
    assert httpx.post(f"{otlp_url}/v1/traces", content=BODY, headers=sent).status_code == 200
    assert httpx.post(f"{otlp_url}/v2/query").status_code == 404
    assert "OTLP/HTTP port" in httpx.get(f"{otlp_url}/").text
    assert door.post().status_code == 200
    assert door.client.get(f"{door.url}/anything").text == "api"
    assert door.client.get(f"{door.url}/v1/traces/").text == "api"


def test_pages_of_other_sites_are_kept_out_and_their_senders_let_in_by_setting(tmp_path: Path) -> None:
    with opened(tmp_path, allowed_hosts=("box.lan",), allowed_origins=("https://app.example",)) as door:
        assert door.post(host="evil.example").status_code == 403
        assert door.post(host="box.lan:8000").status_code == 200
        assert door.post(origin="https://evil.example").status_code == 403
        assert door.post(origin="https://app.example").status_code == 200
        assert door.post(host="box.lan", origin="http://box.lan").status_code == 200, "its own page"
        assert "TAILRACE_ALLOWED_ORIGINS" in door.post(origin="null").text
        assert len(door.frames()) == 3


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.2:1", "[::1]:4318"])
def test_the_names_of_this_machine_are_served_with_any_port(door: Door, host: str) -> None:
    assert door.client.get(door.url, headers={"host": host}).status_code == 200
    assert door.post(host=host, origin=f"http://{host}").status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[::1", "", "8.8.8.8"]
)
def test_a_name_that_was_made_to_point_here_is_refused(door: Door, host: str) -> None:
    for path in ("/", "/v1/traces", "/v1/query?sql=SELECT+1"):
        answer = door.client.get(door.url + path, headers={"host": host})
        assert answer.status_code == 403
        assert "TAILRACE_ALLOWED_HOSTS" in answer.text


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost.evil.example", "null", "http://[::1", "file://"]
)
def test_a_page_of_another_site_may_neither_send_nor_manage(door: Door, origin: str) -> None:
    before = len(door.frames())
    assert door.post(origin=origin).status_code == 403
    assert door.post(path="/v1/projects", origin=origin).status_code == 403
    assert door.client.delete(f"{door.url}/anything", headers={"origin": origin}).status_code == 403
    assert len(door.frames()) == before


def test_doors_bound_to_other_addresses_leave_host_and_origin_to_the_tokens(tmp_path: Path) -> None:
    with opened(tmp_path, host="0.0.0.0") as door:
        assert door.post(host="any.example", origin="https://app.example").status_code == 200


def test_a_websocket_is_not_opened(door: Door) -> None:
    upgrade = b"Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    answer = exchange(door, b"GET /v1/traces HTTP/1.1\r\nHost: localhost\r\n" + upgrade + key + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 405 ")


def test_headers_without_end_are_refused(door: Door) -> None:
    endless = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * (door_module.HEAD_BYTES_MAX * 8)
    answer = b"HTTP/1.1 400 "
    with contextlib.suppress(ConnectionResetError):  # the rest of the headers is not read
        answer = exchange(door, endless)
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_a_long_body_and_then_another_request_are_no_long_head(door: Door) -> None:
    body = trace_request(7, 200)
    head = b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n"
    head += b"Content-Length: %d\r\n" % len(body)
    pair = head + b"\r\n" + body + head + b"Connection: close\r\n\r\n" + body
    assert len(body) > door_module.HEAD_BYTES_MAX
    assert exchange(door, pair).count(b"HTTP/1.1 200 ") == 2


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost:", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET "])
def test_a_head_that_does_not_come_costs_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(door_module, "HEAD_S_MAX", 0.2)
    with opened(tmp_path) as door:
        assert exchange(door, begun).count(b"HTTP/1.1 200 ") == begun.count(b"\r\n\r\n")


@pytest.mark.parametrize("place", range(3))
def test_a_port_that_is_taken_is_refused_by_name(place: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [0, 0, 0]
        ports[place] = taken.getsockname()[1]

        async def run() -> None:
            async with doors(DoorSettings("127.0.0.1", ports[0], ports[1], ports[2])):
                raise AssertionError("opened")

        with pytest.raises(Refused, match=f"127.0.0.1:{ports[place]} cannot be bound"):
            asyncio.run(run())


@pytest.mark.parametrize("settings", [DoorSettings("127.0.0.1", 99_999, 0, 0), DoorSettings("no such host", 0, 0, 0)])
def test_an_address_that_cannot_be_is_refused(settings: DoorSettings) -> None:
    async def run() -> None:
        async with doors(settings):
            raise AssertionError("opened")

    with pytest.raises(Refused, match="cannot be bound"):
        asyncio.run(run())


def test_an_api_that_does_not_start_is_an_error_and_frees_the_ports() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise ValueError("no ledger")

    async def run() -> None:
        async with doors(DoorSettings("127.0.0.1", port, 0, 0), broken):
            raise AssertionError("opened")

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(RuntimeError, match="did not start"):
        asyncio.run(run())
    socket.create_server(("127.0.0.1", port)).close()


def test_an_error_inside_closes_the_doors_and_comes_out_as_it_is() -> None:
    async def run() -> None:
        async with doors(DoorSettings("127.0.0.1", 0, 0, 0)) as opened:
            ports.append(opened.http_port)
            raise Refused("of its own")

    ports: list[int] = []
    with pytest.raises(Refused, match="of its own"):
        asyncio.run(run())
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ports[0]))


def test_requests_under_way_are_finished_before_the_doors_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncing, go, sync = threading.Event(), threading.Event(), log_tail.os.fdatasync

    def slow(file: int) -> None:
        syncing.set()
        assert go.wait(10)
        sync(file)

    monkeypatch.setattr(log_tail.os, "fdatasync", slow)
    with ThreadPoolExecutor() as threads:
        with opened(tmp_path) as door:
            by_http = threads.submit(httpx.post, f"{door.url}/v1/traces", content=BODY, headers={
                "content-type": "application/x-protobuf"})  # fmt: skip
            assert syncing.wait(10)
            by_grpc = threads.submit(door.call, trace_request(2, 1))
            while door.log.end < len(BODY) + 100:
                assert not by_grpc.done()
            threading.Timer(0.3, go.set).start()
        assert by_http.result(5).status_code == 200
        assert by_grpc.result(5) == b""
    assert len(door.frames()) == 2
