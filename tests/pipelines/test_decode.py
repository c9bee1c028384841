"""The decoder: columns as documented, neighbours spared, replays the same, and nothing raises."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from random import Random
from typing import Any

import orjson
import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from benchmarks.payload import log_request, metric_request, trace_request
from core.schema import TABLES
from core.telemetry import Chunk, Encoding, Frame, Signal
from pipelines.receive.decode import decode
from pipelines.receive.rows import SHORT_BYTES_MAX

PROJECT = "00000000-0000-4000-8000-000000000000"
RECEIVED_NS = 1_795_600_000_123_456_789
TRACE, SPAN, PARENT = bytes(range(1, 17)), bytes(range(1, 9)), bytes(range(2, 10))
START_NS = 1_795_500_000_000_001_234


def frame(
    body: bytes, signal: Signal = Signal.TRACES, encoding: Encoding = Encoding.PROTOBUF, position: int = 0
) -> Frame:
    return Frame(position, position + 100 + len(body), PROJECT, signal, encoding, RECEIVED_NS, b"", body)


def rows(chunk: Chunk, table: str = "records") -> list[dict[str, Any]]:
    return chunk.tables[table].to_pylist()


def attribute(key: str, value: object) -> KeyValue:
    made = AnyValue()
    match value:
        case bool():
            made.bool_value = value
        case int():
            made.int_value = value
        case float():
            made.double_value = value
        case bytes():
            made.bytes_value = value
        case str():
            made.string_value = value
        case list():
            made.array_value.SetInParent()
            made.array_value.values.extend(attribute("", item).value for item in value)
        case dict():
            made.kvlist_value.SetInParent()
            made.kvlist_value.values.extend(attribute(name, item) for name, item in value.items())
        case _:
            pass
    return KeyValue(key=key, value=made)


def spans(*given_spans: Span, resource: Mapping[str, object] | None = None) -> bytes:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.extend(attribute(k, v) for k, v in (resource or {"service.name": "web"}).items())
    group.scope_spans.add().spans.extend(given_spans)
    return request.SerializeToString()


def span(attributes: Mapping[str, object] | None = None, **fields: Any) -> Span:
    given_fields: dict[str, Any] = {
        "trace_id": TRACE, "span_id": SPAN, "name": "work", "start_time_unix_nano": START_NS,
        "end_time_unix_nano": START_NS + 1_500_000_000, **fields,
    }  # fmt: skip
    return Span(attributes=[attribute(k, v) for k, v in (attributes or {}).items()], **given_fields)


def one(attributes: Mapping[str, object] | None = None, **fields: Any) -> dict[str, Any]:
    (row,) = rows(decode([frame(spans(span(attributes, **fields)))]))
    return row


def test_a_span_fills_its_columns() -> None:
    row = one({"http.route": "/x", "n": 2**63 - 1}, parent_span_id=PARENT)
    assert (row["trace_id"], row["span_id"], row["parent_span_id"]) == (TRACE.hex(), SPAN.hex(), PARENT.hex())
    assert (row["kind"], row["level"], row["span_name"], row["message"]) == ("span", 9, "work", "work")
    assert (row["start_unix_nano"], row["duration"], row["tags"]) == (START_NS, 1.5, [])
    assert row["start_timestamp"] == datetime.fromtimestamp(START_NS // 1000 / 1e6, UTC)
    assert row["created_at"] == datetime.fromtimestamp(RECEIVED_NS // 1000 / 1e6, UTC)
    assert str(row["day"]) == "2026-11-25"
    assert row["http_route"] == "/x"
    assert json.loads(row["attributes"]) == {"http.route": "/x", "n": 2**63 - 1}
    assert (row["service_name"], row["otel_status_code"]) == ("web", "UNSET")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True), (-(2**63), -(2**63)), (1.0, 1.0), (float("nan"), "NaN"), (float("-inf"), "-Infinity"),
        (b"\x00\xff", "AP8="), ("é\x00🙂", "é\x00🙂"), ([1, "a", [2.5]], [1, "a", [2.5]]),
        ({"a": {"b": [None]}}, {"a": {"b": [None]}}),
        (None, None), ([], []), ({}, {}),
    ],
)  # fmt: skip
def test_attribute_values_keep_type_and_nesting(value: object, expected: object) -> None:
    assert json.loads(one({"v": value})["attributes"]) == {"v": expected}


def test_logfires_attributes_become_columns() -> None:
    schema = '{"type":"object","properties":{"data":{"type":"object"},"plain":{},"none":{"type":"null"}}}'
    row = one({
        "logfire.msg": "hello 1", "logfire.level_num": 13, "logfire.tags": ["a", "b"], "logfire.span_type": "log",
        "logfire.json_schema": schema, "data": '{"k": [1, 18446744073709551616, 1.50]}', "plain": "[1]", "none": "null",
        "logfire.metrics": '{"m": {"total": 1}}', "logfire.msg_template": "hello {n}",
    })  # fmt: skip
    assert (row["message"], row["level"], row["tags"], row["kind"]) == ("hello 1", 13, ["a", "b"], "log")
    assert row["duration"] is None
    assert row["attributes_json_schema"] == schema
    assert '"data":{"k": [1, 18446744073709551616, 1.50]}' in row["attributes"], "digits are kept as sent"
    assert json.loads(row["attributes"]) == {
        "data": {"k": [1, 2**64, 1.5]}, "plain": "[1]", "none": None, "logfire.metrics": {"m": {"total": 1}},
        "logfire.msg_template": "hello {n}",
    }  # fmt: skip


def test_a_pending_span_has_the_real_spans_ids() -> None:
    pending = {"logfire.span_type": "pending_span", "logfire.pending_parent_id": PARENT.hex()}
    root = pending | {"logfire.pending_parent_id": "0" * 16}
    body = spans(
        span(pending, span_id=bytes(8 * [9]), parent_span_id=SPAN),
        span(root, span_id=bytes(8 * [8]), parent_span_id=SPAN),
    )
    chunk = decode([frame(body)])
    assert rows(chunk) == []
    first, second = rows(chunk, "pending_spans")
    assert (first["span_id"], first["parent_span_id"], first["duration"]) == (SPAN.hex(), PARENT.hex(), None)
    assert (second["span_id"], second["parent_span_id"]) == (SPAN.hex(), None)


def test_events_become_rows_but_for_exceptions_which_fill_columns() -> None:
    def event(name: str, **attributes: object) -> Span.Event:
        return Span.Event(
            name=name,
            time_unix_nano=START_NS + 5,
            attributes=[attribute(k.replace("_", "."), v) for k, v in attributes.items()],
        )

    failing = span(status={"code": 2, "message": "E: m"})
    failing.events.extend(
        [
            event("retry", n=1),
            event("exception", exception_type="E", exception_message="m"),
            event("exception", exception_type="F"),
        ]
    )
    row, extra = rows(decode([frame(spans(failing))]))
    assert (row["is_exception"], row["exception_type"], row["exception_message"], row["level"]) == (True, "E", "m", 17)
    assert [item["event_name"] for item in json.loads(row["otel_events"])] == ["retry", "exception", "exception"]
    assert (extra["kind"], extra["span_name"], extra["parent_span_id"]) == ("span_event", "retry", SPAN.hex())
    assert (extra["start_unix_nano"], extra["duration"], len(extra["span_id"])) == (START_NS + 5, None, 16)
    assert json.loads(extra["attributes"]) == {"n": 1}


def test_promoted_columns_take_the_first_attribute_that_fits() -> None:
    row = one({
        "http.status_code": "204", "gen_ai.usage.input_tokens": 7.0,
        "gen_ai.response.finish_reasons": ["stop", "length"],
        "operation.cost": 3, "gen_ai.system": "openai", "user.id": 42, "gen_ai.usage.output_tokens": "many",
    })  # fmt: skip
    assert (row["http_response_status_code"], row["gen_ai_input_tokens"], row["gen_ai_output_tokens"]) == (204, 7, None)
    assert row["gen_ai_response_finish_reasons"] == ["stop", "length"]
    assert (row["cost_reported"], row["cost_computed"], row["gen_ai_provider_name"]) == (3.0, None, "openai")
    assert row["user_id"] == "42"


def test_a_log_without_time_severity_or_trace_is_kept() -> None:
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    records.add(body=AnyValue(string_value="plain"))
    records.add(
        body=attribute("", {"a": 1}).value,
        severity_text="WARNING",
        event_name="named",
        observed_time_unix_nano=START_NS,
    )
    records.add(
        severity_number=21,
        trace_id=TRACE,
        span_id=SPAN,
        time_unix_nano=START_NS,
        attributes=[attribute("exception.type", "E")],
    )
    plain, named, traced = rows(decode([frame(request.SerializeToString(), Signal.LOGS)]))
    assert (plain["trace_id"], plain["parent_span_id"], plain["level"], plain["start_unix_nano"]) == (
        "",
        None,
        9,
        RECEIVED_NS,
    )
    assert (plain["span_name"], plain["message"], plain["log_body"]) == ("plain", "plain", "plain")
    assert plain["service_name"] == "unknown_service"
    assert (named["span_name"], named["message"], named["level"], named["start_unix_nano"]) == (
        "named",
        '{"a":1}',
        13,
        START_NS,
    )
    assert (traced["trace_id"], traced["parent_span_id"], traced["level"]) == (TRACE.hex(), SPAN.hex(), 21)
    assert (traced["is_exception"], traced["exception_type"]) == (True, "E")
    assert len({plain["span_id"], named["span_id"], traced["span_id"]}) == 3


def test_every_kind_of_metric_is_kept() -> None:
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    scope.metrics.add(name="g").gauge.data_points.add(as_double=1.5, time_unix_nano=START_NS)
    counter = scope.metrics.add(name="s", unit="1").sum
    counter.is_monotonic, counter.aggregation_temporality = True, AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
    point = counter.data_points.add(as_int=2**53 + 1, time_unix_nano=START_NS, start_time_unix_nano=START_NS - 1_000)
    point.exemplars.add(as_double=1.0, trace_id=TRACE, span_id=SPAN, time_unix_nano=START_NS)
    explicit = scope.metrics.add(name="h").histogram
    explicit.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    explicit.data_points.add(count=3, sum=4.5, min=0.5, bucket_counts=[1, 2], explicit_bounds=[1.0])
    exponential = scope.metrics.add(name="e").exponential_histogram.data_points.add(count=2, scale=-3, zero_count=1)
    exponential.positive.offset = -4
    exponential.positive.bucket_counts.extend([1, 0])
    summary = scope.metrics.add(name="q").summary.data_points.add(count=9, sum=3.0)
    summary.quantile_values.add(quantile=0.5, value=2.0)
    scope.metrics.add(name="nothing")
    g, s, h, e, q = rows(decode([frame(request.SerializeToString(), Signal.METRICS)]), "metrics")
    assert (g["metric_type"], g["scalar_value"], g["recorded_unix_nano"]) == ("gauge", 1.5, START_NS)
    assert (s["scalar_int_value"], s["aggregation_temporality"], s["is_monotonic"]) == (2**53 + 1, "delta", True)
    assert json.loads(s["exemplars"])[0]["trace_id"] == TRACE.hex()
    assert (h["aggregation_temporality"], h["histogram_count"], h["histogram_sum"]) == ("cumulative", 3, 4.5)
    assert (h["histogram_min"], h["histogram_max"], h["histogram_bucket_counts"]) == (0.5, None, [1, 2])
    assert h["recorded_unix_nano"] == RECEIVED_NS
    assert (e["exp_histogram_scale"], e["exp_histogram_positive_bucket_counts_offset"]) == (-3, -4)
    assert (q["metric_type"], q["summary_quantiles"], q["summary_values"]) == ("summary", [0.5], [2.0])


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"span_id": b"short"}, "5 bytes"), ({"span_id": bytes(8)}, "no span id"), ({"trace_id": b""}, "0 bytes"),
        ({"start_time_unix_nano": 2**64 - 1}, "2262"), ({"attributes": {"deep": [[[[]]]]}}, "nested deeper"),
    ],
)  # fmt: skip
def test_a_bad_record_goes_to_dead_letters_and_spares_its_neighbours(
    fault: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.receive.attributes.DEPTH_MAX", 2)
    bad = span(**fault)
    good = span(span_id=PARENT)
    chunk = decode([frame(spans(good, bad, span(span_id=bytes(8 * [7]))))])
    assert [row["span_id"] for row in rows(chunk)] == [PARENT.hex(), "07" * 8]
    (letter,) = rows(chunk, "dead_letters")
    assert reason in letter["reason"]
    assert (letter["record_index"], letter["service_name"], letter["content"]) == (1, "web", bad.SerializeToString())


def test_a_request_that_cannot_be_parsed_is_buried_whole() -> None:
    for encoding in Encoding:
        chunk = decode([frame(b"\xff\xff nonsense", encoding=encoding), frame(spans(span()), position=1_000)])
        (letter,) = rows(chunk, "dead_letters")
        assert (letter["record_index"], letter["content"], letter["encoding"]) == (
            None,
            b"\xff\xff nonsense",
            encoding.value,
        )
        assert len(rows(chunk)) == 1


def test_a_bad_record_in_json_spares_its_neighbours() -> None:
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [
        {"traceId": TRACE.hex(), "spanId": "xyz"},
        {"traceId": TRACE.hex().upper(), "spanId": SPAN.hex(), "kind": "SPAN_KIND_SERVER"},
    ]}]}]}  # fmt: skip
    chunk = decode([frame(orjson.dumps(body), encoding=Encoding.JSON)])
    assert [row["trace_id"] for row in rows(chunk)] == [TRACE.hex()]
    (letter,) = rows(chunk, "dead_letters")
    assert letter["record_index"] == 0
    assert "spanId" in letter["reason"]


def test_a_long_name_is_cut_at_a_character_and_said_so() -> None:
    row = one({"k": 2**60, "gen_ai.request.model": "m" * 600}, name="é" * 400)
    assert len(row["span_name"].encode()) == SHORT_BYTES_MAX
    assert set(row["span_name"]) == {"é"}
    assert row["message"] == "é" * 400
    attributes = json.loads(row["attributes"])
    assert (attributes["k"], attributes["logfire.truncated"]) == (2**60, ["span_name", "gen_ai_request_model"])


@pytest.mark.parametrize("signal", list(Signal))
def test_records_of_any_age_are_taken_unless_a_setting_bounds_it(signal: Signal) -> None:
    day_ns = 86_400_000_000_000
    body = REQUESTS[signal][0](1, 3, at_ns=RECEIVED_NS - 400 * day_ns)
    table = "metrics" if signal is Signal.METRICS else "records"
    assert len(rows(decode([frame(body, signal)]), table)) == 3
    assert len(rows(decode([frame(body, signal)], age_max_ns=401 * day_ns), table)) == 3
    bounded = decode([frame(body, signal)], age_max_ns=day_ns)
    assert rows(bounded, table) == []
    assert len(rows(bounded, "dead_letters")) == 3
    assert "record_age_max_s" in rows(bounded, "dead_letters")[0]["reason"]


REQUESTS = {
    Signal.TRACES: (trace_request, ExportTraceServiceRequest),
    Signal.LOGS: (log_request, ExportLogsServiceRequest),
    Signal.METRICS: (metric_request, ExportMetricsServiceRequest),
}


def as_otlp_json(message: Any, *, names: bool, snake: bool) -> bytes:
    """OTLP/JSON of a message: protobuf's JSON with ids in hex."""
    document = MessageToDict(message, preserving_proto_field_name=snake, use_integers_for_enums=not names)

    def fix(value: Any) -> Any:
        if isinstance(value, dict):
            ids = {"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"}
            return {k: _hex(v) if k in ids and isinstance(v, str) else fix(v) for k, v in value.items()}
        return [fix(item) for item in value] if isinstance(value, list) else value

    return orjson.dumps(fix(document))


def _hex(text: str) -> str:
    import base64  # noqa: PLC0415  # one use

    return base64.b64decode(text).hex()


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(list(Signal)), st.integers(0, 2**32), st.booleans(), st.booleans())
def test_json_says_the_same_as_protobuf(signal: Signal, seed: int, names: bool, snake: bool) -> None:
    make, kind = REQUESTS[signal]
    body = make(seed, 5)
    message = kind()
    message.ParseFromString(body)
    json_frame = frame(as_otlp_json(message, names=names, snake=snake), signal, Encoding.JSON)
    assert decode([json_frame]).tables == decode([frame(body, signal)]).tables


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(list(Signal)), st.sampled_from(list(Encoding)), st.integers(0, 2**32), st.data())
def test_damaged_bytes_never_raise_and_never_vanish(
    signal: Signal, encoding: Encoding, seed: int, data: st.DataObject
) -> None:
    make, kind = REQUESTS[signal]
    message = kind()
    message.ParseFromString(make(seed, 2))
    body = bytearray(
        message.SerializeToString()
        if encoding is Encoding.PROTOBUF
        else as_otlp_json(message, names=False, snake=False)
    )
    random = Random(data.draw(st.integers(0, 2**32)))
    for _ in range(data.draw(st.integers(1, 8))):
        body[random.randrange(len(body))] = random.randrange(256)
    chunk = decode([frame(bytes(body), signal, encoding)])
    for table in TABLES:
        assert chunk.tables[table.name].schema == table.chunk_schema
        chunk.tables[table.name].validate(full=True)
    for row in rows(chunk):
        json.loads(row["attributes"])


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.sampled_from(list(Signal)), st.integers(0, 99)), min_size=1, max_size=4))
def test_a_replay_makes_the_same_rows_however_frames_are_grouped(parts: list[tuple[Signal, int]]) -> None:
    frames, position = list[Frame](), 0
    for signal, seed in parts:
        frames.append(frame(REQUESTS[signal][0](seed, 3), signal, position=position))
        position = frames[-1].end
    whole = decode(frames)
    assert (whole.start, whole.end) == (0, position)
    assert decode(frames).tables == whole.tables
    alone = [decode([item]) for item in frames]
    for table in TABLES:
        assert [row for chunk in alone for row in rows(chunk, table.name)] == rows(whole, table.name)


def test_rows_that_fit_no_column_bury_their_frame_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.receive import decode as decoder  # noqa: PLC0415  # to break it

    real = decoder.add_span

    def broken(rows_: Any, place: Any, origin: Any, span: Any) -> None:
        real(rows_, place, origin, span)
        if span.name == "poison":
            rows_.tables["records"][-1]["level"] = 2**40

    monkeypatch.setattr(decoder, "add_span", broken)
    chunk = decode([frame(spans(span(name="poison"))), frame(spans(span(name="fine")), position=1_000)])
    assert [row["span_name"] for row in rows(chunk)] == ["fine"]
    assert [row["log_position"] for row in rows(chunk, "dead_letters")] == [0]
