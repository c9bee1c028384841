"""OTLP over HTTP with real sockets: what is answered 200 is in the log, and everything else gets its status."""

import errno
import gzip
import logging
import os
import socket
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pyarrow as pa
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

from benchmarks.payload import log_request, metric_request, trace_request
from core.telemetry import Encoding, Signal
from pipelines.receive import otlp_http
from pipelines.receive.bodies import BODY_BYTES_MAX, PIECE_BYTES_MAX
from pipelines.receive.intake import Intake, Limits
from storage import log_tail
from tests.doors import BODY, JSON, PROTOBUF, Door, opened

PACKED = {
    "identity": BODY,
    "gzip": gzip.compress(BODY),
    "deflate": zlib.compress(BODY),
    "zstd": pa.compress(BODY, "zstd", asbytes=True),
}


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with opened(tmp_path_factory.mktemp("door")) as door:
        yield door


def test_the_same_body_has_the_same_digest_however_it_is_packed(door: Door) -> None:
    before = len(door.frames())
    for coding, body in PACKED.items():
        answer = door.post(body, content_encoding=coding)
        assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"", PROTOBUF)
    frames = door.frames()[before:]
    assert [frame.body for frame in frames] == [BODY] * 4
    assert len({frame.digest for frame in frames}) == 1
    assert {frame.project_id for frame in frames} == {"project-of-t"}


@pytest.mark.parametrize("spelling", ["tok", "Bearer tok", "bearer tok"])
def test_the_token_is_read_in_each_spelling(door: Door, spelling: str) -> None:
    assert door.post(trace_request(2, 1), authorization=spelling).status_code == 200
    assert door.frames()[-1].project_id == "project-of-tok"


def test_each_path_is_its_signal(door: Door) -> None:
    made = {Signal.TRACES: trace_request, Signal.LOGS: log_request, Signal.METRICS: metric_request}
    for signal, make in made.items():
        assert door.post(make(1, 2), f"/v1/{signal.value}").status_code == 200
        frame = door.frames()[-1]
        assert (frame.signal, frame.encoding, frame.body) == (signal, Encoding.PROTOBUF, make(1, 2))


def test_json_is_logged_as_it_is(door: Door) -> None:
    body = orjson.dumps({"resourceSpans": []})
    answer = door.post(body, content_type="application/json; charset=utf-8")
    assert (answer.status_code, answer.json(), answer.headers["content-type"]) == (200, {}, JSON)
    assert (door.frames()[-1].body, door.frames()[-1].encoding) == (body, Encoding.JSON)


def test_an_empty_request_is_answered_and_not_logged(door: Door) -> None:
    before = len(door.frames())
    assert door.post(b"").status_code == 200
    assert len(door.frames()) == before


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        ({"authorization": "bad"}, BODY, 401, 16),
        ({}, b"hello", 400, 3),
        ({"content_encoding": "gzip"}, b"hello", 400, 3),
        ({"content_encoding": "gzip"}, PACKED["gzip"][:-9], 400, 3),
        ({"content_encoding": "br"}, BODY, 415, 3),
        ({"content_encoding": "gzip"}, gzip.compress(bytes(BODY_BYTES_MAX + 1), 1), 413, 11),
    ],
    ids=["token", "body", "gzip", "gzip cut off", "coding", "size"],
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
    assert (as_json.status_code, as_json.headers["content-type"]) == (status, JSON)
    assert as_json.json()["code"] == code
    assert len(door.frames()) == before
    assert "retry-after" not in answer.headers
    assert ("token" in answer.headers.get("x-logfire-warning", "")) == (status == 401)


def test_other_content_types_and_methods_are_told_so(door: Door) -> None:
    assert door.post(content_type="text/plain").status_code == 415
    answer = door.client.get(f"{door.url}/v1/traces")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")


def test_a_preflight_is_answered_with_the_headers_of_the_contract(door: Door) -> None:
    asked = {"origin": "http://localhost:3000", "access-control-request-method": "POST"}
    answer = door.client.options(f"{door.url}/v1/traces", headers=asked)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-methods"] == "POST,OPTIONS"
    assert answer.headers["access-control-allow-headers"] == "Authorization,Content-type,X-Logfire-Context"
    for post in (door.post(origin="http://localhost:3000"), door.post(b"hello", origin="http://localhost:3000")):
        assert post.headers["access-control-allow-origin"] == "*", "a page may read the answer, good or bad"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_a_bomb_is_refused_while_what_it_takes_stays_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coding: str
) -> None:
    zeros = bytes(200_000_000)
    bombs = {"gzip": lambda: gzip.compress(zeros, 1), "deflate": lambda: zlib.compress(zeros, 1),
             "zstd": lambda: pa.compress(zeros, "zstd", asbytes=True)}  # fmt: skip
    bomb = bombs[coding]()
    limits = Limits(body_bytes_max=4 << 20, inflight_bytes_max=1 << 40)
    taken: list[int] = []
    claim = Intake._claim

    def watched(self: Intake, count: int) -> None:
        claim(self, count)
        taken.append(self._inflight_bytes)

    monkeypatch.setattr(Intake, "_claim", watched)
    with opened(tmp_path, limits) as door:
        assert door.post(bomb, content_encoding=coding).status_code == 413
        assert max(taken) <= len(bomb) + 4 * (1 << 20) + 2 * PIECE_BYTES_MAX
        assert taken[-1] == 0
        assert door.post(PACKED[coding], content_encoding=coding).status_code == 200


def test_a_length_above_the_limit_is_refused_before_the_body_is_sent(door: Door) -> None:
    head = f"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: {PROTOBUF}\r\n"
    with socket.create_connection(("127.0.0.1", door.doors.http_port), timeout=10) as connection:
        connection.sendall(f"{head}Expect: 100-continue\r\nContent-Length: {BODY_BYTES_MAX + 1}\r\n\r\n".encode())
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")


def test_a_body_without_a_length_is_read_to_its_end_and_no_further_than_the_limit(tmp_path: Path) -> None:
    body = trace_request(3, 200)
    with opened(tmp_path, Limits(body_bytes_max=len(body))) as door:
        assert door.post(body[start : start + 10_000] for start in range(0, len(body), 10_000)).status_code == 200
        assert door.frames()[-1].body == body
        assert door.post(bytes(10_000) for _ in range(len(body) // 10_000 + 1)).status_code == 413


def test_all_requests_together_are_bounded(tmp_path: Path) -> None:
    with opened(tmp_path, Limits(body_bytes_max=1 << 20, inflight_bytes_max=len(BODY))) as door:
        assert door.post().status_code == 200
        answer = door.post(trace_request(1, 30))
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert door.post().status_code == 200, "what was claimed is given back"


def begin(door: Door, body: bytes) -> socket.socket:
    """A connection on which a body has begun and half of it has come."""
    connection = socket.create_connection(("127.0.0.1", door.doors.http_port), timeout=10)
    head = f"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {len(body)}\r\n"
    connection.sendall(head.encode() + b"\r\n" + body[: len(body) // 2])
    return connection


def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given_back = threading.Event()
    claim = Intake._claim

    def watched(self: Intake, count: int) -> None:
        claim(self, count)
        if count < 0:
            given_back.set()

    monkeypatch.setattr(Intake, "_claim", watched)
    body = trace_request(4, 20)
    with caplog.at_level(logging.WARNING), opened(tmp_path, Limits(inflight_bytes_max=len(body))) as door:
        begin(door, body).close()
        assert given_back.wait(10)
        assert door.post(body).status_code == 200, "its memory is free again"
        assert len(door.frames()) == 1
    assert caplog.records == []


def test_a_body_that_stops_coming_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_http, "BODY_PAUSE_S_MAX", 0.2)
    with opened(tmp_path) as door, begin(door, BODY) as connection:
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in answer.lower()
        assert door.frames() == []


def test_a_slow_disk_is_answered_with_try_again_and_what_still_waits_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp_http, "ACK_S_MAX", 0.3)
    go, sync = threading.Event(), os.fdatasync

    def slow(file: int) -> None:
        assert go.wait(20)
        sync(file)

    monkeypatch.setattr(log_tail.os, "fdatasync", slow)
    with opened(tmp_path) as door:
        for _ in range(2):
            answer = door.post()
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
            said = Status.FromString(answer.content)
            assert said.code == 14
            retry = RetryInfo()
            assert said.details[0].Unpack(retry)
            assert retry.retry_delay.seconds == 1
        assert door.client.get(f"{door.url}/v2/anything").status_code == 200, "only the intake waits"
        go.set()
        assert door.post(trace_request(5, 1)).status_code == 200
        bodies = [frame.body for frame in door.frames()]
        assert bodies == [BODY, trace_request(5, 1)], "the first was being written, the second was taken back"


@pytest.mark.parametrize(("fault", "status"), [(errno.ENOSPC, 429), (errno.EIO, 503)])
def test_a_write_that_fails_is_told_and_the_next_one_that_works_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int, status: int
) -> None:
    def fail(_: int) -> None:
        raise OSError(fault, os.strerror(fault))

    with opened(tmp_path) as door:
        with monkeypatch.context() as broken:
            broken.setattr(log_tail.os, "fdatasync", fail)
            answer = door.post()
            assert (answer.status_code, answer.headers["retry-after"]) == (status, "1")
        assert door.frames() == []
        assert door.post().status_code == 200


def test_a_stopped_log_is_answered_with_try_again(tmp_path: Path) -> None:
    with opened(tmp_path) as door:
        door.log.close()
        answer = door.post()
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_a_full_disk_is_answered_with_when_to_try_again(door: Door) -> None:
    door.disk.full = True
    try:
        answer = door.post()
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
        assert door.client.get(f"{door.url}/v2/anything").status_code == 200
    finally:
        door.disk.full = False
    assert door.post().status_code == 200


def test_of_our_own_mistakes_the_sender_learns_nothing_but_that_there_was_one(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def mistake(*_: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(Intake, "admit", mistake)
    answer = door.post()
    assert answer.status_code == 500
    assert Status.FromString(answer.content).code == 13
    assert b"secret" not in answer.content
    assert "secret" in caplog.text


def test_many_senders_at_once_are_all_in_the_log(door: Door) -> None:
    before = len(door.frames())
    bodies = [trace_request(seed, 2 + seed % 3 * 300) for seed in range(100, 112)]
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(door.post, bodies))
    assert [answer.status_code for answer in answers] == [200] * len(bodies)
    assert sorted(frame.body for frame in door.frames()[before:]) == sorted(bodies)


@pytest.mark.parametrize("compression", list(Compression))
def test_the_real_exporter_is_understood(door: Door, compression: Compression) -> None:
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("x" * 2_000) as span:
        pass
    exporter = OTLPSpanExporter(f"{door.url}/v1/traces", compression=compression)
    assert exporter.export([span]) is SpanExportResult.SUCCESS  # pyright: ignore[reportArgumentType]  # a readable span
    exporter.shutdown()
    assert b"x" * 2_000 in door.frames()[-1].body
