"""The dialect: operators become functions, and everything else stays byte for byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadQuery
from query.dialect import MONTH_ORIGIN, WEEK_ORIGIN, rewrite, spelled
from query.tokens import names, tokenize


def rewritten(sql: str) -> str:
    return rewrite(tokenize(sql)).text


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("a->'k'", "json_get(a, 'k')"),
        ("a ->> 'k'", "json_as_text(a , 'k')"),
        ("a->'k'->>'l'", "json_as_text(json_get(a, 'k'), 'l')"),
        ("a->-1", "json_get(a, -1)"),
        ("t.a->>'k'", "json_as_text(t.a, 'k')"),
        ("(a->>'k')::int + 1", "(json_as_text(a, 'k'))::int + 1"),
        ("(a->'k')::int + 1", "(json_get_int(a, 'k'))::int + 1"),
        ("(a->'j'->'k')::numeric", "(json_get_float(json_get(a, 'j'), 'k'))::double"),
        ("(a->'k')::numeric(9, 2)", "(json_get_float(a, 'k'))::numeric(9, 2)"),
        ("((a->'k')) :: text", "((json_get(a, 'k'))) :: text"),
        ("(a->'k')::timestamptz", "(json_as_text(a, 'k'))::timestamptz"),
        ("cast(a->'k' AS bool)", "cast(json_get_bool(a, 'k') AS bool)"),
        ("cast(a->'k' || 'x' AS text)", "cast(json_get(a, 'k') || 'x' AS text)"),
        ("'{}'::jsonb->'k'", "json_get('{}'::text, 'k')"),
        ("a ? 'k' AND b = ?", "json_contains(a , 'k') AND b = $1"),
        ("json_get(a, 'j', 0, 'k')", "json_get(json_get(json_get(a, 'j'), 0), 'k')"),
        ("json_length(a, 'j')", "json_length(json_get(a, 'j'))"),
        ("json_length(a)", "json_length(a)"),
        ("time_bucket('1 hour', t)", f"date_bin('1 hour', t, {WEEK_ORIGIN})"),
        ("time_bucket(interval '1 month', f(t))", f"date_bin(interval '1 month', f(t), {MONTH_ORIGIN})"),
        ("level >= 'warn'", "level >= 13"),
        ("'warn' < r.level", "13 < r.level"),
        ("level IN ('info', 'Error')", "level IN (9, 17)"),
        ("level NOT BETWEEN 'info' AND 'fatal'", "level NOT BETWEEN 9 AND 21"),
        ("level IS DISTINCT FROM 'info'", "level IS DISTINCT FROM 9"),
        ("level = '13' OR name = 'warn'", "level = '13' OR name = 'warn'"),
        ("r.attributes->>'user.id' = 'u'", "r.user_id = 'u'"),
        ("attributes->>'operation.cost'", "cost_reported::text"),
        ("(attributes -> 'operation.cost')::float", "(cost_reported::text)::float"),
        ("attributes->'user.id'", "json_get(attributes, 'user.id')"),
        ("attributes->>'http.url'", "json_as_text(attributes, 'http.url')"),
        ("f(a->'k', b)", "f(json_get(a, 'k'), b)"),
        ("x = a->>'k' AND y", "x = json_as_text(a, 'k') AND y"),
        ("count()", "count(*)"),
        ("COUNT( ) FILTER (WHERE a->>'k' = '1')", "COUNT(* ) FILTER (WHERE json_as_text(a, 'k') = '1')"),
        ("? + ?", "$1 + $2"),
    ],
)
def test_operators_become_functions(sql: str, expected: str) -> None:
    assert " ".join(rewritten(sql).split()) == " ".join(expected.split())


@pytest.mark.parametrize(
    "sql",
    [
        "'a->b ? count()'",
        '"a->b?"',
        "-- a->b ?\n1",
        "/* a->'b' /* ? */ -> */ 1",
        "$$ a->b ? $$",
        "$x$ ?->$$ $x$",
        "E'\\'->?'",
    ],
)
def test_strings_comments_and_quoted_names_are_left_alone(sql: str) -> None:
    assert rewritten(sql) == sql


@given(st.text(alphabet=st.sampled_from("ab1 \n\t'\"$/*();,.[]:_=<é🙂\\eE"), max_size=60))
def test_a_text_without_operators_comes_back_unchanged(sql: str) -> None:
    assert rewritten(sql) == sql


@given(st.text(max_size=80))
def test_the_tokens_of_any_text_are_the_text(sql: str) -> None:
    assert "".join(token.text for token in tokenize(sql)) == sql


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM (SELECT level_name(level) AS level FROM t) WHERE level = 'warn'",
        "WITH a AS (SELECT x level FROM t), b AS (SELECT 1 FROM a WHERE level = 'warn') SELECT * FROM b",
        "SELECT level = lower('WARN')",
    ],
)
def test_columns_of_the_statements_own_are_left_alone(sql: str) -> None:
    assert rewritten(sql) == sql


def test_promoted_columns_give_way_to_columns_of_the_statement() -> None:
    sql = "SELECT attributes->>'user.id' FROM (SELECT attributes, name AS user_id FROM records)"
    assert "json_as_text(attributes, 'user.id')" in rewritten(sql)
    assert "json_as_text" in rewrite(tokenize("SELECT attributes->>'user.id'"), promote=False).text


def test_a_name_that_select_gives_does_not_hold_in_where() -> None:
    sql = "SELECT level_name(level) AS level FROM records WHERE level > 'info'"
    assert rewritten(sql).endswith("level > 9")


def test_a_name_of_no_level_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadQuery, match=r"'wrn' is no level.*did you mean 'warn'") as caught:
        rewritten("SELECT 1\nWHERE level > 'wrn'")
    assert (caught.value.line, caught.value.column) == (2, 15)


def test_columns_are_named_as_they_were_written() -> None:
    assert spelled('json_as_text(json_get(records.attributes,Utf8("a")),Int64(0))') == "attributes -> 'a' ->> 0"
    assert spelled("count(*)") == "count(*)"


def test_a_place_in_the_new_text_is_found_in_the_users_text() -> None:
    sql = "SELECT a->>'k',\n  nonsense FROM t"
    text = rewrite(tokenize(sql))
    line, column = 2, text.text.splitlines()[1].index("nonsense") + 1
    assert text.locate(line, column) == (2, 3)
    first = text.text.index("json_as_text") + 1
    assert text.locate(1, first)[0] == 1


def test_quoted_names_count_as_names() -> None:
    assert names(tokenize('SELECT "A" FROM Records -- metrics')) == {"select", "a", "from", "records"}
