"""How statements travel between our own processes: Arrow Flight on a Unix socket that only this user may open.

In:  a payload (a statement as JSON).   Out: its schema, or its rows as they are made. Errors cross whole: their kind,
message and place ride in Flight's extra info, which pyarrow hands on; other clients never come here.
"""

import contextlib
import json
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import pyarrow as pa
import pyarrow.flight as pf

from core import errors
from core.errors import BadQuery, TailraceError, Unavailable
from query.statements import Rows, Statement

CALL_S = 5.0
"""How long a notice or a question about the server itself may take."""
CONCURRENT_MAX = 256
"""Calls one server works on at a time; more wait."""

_KINDS = {kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type)}


class Backend(Protocol):
    """Who answers at the far end."""

    def schema(self, payload: bytes) -> pa.Schema:
        """The schema of a statement's rows."""
        ...

    def run(self, payload: bytes, gone: Callable[[], bool]) -> Rows:
        """A statement's rows; `gone` tells whether their reader has left."""
        ...

    def act(self, kind: str, payload: bytes) -> bytes:
        """Anything else that is asked or told."""
        ...


class StatementServer(pf.FlightServerBase):
    """A Flight server on a Unix socket, mode 0600."""

    def __init__(self, socket: Path, backend: Backend) -> None:
        socket.unlink(missing_ok=True)
        super().__init__(f"grpc+unix://{socket}")
        socket.chmod(0o600)
        self._backend = backend

    def do_get(self, context: pf.ServerCallContext, ticket: pf.Ticket) -> pf.GeneratorStream:
        """The rows of the statement in the ticket."""
        with _told():
            rows = self._backend.run(ticket.ticket, context.is_cancelled)
        return pf.GeneratorStream(rows.schema, _batches(rows))

    def do_action(self, context: pf.ServerCallContext, action: pf.Action) -> list[pf.Result]:  # pyright: ignore[reportIncompatibleMethodOverride]  # the stubs say bytes; Result is what the documentation asks for
        """`schema`, or whatever else the backend knows."""
        payload = action.body.to_pybytes()
        with _told():
            if action.type == "schema":
                return [pf.Result(self._backend.schema(payload).serialize())]
            return [pf.Result(pa.py_buffer(self._backend.act(action.type, payload)))]


class StatementClient:
    """A client of such a server; every method may be called from any thread.

    Errors of the far end are raised as what they were there; a far end that cannot be reached, or goes away, is
    ConnectionError.
    """

    def __init__(self, socket: Path) -> None:
        self._client = pf.FlightClient(f"grpc+unix://{socket}")

    def schema(self, payload: bytes) -> pa.Schema:
        """The schema of a statement's rows."""
        with _heard():
            result = next(iter(self._client.do_action(pf.Action("schema", payload))))
            return pa.ipc.read_schema(result.body)

    def run(self, payload: bytes) -> Rows:
        """A statement's rows. Closing them cancels the work."""
        with _heard():
            reader = self._client.do_get(pf.Ticket(payload))
            return Rows(reader.schema, _chunks(reader), reader.cancel)

    def act(self, kind: str, payload: bytes) -> bytes:
        """Ask or tell something else; the answer comes within CALL_S or never."""
        with _heard():
            options = pf.FlightCallOptions(timeout=CALL_S)
            return next(iter(self._client.do_action(pf.Action(kind, payload), options))).body.to_pybytes()

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class QueryClient:
    """The query engine as seen from another process, over the flight process's own socket.

    Methods may be called from any thread and raise what the engine raises; Unavailable while it is away.
    """

    def __init__(self, socket: Path) -> None:
        self._client = StatementClient(socket)

    def schema(self, statement: Statement) -> pa.Schema:
        """The schema of a statement's rows."""
        with _away():
            return self._client.schema(statement.to_json())

    def run(self, statement: Statement) -> Rows:
        """A statement's rows."""
        with _away():
            rows = self._client.run(statement.to_json())
        return Rows(rows.schema, _here(rows), rows.close)


def _batches(rows: Rows) -> Iterator[pa.RecordBatch]:
    with rows, _told():
        yield from rows


def _chunks(reader: pf.FlightStreamReader) -> Iterator[pa.RecordBatch]:
    while True:
        with _heard():
            try:
                batch = reader.read_chunk().data
            except StopIteration:
                return
        assert batch is not None, "our servers send rows with every message"
        yield batch


def _here(rows: Rows) -> Iterator[pa.RecordBatch]:
    while True:
        with _away():
            batch = next(rows, None)
        if batch is None:
            return
        yield batch


@contextlib.contextmanager
def _told() -> Generator[None]:
    """Send an error of ours with all it says."""
    try:
        yield
    except TailraceError as error:
        raise pf.FlightServerError("refused", encode_error(error)) from None


@contextlib.contextmanager
def _heard() -> Generator[None]:
    """Raise the error that was sent, or ConnectionError."""
    try:
        yield
    except (pf.FlightError, pa.ArrowException, OSError) as error:
        sent = getattr(error, "extra_info", None)
        if sent:
            raise decode_error(sent) from None
        raise ConnectionError(str(error)) from error


@contextlib.contextmanager
def _away() -> Generator[None]:
    try:
        yield
    except ConnectionError as error:
        raise Unavailable("The query engine is not there just now; try again shortly") from error


def encode_error(error: TailraceError) -> bytes:
    """An error as JSON."""
    kind = next(name for name in (base.__name__ for base in type(error).__mro__) if name in _KINDS)
    fields: dict[str, Any] = {"kind": kind, "message": error.message}
    if isinstance(error, BadQuery):
        fields |= {"line": error.line, "column": error.column}
    if isinstance(error, Unavailable):
        fields |= {"retry_after_s": error.retry_after_s}
    return json.dumps(fields).encode()


def decode_error(text: bytes) -> TailraceError:
    """The error of a JSON text made by `encode_error`."""
    fields = json.loads(text)
    return _KINDS[fields.pop("kind")](fields.pop("message"), **fields)
