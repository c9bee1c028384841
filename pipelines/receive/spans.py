"""Spans: each becomes a row of `records`, or of `pending_spans`; their events become rows too.

Sources of the columns: Logfire's attributes and the rules for pending spans as its SDK sends them; for any other
sender OpenTelemetry's fields.
"""

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from core.clock import NS_PER_S, NS_PER_US, at
from core.schema import PENDING_SPANS, RECORDS
from pipelines.receive.attributes import Undecodable, Values, attributes_json, promote, text, texts, to_json, values_of
from pipelines.receive.rows import Place, Row, Rows, level_of, moment, span_id, trace_id

LEVEL_INFO = 9
LEVEL_ERROR = 17
KINDS = frozenset({"span", "log", "pending_span", "annotation"})
NO_PARENT = "0" * 16
_STATUS = {Status.STATUS_CODE_OK: "OK", Status.STATUS_CODE_ERROR: "ERROR"}


def add_span(rows: Rows, place: Place, origin: Row, span: Span) -> None:
    """The rows of a span. Raises Undecodable before any was added."""
    values = values_of(span.attributes)
    events = [(event.name, event.time_unix_nano, values_of(event.attributes)) for event in span.events]
    for _, unix_nano, _ in events:
        moment("An event's time", unix_nano)
    row = _span_row(place, origin, span, values)
    row["otel_events"] = _events_json(events)
    if row["kind"] == "pending_span":
        _restore_ids(row, values)
    for name, _, event in events:
        if name == "exception":
            row |= exception_columns(event)
            break
    rows.add(PENDING_SPANS.name if row["kind"] == "pending_span" else RECORDS.name, row)
    for name, unix_nano, event in events:
        if name != "exception":
            rows.add(RECORDS.name, _event_row(place, origin, row, (name, unix_nano, event)))


def exception_columns(values: Values) -> Row:
    """The columns of an exception, from the attributes that OpenTelemetry names `exception.…`."""
    return {
        "is_exception": True,
        "exception_type": text(values.get("exception.type")),
        "exception_message": text(values.get("exception.message")),
        "exception_stacktrace": text(values.get("exception.stacktrace")),
    }


def _span_row(place: Place, origin: Row, span: Span, values: Values) -> Row:
    own_id = span_id("span id", span.span_id)
    if own_id is None:
        raise Undecodable("The span has no span id")
    start = place.began(moment("The span's start", span.start_time_unix_nano))
    end = moment("The span's end", span.end_time_unix_nano) or start
    kind = values.get("logfire.span_type")
    kind = kind if isinstance(kind, str) and kind in KINDS else "span"
    status = span.status.code
    row = place.row(origin)
    row |= {
        "start_timestamp": start // NS_PER_US, "start_unix_nano": start,
        "end_timestamp": end // NS_PER_US, "end_unix_nano": end,
        "duration": (end - start) / NS_PER_S if kind in {"span", "annotation"} else None,
        "trace_id": trace_id(span.trace_id),
        "span_id": own_id,
        "parent_span_id": span_id("parent span id", span.parent_span_id),
        "kind": kind,
        "level": level_of(values, LEVEL_ERROR if status == Status.STATUS_CODE_ERROR else LEVEL_INFO),
        "span_name": span.name,
        "message": text(values.get("logfire.msg")) or span.name,
        "is_exception": False,
        "tags": texts(values.get("logfire.tags")) or [],
        "attributes": attributes_json(values),
        "attributes_json_schema": text(values.get("logfire.json_schema")),
        "otel_links": _links_json(span) if span.links else "[]",
        "otel_status_code": _STATUS.get(status, "UNSET"),
        "otel_status_message": span.status.message or None,
    }  # fmt: skip
    return row | promote(values)


def _restore_ids(row: Row, values: Values) -> None:
    """A pending span carries the real span's id as its parent, and the real parent in an attribute."""
    if row["parent_span_id"] is None:
        raise Undecodable("The pending span does not name its span")
    parent = values.get("logfire.pending_parent_id")
    row["span_id"] = row["parent_span_id"]
    row["parent_span_id"] = parent if isinstance(parent, str) and parent not in {"", NO_PARENT} else None


def _event_row(place: Place, origin: Row, span: Row, event: tuple[str, int, Values]) -> Row:
    name, unix_nano, values = event
    start = unix_nano or int(str(span["start_unix_nano"]))
    row = place.row(origin)
    row |= {
        "start_timestamp": start // NS_PER_US, "start_unix_nano": start,
        "end_timestamp": start // NS_PER_US, "end_unix_nano": start,
        "trace_id": span["trace_id"],
        "span_id": place.make_id(),
        "parent_span_id": span["span_id"],
        "kind": "span_event",
        "level": level_of(values, LEVEL_INFO),
        "span_name": name,
        "message": text(values.get("logfire.msg")) or name,
        "is_exception": False,
        "tags": texts(values.get("logfire.tags")) or [],
        "attributes": attributes_json(values),
        "attributes_json_schema": text(values.get("logfire.json_schema")),
    }  # fmt: skip
    return row | promote(values)


def _events_json(events: list[tuple[str, int, dict[str, object]]]) -> str:
    return to_json([
        {"event_name": name, "event_timestamp": at(unix_nano).isoformat().replace("+00:00", "Z"), "attributes": values}
        for name, unix_nano, values in events
    ])  # fmt: skip


def _links_json(span: Span) -> str:
    return to_json([
        {
            "trace_id": link.trace_id.hex(), "span_id": link.span_id.hex(), "trace_state": link.trace_state,
            "attributes": values_of(link.attributes),
        }
        for link in span.links
    ])  # fmt: skip
