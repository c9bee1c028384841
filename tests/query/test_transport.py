"""Errors cross the process border as what they are."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadQuery, Forbidden, Overloaded, StatementLimit, TailraceError, Unavailable
from query.statements import Statement
from query.transport import QueryClient, decode_error, encode_error


@given(
    st.sampled_from([Forbidden, StatementLimit, Unavailable, Overloaded, BadQuery]), st.text(min_size=1),
    st.none() | st.integers(1, 99),
)  # fmt: skip
def test_an_error_comes_back_the_same(kind: type[TailraceError], message: str, line: int | None) -> None:
    error = BadQuery(message, line=line, column=line) if kind is BadQuery else kind(message)
    again = decode_error(encode_error(error))
    assert type(again) is kind
    assert vars(again) == vars(error)
    assert again.message == error.message


def test_an_engine_that_is_away_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        QueryClient(tmp_path / "nobody.sock").run(Statement("SELECT 1", "p"))
