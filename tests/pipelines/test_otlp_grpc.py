"""OTLP over gRPC with real sockets: the real exporters are understood, and every refusal has its code."""

import gzip
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

from benchmarks.payload import log_request, metric_request, trace_request
from core.clock import SystemClock
from core.errors import Refused
from core.telemetry import Encoding, Signal
from pipelines.receive import otlp_grpc
from pipelines.receive.intake import Intake, Limits
from storage import log_tail
from tests.doors import BODY, EXPORT, Disk, Door, Gate, opened


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with opened(tmp_path_factory.mktemp("door"), Limits(body_bytes_max=1_000_000)) as door:
        yield door


def refusal(door: Door, message: bytes, **metadata: str) -> Any:
    """The failed call."""
    with pytest.raises(grpc.RpcError) as caught:
        door.call(message, Signal.TRACES, **metadata)
    return caught.value


def test_each_service_is_its_signal(door: Door) -> None:
    made = {Signal.TRACES: trace_request, Signal.LOGS: log_request, Signal.METRICS: metric_request}
    for signal, make in made.items():
        assert door.call(make(1, 2), signal, authorization="Bearer tok") == b""
        frame = door.frames()[-1]
        assert (frame.signal, frame.encoding, frame.body) == (signal, Encoding.PROTOBUF, make(1, 2))
        assert frame.project_id == "project-of-tok"


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_the_real_exporter_may_compress(door: Door, compression: grpc.Compression) -> None:
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("x" * 2_000) as span:
        pass
    exporter = OTLPSpanExporter(f"http://{door.grpc_address}", insecure=True, compression=compression)
    assert exporter.export([span]) is SpanExportResult.SUCCESS  # pyright: ignore[reportArgumentType]  # a readable span
    exporter.shutdown()
    assert b"x" * 2_000 in door.frames()[-1].body


def test_the_same_message_has_the_same_digest_however_it_is_packed(door: Door) -> None:
    before = len(door.frames())
    for message in (BODY, gzip.compress(BODY), zlib.compress(BODY)):
        assert door.call(message) == b""
    frames = door.frames()[before:]
    assert [frame.body for frame in frames] == [BODY] * 3
    assert len({frame.digest for frame in frames}) == 1


@pytest.mark.parametrize(
    ("message", "metadata", "code"),
    [
        (BODY, {"authorization": "bad"}, grpc.StatusCode.UNAUTHENTICATED),
        (b"hello", {}, grpc.StatusCode.INVALID_ARGUMENT),
        (gzip.compress(BODY)[:-9], {}, grpc.StatusCode.INVALID_ARGUMENT),
        (gzip.compress(bytes(200_000_000), 1), {}, grpc.StatusCode.OUT_OF_RANGE),
        (bytes(1_000_001), {}, grpc.StatusCode.OUT_OF_RANGE),
        (bytes(1_000_001 + otlp_grpc.MESSAGE_BYTES_SPARE), {}, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
    ids=["token", "body", "gzip cut off", "bomb", "size", "size beyond gRPC's own limit"],
)
def test_a_refusal_has_its_code(door: Door, message: bytes, metadata: dict[str, str], code: grpc.StatusCode) -> None:
    before = len(door.frames())
    call = refusal(door, message, **metadata)
    assert call.code() is code
    assert call.details()
    assert len(door.frames()) == before


def test_other_methods_are_not_implemented(door: Door) -> None:
    with grpc.insecure_channel(door.grpc_address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/some.Service/Export")(b"", timeout=20)
    call: Any = caught.value
    assert call.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_full_disk_is_unavailable_and_says_when_to_try_again(door: Door) -> None:
    door.disk.full = True
    try:
        call = refusal(door, BODY)
    finally:
        door.disk.full = False
    assert call.code() is grpc.StatusCode.UNAVAILABLE
    status = Status.FromString(dict(call.trailing_metadata())[otlp_grpc.STATUS_DETAILS])
    retry = RetryInfo()
    assert status.details[0].Unpack(retry)
    assert retry.retry_delay.seconds == 30
    assert door.call(BODY) == b""


def test_a_slow_disk_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_grpc, "ACK_S_MAX", 0.2)
    go, sync = threading.Event(), log_tail.os.fdatasync

    def slow(file: int) -> None:
        assert go.wait(20)
        sync(file)

    monkeypatch.setattr(log_tail.os, "fdatasync", slow)
    with opened(tmp_path) as door:
        for _ in range(2):
            assert refusal(door, BODY).code() is grpc.StatusCode.UNAVAILABLE
        go.set()
        assert door.call(trace_request(5, 1)) == b""
        bodies = [frame.body for frame in door.frames()]
        assert bodies == [BODY, trace_request(5, 1)], "the first was being written, the second was taken back"


def test_all_requests_together_are_bounded(tmp_path: Path) -> None:
    with opened(tmp_path, Limits(inflight_bytes_max=len(BODY))) as door:
        assert refusal(door, trace_request(1, 30)).code() is grpc.StatusCode.UNAVAILABLE
        assert door.call(BODY) == b"", "what was claimed is given back"


def test_messages_that_do_not_come_do_not_keep_others_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_grpc, "MESSAGE_S_MAX", 0.3)
    monkeypatch.setattr(otlp_grpc, "LATE_LOOK_INTERVAL_S", 0.05)
    done = threading.Event()

    def never() -> Iterator[bytes]:
        done.wait(20)
        yield from ()

    with opened(tmp_path) as door, grpc.insecure_channel(door.grpc_address) as channel:
        export = channel.stream_unary(EXPORT[Signal.TRACES])
        silent: list[Any] = [export.future(never()) for _ in range(otlp_grpc.THREADS_MAX)]
        try:
            assert door.call(BODY) == b""
            assert [call.code() for call in silent] == [grpc.StatusCode.CANCELLED] * len(silent)
        finally:
            done.set()


def test_a_call_without_a_message_is_malformed(door: Door) -> None:
    with grpc.insecure_channel(door.grpc_address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.stream_unary(EXPORT[Signal.TRACES])(iter(()), timeout=20)
    call: Any = caught.value
    assert call.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_an_address_that_is_taken_is_refused(door: Door) -> None:
    intake = Intake(door.log, Gate(), SystemClock(), disk=Disk())
    with (
        pytest.raises(Refused, match=f"{door.grpc_address} cannot be bound"),
        otlp_grpc.serve(intake, door.grpc_address, drain_s=0),
    ):
        raise AssertionError("bound")
