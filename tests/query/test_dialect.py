"""The dialect: operators become functions, and everything else stays byte for byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query.dialect import names, rewrite, tokenize


def rewritten(sql: str) -> str:
    return rewrite(tokenize(sql)).text


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("a->'k'", "json_get(a, 'k')"),
        ("a ->> 'k'", "json_get_text(a , 'k')"),
        ("a->'k'->>'l'", "json_get_text(json_get(a, 'k'), 'l')"),
        ("a->-1", "json_get(a, -1)"),
        ("t.a->>'k'", "json_get_text(t.a, 'k')"),
        ("(a->>'k')::int + 1", "(json_get_text(a, 'k'))::int + 1"),
        ("f(a->'k', b)", "f(json_get(a, 'k'), b)"),
        ("x = a->>'k' AND y", "x = json_get_text(a, 'k') AND y"),
        ("count()", "count(*)"),
        ("COUNT( ) FILTER (WHERE a->>'k' = '1')", "COUNT(* ) FILTER (WHERE json_get_text(a, 'k') = '1')"),
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


def test_a_place_in_the_new_text_is_found_in_the_users_text() -> None:
    sql = "SELECT a->>'k',\n  nonsense FROM t"
    text = rewrite(tokenize(sql))
    line, column = 2, text.text.splitlines()[1].index("nonsense") + 1
    assert text.locate(line, column) == (2, 3)
    first = text.text.index("json_get_text") + 1
    assert text.locate(1, first)[0] == 1


def test_quoted_names_count_as_names() -> None:
    assert names(tokenize('SELECT "A" FROM Records -- metrics')) == {"select", "a", "from", "records"}
