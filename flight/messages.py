"""The messages of Flight SQL, each a frozen dataclass whose annotations carry the field numbers.

The numbers are those of the Flight and Flight SQL specifications: no package ships FlightSql.proto. What is
only ever refused (updates, ingest, Substrait) has its name and no fields.
"""

from dataclasses import dataclass
from typing import Annotated, TypeAlias, TypeVar, get_args

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError

from core.errors import Malformed
from flight.protobuf import Codec

PACKAGE = "arrow.flight.protocol.sql"
TYPE_URL = f"type.googleapis.com/{PACKAGE}."

URL_CHARS_MAX = 200
"""How much of an unknown type URL an error repeats."""


# ── commands: what a FlightDescriptor or a ticket asks for ──────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class CommandStatementQuery:
    """Run a SELECT."""

    query: Annotated[str, 1] = ""
    transaction_id: Annotated[bytes | None, 2] = None


@dataclass(frozen=True, slots=True)
class CommandPreparedStatementQuery:
    """Run a prepared SELECT; with DoPut, bind its parameters."""

    prepared_statement_handle: Annotated[bytes, 1] = b""


@dataclass(frozen=True, slots=True)
class TicketStatementQuery:
    """The rows of a statement that GetFlightInfo has planned."""

    statement_handle: Annotated[bytes, 1] = b""


@dataclass(frozen=True, slots=True)
class CommandGetCatalogs:
    """List the catalogs."""


@dataclass(frozen=True, slots=True)
class CommandGetDbSchemas:
    """List the schemas; the pattern is one of LIKE."""

    catalog: Annotated[str | None, 1] = None
    db_schema_filter_pattern: Annotated[str | None, 2] = None


@dataclass(frozen=True, slots=True)
class CommandGetTables:
    """List the tables, with their Arrow schemas if asked; the patterns are those of LIKE."""

    catalog: Annotated[str | None, 1] = None
    db_schema_filter_pattern: Annotated[str | None, 2] = None
    table_name_filter_pattern: Annotated[str | None, 3] = None
    table_types: Annotated[tuple[str, ...], 4] = ()
    include_schema: Annotated[bool, 5] = False


@dataclass(frozen=True, slots=True)
class CommandGetTableTypes:
    """List the kinds of table."""


@dataclass(frozen=True, slots=True)
class CommandGetPrimaryKeys:
    """List the primary key of a table."""

    catalog: Annotated[str | None, 1] = None
    db_schema: Annotated[str | None, 2] = None
    table: Annotated[str, 3] = ""


@dataclass(frozen=True, slots=True)
class CommandGetExportedKeys:
    """List the foreign keys that refer to a table."""

    catalog: Annotated[str | None, 1] = None
    db_schema: Annotated[str | None, 2] = None
    table: Annotated[str, 3] = ""


@dataclass(frozen=True, slots=True)
class CommandGetImportedKeys:
    """List the foreign keys of a table."""

    catalog: Annotated[str | None, 1] = None
    db_schema: Annotated[str | None, 2] = None
    table: Annotated[str, 3] = ""


@dataclass(frozen=True, slots=True)
class CommandGetCrossReference:
    """List the foreign keys of one table that refer to another."""

    pk_catalog: Annotated[str | None, 1] = None
    pk_db_schema: Annotated[str | None, 2] = None
    pk_table: Annotated[str, 3] = ""
    fk_catalog: Annotated[str | None, 4] = None
    fk_db_schema: Annotated[str | None, 5] = None
    fk_table: Annotated[str, 6] = ""


@dataclass(frozen=True, slots=True)
class CommandGetSqlInfo:
    """Facts about the server by number; all of them when no number is given."""

    info: Annotated[tuple[int, ...], 1] = ()


@dataclass(frozen=True, slots=True)
class CommandGetXdbcTypeInfo:
    """The SQL types, or the one with this XDBC number."""

    data_type: Annotated[int | None, 1] = None


@dataclass(frozen=True, slots=True)
class CommandStatementUpdate:
    """Run an INSERT, UPDATE, DELETE or DDL: never done here."""


@dataclass(frozen=True, slots=True)
class CommandPreparedStatementUpdate:
    """Run a prepared one: never done here."""


@dataclass(frozen=True, slots=True)
class CommandStatementIngest:
    """Load rows into a table: never done here."""


@dataclass(frozen=True, slots=True)
class CommandStatementSubstraitPlan:
    """Run a Substrait plan: never done here."""


# ── actions of Flight SQL: request and result are wrapped in Any ────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ActionCreatePreparedStatementRequest:
    """Prepare a SELECT."""

    query: Annotated[str, 1] = ""
    transaction_id: Annotated[bytes | None, 2] = None


@dataclass(frozen=True, slots=True)
class ActionCreatePreparedStatementResult:
    """A prepared statement; the schemas are IPC messages, empty when unknown."""

    prepared_statement_handle: Annotated[bytes, 1] = b""
    dataset_schema: Annotated[bytes, 2] = b""
    parameter_schema: Annotated[bytes, 3] = b""
    is_update: Annotated[bool | None, 4] = None


@dataclass(frozen=True, slots=True)
class ActionClosePreparedStatementRequest:
    """Forget a prepared statement."""

    prepared_statement_handle: Annotated[bytes, 1] = b""


@dataclass(frozen=True, slots=True)
class ActionCancelQueryRequest:
    """Cancel a statement; `info` is the serialized FlightInfo of its rows. Superseded by CancelFlightInfo."""

    info: Annotated[bytes, 1] = b""


@dataclass(frozen=True, slots=True)
class ActionCancelQueryResult:
    """Whether it was cancelled: CANCELLED, or NOT_CANCELLABLE."""

    result: Annotated[int, 1] = 0


# ── messages that are not wrapped ───────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class DoPutPreparedStatementResult:
    """The handle to use from now on, after binding parameters."""

    prepared_statement_handle: Annotated[bytes, 1] = b""


@dataclass(frozen=True, slots=True)
class CancelFlightInfoRequest:
    """Cancel a statement; `info` is the FlightInfo of its rows."""

    info: Annotated[bytes, 1] = b""


@dataclass(frozen=True, slots=True)
class CancelFlightInfoResult:
    """Whether it was cancelled: CANCELLED, or NOT_CANCELLABLE."""

    status: Annotated[int, 1] = 0


CANCELLED = 1
NOT_CANCELLABLE = 3


@dataclass(frozen=True, slots=True)
class RenewFlightEndpointRequest:
    """Keep an endpoint good for longer; it is a FlightEndpoint."""

    endpoint: Annotated[bytes, 1] = b""


@dataclass(frozen=True, slots=True)
class SessionOptionValue:
    """An option's value; other types than text are none here."""

    string_value: Annotated[str | None, 1] = None


@dataclass(frozen=True, slots=True)
class SessionOption:
    """An entry of a map of options."""

    key: Annotated[str, 1] = ""
    value: Annotated[SessionOptionValue | None, 2] = None


@dataclass(frozen=True, slots=True)
class SetSessionOptionsRequest:
    """Set options of the session."""

    session_options: Annotated[tuple[SessionOption, ...], 1] = ()


@dataclass(frozen=True, slots=True)
class SessionOptionError:
    """What is wrong with an option: INVALID_NAME or INVALID_VALUE."""

    value: Annotated[int, 1] = 0


INVALID_NAME = 1
INVALID_VALUE = 2


@dataclass(frozen=True, slots=True)
class SessionOptionFault:
    """An entry of a map of errors by option."""

    key: Annotated[str, 1] = ""
    value: Annotated[SessionOptionError | None, 2] = None


@dataclass(frozen=True, slots=True)
class SetSessionOptionsResult:
    """The options that could not be set."""

    errors: Annotated[tuple[SessionOptionFault, ...], 1] = ()


@dataclass(frozen=True, slots=True)
class GetSessionOptionsResult:
    """The options of the session."""

    session_options: Annotated[tuple[SessionOption, ...], 1] = ()


@dataclass(frozen=True, slots=True)
class CloseSessionResult:
    """CLOSED."""

    status: Annotated[int, 1] = 0


CLOSED = 1

_PLAIN = (
    DoPutPreparedStatementResult, CancelFlightInfoRequest, CancelFlightInfoResult, RenewFlightEndpointRequest,
    SessionOptionValue, SessionOption, SetSessionOptionsRequest, SessionOptionError, SessionOptionFault,
    SetSessionOptionsResult, GetSessionOptionsResult, CloseSessionResult,
)  # fmt: skip

Command: TypeAlias = (
    CommandStatementQuery
    | CommandPreparedStatementQuery
    | TicketStatementQuery
    | CommandGetCatalogs
    | CommandGetDbSchemas
    | CommandGetTables
    | CommandGetTableTypes
    | CommandGetPrimaryKeys
    | CommandGetExportedKeys
    | CommandGetImportedKeys
    | CommandGetCrossReference
    | CommandGetSqlInfo
    | CommandGetXdbcTypeInfo
    | CommandStatementUpdate
    | CommandPreparedStatementUpdate
    | CommandStatementIngest
    | CommandStatementSubstraitPlan
)
ActionMessage: TypeAlias = (
    ActionCreatePreparedStatementRequest
    | ActionCreatePreparedStatementResult
    | ActionClosePreparedStatementRequest
    | ActionCancelQueryRequest
    | ActionCancelQueryResult
)
_Message = TypeVar("_Message")
_WRAPPED: dict[str, type] = {kind.__name__: kind for alias in (Command, ActionMessage) for kind in get_args(alias)}
_CODEC = Codec(PACKAGE, (*_WRAPPED.values(), *_PLAIN))


def unwrap(data: bytes) -> Command | ActionMessage:
    """The message in a serialized Any; Malformed when it is not a Flight SQL message that is known here."""
    wrapped = AnyMessage()
    try:
        wrapped.ParseFromString(data)
    except DecodeError as error:
        raise Malformed("This is not a Flight SQL message: it is no protobuf Any") from error
    name = wrapped.type_url.removeprefix(TYPE_URL)
    if name not in _WRAPPED:
        raise Malformed(f"{wrapped.type_url[:URL_CHARS_MAX]!r} is not a Flight SQL message that this server knows")
    return _CODEC.decode(_WRAPPED[name], wrapped.value)


def wrap(message: Command | ActionMessage) -> bytes:
    """A message as a serialized Any."""
    return AnyMessage(type_url=TYPE_URL + type(message).__name__, value=_CODEC.encode(message)).SerializeToString()


def decode(kind: type[_Message], data: bytes) -> _Message:
    """Read one message without a wrapper; Malformed when it is none of that kind."""
    return _CODEC.decode(kind, data)


def encode(message: object) -> bytes:
    """Write one message without a wrapper."""
    return _CODEC.encode(message)
