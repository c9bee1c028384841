"""Shorthands: `level >= 'warn'` for a severity number, `attributes->>'user.id'` for the column it is promoted to.

In:  the tokens of a statement.   Out: the same with some replaced; each keeps its place in the user's text. A column
that a part of the statement defines (`... AS level`) is that part's own for all around it, and left alone there.
"""

from collections.abc import Iterator
from difflib import get_close_matches

import pyarrow as pa

from core.errors import BadQuery
from core.levels import LEVELS, level_number
from core.schema import PROMOTED, Column
from query.tokens import NOT_OPERANDS, Token, place

ATTRIBUTES = "attributes"
LEVEL = "level"
COMPARISONS = frozenset({"=", "<", ">", "<=", ">=", "<>", "!="})
COLUMNS: dict[str, Column] = {keys[0]: column for keys, column in PROMOTED.items() if not pa.types.is_list(column.type)}
"""The columns by the attribute that each is promoted from, in its present spelling; older ones are in it too."""


def expand(sql: str, tokens: list[Token], *, promote: bool) -> list[Token]:
    """Levels by name become numbers, and promoted attributes their columns. Raises BadQuery for a name of no level."""
    marks = [index for index, token in enumerate(tokens) if token.kind != "space"]
    names = [_name(tokens[index]) for index in marks]
    made = list(tokens)
    if LEVEL not in names and ATTRIBUTES not in names:
        return made
    own = _Own(tokens, marks, names)
    levels = [at for at, name in enumerate(names) if name == LEVEL and not own.has(LEVEL, at)]
    for index in _level_names(tokens, marks, levels):
        made[index] = _number(sql, tokens[index])
    for at, name in enumerate(names):
        if promote and name == ATTRIBUTES and not own.has(ATTRIBUTES, at):
            _promote(made, marks[at : at + 3], own, at)
    return made


class _Own:
    """The names that parts of a statement give, and where they hold: around the brackets they are given in."""

    def __init__(self, tokens: list[Token], marks: list[int], names: list[str]) -> None:
        self._paths = list[tuple[int, ...]]()
        self._given = dict[str, set[tuple[int, ...]]]()
        path: tuple[int, ...] = ()
        for at, index in enumerate(marks):
            if tokens[index].text == ")":
                path = path[:-1]
            self._paths.append(path)
            if names[at] and _is_defined(tokens, marks, at):
                self._given.setdefault(names[at], set()).add(path)
            if tokens[index].text == "(":
                path = (*path, at)

    def has(self, name: str, at: int) -> bool:
        """Whether the name at a mark may be one that another part gave. SELECT's own names do not hold inside it."""
        here = self._paths[at]
        return any(here[: len(given)] != given for given in self._given.get(name, ()))


def _level_names(tokens: list[Token], marks: list[int], levels: list[int]) -> Iterator[int]:
    """Where strings stand that are compared to a `level`."""
    texts = [tokens[index].text.lower() for index in marks] + [""] * 6
    strings = [tokens[index].kind == "string" for index in marks] + [False] * 6
    for at in levels:
        if texts[at + 1] in {".", "("}:
            continue
        after = _after_operator(texts, at + 1)
        if after and strings[after]:
            yield marks[after]
        begin = at - 2 if at >= 2 and texts[at - 1] == "." else at
        if begin >= 2 and _operator_before(texts, begin) and strings[before := _operator_before(texts, begin) - 1]:
            yield marks[before]
        after = at + 1 + (texts[at + 1] == "not")
        if texts[after] == "between" and strings[after + 1] and texts[after + 2] == "and" and strings[after + 3]:
            yield from (marks[after + 1], marks[after + 3])
        if texts[after] == "in" and texts[after + 1] == "(":
            after += 2
            while strings[after]:
                yield marks[after]
                after += 2 if texts[after + 1] == "," else 1


def _after_operator(texts: list[str], at: int) -> int:
    """The place behind a comparison that begins at `at`; 0 when none does. `<=` is two tokens."""
    if texts[at] + texts[at + 1] in COMPARISONS:
        return at + 2
    if texts[at] in COMPARISONS:
        return at + 1
    words = texts[at : at + 4]
    if words[:3] == ["is", "distinct", "from"]:
        return at + 3
    return at + 4 if words == ["is", "not", "distinct", "from"] else 0


def _operator_before(texts: list[str], at: int) -> int:
    """Where a comparison begins that ends before `at`; 0 when none does."""
    if at >= 3 and texts[at - 2] + texts[at - 1] in COMPARISONS:
        return at - 2
    return at - 1 if texts[at - 1] in COMPARISONS else 0


def _number(sql: str, token: Token) -> Token:
    name = token.text[1:-1]
    number = level_number(name)
    if number is None:
        if name.strip().isdigit():
            return token
        near = get_close_matches(name.lower(), LEVELS, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        line, column = place(sql, token.start)
        raise BadQuery(f"{name!r} is no level: levels are {', '.join(LEVELS)}{meant}", line=line, column=column)
    return Token("number", str(number), token.start)


def _promote(tokens: list[Token], marks: list[int], own: _Own, at: int) -> None:
    """Replace `attributes ->> 'key'`, whose three tokens stand at `marks`, by the key's column where there is one."""
    if len(marks) < 3 or tokens[marks[2]].kind != "string" or not tokens[marks[2]].text.startswith("'"):
        return
    column = COLUMNS.get(tokens[marks[2]].text[1:-1])
    arrow = tokens[marks[1]].text
    if column is None or own.has(column.name, at):
        return
    is_text = column.type == pa.string()
    if arrow != "->>" and (arrow != "->" or is_text):
        return
    start = tokens[marks[0]].start
    tokens[marks[0]] = Token("word", column.name, start)
    for index in range(marks[0] + 1, marks[2] + 1):
        tokens[index] = Token("space", "", start)
    if not is_text:
        tokens[marks[1]], tokens[marks[2]] = Token("cast", "::", start), Token("word", "text", start)


def _name(token: Token) -> str:
    """The name a token is, folded as SQL folds it; empty when it is none."""
    if token.kind == "word":
        return token.text.lower()
    return token.text[1:-1] if token.kind == "quoted" else ""


def _is_defined(tokens: list[Token], marks: list[int], at: int) -> bool:
    """Whether the name at a mark is one that the statement gives: behind AS, or right behind an operand."""
    if at == 0:
        return False
    before = tokens[marks[at - 1]]
    if before.kind == "word":
        word = before.text.lower()
        return word == "as" or (word not in NOT_OPERANDS and word != "case")
    return before.kind in {"quoted", "string", "number", "parameter"} or before.text in {")", "]"}
