"""The SQL functions that DataFusion lacks: looking into JSON text.

`json_get` answers with JSON text, `json_get_text` with the value as text (a string without its quotes); a JSON
null, a missing key, and text that is not JSON are NULL. A key is a member's name in an object; in an array a key
that is a whole number is an index, from 0, or from the end when negative (as in PostgreSQL's `#>`).
"""

from collections.abc import Callable

import orjson
import pyarrow as pa
from datafusion import SessionContext, udf

Spell = Callable[[object], str | None]


def register(context: SessionContext) -> None:
    """Make the functions known to a session."""
    for name, function in (("json_get", json_get), ("json_get_text", json_get_text)):
        context.register_udf(udf(function, [pa.string_view(), pa.string()], pa.string(), "immutable", name))


def json_get(documents: pa.Array, keys: pa.Array) -> pa.Array:
    """The JSON text of each document's member; `documents` and `keys` are text of equal length."""
    return _members(documents, keys, _as_json)


def json_get_text(documents: pa.Array, keys: pa.Array) -> pa.Array:
    """The same as text."""
    return _members(documents, keys, _as_text)


def _members(documents: pa.Array, keys: pa.Array, spell: Spell) -> pa.Array:
    names = keys.unique().to_pylist()
    if len(names) == 1:
        name = names[0]
        rows = [None] * len(documents) if name is None else _of_one_name(documents.to_pylist(), name, spell)
    else:
        pairs = zip(documents.to_pylist(), keys.to_pylist(), strict=True)
        rows = [None if text is None or name is None else spell(_member(text, name)) for text, name in pairs]
    return pa.array(rows, pa.string())


def _of_one_name(texts: list[str | None], name: str, spell: Spell) -> list[str | None]:
    if _index(name) is not None:
        return [None if text is None else spell(_member(text, name)) for text in texts]
    # parsing costs three times as much as looking whether the name is there; an escape may hide it
    quoted = orjson.dumps(name).decode() if name.isascii() else ""
    return [
        spell(_member(text, name)) if text is not None and (quoted in text or "\\" in text) else None for text in texts
    ]


def _member(text: str, name: str) -> object:
    try:
        value = orjson.loads(text)
    except ValueError:
        return None
    if isinstance(value, dict):
        return value.get(name)
    index = _index(name)
    if isinstance(value, list) and index is not None and -len(value) <= index < len(value):
        return value[index]
    return None


def _index(name: str) -> int | None:
    """The whole number that a key spells, unless it has more digits than any array has elements."""
    digits = name.removeprefix("-")
    return int(name) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None


def _as_json(value: object) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def _as_text(value: object) -> str | None:
    return value if isinstance(value, str) else _as_json(value)
