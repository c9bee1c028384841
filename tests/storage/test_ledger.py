"""The ledger: safe to open from anywhere at once, one writer at a time, and plain words when it cannot be."""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from core.errors import BadSettings, DiskFull, Exists, Refused, Unavailable
from core.projects import DEFAULT_PROJECT_ID, DEFAULT_PROJECT_NAME, TokenKind
from storage import ledger_engine
from storage.ledger import MIGRATIONS, migrate, open_ledger
from storage.ledger_engine import Transactions, async_engine, sync_engine
from storage.ledger_schema import SCHEMA_VERSION, metadata

NOW = datetime(2026, 11, 24, 12, 30, 15, 123456, UTC)
REPOSITORY = Path(__file__).parents[2]
NOBODY_UID = 65534

OPEN = """
import sys
from storage.ledger import migrate
sys.stdin.readline()
migrate(sys.argv[1])
"""
CREATE_PROJECTS = """
import asyncio, sys
from datetime import UTC, datetime
from storage.ledger import open_ledger

async def main(url, name, count):
    async with open_ledger(url) as ledger:
        sys.stdin.readline()
        for number in range(count):
            await ledger.projects.create(f"{name}-{number}", datetime(2026, 11, 24, tzinfo=UTC))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def run_together(*commands: list[str]) -> None:
    """Run Python programs that wait for a line, and let them all go at once."""
    running = [
        subprocess.Popen([sys.executable, "-c", *command], cwd=REPOSITORY, stdin=subprocess.PIPE)
        for command in commands
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.close()
    assert [process.wait() for process in running] == [0] * len(commands)


def query(url: str, sql: str) -> list[tuple[object, ...]]:
    engine = sync_engine(url)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql))]
    finally:
        engine.dispose()


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """A directory every user may reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        yield Path(directory)


async def create_a_project(url: str) -> None:
    async with open_ledger(url) as ledger:
        await ledger.projects.create("shop", NOW)


@contextmanager
def unprivileged() -> Generator[None]:
    """Nothing stops root: be nobody for as long."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY_UID)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_the_schema_version_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA_VERSION]


def test_the_migrations_make_exactly_the_tables_of_the_schema(ledger_url: str) -> None:
    migrate(ledger_url)
    engine = sync_engine(ledger_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


@pytest.mark.anyio
async def test_a_fresh_ledger_holds_the_default_project(ledger_url: str) -> None:
    async with open_ledger(ledger_url) as ledger:
        [project] = await ledger.projects.list()
    assert (project.id, project.name) == (DEFAULT_PROJECT_ID, DEFAULT_PROJECT_NAME)
    assert abs(project.created_at - datetime.now(UTC)).days == 0


def test_processes_opening_a_fresh_ledger_at_once_migrate_it_once(ledger_url: str) -> None:
    run_together([OPEN, ledger_url], [OPEN, ledger_url])
    assert query(ledger_url, "SELECT version_num FROM alembic_version") == [(SCHEMA_VERSION,)]
    assert query(ledger_url, "SELECT id, value FROM revision") == [(1, 1)]
    assert query(ledger_url, "SELECT name FROM projects") == [("default",)]


@pytest.mark.anyio
async def test_threads_may_migrate_several_ledgers_at_once(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path / name}" for name in "aabbcc"]
    await asyncio.gather(*(asyncio.to_thread(migrate, url) for url in urls))
    assert [query(url, "SELECT count(*) FROM projects") for url in urls] == [[(1,)]] * len(urls)


def test_processes_writing_at_once_lose_nothing(ledger_url: str) -> None:
    migrate(ledger_url)
    run_together([CREATE_PROJECTS, ledger_url, "a", "10"], [CREATE_PROJECTS, ledger_url, "b", "10"])
    assert query(ledger_url, "SELECT count(*) FROM projects") == [(21,)]
    assert query(ledger_url, "SELECT value FROM revision") == [(21,)]


def test_a_ledger_of_a_later_version_is_refused(ledger_url: str) -> None:
    migrate(ledger_url)
    engine = sync_engine(ledger_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(Refused, match=r"schema version 9999, and this Tailrace knows \d{4} at most"):
        migrate(ledger_url)


@pytest.mark.parametrize("place", ["ledger.sqlite3", "data/ledger.sqlite3"])
def test_a_directory_that_cannot_be_written_is_refused(public_directory: Path, place: str) -> None:
    public_directory.chmod(0o555)
    with unprivileged(), pytest.raises(Refused, match=r"ledger\.sqlite3' cannot be written \(Permission denied\)"):
        migrate(f"sqlite:///{public_directory}/{place}")


def test_a_file_that_cannot_be_written_is_refused(public_directory: Path) -> None:
    url = f"sqlite:///{public_directory}/ledger.sqlite3"
    migrate(url)
    lock = public_directory / "ledger.sqlite3.lock"
    lock.chmod(0o444)
    with unprivileged(), pytest.raises(Refused, match=r"cannot be written \(Permission denied\)"):
        migrate(url)
    lock.chmod(0o666)
    (public_directory / "ledger.sqlite3").chmod(0o444)
    with unprivileged(), pytest.raises(Refused, match="make its directory and file writable"):
        asyncio.run(create_a_project(url))


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite3").write_bytes(b"all our projects\n" * 1000)
    with pytest.raises(Refused, match="not an SQLite database"):
        migrate(f"sqlite:///{tmp_path}/ledger.sqlite3")


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:ledger?mode=ro&uri=true",
        "mysql://localhost/ledger",
        "ledger.sqlite3",
    ],
)
def test_a_url_that_cannot_be_a_ledger_is_a_bad_setting(url: str) -> None:
    with pytest.raises(BadSettings):
        migrate(url)


def test_a_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(BadSettings, match="needs the Python package 'psycopg'"):
        migrate("postgresql://localhost/ledger")


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be reached") as caught:
        migrate(f"postgresql://tailrace:hunter2@/ledger?host={tmp_path}")
    assert "hunter2" not in caught.value.message


@pytest.mark.anyio
async def test_a_writer_kept_waiting_too_long_is_told_to_try_again_while_readers_go_on(
    ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_engine, "WRITER_WAIT_S", 0.05)
    async with open_ledger(ledger_url) as ledger, AsyncExitStack() as other:
        engine = async_engine(ledger_url)
        await other.enter_async_context(Transactions(engine).writing())
        with pytest.raises(Unavailable, match="busy"):
            await ledger.projects.create("shop", NOW)
        assert len(await ledger.projects.list()) == 1
        await other.aclose()
        await engine.dispose()
        await ledger.projects.create("shop", NOW)


@pytest.mark.anyio
async def test_a_full_disk_is_called_by_its_name_and_changes_nothing(sqlite_url: str) -> None:
    migrate(sqlite_url)
    engine = async_engine(sqlite_url)

    async def write_too_much() -> None:
        async with Transactions(engine).writing() as connection:
            await connection.exec_driver_sql("PRAGMA max_page_count = 1")  # clamped to the present size
            await connection.exec_driver_sql("CREATE TABLE ballast AS SELECT zeroblob(1000000)")

    with pytest.raises(DiskFull):
        await write_too_much()
    await engine.dispose()
    assert query(sqlite_url, "SELECT value FROM revision") == [(1,)]


@pytest.mark.anyio
async def test_every_change_raises_the_revision_and_a_failed_one_does_not(ledger_url: str) -> None:
    async def revision() -> object:
        [(value,)] = await asyncio.to_thread(query, ledger_url, "SELECT value FROM revision")
        return value

    async with open_ledger(ledger_url) as ledger:
        project = await ledger.projects.create("shop", NOW)
        assert await revision() == 2
        with pytest.raises(Exists):
            await ledger.projects.create("shop", NOW)
        assert await revision() == 2
        token, _ = await ledger.tokens.create(project, TokenKind.READ, now=NOW)
        assert await revision() == 3
        await ledger.tokens.revoke(token.id, now=NOW)
        assert await revision() == 4


@pytest.mark.anyio
async def test_sqlite_survives_a_power_cut_and_keeps_its_references(sqlite_url: str) -> None:
    migrate(sqlite_url)
    engine = async_engine(sqlite_url)
    async with Transactions(engine).reading() as connection:
        pragmas = ("journal_mode", "synchronous", "foreign_keys")
        found = [(await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one() for name in pragmas]
    await engine.dispose()
    assert found == ["wal", 2, 1]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29), timezones=st.timezones())))  # noqa: DTZ001  # hypothesis wants naive bounds
def test_a_moment_comes_back_the_same_aware_and_in_utc(tmp_path: Path, moments: list[datetime]) -> None:
    async def story() -> None:
        async with open_ledger(f"sqlite:///{tmp_path}/ledger.sqlite3") as ledger:
            project = await ledger.projects.get(DEFAULT_PROJECT_NAME)
            made = [await ledger.tokens.create(project, TokenKind.READ, now=NOW, expires_at=each) for each in moments]
            kept = {token.id: token.expires_at for token in await ledger.tokens.list()}
            for (token, _), moment in zip(made, moments, strict=True):
                expires_at = kept[token.id]
                assert expires_at is not None
                assert expires_at.tzinfo is UTC
                assert expires_at == moment.astimezone(UTC)

    asyncio.run(story())
