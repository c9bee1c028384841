"""How the command line asks a running server: ADBC over Flight SQL, as any other client would.

Without a token it uses this start's operator secret, which whoever may read the data directory may use.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
from adbc_driver_manager import Error as AdbcError

from core.errors import BadQuery, BadSettings, TailraceError, Unauthenticated, Unavailable
from flight.settings import FlightSettings
from server.settings import Settings

PROJECT_HEADER = "tailrace-project"
_HEADER = adbc_driver_flightsql.DatabaseOptions.RPC_CALL_HEADER_PREFIX.value
_AUTHORIZATION = adbc_driver_flightsql.DatabaseOptions.AUTHORIZATION_HEADER.value
_UNAUTHENTICATED = {"UNAUTHENTICATED", "UNAUTHORIZED"}


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to ask, and as whom."""

    url: str
    """`grpc://host:port` of the Flight SQL server."""
    token: str | None
    project: str | None
    tls: Mapping[str, str]
    """Options of the driver for TLS."""

    @classmethod
    def of(cls, settings: Settings, url: str | None, token: str | None, project: str | None) -> "Target":
        """The target of the options given; the server on this data directory by default."""
        url = url or f"{settings.flight.scheme}://{settings.host}:{settings.flight_port}"
        if token is None and settings.operator_token_file.exists():
            try:
                token = settings.operator_token_file.read_text()
            except PermissionError:
                token = None
        return cls(url, token, project, _tls(settings.flight))


@contextmanager
def ask(target: Target, sql: str) -> Generator[pa.RecordBatchReader]:
    """The rows of a statement as they arrive. Raises BadQuery, Unauthenticated or Unavailable."""
    options = dict(target.tls)
    if target.token:
        options[_AUTHORIZATION] = f"Bearer {target.token}"
    if target.project:
        options[_HEADER + PROJECT_HEADER] = target.project
    try:
        with (
            flightsql.connect(target.url, db_kwargs=options, autocommit=True) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(sql)
            yield cursor.fetch_record_batch()
    except AdbcError as error:
        raise _translated(error, target) from error


def _tls(settings: FlightSettings) -> dict[str, str]:
    """The driver's options for the files there are. Raises BadSettings when one cannot be read."""
    options = adbc_driver_flightsql.DatabaseOptions
    files = {
        options.TLS_ROOT_CERTS.value: (settings.tls_certificate, settings.tls_roots),
        options.MTLS_CERT_CHAIN.value: (settings.tls_client_certificate,),
        options.MTLS_PRIVATE_KEY.value: (settings.tls_client_key,),
    }
    try:
        texts = {name: "".join(path.read_text() for path in paths if path) for name, paths in files.items()}
    except OSError as error:
        raise BadSettings(f"A file of TLS cannot be read: {error}") from error
    return {name: text for name, text in texts.items() if text}


def _translated(error: AdbcError, target: Target) -> TailraceError:
    status = error.status_code.name
    text = str(error).split("[FlightSQL] ", 1)[-1]
    if status in _UNAUTHENTICATED:
        return Unauthenticated(text)
    if status in {"IO", "TIMEOUT"} and "onnection" in text:
        return Unavailable(f"No Tailrace answers at {target.url}; is `tailrace serve` running?")
    return BadQuery(text)
