"""What a receiver answers: one table from error to HTTP status and gRPC code, and the bodies OTLP asks for.

A failed request is answered with a google.rpc.Status in the request's own encoding (OTLP specification, Failures);
what should be sent again says when: as Retry-After, and as a google.rpc.RetryInfo among the status's details.
"""

import math
from typing import NamedTuple

import orjson
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from core.errors import (
    DiskFull,
    Forbidden,
    Malformed,
    NotFound,
    Overloaded,
    Refused,
    TailraceError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnsupportedMedia,
)
from core.telemetry import Encoding

ACK_S_MAX = 30.0
"""How long a request may wait to become durable; then it is answered Overloaded."""


class Codes(NamedTuple):
    """How an error is called on each wire."""

    http: int
    grpc: int


CODES: dict[type[Exception], Codes] = {
    Malformed: Codes(400, code_pb2.INVALID_ARGUMENT),
    Unauthenticated: Codes(401, code_pb2.UNAUTHENTICATED),
    Forbidden: Codes(403, code_pb2.PERMISSION_DENIED),
    NotFound: Codes(404, code_pb2.NOT_FOUND),
    TooLarge: Codes(413, code_pb2.OUT_OF_RANGE),
    UnsupportedMedia: Codes(415, code_pb2.INVALID_ARGUMENT),
    Overloaded: Codes(429, code_pb2.UNAVAILABLE),
    DiskFull: Codes(429, code_pb2.UNAVAILABLE),
    Refused: Codes(400, code_pb2.INVALID_ARGUMENT),
    Unavailable: Codes(503, code_pb2.UNAVAILABLE),
    Exception: Codes(500, code_pb2.INTERNAL),
}
"""The codes of an error are those of the first of its classes found here; what is not ours to tell is INTERNAL."""

MEDIA_TYPES = {Encoding.PROTOBUF: "application/x-protobuf", Encoding.JSON: "application/json"}
SUCCESS = {Encoding.PROTOBUF: b"", Encoding.JSON: b"{}"}
"""An empty Export…ServiceResponse, which is the same for every signal."""


def codes_of(error: Exception) -> Codes:
    """The HTTP status and gRPC code of an error."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def status_of(error: Exception) -> Status:
    """The google.rpc.Status of an error; of our own mistakes it tells nothing but that there was one."""
    message = error.message if isinstance(error, TailraceError) else "The server made a mistake; its log says which"
    status = Status(code=codes_of(error).grpc, message=message)
    if isinstance(error, Unavailable):
        retry = RetryInfo(retry_delay=Duration(seconds=retry_seconds(error)))
        status.details.add().Pack(retry)
    return status


def encode_status(status: Status, encoding: Encoding) -> bytes:
    """The body of a failed HTTP request."""
    if encoding is Encoding.JSON:
        return orjson.dumps({"code": status.code, "message": status.message})
    return status.SerializeToString()


def retry_seconds(error: Unavailable) -> int:
    """Whole seconds to wait, at least one."""
    return max(1, math.ceil(error.retry_after_s))
