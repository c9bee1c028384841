"""What travels between the houses: a Frame (one accepted request) and a Chunk (rows decoded from frames)."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import pyarrow as pa


class Signal(Enum):
    """An OpenTelemetry signal; the value is the last part of its OTLP path."""

    TRACES = "traces"
    LOGS = "logs"
    METRICS = "metrics"


class Encoding(Enum):
    """How a logged body is encoded: an OTLP Export*ServiceRequest as protobuf, or as OTLP/JSON."""

    PROTOBUF = "protobuf"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Frame:
    """One accepted request as it stands in the log."""

    position: int
    """Byte offset of the frame in the log."""
    end: int
    """Byte offset just behind the frame: where the next one starts."""
    project_id: str
    signal: Signal
    encoding: Encoding
    received_ns: int
    """Time of receipt, nanoseconds since the Unix epoch."""
    digest: bytes
    """blake2b-128 of (project, signal, decompressed body): see core.ids.request_digest."""
    body: bytes
    """The decompressed Export*ServiceRequest."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of the log interval [start, end): table name → batch in that table's schema without `_epoch`."""

    start: int
    end: int
    tables: Mapping[str, pa.RecordBatch]
