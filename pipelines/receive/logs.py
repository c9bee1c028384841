"""Logs: each becomes a row of `records`, with an id made here and the span it was written in as its parent."""

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from core.clock import NS_PER_US
from core.schema import RECORDS
from pipelines.receive.attributes import attributes_json, promote, text, texts, value_of, values_of
from pipelines.receive.rows import Place, Row, Rows, level_of, moment, span_id, trace_id
from pipelines.receive.spans import LEVEL_INFO, exception_columns

UNNAMED = "log"
NO_TRACE = bytes(16)
LEVELS = {
    "trace": 1, "debug": 5, "verbose": 5, "info": 9, "information": 9, "notice": 10, "warn": 13, "warning": 13,
    "error": 17, "err": 17, "fatal": 21, "critical": 21, "crit": 21, "alert": 21, "emergency": 21, "panic": 21,
}  # fmt: skip
"""Severity numbers of the severity texts that logging libraries use, for records that come without a number."""


def add_log(rows: Rows, place: Place, origin: Row, record: LogRecord) -> None:
    """The row of a log record. Raises Undecodable."""
    values = values_of(record.attributes)
    body = text(value_of(record.body)) if record.HasField("body") else None
    time = moment("The log's time", record.time_unix_nano)
    observed = moment("The log's observed time", record.observed_time_unix_nano)
    start = place.began(time or observed)
    name = record.event_name or body or UNNAMED
    level = record.severity_number if 1 <= record.severity_number <= 24 else None
    traced = record.trace_id and record.trace_id != NO_TRACE
    row = place.row(origin)
    row |= {
        "start_timestamp": start // NS_PER_US, "start_unix_nano": start,
        "end_timestamp": start // NS_PER_US, "end_unix_nano": start,
        "trace_id": trace_id(record.trace_id) if traced else "",
        "parent_span_id": span_id("span id", record.span_id),
        "span_id": place.make_id(),
        "kind": "log",
        "level": level_of(values, level or LEVELS.get(record.severity_text.lower(), LEVEL_INFO)),
        "span_name": name,
        "message": text(values.get("logfire.msg")) or body or name,
        "is_exception": False,
        "tags": texts(values.get("logfire.tags")) or [],
        "attributes": attributes_json(values),
        "attributes_json_schema": text(values.get("logfire.json_schema")),
        "log_body": body,
    }  # fmt: skip
    row |= promote(values)
    if "exception.type" in values or "exception.message" in values:
        row |= exception_columns(values)
    rows.add(RECORDS.name, row)
