"""The look at the door: every request that protobuf can write passes, and nothing but refusals leaves it."""

import contextlib
import tracemalloc

import orjson
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from benchmarks.payload import log_request, metric_request, trace_request
from core.errors import Malformed, TooLarge
from core.telemetry import Encoding, Signal
from pipelines.receive import framing
from pipelines.receive.framing import check

MAKE = {Signal.TRACES: trace_request, Signal.LOGS: log_request, Signal.METRICS: metric_request}

texts = st.text(max_size=200)
times = st.integers(0, 2**64 - 1)
values = st.recursive(
    st.builds(AnyValue, string_value=texts)
    | st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1))
    | st.builds(AnyValue, double_value=st.floats())
    | st.builds(AnyValue, bytes_value=st.binary(max_size=50))
    | st.builds(AnyValue),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: AnyValue(array_value={"values": items})),  # pyright: ignore[reportArgumentType]  # a dict is a message too
    max_leaves=4,
)
attributes = st.lists(st.builds(KeyValue, key=texts, value=values), max_size=3)
resources = st.builds(Resource, attributes=attributes, dropped_attributes_count=st.integers(0, 2**32 - 1))
scopes = st.builds(InstrumentationScope, name=texts, version=texts, attributes=attributes)
spans = st.builds(
    Span, trace_id=st.binary(max_size=20), span_id=st.binary(max_size=20), name=texts, start_time_unix_nano=times,
    attributes=attributes, flags=st.integers(0, 2**32 - 1), trace_state=texts,
)  # fmt: skip
logs = st.builds(LogRecord, time_unix_nano=times, body=values, attributes=attributes, event_name=texts)
points = st.builds(NumberDataPoint, time_unix_nano=times, as_double=st.floats(), attributes=attributes)
metrics = st.builds(Metric, name=texts, gauge=st.builds(Gauge, data_points=st.lists(points, max_size=3)))


def some(strategy: st.SearchStrategy[Message]) -> st.SearchStrategy[list[Message]]:
    return st.lists(strategy, max_size=3)


REQUESTS: dict[Signal, st.SearchStrategy[Message]] = {
    Signal.TRACES: st.builds(ExportTraceServiceRequest, resource_spans=some(st.builds(
        ResourceSpans, resource=resources, schema_url=texts, scope_spans=some(st.builds(
            ScopeSpans, scope=scopes, schema_url=texts, spans=some(spans)))))),
    Signal.LOGS: st.builds(ExportLogsServiceRequest, resource_logs=some(st.builds(
        ResourceLogs, resource=resources, schema_url=texts, scope_logs=some(st.builds(
            ScopeLogs, scope=scopes, schema_url=texts, log_records=some(logs)))))),
    Signal.METRICS: st.builds(ExportMetricsServiceRequest, resource_metrics=some(st.builds(
        ResourceMetrics, resource=resources, schema_url=texts, scope_metrics=some(st.builds(
            ScopeMetrics, scope=scopes, schema_url=texts, metrics=some(metrics)))))),
}  # fmt: skip
serialized = st.sampled_from(list(Signal)).flatmap(
    lambda signal: st.tuples(st.just(signal), REQUESTS[signal].map(lambda request: request.SerializeToString()))
)


@given(serialized)
def test_whatever_protobuf_writes_passes(request: tuple[Signal, bytes]) -> None:
    check(request[0], Encoding.PROTOBUF, request[1])


@given(st.sampled_from(list(Signal)), st.integers(0, 2**40), st.integers(0, 20))
def test_a_real_request_passes(signal: Signal, seed: int, records: int) -> None:
    check(signal, Encoding.PROTOBUF, MAKE[signal](seed, records))


@given(serialized, st.data())
def test_a_request_that_is_cut_off_or_damaged_passes_or_is_refused(
    request: tuple[Signal, bytes], data: st.DataObject
) -> None:
    body = bytearray(request[1])
    if body:
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Malformed, TooLarge):
        check(request[0], Encoding.PROTOBUF, bytes(body[: data.draw(st.integers(0, len(body)))]))


@given(st.sampled_from(list(Signal)), st.sampled_from(list(Encoding)), st.binary(max_size=200))
def test_any_bytes_pass_or_are_refused(signal: Signal, encoding: Encoding, body: bytes) -> None:
    with contextlib.suppress(Malformed, TooLarge):
        check(signal, encoding, body)


@pytest.mark.parametrize("cut", [1, 10, 1_000])
def test_a_request_that_ends_too_early_is_malformed(cut: int) -> None:
    with pytest.raises(Malformed):
        check(Signal.TRACES, Encoding.PROTOBUF, trace_request(1, 5)[:-cut])


def test_fields_of_later_versions_are_hopped_over() -> None:
    unknown = b"\xa2\x06\x03abc\xa8\x06\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\xad\x06abcd\xa9\x06abcdefgh"
    check(Signal.TRACES, Encoding.PROTOBUF, unknown + trace_request(1, 1) + unknown)


@pytest.mark.parametrize(
    "body",
    [b"hello", b"\x0a\x05ab", b"\x08\x01", b"\x0b", b"\xff" * 12, b"\x00\x00", b"\x0a\x02\x12\x05",
     b"\x0a\x03\x12\x02\x12", b"\xa9\x06abcd", b"\xa3\x06\xa4\x06"],
)  # fmt: skip
def test_what_is_no_request_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        check(Signal.TRACES, Encoding.PROTOBUF, body)


@pytest.mark.parametrize("body", [b"[]", b"{", b"1", b'{"resourceSpans": 1}', b"\xff", b"[" * 100_000])
def test_what_is_no_json_request_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        check(Signal.TRACES, Encoding.JSON, body)


@pytest.mark.parametrize("name", ["resourceSpans", "resource_spans"])
def test_a_json_request_passes_in_each_spelling(name: str) -> None:
    check(Signal.TRACES, Encoding.JSON, orjson.dumps({name: [{"scopeSpans": []}], "later": 1}))


def test_too_many_records_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "FIELDS_MAX", 10)
    monkeypatch.setattr(framing, "JSON_VALUES_MAX", 10)
    with pytest.raises(TooLarge):
        check(Signal.TRACES, Encoding.PROTOBUF, trace_request(1, 20))
    with pytest.raises(TooLarge):
        check(Signal.TRACES, Encoding.PROTOBUF, b"\x0a\x00" * 11)
    with pytest.raises(TooLarge):
        check(Signal.TRACES, Encoding.JSON, orjson.dumps({"resourceSpans": [{}] * 20}))


def test_the_walk_takes_no_memory_however_many_groups_there_are() -> None:
    body = b"\x0a\x04\x12\x02\x12\x00" * 10_000
    tracemalloc.start()
    try:
        check(Signal.LOGS, Encoding.PROTOBUF, body)
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()


def test_an_empty_body_is_a_valid_request() -> None:
    for signal in Signal:
        check(signal, Encoding.PROTOBUF, b"")
