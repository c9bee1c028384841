"""Flight SQL for everyone: statements, prepared statements and the catalog, over gRPC.

In:  the commands and actions of the Flight SQL specification.   Out: the engine's rows. Nothing runs before its rows
are fetched, so a ticket that is never used costs nothing; everything is read-only.
"""

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.flight as pf

from core.errors import BadQuery, Malformed, NotFound, Refused
from flight.auth import KEY, Gate, Handshake, flight_errors, project_of
from flight.catalog import describe
from flight.handles import Handles, Prepared
from flight.messages import (
    ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult,
    Command,
    CommandPreparedStatementQuery,
    CommandStatementQuery,
    DoPutPreparedStatementResult,
    TicketStatementQuery,
    encode,
    unwrap,
    wrap,
)
from query.engine import Engine
from query.statements import Rows, Statement
from query.tokens import tokenize
from storage.keys import Keys

ACTIONS = {
    "CreatePreparedStatement": "Prepare a SELECT statement.",
    "ClosePreparedStatement": "Forget a prepared statement.",
}
SIZE_UNKNOWN = -1


class FlightSql(pf.FlightServerBase):
    """The public Flight SQL server."""

    def __init__(self, engine: Engine, keys: Keys, location: str) -> None:
        self._engine = engine
        self._handles = Handles()
        super().__init__(location, auth_handler=Handshake(), middleware={KEY: Gate(keys)})

    def get_flight_info(self, context: pf.ServerCallContext, descriptor: pf.FlightDescriptor) -> pf.FlightInfo:
        """The schema of a command's rows, and the ticket to fetch them."""
        with flight_errors():
            command = _command(descriptor.command)
            about = describe(command, self._engine.tables())
            if about is not None:
                return _info(about.schema, descriptor, wrap(command))
            prepared = self._prepared(command, project_of(context))
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
            prepared = self._handles.get(command.statement_handle, project_of(context))
            rows = self._engine.run(prepared.statement, context.is_cancelled)
            return pf.GeneratorStream(rows.schema, _batches(rows))

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
            prepared = self._handles.get(handle, project_of(context))
            batches = reader.read_all().combine_chunks().to_batches()
            if sum(batch.num_rows for batch in batches) != 1:
                raise Refused("A statement takes one row of parameters")
            statement = replace(prepared.statement, parameters=batches[0])
            self._handles.replace(handle, Prepared(statement, self._engine.schema(statement)))
            writer.write(pa.py_buffer(encode(DoPutPreparedStatementResult(handle))))

    def do_action(self, context: pf.ServerCallContext, action: pf.Action) -> Iterator[bytes]:
        """Prepare a statement, or forget it."""
        with flight_errors():
            if action.type not in ACTIONS:
                raise NotFound(f"This server does not know the action {action.type!r}")
            match unwrap(action.body.to_pybytes()):
                case ActionCreatePreparedStatementRequest(query):
                    return iter([self._prepare(query, project_of(context))])
                case ActionClosePreparedStatementRequest(handle):
                    self._handles.remove(handle, project_of(context))
                    return iter([])
                case _:
                    raise Malformed(f"This is not the body of {action.type}")

    def list_actions(self, context: pf.ServerCallContext) -> list[tuple[str, str]]:  # pyright: ignore[reportIncompatibleMethodOverride]  # the stubs say Action, the library wants pairs
        """The actions of `do_action`."""
        return list(ACTIONS.items())

    def _prepare(self, query: str, project_id: str) -> bytes:
        prepared = self._planned(Statement(query, project_id))
        handle = self._handles.add(prepared)
        schema = b"" if prepared.schema is None else prepared.schema.serialize().to_pybytes()
        return wrap(ActionCreatePreparedStatementResult(handle, schema))

    def _prepared(self, command: Command, project_id: str) -> Prepared:
        match command:
            case CommandStatementQuery(query):
                statement = Statement(query, project_id)
                return Prepared(statement, self._engine.schema(statement))
            case CommandPreparedStatementQuery(handle):
                return self._handles.get(handle, project_id)
            case _:
                raise Refused("This server is read-only: only SELECT and the like are answered")

    def _planned(self, statement: Statement) -> Prepared:
        """The statement with its schema; without one when its parameters are needed to plan it."""
        try:
            return Prepared(statement, self._engine.schema(statement))
        except BadQuery:
            if any(token.kind == "parameter" or token.text == "?" for token in tokenize(statement.sql)):
                return Prepared(statement, None)
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
    endpoint = pf.FlightEndpoint(pf.Ticket(ticket), [])  # no location: the server that was asked
    return pf.FlightInfo(schema, descriptor, [endpoint], SIZE_UNKNOWN, SIZE_UNKNOWN)


def _batches(rows: Rows) -> Iterator[pa.RecordBatch]:
    with rows, flight_errors():
        yield from rows
