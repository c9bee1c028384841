"""The guard: one reading statement of bearable size."""

import pytest

from core.errors import BadQuery
from query.guard import STATEMENT_BYTES_MAX, check, redact
from query.tokens import tokenize


def checked(sql: str) -> str:
    return check(sql, tokenize(sql))


@pytest.mark.parametrize("sql", ["SELECT 1", "(select 1)", "with a as (select 1) select * from a;", "EXPLAIN SELECT 1"])
def test_reading_statements_pass(sql: str) -> None:
    assert checked(sql)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("", "no statement"),
        (" -- nothing\n", "no statement"),
        ("SELECT 1; SELECT 2", "more than one"),
        ("DROP TABLE records", "'DROP'"),
        ("set x = 1", "'set'"),
        ("copy records to 'x'", "'copy'"),
        ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'x'", "'CREATE'"),
        ("SELECT " + "(" * 300 + "1" + ")" * 300, "nested deeper"),
        ("SELECT 1" + "+1" * 5_000, "operators"),
        ("SELECT '" + "x" * STATEMENT_BYTES_MAX + "'", "longer than"),
    ],
)
def test_others_are_refused_with_a_reason(sql: str, reason: str) -> None:
    with pytest.raises(BadQuery, match=reason):
        checked(sql)


def test_the_place_of_the_fault_is_told() -> None:
    with pytest.raises(BadQuery) as caught:
        checked("SELECT 1;\n  DELETE FROM records")
    assert (caught.value.line, caught.value.column) == (1, 9)


def test_a_plan_keeps_the_day_and_loses_the_path() -> None:
    plan = "files=[[var/x/run/snapshots/records/project_id=p/7/day=2026-11-24/part-0.parquet:0..9, other]]"
    assert redact(plan) == "files=[[day=2026-11-24, other]]"
