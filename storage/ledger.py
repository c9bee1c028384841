"""The ledger: what people edit, as rows in SQLite or PostgreSQL.

In:  a SQLAlchemy URL.   Out: `Ledger`, with its projects and tokens.
Opening brings the tables up to date under a lock, so that any number of processes may open at once; a
ledger of a later version is refused. Storage that answers every request in memory: see storage.keys.
"""

import asyncio
import fcntl
import logging
import os
import threading
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from core.errors import Refused, Unavailable
from storage.ledger_engine import Transactions, async_engine, ledger_errors, sqlite_file, sync_engine
from storage.ledger_schema import SCHEMA_VERSION
from storage.projects import Projects
from storage.tokens import Tokens

MIGRATION_WAIT_S = 60.0
"""How long an open waits for another process's migration; then it is told to try again (`Unavailable`)."""
MIGRATION_POLL_S = 0.02
"""How often the lock beside an SQLite file is tried."""
MIGRATIONS = Path(__file__).parent / "migrations"
POSTGRESQL_LOCK = 0x7461696C72616365
"""Key of the advisory lock under which a PostgreSQL ledger is migrated: `tailrace` in ASCII."""

_log = logging.getLogger(__name__)
_one_upgrade = threading.Lock()  # alembic keeps the running migration in module globals


@dataclass(frozen=True, slots=True)
class Ledger:
    """An open ledger; every method is a transaction of its own."""

    projects: Projects
    tokens: Tokens


@asynccontextmanager
async def open_ledger(url: str) -> AsyncGenerator[Ledger]:
    """The ledger at a SQLAlchemy URL, made or brought up to date first.

    Raises Refused when it cannot be written or is of a later version, Unavailable when it cannot be reached.
    """
    await asyncio.to_thread(migrate, url)
    engine = async_engine(url)
    try:
        transactions = Transactions(engine)
        yield Ledger(Projects(transactions), Tokens(transactions))
    finally:
        await engine.dispose()


def migrate(url: str) -> None:
    """Make the ledger or bring it up to date, in one transaction; the errors of `open_ledger`."""
    engine = sync_engine(url, foreign_keys=False)
    try:
        with ledger_errors(), _alone(engine), engine.execution_options(writing=True).begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(text(f"SET LOCAL lock_timeout = '{MIGRATION_WAIT_S:.0f}s'"))
                connection.execute(text(f"SELECT pg_advisory_xact_lock({POSTGRESQL_LOCK})"))
            _bring_up_to_date(connection)
    finally:
        engine.dispose()


def _bring_up_to_date(connection: Connection) -> None:
    found = _version(connection)
    if found == SCHEMA_VERSION:
        return
    if found is not None and found > SCHEMA_VERSION:
        raise Refused(
            f"The ledger has schema version {found}, and this Tailrace knows {SCHEMA_VERSION} at most:"
            " start the newer Tailrace that has used it"
        )
    from alembic import command  # noqa: PLC0415  # slow to import, and rarely needed
    from alembic.config import Config  # noqa: PLC0415  # the same

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _one_upgrade:
        command.upgrade(config, SCHEMA_VERSION)
    _log.info("brought the ledger from schema version %s to %s", found, SCHEMA_VERSION)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


@contextmanager
def _alone(engine: Engine) -> Generator[None]:
    """Hold the lock file beside an SQLite ledger: switching a fresh file to WAL does not wait its turn."""
    file = sqlite_file(engine.url)
    if file is None:
        yield
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file.with_name(f"{file.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise Refused(
            f"The ledger {str(file)!r} cannot be written ({error.strerror}): make its directory writable,"
            " or choose another with --data"
        ) from error
    try:
        _lock(descriptor, file)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, file: Path) -> None:
    deadline = time.monotonic() + MIGRATION_WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Unavailable(f"Another process has been opening the ledger {str(file)!r} for too long") from None
            time.sleep(MIGRATION_POLL_S)
        else:
            return
