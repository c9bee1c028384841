"""Flight SQL as real clients speak it: ADBC and plain pyarrow against a server with real workers."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pyarrow.flight as pf
import pytest
from adbc_driver_manager import Error as AdbcError

from core.clock import SystemClock
from core.projects import DEFAULT_PROJECT_ID
from core.schema import RECORDS, VIEWS
from flight.messages import (
    ActionCancelQueryRequest,
    ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult,
    CancelFlightInfoRequest,
    CommandGetSqlInfo,
    CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery,
    CommandStatementQuery,
    CommandStatementUpdate,
    RenewFlightEndpointRequest,
    SessionOption,
    SessionOptionValue,
    SetSessionOptionsRequest,
    TicketStatementQuery,
    encode,
    unwrap,
    wrap,
)
from flight.server import open_flight
from flight.settings import FlightSettings
from query.engine import open_engine
from query.settings import QuerySettings
from query.statements import Statement
from query.tables import SOURCES
from query.transport import QueryClient
from storage.feed import announce_commit
from storage.keys import open_keys
from tests.lakes import append
from tests.query.conftest import wait_ready

OPERATOR = "operator-secret"
AUTHORIZATION = adbc_driver_flightsql.DatabaseOptions.AUTHORIZATION_HEADER.value


def call(project: str = "default") -> pf.FlightCallOptions:
    headers = [(b"authorization", OPERATOR.encode()), (b"tailrace-project", project.encode())]
    return pf.FlightCallOptions(headers=headers)  # pyright: ignore[reportArgumentType]  # the stubs say text, the library wants bytes


@dataclass(frozen=True, slots=True)
class Served:
    port: int
    socket: Path
    lake: Path

    def connect(self, **options: str) -> flightsql.Connection:
        return flightsql.connect(f"grpc://127.0.0.1:{self.port}", db_kwargs=options, autocommit=True)


@pytest.fixture(scope="module", params=[True, False], ids=["open", "tokens"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("served")
    (directory / "run").mkdir()
    append(directory / "lake", RECORDS, *({"project_id": DEFAULT_PROJECT_ID, "message": str(n)} for n in range(5)))
    ledger = f"sqlite+aiosqlite:///{directory / 'ledger.sqlite3'}"
    socket = directory / "run" / "flight.sock"
    with (
        open_keys(ledger, open_to_all=request.param, operator_token=OPERATOR, clock=SystemClock()) as keys,
        open_engine(directory / "lake", directory / "run", QuerySettings(workers=1)) as engine,
        open_flight(engine, keys, FlightSettings(), address=("127.0.0.1", 0), inner_socket=socket) as port,
    ):
        wait_ready(engine)
        yield Served(port, socket, directory / "lake")


@pytest.fixture
def connection(server: Served) -> Iterator[flightsql.Connection]:
    with server.connect(**{AUTHORIZATION: f"Bearer {OPERATOR}"}) as connection:
        yield connection


def test_statements_with_and_without_parameters(connection: flightsql.Connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM records")
        assert cursor.fetchall() == [(5,)]
        cursor.execute("SELECT message FROM records WHERE message > ? ORDER BY 1 LIMIT ?", ("1", 2))
        assert cursor.fetchall() == [("2",), ("3",)]
        cursor.execute("SELECT $2 AS b, $1 AS a", (1, "x"))
        assert cursor.fetchall() == [("x", 1)]


def test_a_prepared_statement_can_be_bound_again(connection: flightsql.Connection) -> None:
    with connection.cursor() as cursor:
        for value in (1, 2, 3):
            cursor.execute("SELECT ? * 2", (value,))
            assert cursor.fetchone() == (value * 2,)


def test_the_schema_is_known_before_anything_runs(connection: flightsql.Connection) -> None:
    with connection.cursor() as cursor:
        schema = cursor.adbc_execute_schema("SELECT message, level FROM records")
        assert schema.names == ["message", "level"]


def test_the_catalog_lists_the_tables_with_their_columns(connection: flightsql.Connection) -> None:
    found = connection.adbc_get_objects(depth="columns").read_all().to_pylist()
    assert [catalog["catalog_name"] for catalog in found] == ["tailrace"]
    tables = found[0]["catalog_db_schemas"][0]["db_schema_tables"]
    assert {table["table_name"] for table in tables} == set(SOURCES)
    for table in tables:
        names = [column["column_name"] for column in table["table_columns"]]
        assert names == VIEWS[table["table_name"]].schema.names
    assert connection.adbc_get_table_schema("metrics") == VIEWS["metrics"].schema
    assert connection.adbc_get_table_types() == ["VIEW"]
    filtered = connection.adbc_get_objects(depth="tables", table_name_filter="records%").read_all().to_pylist()
    names = {table["table_name"] for table in filtered[0]["catalog_db_schemas"][0]["db_schema_tables"]}
    assert names == {"records", "records_all"}


def test_the_server_tells_its_name(connection: flightsql.Connection) -> None:
    assert connection.adbc_get_info()["vendor_name"] == "Tailrace"


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT servce_name FROM records", "did you mean service_name"),
        ("SELECT * FROM nope", "nope"),
        ("SELEC 1", r"line 1, column 1"),
        ("DELETE FROM records", "only SELECT"),
    ],
)
def test_an_error_is_a_sentence_and_never_a_traceback(connection: flightsql.Connection, sql: str, message: str) -> None:
    with connection.cursor() as cursor, pytest.raises(AdbcError, match=message) as caught:
        cursor.execute(sql)
    assert "Traceback" not in str(caught.value)


def test_an_error_in_the_middle_of_a_result_arrives(connection: flightsql.Connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 / (value - 90000) FROM generate_series(1, 100000)")
        with pytest.raises(AdbcError, match=r"(?i)divide by zero"):
            cursor.fetchall()


@pytest.mark.parametrize("spelling", ["Bearer {}", "bearer {}", "{}"])
def test_the_token_is_read_in_each_spelling(server: Served, spelling: str) -> None:
    with server.connect(**{AUTHORIZATION: spelling.format(OPERATOR)}) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


def test_basic_carries_the_token_as_the_password(server: Served) -> None:
    with server.connect(username="anyone", password=OPERATOR) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
    client = pf.FlightClient(f"grpc://127.0.0.1:{server.port}")
    assert client.authenticate_basic_token("anyone", OPERATOR) == (b"authorization", f"Bearer {OPERATOR}".encode())


def test_the_types_are_told(server: Served) -> None:
    def types(number: int | None) -> list[str | None]:
        descriptor = pf.FlightDescriptor.for_command(wrap(CommandGetXdbcTypeInfo(number)))
        info = client.get_flight_info(descriptor, call())
        return client.do_get(info.endpoints[0].ticket, call()).read_all()["type_name"].to_pylist()

    client = pf.FlightClient(f"grpc://127.0.0.1:{server.port}")
    assert "TIMESTAMP WITH TIME ZONE" in types(None)
    assert types(-5) == ["BIGINT"]


def test_a_session_has_a_time_zone(server: Served) -> None:
    cookies = {"adbc.flight.sql.rpc.with_cookie_middleware": "true", AUTHORIZATION: OPERATOR}
    sql = "SELECT arrow_typeof(now()) AS t"
    with server.connect(**cookies) as connection, connection.cursor() as cursor:
        session = connection.adbc_connection
        session.set_options(**{"adbc.flight.sql.session.option.time_zone": "Europe/Paris"})
        cursor.execute(sql)
        assert "Europe/Paris" in str(cursor.fetchone())
        assert "Europe/Paris" in session.get_option("adbc.flight.sql.session.options")
        for name, value in (("time_zone", "Mars"), ("catalog", "other"), ("color", "red")):
            with pytest.raises(AdbcError):
                session.set_options(**{f"adbc.flight.sql.session.option.{name}": value})
    with server.connect(**cookies) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        assert "UTC" in str(cursor.fetchone())


def test_a_cookie_is_only_good_with_its_credentials(server: Served) -> None:
    client = pf.FlightClient(f"grpc://127.0.0.1:{server.port}")

    def act(kind: str, body: bytes, cookie: str, scheme: str) -> bytes:
        headers = [(b"authorization", f"{scheme}{OPERATOR}".encode()), (b"cookie", cookie.encode())]
        options = pf.FlightCallOptions(headers=headers)  # pyright: ignore[reportArgumentType]  # the stubs say text
        return next(iter(client.do_action(pf.Action(kind, body), options))).body.to_pybytes()

    cookie = "arrow_flight_session_id=mine"
    option = SessionOption("time_zone", SessionOptionValue("Asia/Tokyo"))
    act("SetSessionOptions", encode(SetSessionOptionsRequest((option,))), cookie, "Bearer ")
    assert b"Asia/Tokyo" in act("GetSessionOptions", b"", cookie, "")
    assert b"Asia/Tokyo" not in act("GetSessionOptions", b"", "arrow_flight_session_id=yours", "")
    act("CloseSession", b"", cookie, "")
    assert b"Asia/Tokyo" not in act("GetSessionOptions", b"", cookie, "")


def test_a_statement_is_cancelled_by_its_info(server: Served) -> None:
    client = pf.FlightClient(f"grpc://127.0.0.1:{server.port}")
    query = wrap(CommandStatementQuery("SELECT sum(a.value * b.value) FROM generate_series(1, 1000000) a, "
                                       "generate_series(1, 1000000) b"))  # fmt: skip
    info = client.get_flight_info(pf.FlightDescriptor.for_command(query), call())
    reader = client.do_get(info.endpoints[0].ticket, call())
    request = encode(CancelFlightInfoRequest(info.serialize()))
    assert len(list(client.do_action(pf.Action("CancelFlightInfo", request), call()))) == 1
    with pytest.raises(pf.FlightCancelledError, match="cancelled"):
        reader.read_chunk()  # read_all would take it for Ctrl-C


def test_a_ticket_is_renewed_until_it_is_forgotten(server: Served) -> None:
    client = pf.FlightClient(f"grpc://127.0.0.1:{server.port}")
    info = client.get_flight_info(pf.FlightDescriptor.for_command(wrap(CommandStatementQuery("SELECT 1"))), call())
    endpoint = info.endpoints[0]
    assert endpoint.expiration_time is not None
    renew = pf.Action("RenewFlightEndpoint", encode(RenewFlightEndpointRequest(endpoint.serialize())))
    assert len(list(client.do_action(renew, call()))) == 1
    cancel = pf.Action("CancelQuery", wrap(ActionCancelQueryRequest(info.serialize())))
    assert len(list(client.do_action(cancel, call()))) == 1
    for action in (renew, cancel):
        with pytest.raises(pf.FlightError, match="not known"):
            list(client.do_action(action, call()))


def test_partitions_are_read_by_who_asked_for_them(server: Served, connection: flightsql.Connection) -> None:
    with connection.cursor() as cursor:
        partitions, schema = cursor.adbc_execute_partitions("SELECT message FROM records ORDER BY 1")
        assert schema is not None
        cursor.adbc_read_partition(partitions[0])
        assert len(cursor.fetchall()) == 5


def test_handles_of_another_token_are_not_known(server: Served, request: pytest.FixtureRequest) -> None:
    client = pf.FlightClient(f"grpc://127.0.0.1:{server.port}")
    descriptor = pf.FlightDescriptor.for_command(wrap(CommandStatementQuery("SELECT message FROM records")))
    ticket = client.get_flight_info(descriptor, call()).endpoints[0].ticket
    prepare = pf.Action("CreatePreparedStatement", wrap(ActionCreatePreparedStatementRequest("SELECT 1")))
    prepared = unwrap(next(iter(client.do_action(prepare, call()))).body.to_pybytes())
    assert isinstance(prepared, ActionCreatePreparedStatementResult)
    stolen = pf.FlightDescriptor.for_command(wrap(CommandPreparedStatementQuery(prepared.prepared_statement_handle)))
    other = pf.FlightCallOptions(headers=[(b"authorization", b"Bearer someone-else")])  # pyright: ignore[reportArgumentType]  # the stubs say text
    said = "not known" if "open" in request.node.name else "token"
    for ask in (lambda: client.do_get(ticket, other).read_all(), lambda: client.get_flight_info(stolen, other)):
        with pytest.raises(pf.FlightError, match=said):
            ask()
    assert client.do_get(ticket, call()).read_all().num_rows == 5


def test_an_unknown_project_of_the_operator_is_named(server: Served) -> None:
    options = call(project="nope")
    client = pf.FlightClient(f"grpc://127.0.0.1:{server.port}")
    with pytest.raises(pf.FlightError, match="nope"):
        client.get_flight_info(pf.FlightDescriptor.for_command(wrap(CommandGetSqlInfo())), options)


def test_without_a_token_it_depends_on_the_setting(server: Served, request: pytest.FixtureRequest) -> None:
    is_open = "open" in request.node.name
    if is_open:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM records")
            assert cursor.fetchone() == (5,)
    else:
        with pytest.raises(AdbcError, match=r"(?i)token"), server.connect() as connection:
            connection.cursor().execute("SELECT 1")


@pytest.mark.parametrize(
    "command", [b"", b"\xff\xff", wrap(CommandStatementUpdate()), wrap(TicketStatementQuery(b"stolen"))]
)
def test_what_is_not_for_us_is_refused_politely(server: Served, command: bytes) -> None:
    options = call()
    client = pf.FlightClient(f"grpc://127.0.0.1:{server.port}")
    for ask in (
        lambda: client.get_flight_info(pf.FlightDescriptor.for_command(command), options),
        lambda: client.do_get(pf.Ticket(command), options).read_all(),
        lambda: list(client.do_action(pf.Action("CreatePreparedStatement", command), options)),
        lambda: list(client.do_action(pf.Action("Nonsense", command), options)),
    ):
        with pytest.raises(pf.FlightError) as caught:
            ask()
        assert "Traceback" not in str(caught.value)


def test_the_other_processes_ask_over_the_inner_socket_and_tell_of_commits(server: Served) -> None:
    client = QueryClient(server.socket)
    count = Statement("SELECT count(*) AS n FROM records", "dddddddd-0000-4000-8000-000000000000")
    before = client.run(count).read_all()["n"][0].as_py()
    version = append(server.lake, RECORDS, {"project_id": count.project_id})
    announce_commit(server.socket, 1, {"records": version})
    assert client.run(count).read_all()["n"][0].as_py() == before + 1
    assert client.schema(count) == pa.schema([pa.field("n", pa.int64(), False)])
    assert server.socket.stat().st_mode & 0o777 == 0o600


def test_a_commit_that_nobody_hears_is_no_error(tmp_path: Path) -> None:
    announce_commit(tmp_path / "nobody.sock", 1, {"records": 0})
    (tmp_path / "dead.sock").touch()
    announce_commit(tmp_path / "dead.sock", 1, {"records": 0})
