"""Tokens of SQL text: where strings, comments and quoted names begin and end, and what stands between.

In:  any text.   Out: its tokens, which joined are the text again. Nothing here knows grammar; it never fails.
"""

import re
from typing import NamedTuple

_TOKEN = re.compile(
    r"""
      (?P<space>   \s+ | --[^\n]* )
    | (?P<comment> /\* )
    | (?P<string>  [eE]'(?:[^'\\]|\\.|'')*'? | (?:[nNbBxX]|[uU]&)?'(?:[^']|'')*'? )
    | (?P<dollar>  \$(?P<tag>(?:[^\W\d]\w*)?)\$ )
    | (?P<parameter> \$\w+ )
    | (?P<quoted>  "(?:[^"]|"")*"? )
    | (?P<word>    [^\W\d][\w$]* )
    | (?P<number>  (?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)? )
    | (?P<arrow>   ->>? )
    | (?P<cast>    :: )
    | (?P<symbol>  . )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")

NOT_OPERANDS = frozenset(
    """
    all analyze and any as asc between by cross desc distinct else escape except exists explain fetch filter for from
    full group having ilike in inner intersect interval into is isnull join lateral like limit natural not notnull nulls
    offset on or order outer over partition qualify recursive returning rows select semi similar some then to union
    using values verbose when where window with within
    """.split()  # noqa: SIM905  # sixty quoted words read worse
)
"""Words that neither are an operand nor name a function: what follows them starts a new expression."""


class Token(NamedTuple):
    """A piece of SQL text; the texts of all tokens, joined, are the SQL text."""

    kind: str
    text: str
    start: int
    """Offset in the text, in characters."""


def tokenize(sql: str) -> list[Token]:
    """The tokens of a text, with its spaces and comments (both of kind `space`). Never fails."""
    tokens: list[Token] = []
    position = 0
    while position < len(sql):
        match = _TOKEN.match(sql, position)
        assert match is not None, "every character is some token"
        kind, end = match.lastgroup or "symbol", match.end()
        if match["comment"]:
            kind, end = "space", _comment_end(sql, position)
        elif match["dollar"]:
            close = sql.find(match["dollar"], end)
            kind, end = "string", len(sql) if close < 0 else close + len(match["dollar"])
        tokens.append(Token(kind, sql[position:end], position))
        position = end
    return tokens


def names(tokens: list[Token]) -> frozenset[str]:
    """Every word and quoted name, lower case: whatever the text can name is among them."""
    return frozenset(token.text.strip('"').lower() for token in tokens if token.kind in {"word", "quoted"})


def _comment_end(sql: str, start: int) -> int:
    depth = 0
    for edge in _COMMENT_EDGE.finditer(sql, start):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(sql)


def place(sql: str, offset: int) -> tuple[int, int]:
    """Line and column of an offset, both counted from 1."""
    before = sql[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1
