"""Diagnostics: DataFusion's errors as ours, in the user's words: where it is, and what may have been meant.

In:  an error's text and the rewritten statement.   Out: BadQuery with line and column of the user's text, where the
parser told or the name it complains of stands there once, and the nearest column, function or table.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches

from core.errors import BadQuery
from query.dialect import Rewritten, spelled
from query.tokens import place, tokenize

_LOCATION = re.compile(r"(?: at)? Line: (\d+), Column: (\d+)")
_UNKNOWN_FIELD = re.compile(
    r"No field named (?P<name>\S+?)\.(?:\s+Did you mean '[^']*'\?\.?)?(?:\s+Valid fields are (?P<fields>.*))?$",
    re.DOTALL,
)
_UNKNOWN_TABLE = re.compile(r"table '(?:\w+\.)*(?P<name>[^'.]+)' not found")
_UNKNOWN_FUNCTION = re.compile(r"Invalid function '(?P<name>[^']+)'\.(?:\s*Did you mean '(?P<near>[^']+)'\?)?")
_PREFIX = re.compile(
    r"^(?:DataFusion error: |SQL error: |Error during planning: |Schema error: |Arrow error: |Execution error: |"
    r"External error: |This feature is not implemented: |ParserError\(\"|Optimizer rule '\w+' failed\s+caused by\s+)+"
)
_FRAMES = re.compile(r"\s*\n\n?(?:backtrace:|Traceback).*$", re.DOTALL)
FUNCTIONS = (
    "time_bucket", "level_num", "level_name", "json_get", "json_as_text", "json_get_str", "json_get_int",
    "json_get_float", "json_get_bool", "json_get_array", "json_contains", "json_length", "json_object_keys",
    "json_members", "metric_avg", "metric_sum", "metric_count", "metric_min", "metric_max", "metric_merge",
    "metric_quantile", "metric_rate", "metric_increase",
)  # fmt: skip
"""Functions of ours; DataFusion knows of its own only, when it looks for the nearest."""


def bad_query(text: str, rewritten: Rewritten, tables: Iterable[str]) -> BadQuery:
    """The error to raise for an error's text."""
    located = _LOCATION.search(text)
    message = _PREFIX.sub("", _FRAMES.sub("", _LOCATION.sub("", text))).removesuffix('")').strip()
    name = None
    if unknown := _UNKNOWN_FIELD.search(message):
        name = unknown["name"].rpartition(".")[2].strip('"')
        message = f"{message[: unknown.start()]}There is no column {name!r}"
        message += _meant(
            name, (field.rpartition(".")[2].strip('". \n') for field in (unknown["fields"] or "").split(","))
        )
    elif unknown := _UNKNOWN_TABLE.search(message):
        name = unknown["name"]
        message = f"There is no table {name!r}" + (_meant(name, tables) or f"; there are {', '.join(tables)}")
    elif unknown := _UNKNOWN_FUNCTION.search(message):
        name = unknown["name"]
        message = f"There is no function {name!r}" + _meant(name, (*FUNCTIONS, unknown["near"] or ""))
    if located:
        line, column = rewritten.locate(int(located[1]), int(located[2]))
    else:
        line, column = _find(rewritten.source, name)
    return BadQuery(spelled(message) or "The engine could not run this statement", line=line, column=column)


def _meant(name: str, known: Iterable[str]) -> str:
    """The nearest of the names that are known, as a question."""
    found = get_close_matches(name, set(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _find(sql: str, name: str | None) -> tuple[int, int] | tuple[None, None]:
    """Line and column where a name first stands."""
    for token in tokenize(sql):
        if name and token.text.strip('"').lower() == name.lower():
            return place(sql, token.start)
    return None, None
