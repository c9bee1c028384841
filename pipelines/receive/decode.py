"""The decoder: requests as they were logged become rows.

In:  frames.   Out: a chunk with every table. It never raises over what somebody sent: a record that cannot be decoded
goes to `dead_letters` alone, and a request that cannot be parsed goes there whole.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import pyarrow as pa
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from core.telemetry import Chunk, Encoding, Frame, Signal
from pipelines.receive import otlp_json
from pipelines.receive.attributes import Undecodable
from pipelines.receive.logs import add_log
from pipelines.receive.metrics import add_point, points_of
from pipelines.receive.rows import Fault, Place, Row, Rows, origin_of
from pipelines.receive.spans import add_span

_REQUESTS = {
    Signal.TRACES: (ExportTraceServiceRequest, ("resource_spans", "scope_spans", "spans")),
    Signal.LOGS: (ExportLogsServiceRequest, ("resource_logs", "scope_logs", "log_records")),
    Signal.METRICS: (ExportMetricsServiceRequest, ("resource_metrics", "scope_metrics", "metrics")),
}
"""Of each signal its request, and the names of its three levels: they nest alike."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Record:
    """One record and what adds its rows."""

    index: int
    """Its number in the request."""
    origin: "_Origin"
    message: Message
    add: Callable[[Rows, Place, Row], None]


class _Origin:
    """Resource and scope of some records; their columns are made once, and only when asked for."""

    def __init__(self, resource: Any, scope: Any) -> None:
        self._resource = resource
        self._scope = scope

    @cached_property
    def row(self) -> Row:
        """The columns. Raises Undecodable."""
        return origin_of(self._resource.resource, self._scope.scope)

    @property
    def service(self) -> str | None:
        """The service's name, if it can be read."""
        try:
            return str(self.row["service_name"])
        except Undecodable:
            return None


def decode(frames: Sequence[Frame], *, age_max_ns: int = 0) -> Chunk:
    """The rows of frames, in order; at least one frame is given.

    Records that began longer than `age_max_ns` before their receipt are dead letters; with 0 none are.
    """
    rows = Rows()
    for frame in frames:
        _decode_frame(rows, frame, age_max_ns)
    try:
        tables = rows.batches()
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        _log.exception("rows of the requests from %d on do not fit their columns", frames[0].position)
        tables = _without_misfits(frames, age_max_ns).batches()
    return Chunk(frames[0].position, frames[-1].end, tables)


def _decode_frame(rows: Rows, frame: Frame, age_max_ns: int) -> None:
    place = Place.of(frame, age_max_ns)
    try:
        request, faults = _parsed(frame)
    except Undecodable as error:
        rows.bury(place, Fault(str(error), frame.body))
        return
    for fault in faults:
        rows.bury(place, fault)
    for record in _records(frame.signal, request):
        mark = rows.mark()
        try:
            record.add(rows, place, record.origin.row)
        except Exception as error:  # noqa: BLE001  # a fault of ours must neither stop the flow nor lose the record
            rows.rollback(mark)
            if isinstance(error, Undecodable):
                reason = str(error)
            else:
                _log.exception("record %d of the request at %d could not be decoded", record.index, frame.position)
                reason = f"The decoder failed: {type(error).__name__}: {error}"
            content = record.message.SerializeToString()
            rows.bury(place, Fault(reason, content, record.index, record.origin.service))


def _parsed(frame: Frame) -> tuple[Message, Sequence[Fault]]:
    """The request, and the records of a JSON request that could not be read. Raises Undecodable."""
    request = _REQUESTS[frame.signal][0]()
    if frame.encoding is Encoding.JSON:
        return request, otlp_json.parse(frame.body, request)
    try:
        request.ParseFromString(frame.body)
    except DecodeError as error:
        raise Undecodable(f"The body is not a valid {type(request).__name__}: {error}") from error
    return request, ()


def _records(signal: Signal, request: Message) -> Iterator[_Record]:
    outer, middle, inner = _REQUESTS[signal][1]
    index = -1
    for resource in getattr(request, outer):
        for scope in getattr(resource, middle):
            origin = _Origin(resource, scope)
            for record in getattr(scope, inner):
                index += 1
                if signal is Signal.TRACES:
                    yield _Record(index, origin, record, partial(add_span, span=record))
                elif signal is Signal.LOGS:
                    yield _Record(index, origin, record, partial(add_log, record=record))
                else:
                    for point in points_of(record):
                        yield _Record(index, origin, point, partial(add_point, metric=record, point=point))


def _without_misfits(frames: Sequence[Frame], age_max_ns: int) -> Rows:
    """The rows of frames, one by one; a frame whose rows fit no column is buried whole."""
    rows = Rows()
    for frame in frames:
        mark = rows.mark()
        alone = Rows()
        try:
            _decode_frame(alone, frame, age_max_ns)
            alone.batches()
            _decode_frame(rows, frame, age_max_ns)
        except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
            rows.rollback(mark)
            rows.bury(Place.of(frame), Fault(f"The decoder failed: {type(error).__name__}: {error}", frame.body))
    return rows
