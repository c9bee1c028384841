"""Ledgers for tests: a fresh SQLite file, and a fresh database in a throw-away PostgreSQL cluster.

The cluster runs on a Unix socket in a temporary directory, as another user when the tests run as root,
since PostgreSQL refuses root. Where PostgreSQL is absent, tests marked `postgresql` are deselected.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

DEBIAN_BINARIES = "/usr/lib/postgresql"
SETTINGS = "-c listen_addresses='' -c fsync=off -c synchronous_commit=off -c max_connections=50"


def postgresql_binaries() -> Path | None:
    """The directory with initdb and pg_ctl: on PATH, or where Debian keeps the newest; None when absent."""
    found = shutil.which("pg_ctl")
    candidates = [Path(found).resolve().parent] if found else []
    candidates += sorted(Path(DEBIAN_BINARIES).glob("*/bin"), reverse=True)
    return next((place for place in candidates if (place / "initdb").exists()), None)


def cluster_user() -> pwd.struct_passwd:
    """Who runs the cluster: this user, or nobody's like when that is root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


@pytest.fixture(scope="session")
def postgresql_cluster() -> Iterator[str]:
    binaries = postgresql_binaries()
    assert binaries is not None, "PostgreSQL is absent: deselect the tests marked postgresql"
    user = cluster_user()
    directory = Path(tempfile.mkdtemp(prefix="tailrace-pg-"))
    os.chown(directory, user.pw_uid, user.pw_gid)
    data = directory / "data"

    def run(*command: str) -> None:
        subprocess.run(
            [binaries / command[0], "--pgdata", data, *command[1:]],
            check=True, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            user=user.pw_uid if os.geteuid() == 0 else None,
        )  # fmt: skip

    try:
        run("initdb", "--auth=trust", "--username=tailrace", "--encoding=UTF8", "--no-locale", "--no-sync")
        run("pg_ctl", "--wait", f"--log={directory / 'log'}", f"--options={SETTINGS} -k {directory}", "start")
        try:
            yield f"host={directory} user=tailrace"
        finally:
            run("pg_ctl", "--wait", "--mode=immediate", "stop")
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def postgresql_url(postgresql_cluster: str) -> str:
    """The SQLAlchemy URL of an empty database."""
    name = f"ledger_{uuid4().hex}"
    with psycopg.connect(f"{postgresql_cluster} dbname=postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    host = postgresql_cluster.split(maxsplit=1)[0].removeprefix("host=")
    return f"postgresql+psycopg://tailrace@/{name}?host={host}"


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The SQLAlchemy URL of an SQLite ledger that does not exist yet, in a directory of its own."""
    return f"sqlite+aiosqlite:///{tmp_path / 'data' / 'ledger.sqlite3'}"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def ledger_url(request: pytest.FixtureRequest) -> str:
    """A ledger that does not exist yet, in each database."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def anyio_backend() -> str:
    """Coroutine tests (marked anyio) run on asyncio, as the product does."""
    return "asyncio"
