"""The engine: real workers that are killed, commits that must be seen, and waiting that ends."""

import os
import signal
import time
from pathlib import Path

import pytest

from core.errors import BadQuery, Cancelled, Overloaded, StatementLimit
from core.schema import RECORDS
from query.engine import Engine, open_engine
from query.settings import QuerySettings
from query.statements import Statement
from tests.lakes import A, B, append
from tests.query.conftest import wait_ready

ENDLESS = "SELECT count(*) FROM generate_series(1, 1000000000000)"
BUSY = "SELECT sum(a.value) FROM generate_series(1, 4000) a, generate_series(1, 4000) b"


def one(engine: Engine, sql: str, project_id: str = A) -> object:
    return engine.run(Statement(sql, project_id)).read_all().column(0)[0].as_py()


def test_each_project_sees_its_own_rows(engine: Engine) -> None:
    assert one(engine, "SELECT count(*) FROM records") == 10
    assert one(engine, "SELECT message FROM records", B) == "secret-of-b"
    assert one(engine, "SELECT count(*) FROM records", "nobody") == 0


def test_errors_cross_the_processes_whole(engine: Engine) -> None:
    with pytest.raises(BadQuery) as caught:
        engine.run(Statement("SELECT 1;\n SELECT 2", A))
    assert (caught.value.line, caught.value.column) == (1, 9)
    with pytest.raises(StatementLimit):
        engine.run(Statement(ENDLESS, A, timeout_s=0.2)).read_all()


def test_an_announced_commit_is_seen(engine: Engine, lake: Path) -> None:
    project = "cccccccc-0000-4000-8000-000000000000"
    for count in range(1, 4):
        version = append(lake, RECORDS, {"project_id": project})
        engine.committed({"records": version})
        assert one(engine, "SELECT count(*) FROM records", project) == count


def test_a_statement_that_has_sent_nothing_survives_its_worker(engine: Engine) -> None:
    rows = engine.run(Statement(BUSY, A))
    run = next(iter(engine._runs))
    assert run._lease is not None
    os.kill(run._lease.worker.pid, signal.SIGKILL)
    assert rows.read_all().num_rows == 1
    wait_ready(engine)


def test_a_statement_that_hangs_takes_its_worker_with_it_and_the_next_one_runs(engine: Engine) -> None:
    with pytest.raises(StatementLimit, match=r"killed|more memory"):  # it may die before it is killed
        engine.run(Statement("SELECT repeat('x', 2000000000)", A, timeout_s=0.3)).read_all()
    assert one(engine, "SELECT 1") == 1
    wait_ready(engine)


def test_a_reader_that_left_gives_its_worker_back(engine: Engine) -> None:
    left = False
    rows = engine.run(Statement(ENDLESS, A), lambda: left)
    left = True
    with pytest.raises(Cancelled):
        next(rows)
    rows.close()
    assert engine._runs == set()


def test_waiting_for_a_worker_ends(lake: Path, tmp_path: Path) -> None:
    settings = QuerySettings(workers=1, statements_per_worker_max=1, statement_wait_s=0.1)
    with open_engine(lake, tmp_path, settings) as engine:
        wait_ready(engine)
        with engine.run(Statement("SELECT * FROM generate_series(1, 1000000000)", A)) as rows:
            next(rows)
            with pytest.raises(Overloaded):
                engine.run(Statement("SELECT 1", A))
        assert one(engine, "SELECT 1") == 1


def test_files_of_finished_statements_are_let_go(engine: Engine, tmp_path: Path) -> None:
    with engine.run(Statement("SELECT * FROM records", A)) as rows:
        rows.read_all()
    directory = engine._snapshots._tables["records"]._current[A]
    deadline = time.monotonic() + 5
    while directory.pins and time.monotonic() < deadline:
        time.sleep(0.01)
    assert directory.pins == 0
