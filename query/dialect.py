"""The dialect: what Logfire's SQL has beyond DataFusion's, rewritten to what DataFusion parses.

In:  the user's SQL text.   Out: the same text with `a -> k` as `json_get(a , k)`, `a ->> k` as `json_as_text(a , k)`,
`a ? k` as `json_contains(a , k)`, `time_bucket` as `date_bin`, `?` as `$n`, `count()` as `count(*)` and the shorthands
(query/shorthands.py) written out; every other byte stays as it is. Places in the new text can be found in the old one.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate

from query.shorthands import expand
from query.tokens import NOT_OPERANDS, Token, place

ARROWS = {"->": "json_get", "->>": "json_as_text", "?": "json_contains"}
JSON_CASTS = {
    **dict.fromkeys(("int", "integer", "int2", "int4", "int8", "smallint", "bigint"), "json_get_int"),
    **dict.fromkeys(("float", "float4", "float8", "real", "double", "numeric", "decimal"), "json_get_float"),
    **dict.fromkeys(("bool", "boolean"), "json_get_bool"),
}
"""What `(a -> k)::type` becomes: a value of another type is NULL, where casting JSON text would fail."""
JSON_TYPES = frozenset({"json", "jsonb"})
"""Types of PostgreSQL that are text here."""
PATHS = {
    **dict.fromkeys(("json_get", "json_get_json", "json_as_text", "json_contains", "json_get_str"), 1),
    **dict.fromkeys(("json_get_int", "json_get_float", "json_get_bool", "json_get_array"), 1),
    **dict.fromkeys(("json_length", "json_object_keys"), 0),
}
"""Functions that take a path, and how many keys of it themselves; the others before become a `json_get` each."""
WEEK_ORIGIN = "TIMESTAMP '2000-01-03T00:00:00Z'"
"""A Monday, where buckets of weeks and days begin."""
MONTH_ORIGIN = "TIMESTAMP '2000-01-01T00:00:00Z'"

_CALL = re.compile(
    r'(json_get|json_as_text|json_contains)\(([^()]*),(?:Utf8(?:View)?\("([^"()]*)"\)|Int64\((-?\d+)\))\)'
)
_OPERATORS = {name: operator for operator, name in ARROWS.items()}
_MONTHS = re.compile(r"mon|year|yr|decade|centur|quarter|\dy\b", re.IGNORECASE)
_CLOSING = {"(": ")", "[": "]"}
_TYPE_TAILS = {
    "double": ("precision",),
    "character": ("varying",),
    "timestamp": ("with", "without", "time", "zone"),
    "time": ("with", "without", "time", "zone"),
}
"""Words that go on a type's name."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A rewritten text that knows where its parts stood."""

    text: str
    source: str
    _pieces: tuple[tuple[str, int], ...]

    def locate(self, line: int, column: int) -> tuple[int, int]:
        """Line and column of the user's text for those of the rewritten text; all are counted from 1."""
        ends = list(accumulate(len(line) for line in self.text.splitlines(keepends=True)))
        offset = (ends[min(line - 2, len(ends) - 1)] if line > 1 and ends else 0) + column - 1
        starts = list(accumulate((len(text) for text, _ in self._pieces), initial=0))
        index = max(min(bisect_right(starts, offset), len(self._pieces)) - 1, 0)
        text, start = self._pieces[index] if self._pieces else ("", 0)
        verbatim = self.source.startswith(text, start)
        return place(self.source, min(start + (offset - starts[index] if verbatim else 0), len(self.source)))


def rewrite(tokens: list[Token], *, promote: bool = True) -> Rewritten:
    """Rewrite the operators; brackets may be nested as deep as the guard allows.

    With `promote`, attributes are read from the columns they are promoted to. Raises BadQuery for a level of no name.
    """
    source = "".join(token.text for token in tokens)
    rewriter = _Rewriter(expand(source, tokens, promote=promote))
    rewriter.expressions(until=None)
    pieces = tuple(rewriter.pieces)
    return Rewritten("".join(text for text, _ in pieces), source, pieces)


def spelled(name: str) -> str:
    """The name of an unnamed column as the user wrote it: `attributes ->> 'k'`, not the function it became."""
    found = 1
    while found:
        name, found = _CALL.subn(_operator, name)
    return name


def _operator(call: re.Match[str]) -> str:
    function, document, key, index = call.groups()
    operand = document.rpartition(".")[2] if document.isidentifier() or "." in document else document
    return f"{operand} {_OPERATORS[function]} {index or repr(key)}"


class _Rewriter:
    """One pass over the tokens by recursive descent; an operand's pieces stand together at the end."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._parameters = 0
        self.pieces: list[tuple[str, int]] = []

    def expressions(self, until: str | None) -> int | None:
        """Rewrite up to the token `until` (not taken) or the end.

        When all of it is one operand, gives the place of its first piece.
        """
        operand: int | None = None
        operands = others = 0
        while (token := self._peek()) is not None and (until is None or token.text.lower() != until):
            if token.kind == "space":
                self._take()
            elif operand is not None and (token.kind == "arrow" or token.text == "?"):
                others += not self._arrow(operand)
            elif self._starts_operand(token):
                operand = len(self.pieces)
                operands += 1
                self._operand()
            else:
                operand = None
                others += 1
                self._take()
        return operand if operands == 1 and not others else None

    def _arrow(self, operand: int) -> bool:
        """The operator and its right side; the left side's pieces start at `operand`. False when it has no right."""
        arrow = self._take(keep=False)
        mark = len(self.pieces)
        self.pieces.append((", ", arrow.start))
        self._spaces()
        sign = self._peek()
        if sign is not None and sign.text == "-":
            self._take()
        right = self._peek()
        if right is None or not self._starts_operand(right):
            self.pieces[mark] = (arrow.text, arrow.start)  # not ours to judge: DataFusion will
            return False
        self._operand()
        self.pieces.insert(operand, (f"{ARROWS[arrow.text]}(", self.pieces[operand][1]))
        self.pieces.append((")", self._place()))
        return True

    def _operand(self) -> None:
        """A primary expression with what belongs to it: path, call, subscripts, casts, window."""
        start = len(self.pieces)
        token = self._first()
        word = token.text.lower() if token.kind == "word" else ""
        sole: int | None = None
        if token.text in _CLOSING:
            sole = self._inside(_CLOSING[token.text])
        elif word == "case":
            self._inside("end")
        named = token.kind in {"word", "quoted"} and word != "case"
        while (follower := self._peek_past_spaces()) is not None:
            if follower.text == "." and named:
                self._advance()
                if (part := self._peek_past_spaces()) is not None and part.kind in {"word", "quoted"}:
                    self._advance()
                word = ""
            elif follower.text == "(" and named:
                self._call(word, start)
                named = False
            elif follower.kind == "cast":
                self._advance()
                self._cast(sole)
                sole = None
            elif not self._suffix(follower, called=not named):
                return

    def _first(self) -> Token:
        token = self._take(keep=False)
        text = token.text
        if text == "?":
            self._parameters += 1
            text = f"${self._parameters}"
        self.pieces.append((text, token.start))
        return token

    def _call(self, name: str, start: int) -> None:
        """The brackets of a call, whose name is the piece at `start`."""
        self._advance()
        inner = self._peek_past_spaces()
        if name == "count" and inner is not None and inner.text == ")":
            self.pieces.append(("*", inner.start))
        if name in {"cast", "try_cast"}:
            sole = self.expressions(until="as")
            if self._peek() is not None:
                self._take()
                self._cast(sole)
        if name == "time_bucket":
            self._time_bucket(start)
        elif name in PATHS:
            self._path(start, PATHS[name])
        self._inside(")")

    def _time_bucket(self, start: int) -> None:
        """The arguments of `time_bucket(width, time)`, with the origin of its buckets behind them."""
        self.pieces[start] = ("date_bin", self.pieces[start][1])
        mark = len(self.pieces)
        self.expressions(until=")")
        width = "".join(text for text, _ in self.pieces[mark:]).partition(",")[0]
        origin = MONTH_ORIGIN if _MONTHS.search(width) else WEEK_ORIGIN
        self.pieces.append((f", {origin}", self._place()))

    def _path(self, start: int, keys: int) -> None:
        """The arguments of a function that takes so many keys: `f(a, 'x', 'y')` is `f(json_get(a, 'x'), 'y')`."""
        first = len(self.pieces)
        commas = list[int]()
        while (token := self._peek()) is not None and token.text != ")":
            if token.text == ",":
                commas.append(len(self.pieces))
                self._take()
            elif token.kind != "space" and self._starts_operand(token):
                self._operand()
            else:
                self._take()
        ends = [*commas, len(self.pieces)]
        inner = ends[1 : len(ends) - keys]
        for end in reversed(inner):
            self.pieces.insert(end, (")", self._place()))
        for _ in inner:
            self.pieces.insert(first, ("json_get(", self.pieces[start][1]))

    def _suffix(self, token: Token, *, called: bool) -> bool:
        """Take a subscript or, behind a call, a window; False when `token` begins none of them."""
        if token.text == "[":
            self._advance()
            self._inside("]")
        elif called and token.text.lower() in {"over", "filter", "within"}:
            self._advance()
            self._window()
        else:
            return False
        return True

    def _window(self) -> None:
        """What stands behind OVER, FILTER or WITHIN: a name, or GROUP and brackets."""
        following = self._peek_past_spaces()
        if following is not None and following.kind in {"word", "quoted"}:
            self._advance()
            following = self._peek_past_spaces() if following.text.lower() == "group" else None
        if following is not None and following.text == "(":
            self._advance()
            self._inside(")")

    def _cast(self, sole: int | None) -> None:
        """The type behind `::` or AS; `sole` is the first piece of what is cast, when that is one operand."""
        name = self._peek_past_spaces()
        if name is None or name.kind not in {"word", "quoted"}:
            return
        self._advance()
        kind, mark = name.text.lower(), len(self.pieces) - 1
        bare = self._type(kind)
        if kind in JSON_TYPES:
            self.pieces[mark] = ("text", name.start)
        elif sole is not None and self.pieces[sole][0] == "json_get(":
            self.pieces[sole] = (JSON_CASTS.get(kind, "json_as_text") + "(", self.pieces[sole][1])
            if kind in {"numeric", "decimal"} and bare:
                self.pieces[mark] = ("double", name.start)

    def _type(self, kind: str) -> bool:
        """A type's tail and its arguments (array brackets read as subscripts); whether there were none."""
        tails = _TYPE_TAILS.get(kind, ())
        bare = True
        while (follower := self._peek_past_spaces()) is not None:
            if follower.text == "(":
                self._advance()
                self._inside(")")
                bare = False
            elif follower.text.lower() in tails:
                self._advance()
            else:
                break
        return bare

    def _inside(self, closing: str) -> int | None:
        sole = self.expressions(until=closing)
        if self._peek() is not None:
            self._take()
        return sole

    def _starts_operand(self, token: Token) -> bool:
        if token.kind == "word":
            return token.text.lower() not in NOT_OPERANDS
        return token.kind in {"quoted", "string", "number", "parameter"} or token.text in {"(", "[", "?"}

    def _peek(self) -> Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _peek_past_spaces(self) -> Token | None:
        index = self._next
        while index < len(self._tokens) and self._tokens[index].kind == "space":
            index += 1
        return self._tokens[index] if index < len(self._tokens) else None

    def _take(self, *, keep: bool = True) -> Token:
        token = self._tokens[self._next]
        self._next += 1
        if keep:
            self.pieces.append((token.text, token.start))
        return token

    def _advance(self) -> None:
        """Take the next token with the spaces before it."""
        self._spaces()
        self._take()

    def _spaces(self) -> None:
        while (token := self._peek()) is not None and token.kind == "space":
            self._take()

    def _place(self) -> int:
        token = self._tokens[self._next - 1]
        return token.start + len(token.text)
