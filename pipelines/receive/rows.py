"""Rows on their way into columns, and what all kinds of row have in common.

In:  dictionaries of column values.   Out: record batches in the tables' schemas. Short texts are cut to a limit, so
that one careless sender cannot fill statistics and dictionaries; what was cut is named in `logfire.truncated`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import pyarrow as pa
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from core.clock import NS_PER_US, at
from core.ids import row_span_id
from core.schema import DEAD_LETTERS, TABLES, Table
from core.telemetry import Frame
from pipelines.receive.attributes import Undecodable, Values, integer, text, to_json, values_of

SHORT_BYTES_MAX = 512
"""UTF-8 bytes of a short text column (names, versions, models, ids); longer ones are cut at a whole character."""
LONG_COLUMNS = frozenset({
    "message", "exception_message", "exception_stacktrace", "attributes", "attributes_json_schema", "otel_events",
    "otel_links", "otel_status_message", "otel_scope_attributes", "otel_resource_attributes", "log_body", "url_path",
    "url_query", "url_full", "exemplars", "metric_description",
})  # fmt: skip
"""Text columns that are kept whole."""
TRUNCATED = "logfire.truncated"
UNKNOWN_SERVICE = "unknown_service"
NANO_MAX = 2**63 - 1
"""Latest time that can be kept: the year 2262."""
TRACE_ID_BYTES = 16
SPAN_ID_BYTES = 8
NO_SPAN = bytes(SPAN_ID_BYTES)

Row = dict[str, object]

_SHORT = {
    table.name: tuple(f.name for f in table.schema if f.type == pa.string() and f.name not in LONG_COLUMNS)
    for table in TABLES
}
_ENVIRONMENTS = ("deployment.environment.name", "deployment.environment")


@dataclass(frozen=True, slots=True)
class Fault:
    """What could not be decoded, and why."""

    reason: str
    content: bytes
    """The record or the whole request, as it was received."""
    index: int | None = None
    """The record's number in the request; None for the whole request."""
    service: str | None = None


@dataclass(slots=True)
class Rows:
    """The rows of a portion, table by table."""

    tables: dict[str, list[Row]] = field(default_factory=lambda: {table.name: [] for table in TABLES})

    def add(self, table: str, row: Row) -> None:
        """One more row."""
        cut = [name for name in _SHORT[table] if _is_long(row.get(name))]
        if cut:
            for name in cut:
                row[name] = _short(str(row[name]))
            if "attributes" in row:
                row["attributes"] = _with_truncated(str(row["attributes"]), cut)
        self.tables[table].append(row)

    def bury(self, place: "Place", fault: Fault) -> None:
        """Keep what could not be decoded."""
        row = place.row({"service_name": fault.service})
        row |= {
            "signal": place.frame.signal.value,
            "encoding": place.frame.encoding.value,
            "reason": fault.reason,
            "log_position": place.frame.position,
            "record_index": fault.index,
            "content": fault.content,
        }
        self.add(DEAD_LETTERS.name, row)

    def mark(self) -> tuple[int, ...]:
        """Where the rows end now, for `rollback`."""
        return tuple(map(len, self.tables.values()))

    def rollback(self, mark: tuple[int, ...]) -> None:
        """Drop the rows added since a mark."""
        for made, length in zip(self.tables.values(), mark, strict=True):
            del made[length:]

    def batches(self) -> dict[str, pa.RecordBatch]:
        """A batch of every table, in its `chunk_schema`."""
        return {table.name: _batch(table, self.tables[table.name]) for table in TABLES}


@dataclass(slots=True)
class Place:
    """Where a record stands: its frame, and what its row has from it."""

    frame: Frame
    created_at: int
    """Time of receipt in microseconds since the Unix epoch."""
    day: date
    oldest_ns: int = 0
    """The earliest time a record may have."""
    made: int = 0
    """Rows of the frame that were given an id made here."""

    @classmethod
    def of(cls, frame: Frame, age_max_ns: int = 0) -> "Place":
        """The place of a frame's records, which may be of any age unless it is bounded."""
        oldest_ns = frame.received_ns - age_max_ns if age_max_ns else 0
        return cls(frame, frame.received_ns // NS_PER_US, at(frame.received_ns).date(), oldest_ns)

    def began(self, unix_nano: int) -> int:
        """The time a record began, or else was received. Raises Undecodable when that is too long ago."""
        began = unix_nano or self.frame.received_ns
        if began < self.oldest_ns:
            raise Undecodable(
                f"The record is of {at(began).isoformat()}, older than the setting record_age_max_s allows"
            )
        return began

    def row(self, origin: Mapping[str, object]) -> Row:
        """A new row with project, time of receipt and origin."""
        return {
            "project_id": self.frame.project_id, "day": self.day, "created_at": self.created_at, **origin,
        }  # fmt: skip

    def make_id(self) -> str:
        """The id of a row that was sent without one; the same in every replay."""
        self.made += 1
        return row_span_id(self.frame.position, self.made - 1)


def origin_of(resource: Resource, scope: InstrumentationScope) -> Row:
    """The columns that resource and scope give every record below them."""
    values = values_of(resource.attributes)
    environment = next((values[name] for name in _ENVIRONMENTS if values.get(name) is not None), None)
    return {
        "otel_scope_name": scope.name or None,
        "otel_scope_version": scope.version or None,
        "otel_scope_attributes": to_json(values_of(scope.attributes)) if scope.attributes else None,
        "otel_resource_attributes": to_json(values),
        "service_name": text(values.get("service.name")) or UNKNOWN_SERVICE,
        "service_namespace": text(values.get("service.namespace")),
        "service_version": text(values.get("service.version")),
        "service_instance_id": text(values.get("service.instance.id")),
        "process_pid": integer(values.get("process.pid")),
        "deployment_environment": text(environment),
        "telemetry_sdk_name": text(values.get("telemetry.sdk.name")),
        "telemetry_sdk_language": text(values.get("telemetry.sdk.language")),
        "telemetry_sdk_version": text(values.get("telemetry.sdk.version")),
    }


def moment(name: str, unix_nano: int) -> int:
    """A time in nanoseconds; Undecodable when it is later than can be kept."""
    if unix_nano > NANO_MAX:
        raise Undecodable(f"{name} {unix_nano} is later than the year 2262")
    return unix_nano


def trace_id(value: bytes) -> str:
    """A trace id as 32 hex digits."""
    if len(value) != TRACE_ID_BYTES:
        raise Undecodable(f"The trace id has {len(value)} bytes instead of {TRACE_ID_BYTES}")
    return value.hex()


def span_id(name: str, value: bytes) -> str | None:
    """A span id as 16 hex digits; None when it is empty or zero."""
    if not value or value == NO_SPAN:
        return None
    if len(value) != SPAN_ID_BYTES:
        raise Undecodable(f"The {name} has {len(value)} bytes instead of {SPAN_ID_BYTES}")
    return value.hex()


def level_of(values: Values, otherwise: int) -> int:
    """`logfire.level_num` when it is an OpenTelemetry severity number."""
    level = integer(values.get("logfire.level_num"))
    return level if level is not None and 1 <= level <= 24 else otherwise


def _is_long(value: object) -> bool:
    # four bytes a character at most, so most texts are seen to be short without being encoded
    return isinstance(value, str) and len(value) * 4 > SHORT_BYTES_MAX and len(value.encode()) > SHORT_BYTES_MAX


def _short(value: str) -> str:
    return value.encode()[:SHORT_BYTES_MAX].decode(errors="ignore")


def _with_truncated(attributes: str, cut: Sequence[str]) -> str:
    """The JSON object with one more member, spliced in so that numbers keep their digits."""
    inner = attributes.strip()[1:-1].strip()
    note = to_json({TRUNCATED: list(cut)})[1:-1]
    return f"{{{inner},{note}}}" if inner else f"{{{note}}}"


def _batch(table: Table, rows: list[Row]) -> pa.RecordBatch:
    schema = table.chunk_schema
    return pa.RecordBatch.from_arrays(
        [pa.array([row.get(column.name) for row in rows], column.type) for column in schema], schema=schema
    )
