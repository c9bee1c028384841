"""The HTTP and gRPC doors of one process: who may knock, and which application answers (system.md D12, D13).

In:  connections on three ports.   Out: /v1/traces, /v1/logs and /v1/metrics go to the OTLP application, everything
else on the HTTP port to the API. On a loopback address Host and Origin are checked, since there no token is asked
for: a page in somebody's browser must not be able to read or write here.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from core.errors import Refused
from pipelines.receive import otlp_grpc
from pipelines.receive.intake import Intake
from pipelines.receive.otlp_http import PATHS, Application, Header, Receive, Scope, Send, respond
from server.settings import is_loopback

CONNECTIONS_MAX = 2_048
"""Connections open at a time on one port, and requests; more are answered 503 and closed."""
BACKLOG_MAX = 2_048
"""Connections the system keeps waiting to be accepted; more are refused by it."""
HEAD_BYTES_MAX = 64 << 10
"""Bytes of a request's line and headers, give or take a read; more is answered 400 and closed."""
HEAD_S_MAX = 20.0
"""How long a request's line and headers may take, from the connection on; then it is closed."""
KEEP_ALIVE_S = 120
"""How long an idle connection stays open: longer than clients keep theirs (90 s), so that they close first."""
DRAIN_S = 8
"""How long a stop waits for requests under way, less than the supervisor waits for the process; then they are cut off,
unacknowledged."""
TEXT: Header = (b"content-type", b"text/plain; charset=utf-8")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """Where the doors are, and who may knock. Port 0 means any free one."""

    host: str
    http_port: int
    otlp_http_port: int
    otlp_grpc_port: int
    allowed_hosts: tuple[str, ...] = ()
    """Names accepted in the Host header beside the loopback ones, when bound to a loopback address."""
    allowed_origins: tuple[str, ...] = ()
    """Browser origins (`https://app.example.org`) that may change things beside the loopback ones, likewise."""


@dataclass(frozen=True, slots=True)
class Doors:
    """The ports that are open."""

    http_port: int
    otlp_http_port: int
    otlp_grpc_port: int


@asynccontextmanager
async def open_doors(
    settings: DoorSettings, otlp_app: Application, api_app: Application, intake: Intake
) -> AsyncGenerator[Doors]:
    """Keep the doors open until the block ends; then take nothing new in, finish what is under way, and return.

    Raises Refused when a port cannot be bound, RuntimeError when the API does not start.
    """
    host = settings.host
    with ExitStack() as sockets, ExitStack() as grpc:
        api_socket = sockets.enter_context(_listen(host, settings.http_port))
        otlp_socket = sockets.enter_context(_listen(host, settings.otlp_http_port))
        address = f"[{host}]:{settings.otlp_grpc_port}" if ":" in host else f"{host}:{settings.otlp_grpc_port}"
        grpc_port = grpc.enter_context(otlp_grpc.serve(intake, address, drain_s=DRAIN_S))
        api = _Server(guard(whole_door(otlp_app, api_app), settings), lifespan="on")
        otlp = _Server(guard(otlp_door(otlp_app, settings.http_port), settings), lifespan="off")
        try:
            await api.start(api_socket)
            await otlp.start(otlp_socket)
            yield Doors(api_socket.getsockname()[1], otlp_socket.getsockname()[1], grpc_port)
        finally:
            await asyncio.gather(api.stop(), otlp.stop(), asyncio.to_thread(grpc.close))


def whole_door(otlp_app: Application, api_app: Application) -> Application:
    """The one origin: OTLP at its three paths, the API at all others."""

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        here = scope["type"] == "http" and scope["path"] in PATHS
        await (otlp_app if here else api_app)(scope, receive, send)

    return door


def otlp_door(otlp_app: Application, http_port: int) -> Application:
    """OTLP and nothing else; a person who looks in is told where the rest is."""
    text = f"This is the OTLP/HTTP port: POST {', '.join(PATHS)}. Everything else is on port {http_port}.\n"

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/" and scope["method"] in {"GET", "HEAD"}:
            await respond(send, 200, [TEXT], text.encode())
        else:
            await otlp_app(scope, receive, send)

    return door


def guard(inside: Application, settings: DoorSettings) -> Application:
    """Refuse what only a page in a browser would send to a loopback address: a foreign Host or Origin.

    A name that was made to point here (DNS rebinding) shows in Host, another site's page in Origin.
    """
    if not is_loopback(settings.host):
        return inside

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            headers: dict[bytes, bytes] = dict(scope["headers"])
            fault = _fault(headers, scope.get("method", "WEBSOCKET"), settings)
            if fault is not None:
                await respond(send, 403, [TEXT], fault.encode())
                return
        await inside(scope, receive, send)

    return guarded


def _fault(headers: dict[bytes, bytes], method: str, settings: DoorSettings) -> str | None:
    """What is wrong with where a request says it comes from, if anything."""
    host = headers.get(b"host", b"").decode("latin-1")
    if not _is_ours(f"//{host}", settings):
        return f"The host {host!r} is not served here; set TAILRACE_ALLOWED_HOSTS to allow it\n"
    origin = headers.get(b"origin", b"").decode("latin-1")
    if not origin or method in SAFE_METHODS or origin in settings.allowed_origins or _is_ours(origin, settings):
        return None
    return f"Pages of {origin!r} may not write here; set TAILRACE_ALLOWED_ORIGINS to allow them\n"


def _is_ours(url: str, settings: DoorSettings) -> bool:
    """Whether the host in a URL, with any port, is a name of this machine alone or one that was allowed."""
    try:
        name = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return is_loopback(name) or name in settings.allowed_hosts


@contextmanager
def _listen(host: str, port: int) -> Generator[socket.socket]:
    """A listening socket; Refused when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(BACKLOG_MAX)  # of two that bind at once the second fails here
        except (OSError, OverflowError) as error:
            raise Refused(f"{host}:{port} cannot be bound: {getattr(error, 'strerror', error)}") from error
        listener.setblocking(False)
        yield listener


class _Connection(HttpToolsProtocol):
    """A connection with limits on what precedes the application, where uvicorn has none."""

    _head_bytes = 0
    _late: asyncio.TimerHandle | None = None
    """Runs while a head is awaited."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Expect a head."""
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD_S_MAX, transport.close)

    def data_received(self, data: bytes) -> None:
        """Parse, unless the head grows too long."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._late is not None and self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self.send_400_response(f"The headers are longer than {HEAD_BYTES_MAX} bytes")

    def on_message_begin(self) -> None:
        """The head of a request, be it not the first."""
        super().on_message_begin()
        self._head_bytes = 0
        if self._late is None:
            self._late = self.loop.call_later(HEAD_S_MAX, self.transport.close)

    def on_headers_complete(self) -> None:
        """The body is for the application to bound."""
        self._forget()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        self._forget()
        super().connection_lost(exc)

    def _forget(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class _Server(uvicorn.Server):
    """A uvicorn server that runs in the background, leaves signals alone and says when it is open."""

    def __init__(self, application: Application, *, lifespan: Literal["on", "off"]) -> None:
        super().__init__(
            uvicorn.Config(
                application, http=_Connection, ws="none", lifespan=lifespan, log_config=None, access_log=False,
                server_header=False, limit_concurrency=CONNECTIONS_MAX, backlog=BACKLOG_MAX,
                timeout_keep_alive=KEEP_ALIVE_S, timeout_graceful_shutdown=DRAIN_S,
            )
        )  # fmt: skip
        self.open = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    async def start(self, listener: socket.socket) -> None:
        """Serve in the background; returns when connections are answered. RuntimeError when the API does not start."""
        self._serving = asyncio.create_task(self.serve([listener]))
        self._serving.add_done_callback(lambda _: self.open.set())
        await self.open.wait()
        if self._serving.done():
            await self._serving

    async def stop(self) -> None:
        """Take nothing new in and finish what is under way, if it was started."""
        self.should_exit = True
        if self._serving is not None:
            await asyncio.wait([self._serving])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        try:
            await super().startup(sockets)
        except SystemExit:  # uvicorn's way to say that the application did not start
            raise RuntimeError("The API did not start; its reason stands above") from None
        self.open.set()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """The process's own handlers stay: the role stops the doors."""
        yield
