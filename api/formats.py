"""Rows as JSON and as CSV's cells (contract §3.1).

In:  Arrow data.   Out: JSON text, or values. A field's type is written as arrow-rs does, as Logfire's clients expect.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

JSON_COLUMNS = frozenset({
    "attributes", "otel_events", "otel_links", "otel_resource_attributes", "otel_scope_attributes", "exemplars",
    "attributes_json_schema",
})  # fmt: skip
"""Columns of JSON text, which JSON answers show as values."""
ARROW_STREAM = "application/vnd.apache.arrow.stream"
CSV = "text/csv"
JSON = "application/json"
NDJSON = "application/x-ndjson"

_NAMES: Mapping[pa.DataType, str] = {
    pa.null(): "Null", pa.bool_(): "Boolean",
    pa.int8(): "Int8", pa.int16(): "Int16", pa.int32(): "Int32", pa.int64(): "Int64",
    pa.uint8(): "UInt8", pa.uint16(): "UInt16", pa.uint32(): "UInt32", pa.uint64(): "UInt64",
    pa.float16(): "Float16", pa.float32(): "Float32", pa.float64(): "Float64",
    pa.string(): "Utf8", pa.large_string(): "LargeUtf8", pa.binary(): "Binary", pa.large_binary(): "LargeBinary",
    pa.date32(): "Date32", pa.date64(): "Date64",
    pa.month_day_nano_interval(): "Interval(MonthDayNano)",
}  # fmt: skip
_UNITS = {"s": "Second", "ms": "Millisecond", "us": "Microsecond", "ns": "Nanosecond"}


def data_type(kind: pa.DataType) -> Any:
    """An Arrow type as arrow-rs writes it to JSON: a name, or an object for one with parameters."""
    if pa.types.is_timestamp(kind):
        return {"Timestamp": [_UNITS[kind.unit], kind.tz]}
    if pa.types.is_duration(kind):
        return {"Duration": _UNITS[kind.unit]}
    if pa.types.is_time(kind):
        return {f"Time{kind.bit_width}": _UNITS[kind.unit]}
    if pa.types.is_decimal(kind):
        return {f"Decimal{kind.bit_width}": [kind.precision, kind.scale]}
    if pa.types.is_list(kind):
        return {"List": _field(kind.value_field)}
    if pa.types.is_struct(kind):
        return {"Struct": [_field(kind.field(index)) for index in range(kind.num_fields)]}
    return _NAMES.get(kind, str(kind))


def schema_json(schema: pa.Schema) -> dict[str, Any]:
    """A schema as arrow-rs writes it."""
    return {"fields": [_field(field) for field in schema], "metadata": {}}


def rows_json(table: pa.Table, *, schema: bool = True, extra: Mapping[str, object]) -> bytes:
    """`{"schema": …, "data": [row, …]}`: every row has every column."""
    about = {"schema": schema_json(table.schema)} if schema else {}
    return dumps({**about, "data": batch_rows(table), **extra})


def old_rows_json(table: pa.Table) -> bytes:
    """`{"columns": …, "rows": [row, …]}`, as the older endpoint answers with `json_rows`."""
    return dumps({"columns": _columns(table), "rows": batch_rows(table)})


def columns_json(table: pa.Table) -> bytes:
    """`{"columns": [{…, "values": […]}, …]}`, as the older endpoint answers."""
    rows = batch_rows(table)
    names = table.schema.names
    columns = [
        {**about, "values": [row[name] for row in rows]} for about, name in zip(_columns(table), names, strict=True)
    ]
    return dumps({"columns": columns})


def batch_rows(rows: pa.Table | pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows as JSON shows them."""
    names = rows.schema.names
    columns = [_values(field, column) for field, column in zip(rows.schema, rows.columns, strict=True)]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def cells(batch: pa.RecordBatch) -> Iterator[list[object]]:
    """Rows as CSV shows them."""
    columns = [_timestamps(column) or column.to_pylist() for column in batch.columns]
    for row in zip(*columns, strict=True):
        yield [_cell(value) for value in row]


def dumps(value: object) -> bytes:
    """JSON text of what Arrow's values are in Python."""
    return orjson.dumps(value, default=_default, option=orjson.OPT_UTC_Z)


def _field(field: pa.Field) -> dict[str, Any]:
    return {
        "name": field.name, "data_type": data_type(field.type), "nullable": field.nullable,
        "dict_id": 0, "dict_is_ordered": False, "metadata": {},
    }  # fmt: skip


def _columns(table: pa.Table) -> list[dict[str, Any]]:
    return [{"name": f.name, "nullable": f.nullable, "datatype": data_type(f.type)} for f in table.schema]


def _values(field: pa.Field, column: pa.ChunkedArray | pa.Array) -> list[Any]:
    values = _timestamps(column) or column.to_pylist()
    if field.name in JSON_COLUMNS and field.type == pa.string():
        return [None if value is None else _parsed(value) for value in values]
    return values


def _timestamps(column: pa.ChunkedArray | pa.Array) -> list[Any] | None:
    """A column of timestamps as ISO 8601 to the microsecond; None when it is none."""
    if not pa.types.is_timestamp(column.type):
        return None
    zone, end = ("UTC", "Z") if column.type.tz else (None, "")
    utc = column.cast(pa.timestamp("us", zone), safe=False)  # pyright: ignore[reportArgumentType]  # the stubs want a literal
    return pc.strftime(utc, f"%Y-%m-%dT%H:%M:%S{end}").to_pylist()  # pyright: ignore[reportCallIssue, reportArgumentType]  # the stubs know no chunked arrays


def _parsed(text: str) -> object:
    """The value a JSON text stands for, as it stands; other text stays text."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return orjson.Fragment(text)


def _cell(value: Any) -> object:
    """A value as CSV shows it."""
    if isinstance(value, (bool, list, dict)):
        return dumps(value).decode()
    return value.hex() if isinstance(value, bytes) else value


_SPELLINGS: Mapping[type, Callable[[Any], object]] = {bytes: bytes.hex}


def _default(value: object) -> object:
    """What JSON has no form for: bytes as hex digits, anything else as its text."""
    return _SPELLINGS.get(type(value), str)(value)
