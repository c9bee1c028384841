"""The look at the door: is this body framed like an OTLP request? (system.md D1)

In:  a decompressed body.   Out: nothing, or Malformed so that the sender hears of it at once.
A walk down to the records, which it hops over by their length; what is wrong inside a record only the full decode
can see, and that goes to dead_letters. The three signals nest alike: request → resource → scope → record.
"""

from typing import Any

import orjson

from core.errors import Malformed, TooLarge
from core.telemetry import Encoding, Signal

FIELDS_MAX = 1_000_000
"""Protobuf fields met on the walk, so records of a request; more is refused with TooLarge (senders then halve it)."""
JSON_VALUES_MAX = 2_000_000
"""Commas and opening brackets of a JSON body, a bound on its values and so on the memory that parsing takes
(about 100 bytes each); more is refused with TooLarge."""

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5
VARINT_BYTES_MAX = 10
LENGTH_BYTES_MAX = 5
TAG_BYTES_MAX = 5

_Level = dict[int, "_Level | None"]
"""The fields known at one level of nesting, all of them length-delimited; None is hopped over."""
_SCOPE: _Level = {1: None, 2: None, 3: None}  # scope, records, schema_url
_RESOURCE: _Level = {1: None, 2: _SCOPE, 3: None}  # resource, scopes, schema_url
_REQUEST: _Level = {1: _RESOURCE}

_JSON_LISTS = {
    Signal.TRACES: ("resourceSpans", "resource_spans"),
    Signal.LOGS: ("resourceLogs", "resource_logs"),
    Signal.METRICS: ("resourceMetrics", "resource_metrics"),
}


def check(signal: Signal, encoding: Encoding, body: bytes) -> None:
    """Raise Malformed when the body is not framed as the signal's Export…ServiceRequest, TooLarge when it holds too
    many records. A body without any bytes is a valid empty request.
    """
    if not body:
        return
    if encoding is Encoding.JSON:
        _check_json(signal, body)
        return
    try:
        _walk(body, 0, len(body), _REQUEST, 0)
    except IndexError:
        raise Malformed("The protobuf body ends in the middle of a field") from None


def _walk(body: bytes, at: int, end: int, known: _Level, fields: int) -> int:
    """Walk the message in [at, end); `fields` were met before, those met by now come back.

    An IndexError means that the body ends too early.
    """
    while at < end:
        fields += 1
        if fields > FIELDS_MAX:
            raise TooLarge(f"The request holds more than {FIELDS_MAX} records; send it in parts")
        tag, content = body[at], at + 1
        if tag >= 0x80:
            tag, content = _varint(body, at, TAG_BYTES_MAX)
        if tag & 7 == DELIMITED:
            length, content = _varint(body, content, LENGTH_BYTES_MAX)
            stop = content + length
        else:
            stop = _behind_scalar(body, tag, content, known)
        if stop > end:
            raise Malformed(f"The protobuf field at byte {at} is longer than the message around it")
        if tag <= 7:
            raise Malformed(f"The protobuf field at byte {at} has the number 0")
        inner = known.get(tag >> 3)
        if inner is not None:
            fields = _walk(body, content, stop, inner, fields)
        at = stop
    return fields


def _varint(body: bytes, at: int, bytes_max: int) -> tuple[int, int]:
    """The unsigned varint at a place, and the place behind it."""
    value = shift = 0
    for place in range(at, at + bytes_max):
        byte = body[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
        shift += 7
    raise Malformed(f"The protobuf varint at byte {at} is longer than {bytes_max} bytes")


def _behind_scalar(body: bytes, tag: int, content: int, known: _Level) -> int:
    """The place behind a field that is not length-delimited; only fields unknown to us may be like that."""
    wire_type = tag & 7
    if tag >> 3 in known:
        raise Malformed(f"The protobuf field before byte {content} should be a message but has wire type {wire_type}")
    if wire_type == VARINT:
        return _varint(body, content, VARINT_BYTES_MAX)[1]
    if wire_type == FIXED64:
        return content + 8
    if wire_type == FIXED32:
        return content + 4
    raise Malformed(f"The protobuf field before byte {content} has the wire type {wire_type}, which OTLP does not use")


def _check_json(signal: Signal, body: bytes) -> None:
    if body.count(b",") + body.count(b"[") + body.count(b"{") > JSON_VALUES_MAX:
        raise TooLarge(f"The request holds more than {JSON_VALUES_MAX} JSON values; send it in parts")
    try:
        request: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"The body is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise Malformed("The JSON body should be an object")
    for name in _JSON_LISTS[signal]:
        if not isinstance(request.get(name, []), list):
            raise Malformed(f"{name!r} should be a list")
