"""OTLP/JSON as the same messages that protobuf gives, so that both take one way from there.

In:  JSON text.   Out: an Export…ServiceRequest. The format is OTLP's JSON protobuf encoding: ids in hex, 64-bit numbers
as text or digits, enums by number (names are read too), lowerCamelCase (snake_case is read too); what is not known is
skipped. The protobuf library's own JSON reader takes ids for base64 and is twenty times slower.
"""

import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from pipelines.receive.attributes import Undecodable
from pipelines.receive.rows import Fault

HEX_FIELDS = frozenset({"trace_id", "span_id", "parent_span_id"})
"""Bytes that OTLP/JSON writes in hex; all others are base64."""
RECORDS = frozenset({"Span", "LogRecord", "Metric"})
"""Messages of which a bad one spares its neighbours."""
_INTEGERS = frozenset({
    FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64,
})  # fmt: skip
_FLOATS = frozenset({FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT})

_Read = Callable[[Any], Any]


def parse(text: bytes, request: Message) -> list[Fault]:
    """Fill a request from JSON text, without the records at fault, which are returned. Raises Undecodable."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Undecodable(f"The body is not JSON: {error}") from error
    reader = _Reader()
    try:
        reader.fill(request, document)
    except RecursionError:
        raise Undecodable("The body is nested too deeply") from None
    return reader.faults


class _Reader:
    """Fills messages, and counts the records it meets."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._records = 0

    def fill(self, message: Message, document: object) -> None:
        """Fill a message from parsed JSON. Raises Undecodable, naming the field at fault."""
        if not isinstance(document, dict):
            raise Undecodable(f"{message.DESCRIPTOR.name} should be an object")
        fields = _fields(message.DESCRIPTOR)
        for name, value in document.items():
            field = fields.get(name)
            if field is None or value is None:
                continue
            try:
                self._set(message, field, value)
            except (TypeError, ValueError, OverflowError) as error:
                raise Undecodable(f"{name!r} cannot be {value!r:.100}: {error}") from error

    def _set(self, message: Message, field: FieldDescriptor, value: Any) -> None:
        if field.is_repeated:
            if not isinstance(value, list):
                raise TypeError("it should be a list")
            self._extend(getattr(message, field.name), field, value)
        elif field.message_type is not None:
            target = getattr(message, field.name)
            target.SetInParent()
            self.fill(target, value)
        else:
            setattr(message, field.name, _reader(field)(value))

    def _extend(self, target: Any, field: FieldDescriptor, items: list[Any]) -> None:
        if field.message_type is None:
            target.extend(map(_reader(field), items))
        elif field.message_type.name in RECORDS:
            for item in items:
                self._add_record(target, item)
        else:
            for item in items:
                self.fill(target.add(), item)

    def _add_record(self, target: Any, item: object) -> None:
        index, self._records = self._records, self._records + 1
        record = target.add()
        try:
            self.fill(record, item)
        except Undecodable as error:
            del target[-1]
            self.faults.append(Fault(str(error), orjson.dumps(item), index))


@cache
def _fields(descriptor: Descriptor) -> Mapping[str, FieldDescriptor]:
    """The fields of a message by both of their names."""
    return {name: field for field in descriptor.fields for name in (field.name, field.json_name)}


@cache
def _reader(field: FieldDescriptor) -> _Read:
    """What turns a JSON value into that of a field."""
    if field.enum_type is not None:
        numbers = {value.name: value.number for value in field.enum_type.values}
        return lambda value: numbers[value] if value in numbers else int(value)
    if field.cpp_type in _INTEGERS:
        return _integer
    if field.cpp_type in _FLOATS:
        return float
    if field.type == FieldDescriptor.TYPE_BYTES:
        return bytes.fromhex if field.name in HEX_FIELDS else _base64
    return _same


def _integer(value: Any) -> int:
    """A whole number as digits, as text, or as a float without a fraction."""
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise TypeError("it should be a whole number")
    return int(value)


def _base64(value: str) -> bytes:
    """Base64 in the standard or the URL alphabet, with or without padding."""
    plain = re.sub(r"\s|=", "", value).replace("-", "+").replace("_", "/")
    return b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def _same(value: Any) -> Any:
    return value
