"""Rows as an HTTP body: JSON by row or by column, CSV, or an Arrow stream (contract §3.1).

In:  an Arrow table.   Out: bytes. A field's type is written as arrow-rs does, which Logfire's clients expect.
"""

import csv
import io
from collections.abc import Callable, Mapping
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


def rows_json(table: pa.Table, extra: Mapping[str, object]) -> bytes:
    """`{"schema": …, "data": [row, …]}`: every row has every column."""
    schema = {"fields": [_field(field) for field in table.schema], "metadata": {}}
    return _dumps({"schema": schema, "data": _rows(table), **extra})


def old_rows_json(table: pa.Table) -> bytes:
    """`{"columns": …, "rows": [row, …]}`, as the older endpoint answers with `json_rows`."""
    return _dumps({"columns": _columns(table), "rows": _rows(table)})


def columns_json(table: pa.Table) -> bytes:
    """`{"columns": [{…, "values": […]}, …]}`, as the older endpoint answers."""
    rows = _rows(table)
    names = table.schema.names
    columns = [
        {**about, "values": [row[name] for row in rows]} for about, name in zip(_columns(table), names, strict=True)
    ]
    return _dumps({"columns": columns})


def csv_text(table: pa.Table) -> bytes:
    """A header and the rows; null is empty, lists and structs are JSON text."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(table.schema.names)
    columns = [_timestamps(column) or column.to_pylist() for column in table.columns]
    writer.writerows([_cell(value) for value in row] for row in zip(*columns, strict=True))
    return sink.getvalue().encode()


def arrow_stream(table: pa.Table) -> bytes:
    """An Arrow IPC stream; without rows it still has its schema."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def _field(field: pa.Field) -> dict[str, Any]:
    return {
        "name": field.name, "data_type": data_type(field.type), "nullable": field.nullable,
        "dict_id": 0, "dict_is_ordered": False, "metadata": {},
    }  # fmt: skip


def _columns(table: pa.Table) -> list[dict[str, Any]]:
    return [{"name": f.name, "nullable": f.nullable, "datatype": data_type(f.type)} for f in table.schema]


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    names = table.schema.names
    columns = [_values(field, column) for field, column in zip(table.schema, table.columns, strict=True)]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(field: pa.Field, column: pa.ChunkedArray) -> list[Any]:
    values = _timestamps(column) or column.to_pylist()
    if field.name in JSON_COLUMNS and field.type == pa.string():
        return [None if value is None else _parsed(value) for value in values]
    return values


def _timestamps(column: pa.ChunkedArray) -> list[Any] | None:
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
        return _dumps(value).decode()
    return value.hex() if isinstance(value, bytes) else value


def _dumps(value: object) -> bytes:
    return orjson.dumps(value, default=_default, option=orjson.OPT_UTC_Z)


_SPELLINGS: Mapping[type, Callable[[Any], object]] = {bytes: bytes.hex}


def _default(value: object) -> object:
    """What JSON has no form for: bytes as hex digits, anything else as its text."""
    return _SPELLINGS.get(type(value), str)(value)
