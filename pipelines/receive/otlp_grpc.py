"""OTLP over gRPC: the Export methods of the three collector services, on raw bytes (contract §2).

In:  protobuf messages, compressed or not.   Out: an empty response when the request is durable, else a status.
gRPC's own decompression is switched off, since nothing bounds it: compressed messages arrive as they were sent, are
told by their first bytes, and are decompressed within our limit. The token is looked at before the message is read.
"""

import logging
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import grpc

from core.errors import Malformed, Overloaded, Refused, Unavailable
from core.telemetry import Encoding, Signal
from pipelines.receive.answers import ACK_S_MAX, SUCCESS, codes_of, status_of
from pipelines.receive.bodies import coding_of, decompress
from pipelines.receive.intake import Intake

THREADS_MAX = 16
"""Requests worked on at a time; each holds at most one message. More wait, unread."""
RPCS_MAX = 1_024
"""Requests waiting or worked on; more are answered RESOURCE_EXHAUSTED by gRPC."""
MESSAGE_BYTES_SPARE = 4 << 20
"""A message this much above the body limit still reaches us, for an answer of OUT_OF_RANGE; gRPC answers longer
ones RESOURCE_EXHAUSTED as soon as it sees their length."""
MESSAGE_S_MAX = 30.0
"""How long a message may take to arrive, since a thread waits for it; then the call is cancelled."""
LATE_LOOK_INTERVAL_S = 1.0
"""How often late messages are looked for."""
STATUS_DETAILS = "grpc-status-details-bin"

METHODS = {
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export": Signal.TRACES,
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export": Signal.LOGS,
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export": Signal.METRICS,
}
_STATUS_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

_log = logging.getLogger(__name__)


@contextmanager
def serve(intake: Intake, address: str, *, drain_s: float) -> Generator[int]:
    """Serve at `host:port` until the block ends, then finish what is under way, for `drain_s` at most.

    Yields the port, which matters when 0 was asked for. Raises Refused when the address cannot be bound.
    """
    arrivals = _Arrivals()
    threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="otlp-grpc")
    server = grpc.server(
        threads,
        handlers=[_Collector(intake, arrivals)],
        maximum_concurrent_rpcs=RPCS_MAX,
        options=[
            ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a rival
            ("grpc.per_message_decompression", 0),
            ("grpc.max_receive_message_length", intake.limits.body_bytes_max + MESSAGE_BYTES_SPARE),
        ],
    )
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise Refused(f"{address} cannot be bound for OTLP over gRPC; is another server there?") from error
    with arrivals:
        server.start()
        try:
            yield port
        finally:
            server.stop(drain_s).wait()
            threads.shutdown(wait=False, cancel_futures=True)


class _Arrivals:
    """The calls whose message has not arrived yet; inside its block, those that take too long are cancelled."""

    def __init__(self) -> None:
        self._begun: dict[grpc.ServicerContext, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="otlp-grpc-arrivals", daemon=True)

    def message(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """The call's first message. Raises Malformed when there is none, grpc.RpcError when the call is over."""
        self._begun[context] = time.monotonic()
        try:
            message = next(messages, None)
        finally:
            del self._begun[context]
        if message is None:
            raise Malformed("The request has no message")
        return message

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(LATE_LOOK_INTERVAL_S):
            late = time.monotonic() - MESSAGE_S_MAX
            for context, begun in self._begun.copy().items():
                if begun < late:
                    context.cancel()


class _Collector(grpc.GenericRpcHandler):
    """The three services."""

    def __init__(self, intake: Intake, arrivals: _Arrivals) -> None:
        self._intake = intake
        self._arrivals = arrivals

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """The handler of a method; None, so UNIMPLEMENTED, for a method that is not ours.

        A stream of one message is a single message on the wire, but lets us see the token before the message.
        """
        signal = METHODS.get(handler_call_details.method)
        if signal is None:
            return None

        def export(messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            return self._export(signal, messages, context)

        return grpc.stream_unary_rpc_method_handler(export)

    def _export(self, signal: Signal, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        try:
            self._admit(signal, messages, context)
        except grpc.RpcError:
            raise  # the client has gone, or gRPC has answered already
        except Exception as error:  # noqa: BLE001  # every error has its answer
            _refuse(context, error)
        return SUCCESS[Encoding.PROTOBUF]

    def _admit(self, signal: Signal, messages: Iterator[bytes], context: grpc.ServicerContext) -> None:
        """Take a request in; returns when it is durable."""
        intake = self._intake
        authorization = dict(context.invocation_metadata()).get("authorization")
        project_id = intake.welcome(None if authorization is None else str(authorization))
        with intake.room() as room:
            message = self._arrivals.message(messages, context)
            room.take(len(message))
            bytes_max = intake.limits.body_bytes_max
            body = decompress(coding_of(message), message, bytes_max=bytes_max, claim=room.take)
            durable = intake.admit(project_id, signal, Encoding.PROTOBUF, body)
            try:
                durable.result(ACK_S_MAX)
            except TimeoutError:
                durable.cancel()  # takes it back from the log's queue
                raise Overloaded("The disk is slow; send this again shortly") from None


def _refuse(context: grpc.ServicerContext, error: Exception) -> None:
    """Answer with the error's status; always raises, as `abort` does."""
    status = status_of(error)
    code = _STATUS_CODES[codes_of(error).grpc]
    if code is grpc.StatusCode.INTERNAL:
        _log.error("a request failed", exc_info=error)
    if isinstance(error, Unavailable):
        context.set_trailing_metadata(((STATUS_DETAILS, status.SerializeToString()),))
    context.abort(code, status.message)
