"""OTLP over HTTP: POST /v1/traces, /v1/logs and /v1/metrics, as a bare ASGI application (contract §2).

In:  protobuf or JSON; plain, gzip, deflate or zstd.   Out: 200 when the request is durable, else a google.rpc.Status
in the request's own encoding. The token is looked at before the body is read; long bodies are unpacked in a thread.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeAlias

from core.errors import NotFound, Overloaded, TooLarge, Unauthenticated, Unavailable, UnsupportedMedia
from core.telemetry import Encoding, Signal
from pipelines.receive.answers import ACK_S_MAX, MEDIA_TYPES, SUCCESS, codes_of, encode_status, retry_seconds, status_of
from pipelines.receive.bodies import Coding, coding_named, decompress, too_large
from pipelines.receive.intake import Intake, Room

PATHS = {f"/v1/{signal.value}": signal for signal in Signal}
"""Everything this application serves."""
INLINE_BYTES_MAX = 256 << 10
"""Longest body, compressed or not, that is worked on in the event loop; a longer one is moved to a thread."""
BODY_PAUSE_S_MAX = 20.0
"""Longest silence in the middle of a body; then it is answered 503 and the connection closed."""
PREFLIGHT_S = 86_400
"""How long a browser may remember the answer to a preflight."""

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Header: TypeAlias = tuple[bytes, bytes]

CORS: list[Header] = [(b"access-control-allow-origin", b"*")]
PREFLIGHT: list[Header] = [
    *CORS,
    (b"access-control-allow-methods", b"POST,OPTIONS"),
    (b"access-control-allow-headers", b"Authorization,Content-type,X-Logfire-Context"),
    (b"access-control-max-age", str(PREFLIGHT_S).encode()),
]

_log = logging.getLogger(__name__)


class _Stalled(Unavailable):
    """The body did not arrive in time."""


class _Disconnected(Exception):
    """The client went away; nobody is left to answer."""


@dataclass(frozen=True, slots=True)
class _Post:
    """A request for telemetry to be taken in, as its headers tell."""

    signal: Signal
    encoding: Encoding
    coding: Coding
    project_id: str


def app(intake: Intake) -> Application:
    """The ASGI application that hands requests in to an intake. It answers 404 to any path but PATHS."""

    async def otlp(scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if scope["path"] in PATHS and scope["method"] == "OPTIONS":
            await respond(send, 204, PREFLIGHT)
        elif scope["path"] in PATHS and scope["method"] != "POST":
            await respond(send, 405, [*CORS, (b"allow", b"POST, OPTIONS")])
        else:
            await _answer(PATHS.get(scope["path"]), headers, (receive, send), intake)

    return otlp


async def respond(send: Send, status: int, headers: list[Header], body: bytes = b"") -> None:
    """Send a whole answer."""
    if status != 204:
        headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _answer(
    signal: Signal | None, headers: dict[bytes, bytes], client: tuple[Receive, Send], intake: Intake
) -> None:
    """Take a request in and answer it, whatever happens."""
    receive, send = client
    encoding = Encoding.JSON
    try:
        if signal is None:
            raise NotFound(f"OTLP is served at {', '.join(PATHS)}")
        encoding = _encoding(headers)
        coding = coding_named(_text(headers, b"content-encoding"))
        project_id = intake.welcome(_text(headers, b"authorization"))
        length = int(_text(headers, b"content-length") or 0)
        if length > intake.limits.body_bytes_max:
            raise too_large(intake.limits.body_bytes_max)
        with intake.room() as room:
            wire = await _read(receive, room, intake.limits.body_bytes_max)
            await _admit(_Post(signal, encoding, coding, project_id), wire, room, intake)
    except _Disconnected:
        return
    except Exception as error:  # noqa: BLE001  # every error has its answer
        await _refuse(send, error, encoding)
    else:
        media_type = MEDIA_TYPES[encoding].encode()
        await respond(send, 200, [*CORS, (b"content-type", media_type)], SUCCESS[encoding])


def _encoding(headers: dict[bytes, bytes]) -> Encoding:
    media_type = (_text(headers, b"content-type") or "").partition(";")[0].strip().lower()
    for encoding, name in MEDIA_TYPES.items():
        if media_type == name:
            return encoding
    raise UnsupportedMedia(f"The content type {media_type!r} is not one of {', '.join(MEDIA_TYPES.values())}")


def _text(headers: dict[bytes, bytes], name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")


async def _read(receive: Receive, room: Room, bytes_max: int) -> bytes:
    """The whole body as it was sent. Raises TooLarge, Overloaded, _Stalled or _Disconnected."""
    pieces, size, more = list[bytes](), 0, True
    while more:
        try:
            async with asyncio.timeout(BODY_PAUSE_S_MAX):
                message = await receive()
        except TimeoutError:
            raise _Stalled from None
        if message["type"] == "http.disconnect":
            raise _Disconnected
        piece: bytes = message.get("body", b"")
        room.take(len(piece))
        size += len(piece)
        if size > bytes_max:
            raise too_large(bytes_max)
        pieces.append(piece)
        more = message.get("more_body", False)
    return b"".join(pieces)


async def _admit(post: _Post, wire: bytes, room: Room, intake: Intake) -> None:
    """Unpack a body, hand it in and wait until it is durable."""

    def hand_in(bytes_max: int) -> Future[int]:
        body = decompress(post.coding, wire, bytes_max=bytes_max, claim=room.take)
        return intake.admit(post.project_id, post.signal, post.encoding, body)

    inline_bytes_max = min(INLINE_BYTES_MAX, intake.limits.body_bytes_max)
    try:
        durable = hand_in(inline_bytes_max)
    except TooLarge:  # for the event loop
        durable = await asyncio.to_thread(hand_in, intake.limits.body_bytes_max)
    try:
        async with asyncio.timeout(ACK_S_MAX):
            await asyncio.wrap_future(durable)  # a timeout cancels it, which takes it back from the log's queue
    except TimeoutError:
        raise Overloaded("The disk is slow; send this again shortly") from None


async def _refuse(send: Send, error: Exception, encoding: Encoding) -> None:
    status = status_of(error)
    codes = codes_of(error)
    headers = [*CORS, (b"content-type", MEDIA_TYPES[encoding].encode())]
    if codes.http == 500:
        _log.error("a request failed", exc_info=error)
    if isinstance(error, Unavailable):
        headers.append((b"retry-after", str(retry_seconds(error)).encode()))
    if isinstance(error, Unauthenticated):
        headers.append((b"x-logfire-warning", _header_text(status.message)))  # the SDK shows it to its user
    if isinstance(error, _Stalled):
        headers.append((b"connection", b"close"))
    await respond(send, codes.http, headers, encode_status(status, encoding))


def _header_text(message: str) -> bytes:
    """A sentence as a header's value: one line of ASCII."""
    return " ".join(message.replace("…", "...").split()).encode("ascii", "replace")
