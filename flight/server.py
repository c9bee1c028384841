"""The flight process's two doors, opened and closed together: Flight SQL for everyone, and the inner socket."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from core.errors import Refused
from flight.inner import Inner
from flight.settings import FlightSettings
from flight.statements import FlightSql
from query.engine import Engine
from query.transport import StatementServer
from storage.keys import Keys


@contextmanager
def open_flight(
    engine: Engine, keys: Keys, settings: FlightSettings, *, address: tuple[str, int], inner_socket: Path
) -> Generator[int]:
    """Keep both doors open until the block ends; gives the public port. Raises Refused when it cannot be bound."""
    host, port = address
    name = f"[{host}]" if ":" in host else host
    with StatementServer(inner_socket, Inner(engine)):
        try:
            server = FlightSql(engine, keys, f"{settings.scheme}://{name}:{port}", settings)
        except (OSError, pa.ArrowException) as error:
            raise Refused(f"{host}:{port} cannot be bound for Flight SQL: {error}") from error
        with server:
            yield server.port
