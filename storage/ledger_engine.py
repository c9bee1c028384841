"""Engines and transactions of the ledger, the same for SQLite and PostgreSQL.

Writers take turns: SQLite's `BEGIN IMMEDIATE`, PostgreSQL's lock on the one row of `revision`, which every
write transaction raises before anything else. Readers never wait. What a driver has to say becomes one of
the errors of core.errors.
"""

import sqlite3
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, update
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, ProgrammingError

from core.errors import BadSettings, DiskFull, Refused, TailraceError, Unavailable
from storage.ledger_schema import revision

if TYPE_CHECKING:  # it brings the ORM, 0.3 s, and only those who edit the ledger need it
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


WRITER_WAIT_S = 5.0
"""How long a writer waits for its turn; then it is told to try again (`Unavailable`)."""
POSTGRESQL_CONNECT_TIMEOUT_S = 5
"""How long connecting to PostgreSQL may take, whole seconds; then the ledger is `Unavailable`."""
DATABASES = {
    "sqlite": ("sqlite+pysqlite", "sqlite+aiosqlite"),
    "postgresql": ("postgresql+psycopg", "postgresql+psycopg"),
}
"""Database → its SQLAlchemy drivers: synchronous, asynchronous."""

_BUSY = "The ledger is busy: another process has been writing for too long; try again"
_FULL = "The ledger cannot grow: the disk is full; free some space"
_CLOSED = "The ledger cannot be opened: make its directory and file writable"

_SQLITE_ERRORS: dict[str, tuple[type[TailraceError], str]] = {
    "SQLITE_BUSY": (Unavailable, _BUSY),
    "SQLITE_FULL": (DiskFull, _FULL),
    "SQLITE_READONLY": (Refused, "The ledger cannot be written: make its directory and file writable"),
    "SQLITE_CANTOPEN": (Refused, _CLOSED),
    "SQLITE_PERM": (Refused, _CLOSED),
    "SQLITE_NOTADB": (Refused, "The ledger's file is not an SQLite database: restore it from a back-up"),
    "SQLITE_CORRUPT": (Refused, "The ledger's file is damaged: restore it from a back-up"),
}
"""SQLite's error names without their extension → what a person is told."""
_SQLSTATES: dict[str, tuple[type[TailraceError], str]] = {
    "55P03": (Unavailable, _BUSY),
    "53100": (DiskFull, _FULL),
    "25006": (Refused, "The ledger cannot be written: its PostgreSQL server is read-only"),
}
"""PostgreSQL's error codes → the same."""

_BUMP = update(revision).values(value=revision.c.value + 1)


def sync_engine(url: str, *, foreign_keys: bool = True) -> Engine:
    """An engine for threads; migrations go without foreign keys, since SQLite copies tables to alter them."""
    place = _place(url, 0)
    with _missing_driver(place):
        engine = create_engine(place, connect_args=_connect_args(place), pool_pre_ping=True, hide_parameters=True)
    _listen(engine, foreign_keys=foreign_keys)
    return engine


def async_engine(url: str) -> "AsyncEngine":
    """An engine for coroutines."""
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415  # see above

    place = _place(url, 1)
    with _missing_driver(place):
        engine = create_async_engine(place, connect_args=_connect_args(place), pool_pre_ping=True, hide_parameters=True)
    _listen(engine.sync_engine, foreign_keys=True)
    return engine


def sqlite_file(url: URL) -> Path | None:
    """The file of an SQLite ledger; None for a ledger elsewhere."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


class Transactions:
    """Short transactions on one ledger; safe to use from many tasks of one event loop."""

    def __init__(self, engine: "AsyncEngine") -> None:
        self._reader = engine
        self._writer = engine.execution_options(writing=True)

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator["AsyncConnection"]:
        """A connection to read with."""
        with ledger_errors():
            async with self._reader.connect() as connection:
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator["AsyncConnection"]:
        """A connection to write with, alone among all processes; commits at the end, or undoes all on an error.

        Raises Unavailable when the others have kept it waiting too long.
        """
        with ledger_errors():
            async with self._writer.begin() as connection:
                await connection.execute(_BUMP)
                yield connection


@contextmanager
def ledger_errors() -> Generator[None]:
    """Turn a driver's errors into core.errors; broken constraints and wrong SQL are the caller's business."""
    try:
        yield
    except (IntegrityError, ProgrammingError):
        raise
    except DBAPIError as error:
        raise _plain(error) from error


def _plain(error: DBAPIError) -> TailraceError:
    if isinstance(error.orig, sqlite3.Error):
        name = getattr(error.orig, "sqlite_errorname", "")  # absent when Python, not SQLite, raised it
        for prefix, (family, message) in _SQLITE_ERRORS.items():
            if name.startswith(prefix):
                return family(message)
    sqlstate = getattr(error.orig, "sqlstate", None)  # PostgreSQL's
    if sqlstate in _SQLSTATES:
        family, message = _SQLSTATES[sqlstate]
        return family(message)
    return Unavailable(f"The ledger cannot be reached: {error.orig}")


def _place(url: str, driver: int) -> URL:
    try:
        place = make_url(url)
    except ArgumentError as error:
        raise BadSettings("The ledger's URL is not one; write sqlite:////path/to/file or postgresql://…") from error
    drivers = DATABASES.get(place.get_backend_name())
    if drivers is None:
        raise BadSettings(f"The ledger cannot be kept in {place.get_backend_name()!r}; use SQLite or PostgreSQL")
    if place.get_backend_name() == "sqlite" and (place.database or ":memory:").startswith((":memory:", "file:")):
        raise BadSettings("The ledger is shared by several processes: give its SQLite URL the path of a file")
    return place.set(drivername=drivers[driver])


def _connect_args(place: URL) -> dict[str, Any]:
    if place.get_backend_name() != "sqlite":
        return {
            "connect_timeout": POSTGRESQL_CONNECT_TIMEOUT_S,
            "options": f"-c lock_timeout={WRITER_WAIT_S * 1000:.0f}ms",
        }
    return {"timeout": WRITER_WAIT_S, "isolation_level": None}  # _listen begins transactions


@contextmanager
def _missing_driver(place: URL) -> Generator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise BadSettings(f"{place.drivername!r} needs the Python package {error.name!r}: install it") from error


def _listen(engine: Engine, *, foreign_keys: bool) -> None:
    if engine.dialect.name != "sqlite":
        return

    def connected(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")
        cursor.close()

    def begin(connection: Connection) -> None:
        writing = connection.get_execution_options().get("writing", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begin)
