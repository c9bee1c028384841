"""Attributes: OTLP's AnyValue as JSON, and the columns that are promoted from attributes.

In:  KeyValue messages.   Out: plain values, JSON text, column values. Types and nesting are kept; what JSON cannot
spell becomes a string: NaN and the infinities by name, bytes as base64. Integers of 64 bits stay exact.
"""

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from math import isfinite, isnan

import orjson
import pyarrow as pa
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from core.schema import PROMOTED, TEXTS
from core.values import real

DEPTH_MAX = 64
"""Lists and maps within one another; a record that nests deeper goes to dead_letters."""
JSON_SCHEMA = "logfire.json_schema"
ENCODED = ("logfire.metrics", "logfire.scrubbed")
"""Attributes that always hold JSON text."""
OWN_COLUMNS = frozenset({
    "logfire.msg", "logfire.level_num", "logfire.tags", "logfire.span_type", JSON_SCHEMA, "logfire.pending_parent_id",
})  # fmt: skip
"""Attributes that became columns of their own and leave `attributes`."""
_ENCODED_TYPES = frozenset({"object", "array", "null"})

Values = Mapping[str, object]


class Undecodable(Exception):
    """A record breaks the format; its message is the reason in dead_letters."""


def values_of(pairs: Iterable[KeyValue]) -> dict[str, object]:
    """The attributes as plain values; of a key that comes twice the last one counts."""
    return {pair.key: value_of(pair.value) for pair in pairs}


def value_of(any_value: AnyValue, depth: int = 0) -> object:
    """A plain value that JSON can spell."""
    if depth > DEPTH_MAX:
        raise Undecodable(f"An attribute is nested deeper than {DEPTH_MAX}")
    match any_value.WhichOneof("value"):
        case "string_value":
            return any_value.string_value
        case "bool_value":
            return any_value.bool_value
        case "int_value":
            return any_value.int_value
        case "double_value":
            return spelled(any_value.double_value)
        case "array_value":
            return [value_of(item, depth + 1) for item in any_value.array_value.values]
        case "kvlist_value":
            return {pair.key: value_of(pair.value, depth + 1) for pair in any_value.kvlist_value.values}
        case "bytes_value":
            return b64encode(any_value.bytes_value).decode()
        case _:
            return None


def spelled(number: float) -> float | str:
    """A number, or the name of one that JSON has no digits for."""
    if isfinite(number):
        return number
    return "NaN" if isnan(number) else "Infinity" if number > 0 else "-Infinity"


def to_json(value: object) -> str:
    """JSON text of a plain value."""
    return orjson.dumps(value).decode()


def attributes_json(values: Values) -> str:
    """The column `attributes`: without what has a column of its own, and with JSON-in-strings as values."""
    encoded = _encoded_names(values.get(JSON_SCHEMA))
    return to_json({
        name: _parsed(value) if name in encoded else value
        for name, value in values.items()
        if name not in OWN_COLUMNS
    })  # fmt: skip


def _encoded_names(schema: object) -> frozenset[str]:
    """The attributes that a `logfire.json_schema` says are JSON in a string."""
    properties: object = None
    if isinstance(schema, str):
        try:
            document = orjson.loads(schema)
        except orjson.JSONDecodeError:
            document = None
        properties = document.get("properties") if isinstance(document, dict) else None
    if not isinstance(properties, dict):
        return frozenset(ENCODED)
    return frozenset(ENCODED) | {
        name
        for name, kind in properties.items()
        if isinstance(kind, dict) and isinstance(kind.get("type"), str) and kind["type"] in _ENCODED_TYPES
    }


def _parsed(value: object) -> object:
    """The value in a JSON text, digit for digit; a string that is no JSON stays one."""
    if not isinstance(value, str):
        return value
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
    return orjson.Fragment(value)


def text(value: object) -> str | None:
    """A value as the text of a column."""
    if value is None or isinstance(value, str):
        return value
    return to_json(value)


def integer(value: object) -> int | None:
    """A whole number, also one that was sent as text or as a float; else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    try:
        number = int(value) if isinstance(value, str) and len(value) < 20 else value
    except ValueError:
        return None
    if isinstance(number, float):
        number = int(number) if number.is_integer() else None
    return number if isinstance(number, int) and -(2**63) <= number < 2**63 else None


def texts(value: object) -> list[str] | None:
    """A list of strings; a string alone is a list of one."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [item if isinstance(item, str) else to_json(item) for item in value]
    return None


_CONVERSIONS: Mapping[pa.DataType, Callable[[object], object]] = {
    pa.string(): text, pa.int64(): integer, pa.float64(): real, TEXTS: texts,
}  # fmt: skip
_PROMOTIONS = tuple((column.name, keys, _CONVERSIONS[column.type]) for keys, column in PROMOTED.items())
_PROMOTED_KEYS = frozenset(key for keys in PROMOTED for key in keys)


def promote(values: Values) -> dict[str, object]:
    """The columns promoted from attributes: of each column's attributes the first that is there and fits."""
    if _PROMOTED_KEYS.isdisjoint(values):
        return {}
    row: dict[str, object] = {}
    for name, keys, convert in _PROMOTIONS:
        for key in keys:
            if key in values and (value := convert(values[key])) is not None:
                row[name] = value
                break
    return row
