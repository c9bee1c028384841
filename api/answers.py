"""An answer to a statement: made while its client is listened to, so that work nobody waits for ends.

In:  the engine and a statement.   Out: an HTTP response: the body as it is made, or the error that came before its
first byte. An error after it breaks the connection off, since the status has been sent; JSON lines say it in words.
"""

from collections.abc import Callable, Iterable

import anyio
import anyio.lowlevel
from anyio import to_thread
from fastapi import Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from api.errors import query_error
from api.streams import COMPRESSED_BYTES_MIN, Limited, compression
from core.errors import TailraceError
from query.statements import Rows

Body = bytes | Iterable[bytes]


class Answer(Response):
    """The response to a statement; it runs when the response is sent."""

    def __init__(
        self, request: Request, run: Callable[[], Rows], rows_max: int, body: Callable[[Limited], Body], media_type: str
    ) -> None:
        super().__init__(media_type=media_type)
        self._request = request
        self._run = run
        self._rows_max = rows_max
        self._body = body
        self._rows: Rows | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Prepare and send it; when the client leaves, the statement is cancelled."""

        async def listen() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            self._close()
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            try:
                response = await to_thread.run_sync(self._prepared)
                await anyio.lowlevel.checkpoint()  # a client that has left meanwhile is told nothing
                await response(scope, _silence, send)
            finally:
                self._close()
            group.cancel_scope.cancel()

    def _prepared(self) -> Response:
        """The response, with the first rows there."""
        try:
            self._rows = self._run()
            body = self._body(Limited(self._rows, self._rows_max))
        except TailraceError as error:
            return query_error(self._request, error)
        headers = {"vary": "accept, accept-encoding"}
        small = isinstance(body, bytes) and len(body) < COMPRESSED_BYTES_MIN
        coding = None if small else compression(self._request.headers.get("accept-encoding", ""))
        pieces = [body] if isinstance(body, bytes) else body
        if coding:
            headers["content-encoding"], pieces = coding[0], coding[1](pieces)
        if coding or not isinstance(body, bytes):
            return StreamingResponse(pieces, headers=headers, media_type=self.media_type)
        return Response(body, headers=headers, media_type=self.media_type)

    def _close(self) -> None:
        if self._rows is not None:
            self._rows.close()


async def _silence() -> Message:
    """A `receive` that says nothing: the answer listens itself."""
    await anyio.sleep_forever()
    raise AssertionError("woken from a sleep without end")
