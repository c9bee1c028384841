"""TLS: Flight SQL with a certificate of its own, for the command line and for ADBC; and for known clients alone."""

import tempfile
from collections.abc import Generator
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import pytest
import trustme
from adbc_driver_manager import Error as AdbcError

from tests.acceptance.servers import Server, running

OPTION = "adbc.flight.sql.client_option."


@pytest.fixture(scope="module")
def files() -> Generator[Path]:
    """PEM files: an authority, the server's certificate, a client's."""
    with tempfile.TemporaryDirectory(prefix="tailrace-") as directory:
        place, authority = Path(directory), trustme.CA()
        authority.cert_pem.write_to_path(place / "authority.pem")
        for name, certificate in {
            "server": authority.issue_cert("127.0.0.1"), "client": authority.issue_cert("client@example.com"),
        }.items():  # fmt: skip
            certificate.private_key_pem.write_to_path(place / f"{name}.key")
            for blob in certificate.cert_chain_pems:
                blob.write_to_path(place / f"{name}.pem", append=True)
        yield place


@pytest.fixture(scope="module")
def server(files: Path) -> Generator[Server]:
    environment = {
        "TAILRACE_FLIGHT__TLS_CERTIFICATE": str(files / "server.pem"),
        "TAILRACE_FLIGHT__TLS_KEY": str(files / "server.key"),
        "TAILRACE_FLIGHT__TLS_CLIENT_AUTHORITY": str(files / "authority.pem"),
        "TAILRACE_FLIGHT__TLS_ROOTS": str(files / "authority.pem"),
        "TAILRACE_FLIGHT__TLS_CLIENT_CERTIFICATE": str(files / "client.pem"),
        "TAILRACE_FLIGHT__TLS_CLIENT_KEY": str(files / "client.key"),
    }
    with running(files / "data", **environment) as server:
        yield server


def connect(server: Server, files: Path, *, known: bool) -> flightsql.Connection:
    options = {OPTION + "tls_root_certs": (files / "authority.pem").read_text()}
    if known:
        options[OPTION + "mtls_cert_chain"] = (files / "client.pem").read_text()
        options[OPTION + "mtls_private_key"] = (files / "client.key").read_text()
    return flightsql.connect(server.flight.replace("grpc:", "grpc+tls:"), db_kwargs=options, autocommit=True)


def test_a_client_that_is_known_is_let_in(server: Server, files: Path) -> None:
    with connect(server, files, known=True) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


def test_a_client_without_certificate_is_turned_away(server: Server, files: Path) -> None:
    with pytest.raises(AdbcError), connect(server, files, known=False) as connection:
        connection.cursor().execute("SELECT 1")


def test_a_client_without_tls_is_turned_away(server: Server) -> None:
    with pytest.raises(AdbcError), flightsql.connect(server.flight, autocommit=True) as connection:
        connection.cursor().execute("SELECT 1")


def test_the_command_line_knows_its_own_server(server: Server) -> None:
    assert f"grpc+tls://127.0.0.1:{server.ports[3]}" in server.output
    done = server.command("query", "SELECT 40 + 2 AS answer", "--format", "csv")
    assert (done.returncode, done.stdout.splitlines()) == (0, ["answer", "42"]), done.stderr


def test_half_a_setting_is_refused(files: Path) -> None:
    server = Server(files / "half", {"TAILRACE_FLIGHT__TLS_KEY": str(files / "server.key")})
    done = server.command("serve")
    assert done.returncode != 0
    assert "tls_certificate" in done.stderr + done.stdout
