"""A session: the tables as promised, bounds that no text gets around, limits, and errors that tell no paths."""

from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pytest

from core.errors import BadQuery, StatementLimit
from core.projects import Asker
from core.schema import TABLES, VIEWS
from query.session import Session, start_loop
from query.settings import Caps, QuerySettings
from query.statements import Statement, Task
from query.tables import SOURCES
from storage.snapshots import Snapshots
from tests.lakes import MOMENT, A, B

LOOP = start_loop()
SETTINGS = QuerySettings()
Pinned: TypeAlias = dict[str, dict[str, Path]]


@pytest.fixture(scope="module")
def pinned(lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Pinned:
    snapshots = Snapshots(lake, tmp_path_factory.mktemp("run") / "snapshots")
    return {project: {table.name: snapshots.pin(table.name, project).path for table in TABLES} for project in (A, B)}


def plan(pinned: Pinned, statement: Statement, settings: QuerySettings = SETTINGS) -> Session:
    spill = pinned[A]["records"].parent
    return Session(Task(statement, pinned[statement.project_id]), settings, spill)


def rows(pinned: Pinned, statement: Statement, settings: QuerySettings = SETTINGS) -> pa.Table:
    session = plan(pinned, statement, settings)
    return pa.Table.from_batches(list(session.rows(LOOP, lambda: False)), session.schema)


@pytest.mark.parametrize("name", SOURCES)
def test_a_table_has_the_columns_that_are_promised(pinned: Pinned, name: str) -> None:
    assert plan(pinned, Statement(f"SELECT * FROM {name}", A)).schema == VIEWS[name].schema


def test_records_leaves_pending_spans_to_records_all(pinned: Pinned) -> None:
    assert rows(pinned, Statement("SELECT message FROM records", A)).num_rows == 10
    assert rows(pinned, Statement("SELECT message FROM records_all", A)).num_rows == 11


def test_the_value_of_a_metric_is_a_struct(pinned: Pinned) -> None:
    found = rows(pinned, Statement("SELECT value['scalar_value'] AS v, project_id FROM metrics", A)).to_pylist()
    assert found == [{"v": 1.5, "project_id": A}]


def test_attributes_are_looked_into(pinned: Pinned) -> None:
    sql = "SELECT attributes->'deep'->'list'->>1 AS two FROM records WHERE (attributes->>'n')::int = 7"
    assert rows(pinned, Statement(sql, A)).to_pylist() == [{"two": "two"}]


def test_time_bounds_cannot_be_got_around(pinned: Pinned) -> None:
    later = Statement("SELECT count(*) AS n FROM records_all WHERE true OR 1=1", A, min_timestamp=MOMENT + timedelta(1))
    assert rows(pinned, later).to_pylist() == [{"n": 0}]
    at = Statement("SELECT count(*) AS n FROM records", A, min_timestamp=MOMENT, max_timestamp=MOMENT)
    assert rows(pinned, at).to_pylist() == [{"n": 10}]


def test_environments_are_chosen_and_the_empty_name_means_none(pinned: Pinned) -> None:
    sql = "SELECT message FROM records"
    assert rows(pinned, Statement(sql, B, deployment_environments=("prod",))).num_rows == 1
    assert rows(pinned, Statement(sql, B, deployment_environments=("",))).num_rows == 0
    assert rows(pinned, Statement(sql, A, deployment_environments=("",))).num_rows == 10


def test_the_row_limit_takes_priority(pinned: Pinned) -> None:
    assert rows(pinned, Statement("SELECT * FROM records LIMIT 9", A, row_limit=3)).num_rows == 3
    assert rows(pinned, Statement("EXPLAIN SELECT * FROM records", A, row_limit=1)).num_rows == 2


def test_parameters_are_bound_in_order(pinned: Pinned) -> None:
    values = pa.record_batch({"a": [3], "b": ["x"]})
    assert rows(pinned, Statement("SELECT ? + 1 AS a, ? AS b", A, values)).to_pylist() == [{"a": 4, "b": "x"}]


def test_the_time_zone_is_the_sessions(pinned: Pinned) -> None:
    sql = "SELECT date_part('hour', start_timestamp AT TIME ZONE 'Asia/Tokyo') AS h FROM records LIMIT 1"
    assert rows(pinned, Statement(sql, A)).to_pylist() == [{"h": 21}]


def test_explain_names_no_files(pinned: Pinned) -> None:
    for word in ("EXPLAIN", "EXPLAIN VERBOSE", "EXPLAIN ANALYZE"):
        text = str(rows(pinned, Statement(f"{word} SELECT message FROM records", A)).to_pylist())
        assert "parquet:" not in text.lower().replace("file_type=parquet", "")
        assert "snapshots" not in text


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM 'x.parquet'", "SELECT * FROM read_csv('x')", "SELECT * FROM records_files",
        "SELECT * FROM tailrace.public.dead_letters", "EXPLAIN DROP TABLE records",
        "WITH a AS (SELECT 1) DELETE FROM records",
    ],
)  # fmt: skip
def test_nothing_but_the_tables_can_be_reached(pinned: Pinned, sql: str) -> None:
    with pytest.raises(BadQuery):
        rows(pinned, Statement(sql, A))


@pytest.mark.parametrize(
    "probe",
    [
        "SELECT CAST(message AS int) FROM records", "SELECT 1/(length(message)-11) FROM records",
        "SELECT arrow_cast(message, 'Int32') FROM records_all", "SELECT message::date FROM records",
        "SELECT to_timestamp(message) FROM records", "SELECT regexp_like(message, message || '(') FROM records",
        "EXPLAIN ANALYZE SELECT CAST(message AS int) FROM records",
        "SELECT * FROM records WHERE project_id <> 'x' OR CAST(message AS int) = 1",
    ],
)  # fmt: skip
def test_an_error_probe_learns_nothing_of_another_project(pinned: Pinned, probe: str) -> None:
    try:
        answer = str(rows(pinned, Statement(probe, A)).to_pylist())
    except BadQuery as error:
        answer = error.message
    assert "secret" not in answer
    assert B not in answer


def test_a_fault_is_placed_in_the_users_text(pinned: Pinned) -> None:
    with pytest.raises(BadQuery) as caught:
        plan(pinned, Statement("SELECT attributes->>'n'\nFROM records WHERE ORDER BY 1", A))
    assert caught.value.line in {2, None}
    with pytest.raises(BadQuery, match="did you mean service_name"):
        plan(pinned, Statement("SELECT servce_name FROM records", A))


def test_an_endless_statement_is_cancelled(pinned: Pinned) -> None:
    endless = Statement("SELECT count(*) FROM generate_series(1, 1000000000000)", A, timeout_s=0.3)
    with pytest.raises(StatementLimit, match=r"0\.3 s"):
        rows(pinned, endless)


def test_memory_that_cannot_be_spilled_is_bounded(pinned: Pinned) -> None:
    hungry = Statement("SELECT array_agg(value) FROM generate_series(1, 20000000)", A)
    with pytest.raises(StatementLimit, match="16 MiB"):
        rows(pinned, hungry, QuerySettings(statement_memory_bytes=16 << 20))


def test_a_result_is_bounded_in_bytes(pinned: Pinned) -> None:
    with pytest.raises(StatementLimit, match="larger than 1000 bytes"):
        rows(pinned, Statement("SELECT * FROM generate_series(1, 100000)", A), QuerySettings(result_bytes_max=1000))


def test_a_reader_that_left_ends_the_work(pinned: Pinned) -> None:
    session = plan(pinned, Statement("SELECT count(*) FROM generate_series(1, 1000000000000)", A))
    assert list(session.rows(LOOP, lambda: True)) == []


@pytest.mark.parametrize(
    ("caps", "message"),
    [
        (Caps(result_rows=5), "more than 5 rows"),
        (Caps(scan_bytes=10), "10 may be read"),
        (Caps(result_bytes=10), "larger than 10 bytes"),
        (Caps(timeout_s=0.05), "longer than 0.05 s"),
    ],
)
def test_an_asker_may_have_limits_of_its_own(pinned: Pinned, caps: Caps, message: str) -> None:
    sql = "SELECT message FROM records UNION ALL SELECT count(*)::text FROM generate_series(1, 2000000000)"
    if caps.timeout_s is None:
        sql = "SELECT message FROM records"
    with pytest.raises(StatementLimit, match=message):
        rows(pinned, Statement(sql, A, asker=Asker.ANYONE), QuerySettings(anyone=caps))
    assert rows(pinned, Statement("SELECT message FROM records", A), QuerySettings(anyone=caps)).num_rows == 10
