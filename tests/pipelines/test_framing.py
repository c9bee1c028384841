"""The look at the door: every real request passes, and nothing but refusals leaves it."""

import contextlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.payload import log_request, metric_request, trace_request
from core.errors import Malformed, TooLarge
from core.telemetry import Encoding, Signal
from pipelines.receive import framing
from pipelines.receive.framing import check

MAKE = {Signal.TRACES: trace_request, Signal.LOGS: log_request, Signal.METRICS: metric_request}


@given(st.sampled_from(list(Signal)), st.integers(0, 2**40), st.integers(0, 20))
def test_a_real_request_passes(signal: Signal, seed: int, records: int) -> None:
    check(signal, Encoding.PROTOBUF, MAKE[signal](seed, records))


@given(st.sampled_from(list(Signal)), st.sampled_from(list(Encoding)), st.binary(max_size=200))
def test_any_bytes_pass_or_are_refused(signal: Signal, encoding: Encoding, body: bytes) -> None:
    with contextlib.suppress(Malformed, TooLarge):
        check(signal, encoding, body)


@pytest.mark.parametrize(
    "body", [b"hello", b"\x0a\x05ab", b"\x08\x01", b"\x0b", b"\xff" * 12, b"\x00\x00", b"\x0a\x02\x12\x05"]
)
def test_what_is_no_request_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        check(Signal.TRACES, Encoding.PROTOBUF, body)


@pytest.mark.parametrize("body", [b"[]", b"{", b"1", b'{"resourceSpans": 1}', b"\xff"])
def test_what_is_no_json_request_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        check(Signal.TRACES, Encoding.JSON, body)


def test_too_many_records_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "FIELDS_MAX", 10)
    monkeypatch.setattr(framing, "JSON_VALUES_MAX", 10)
    with pytest.raises(TooLarge):
        check(Signal.TRACES, Encoding.PROTOBUF, trace_request(1, 20))
    with pytest.raises(TooLarge):
        check(Signal.TRACES, Encoding.JSON, orjson.dumps({"resourceSpans": [{}] * 20}))


def test_an_empty_body_is_a_valid_request() -> None:
    for signal in Signal:
        check(signal, Encoding.PROTOBUF, b"")
