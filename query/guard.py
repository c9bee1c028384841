"""The guard: what a statement may be, and what an answer may not say.

In:  the user's text, before anything parses it; plans and errors, before anyone reads them.   Out: the same, or
BadQuery. DataFusion itself refuses whatever writes or sets; the limits here keep texts from it that it cannot
survive (its parser and planner recurse).
"""

import re

import pyarrow as pa
from datafusion import SQLOptions

from core.errors import BadQuery
from query.tokens import Token, place

STATEMENT_BYTES_MAX = 1 << 20
"""UTF-8 bytes of a statement's text; a longer one is refused."""
STATEMENT_DEPTH_MAX = 200
"""Brackets and CASEs within one another; more are refused. (DataFusion's own parser stops at about 50.)"""
STATEMENT_OPERATORS_MAX = 4_000
"""Operators of one statement; more are refused: a chain of 20,000 overflows the planner's stack."""
READING = frozenset({"select", "with", "values", "explain", "show", "describe", "desc"})
"""Words a statement may begin with."""
REPORTING = frozenset({"explain", "show", "describe", "desc"})
"""Those whose answer is about the tables, not rows of them: no row limit, and plans are redacted."""

CLOSED = SQLOptions().with_allow_ddl(False).with_allow_dml(False).with_allow_statements(False)
"""DataFusion refuses whatever changes data, tables or settings."""

_CHAINING = frozenset({"and", "or", "not", "like", "ilike", "is", "between", "union", "intersect", "except", "join"})
_FILE = re.compile(r"""[^\s\[\](){},"']*day=(\d{4}-\d{2}-\d{2})/[^\s\[\](){},"']+""")


def check(sql: str, tokens: list[Token]) -> str:
    """The statement's first word, lower case (`(` for a bracketed query); BadQuery when it may not run."""
    check_length(sql)
    meaningful = [token for token in tokens if token.kind != "space"]
    while meaningful and meaningful[-1].text == ";":
        meaningful.pop()
    if not meaningful:
        raise BadQuery("There is no statement; write a SELECT")
    for token in meaningful:
        if token.text == ";":
            raise _at(sql, token, "There is more than one statement; send one at a time")
    _check_size(sql, meaningful)
    first = next((token for token in meaningful if token.text != "("), meaningful[0])
    word = first.text.lower()
    if word not in READING:
        raise _at(
            sql, first, f"A statement cannot begin with {first.text!r:.40}: only SELECT and the like are answered"
        )
    return word


def check_length(sql: str) -> None:
    """BadQuery when a text is too long to be looked at."""
    if len(sql) > STATEMENT_BYTES_MAX or len(sql.encode()) > STATEMENT_BYTES_MAX:
        raise BadQuery(f"The statement is longer than {STATEMENT_BYTES_MAX} bytes; write a shorter one")


def _check_size(sql: str, tokens: list[Token]) -> None:
    depth = operators = 0
    for token in tokens:
        text = token.text.lower()
        if text in {"(", "[", "case"}:
            depth += 1
        elif text in {")", "]", "end"}:
            depth -= 1
        elif (
            token.kind in {"arrow", "cast"}
            or text in _CHAINING
            or (token.kind == "symbol" and text in "+-*/%<>=!|&^~#@")
        ):
            operators += 1
        if depth > STATEMENT_DEPTH_MAX:
            raise _at(sql, token, f"The statement is nested deeper than {STATEMENT_DEPTH_MAX}; use WITH")
        if operators > STATEMENT_OPERATORS_MAX:
            raise _at(sql, token, f"The statement has more than {STATEMENT_OPERATORS_MAX} operators; use IN or = ANY")


def redact(text: str) -> str:
    """A plan or an error without the paths of files; the day of each file stays."""
    return _FILE.sub(r"day=\1", text)


def redact_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch of EXPLAIN's answer without the paths of files."""
    columns = [
        pa.array([None if text is None else redact(text) for text in column.to_pylist()], column.type)
        if pa.types.is_string(column.type)
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _at(sql: str, token: Token, message: str) -> BadQuery:
    line, column = place(sql, token.start)
    return BadQuery(message, line=line, column=column)
