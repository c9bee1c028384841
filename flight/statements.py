"""Flight SQL for everyone: statements, prepared statements and the catalog, over gRPC.

In:  the commands and actions of the Flight SQL specification.   Out: the engine's rows. Nothing runs before its rows
are fetched, so a ticket that is never used costs nothing; everything is read-only.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pyarrow as pa
import pyarrow.flight as pf

from core.clock import NS_PER_US, SystemClock
from core.errors import BadQuery, Malformed, NotFound, Refused
from flight import actions
from flight.actions import Running
from flight.auth import KEY, Caller, Gate, Handshake, caller_of, flight_errors
from flight.catalog import describe
from flight.handles import HANDLE_S_MAX, Handles, Prepared
from flight.messages import (
    ActionCancelQueryRequest,
    ActionCancelQueryResult,
    ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult,
    CancelFlightInfoRequest,
    CancelFlightInfoResult,
    Command,
    CommandPreparedStatementQuery,
    CommandStatementQuery,
    DoPutPreparedStatementResult,
    TicketStatementQuery,
    decode,
    encode,
    unwrap,
    wrap,
)
from flight.sessions import TIME_ZONE, Sessions
from flight.settings import FlightSettings
from query.engine import Engine
from query.guard import STATEMENT_BYTES_MAX
from query.statements import Rows, Statement
from storage.keys import Keys

ACTIONS = {
    "CreatePreparedStatement": "Prepare a SELECT statement.",
    "ClosePreparedStatement": "Forget a prepared statement.",
    "CancelFlightInfo": "Cancel a statement.",
    "CancelQuery": "Cancel a statement; superseded by CancelFlightInfo.",
    "RenewFlightEndpoint": "Keep a ticket good for longer.",
    "SetSessionOptions": "Set options of the session: time_zone, catalog, schema.",
    "GetSessionOptions": "The options of the session.",
    "CloseSession": "Forget the options of the session.",
}
SIZE_UNKNOWN = -1
US_PER_S = 1_000_000
_PARAMETER = re.compile(r"[?]|[$]\w")


class FlightSql(pf.FlightServerBase):
    """The public Flight SQL server."""

    def __init__(self, engine: Engine, keys: Keys, location: str, settings: FlightSettings) -> None:
        self._engine = engine
        self._handles = Handles()
        self._sessions = Sessions()
        self._running = Running()
        super().__init__(
            location, auth_handler=Handshake(), middleware={KEY: Gate(keys)}, **settings.tls_arguments()
        )  # fmt: skip

    def get_flight_info(self, context: pf.ServerCallContext, descriptor: pf.FlightDescriptor) -> pf.FlightInfo:
        """The schema of a command's rows, and the ticket to fetch them."""
        with flight_errors():
            command = _command(descriptor.command)
            about = describe(command, self._engine.tables())
            if about is not None:
                return _info(about.schema, descriptor, wrap(command))
            prepared = self._prepared(command, caller_of(context))
            if prepared.schema is None:
                raise BadQuery("The statement takes parameters, and none were bound")
            return _info(prepared.schema, descriptor, wrap(TicketStatementQuery(self._handles.add(prepared))))

    def get_schema(self, context: pf.ServerCallContext, descriptor: pf.FlightDescriptor) -> pf.SchemaResult:  # pyright: ignore[reportIncompatibleMethodOverride]  # the stubs say Schema, the library wants this
        """The schema of a command's rows."""
        return pf.SchemaResult(self.get_flight_info(context, descriptor).schema)

    def do_get(self, context: pf.ServerCallContext, ticket: pf.Ticket) -> pf.FlightDataStream:
        """The rows of a ticket."""
        with flight_errors():
            command = _command(ticket.ticket)
            about = describe(command, self._engine.tables())
            if about is not None:
                return pf.RecordBatchStream(about)
            if not isinstance(command, TicketStatementQuery):
                raise Malformed("This is not a ticket of this server")
            handle = command.statement_handle
            prepared = self._handles.get(handle, caller_of(context).owner)
            with ExitStack() as stack:
                cancelled = stack.enter_context(self._running.enter(handle))
                rows = self._engine.run(prepared.statement, lambda: cancelled.is_set() or context.is_cancelled())
                stack.enter_context(rows)
                return pf.GeneratorStream(rows.schema, _batches(rows, stack.pop_all()))

    def do_put(
        self, context: pf.ServerCallContext, descriptor: pf.FlightDescriptor, reader: pf.MetadataRecordBatchReader,
        writer: pf.FlightMetadataWriter,
    ) -> None:  # fmt: skip
        """Bind the parameters of a prepared statement: one row."""
        with flight_errors():
            command = _command(descriptor.command)
            if not isinstance(command, CommandPreparedStatementQuery):
                raise Refused("This server is read-only: telemetry comes in over OTLP")
            handle = command.prepared_statement_handle
            prepared = self._handles.get(handle, caller_of(context).owner)
            batches = reader.read_all().combine_chunks().to_batches()
            if sum(batch.num_rows for batch in batches) != 1:
                raise Refused("A statement takes one row of parameters")
            statement = replace(prepared.statement, parameters=batches[0])
            self._handles.replace(handle, replace(prepared, statement=statement, schema=self._engine.schema(statement)))
            writer.write(pa.py_buffer(encode(DoPutPreparedStatementResult(handle))))

    def do_action(self, context: pf.ServerCallContext, action: pf.Action) -> Iterator[bytes]:
        """Whatever is in ACTIONS."""
        with flight_errors():
            if action.type not in ACTIONS:
                raise NotFound(f"This server does not know the action {action.type!r:.80}")
            body, caller = action.body.to_pybytes(), caller_of(context)
            match action.type:
                case "CancelFlightInfo":
                    info = decode(CancelFlightInfoRequest, body).info
                    status = actions.cancel(info, self._handles, self._running, caller)
                    return iter([encode(CancelFlightInfoResult(status))])
                case "RenewFlightEndpoint":
                    return iter([actions.renew(body, self._handles, caller)])
                case "SetSessionOptions":
                    return iter([actions.set_options(body, self._sessions, caller)])
                case "GetSessionOptions":
                    return iter([actions.get_options(self._sessions, caller)])
                case "CloseSession":
                    return iter([actions.close_session(self._sessions, caller)])
                case _:
                    return iter(self._act(action.type, body, caller))

    def _act(self, kind: str, body: bytes, caller: Caller) -> list[bytes]:
        """The actions of Flight SQL, whose messages are wrapped."""
        match unwrap(body):
            case ActionCreatePreparedStatementRequest(query):
                return [self._prepare(query, caller)]
            case ActionClosePreparedStatementRequest(handle):
                self._handles.remove(handle, caller.owner)
                return []
            case ActionCancelQueryRequest(info):
                return [wrap(ActionCancelQueryResult(actions.cancel(info, self._handles, self._running, caller)))]
            case _:
                raise Malformed(f"This is not the body of {kind}")

    def list_actions(self, context: pf.ServerCallContext) -> list[tuple[str, str]]:  # pyright: ignore[reportIncompatibleMethodOverride]  # the stubs say Action, the library wants pairs
        """The actions of `do_action`."""
        return list(ACTIONS.items())

    def _prepare(self, query: str, caller: Caller) -> bytes:
        prepared = self._planned(self._statement(query, caller), caller.owner)
        handle = self._handles.add(prepared)
        schema = b"" if prepared.schema is None else prepared.schema.serialize().to_pybytes()
        return wrap(ActionCreatePreparedStatementResult(handle, schema))

    def _prepared(self, command: Command, caller: Caller) -> Prepared:
        match command:
            case CommandStatementQuery(query):
                statement = self._statement(query, caller)
                return Prepared(statement, caller.owner, self._engine.schema(statement))
            case CommandPreparedStatementQuery(handle):
                return self._handles.get(handle, caller.owner)
            case _:
                raise Refused("This server is read-only: only SELECT and the like are answered")

    def _statement(self, query: str, caller: Caller) -> Statement:
        options = self._sessions.options(caller.session)
        return Statement(
            query, caller.project.id, time_zone=options.get(TIME_ZONE), owner=caller.owner, asker=caller.asker
        )

    def _planned(self, statement: Statement, owner: str) -> Prepared:
        """The statement with its schema; without one when its parameters are needed to plan it."""
        try:
            return Prepared(statement, owner, self._engine.schema(statement))
        except BadQuery:
            if _PARAMETER.search(statement.sql[:STATEMENT_BYTES_MAX]):
                return Prepared(statement, owner, None)
            raise


def _command(data: bytes | None) -> Command:
    """The command of a descriptor or a ticket."""
    if data is None:
        raise Malformed("This server speaks Flight SQL: send a command, not a path")
    command = unwrap(data)
    if not isinstance(command, Command):
        raise Malformed(f"{type(command).__name__} belongs into an action")
    return command


def _info(schema: pa.Schema, descriptor: pf.FlightDescriptor, ticket: bytes) -> pf.FlightInfo:
    expires = pa.scalar(SystemClock().now_ns() // NS_PER_US + int(HANDLE_S_MAX * US_PER_S), pa.timestamp("us"))
    endpoint = pf.FlightEndpoint(pf.Ticket(ticket), [], expires)  # no location: the server that was asked
    return pf.FlightInfo(schema, descriptor, [endpoint], SIZE_UNKNOWN, SIZE_UNKNOWN)


def _batches(rows: Rows, held: ExitStack) -> Iterator[pa.RecordBatch]:
    with held, flight_errors():
        yield from rows
