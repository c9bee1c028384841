"""JSON text: what its members are, as SQL functions named as in datafusion-functions-json, which Logfire has.

In:  documents, and for each a key: a member's name in an object, a whole number in an array (from 0, or from the end
when negative, as in PostgreSQL's `#>`).   Out: the members. A JSON null, a missing key, and text that is not JSON are
NULL, and so is a member of another kind than the function's. Parsing is orjson's; query/json_scan.py finds members of
objects without it, once it is compiled. Of JSON without repeated names both say the same.
"""

import importlib
import logging
import math
import threading
from collections.abc import Callable, Mapping
from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from datafusion import ScalarUDF, udf

from core.values import real

_log = logging.getLogger(__name__)

SCANNED_MIN = 64
"""Documents of a batch from which on the compiled scan is used."""
Numbers = npt.NDArray[np.int64]
Kinds = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
PARSED_MAX = 50_000
"""Documents that are parsed before one waits for the scan to be loaded."""
LOAD_WAIT_S = 1.0
"""How long a batch waits for it; compiling it for the first time takes longer."""
ABSENT = object()
"""What a key finds where there is nothing; a JSON null is None."""


@cache
def functions() -> list[ScalarUDF]:
    """All of them, for a session."""
    made = [
        udf(partial(_found, convert, kind), [pa.string(), pa.string()], kind, "immutable", name)
        for name, (convert, kind) in GETTERS.items()
    ]
    made += [
        udf(partial(_whole, convert, kind), [pa.string_view()], kind, "immutable", name)
        for name, (convert, kind) in WHOLES.items()
    ]
    return [*made, udf(members_of, [pa.string_view(), pa.string()], pa.string(), "immutable", "json_members")]


def get(name: str, documents: pa.Array, keys: pa.Array) -> pa.Array:
    """What the function of that name says of documents and keys of equal length."""
    return _found(*GETTERS[name], documents, keys)


def members_of(documents: pa.Array, prefixes: pa.Array) -> pa.Array:
    """The members whose names begin with a prefix, as a JSON object under the rest of their names."""
    pairs = zip(documents.to_pylist(), prefixes.to_pylist(), strict=True)
    return pa.array(
        [None if text is None or prefix is None else _members_of(text, prefix) for text, prefix in pairs], pa.string()
    )


def as_json(value: object) -> str | None:
    """A value as JSON text."""
    return None if value is None or value is ABSENT else orjson.dumps(value).decode()


def as_text(value: object) -> str | None:
    """A string as it is, anything else as JSON text."""
    return value if isinstance(value, str) else as_json(value)


def as_string(value: object) -> str | None:
    """A string."""
    return value if isinstance(value, str) else None


def as_int(value: object) -> int | None:
    """A number to the nearest whole one, also when it is spelled in a string; NULL beyond 64 bits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -(2**63) <= value < 2**63 else None
    number = real(value)
    if number is None or not math.isfinite(number) or abs(number) >= 2**63:
        return None
    return as_int(int(value)) if isinstance(value, str) and _is_whole(value) else round(number)


def as_bool(value: object) -> bool | None:
    """True or false."""
    return value if isinstance(value, bool) else None


def as_array(value: object) -> list[str | None] | None:
    """The elements of an array, each as JSON text."""
    return [as_json(item) for item in value] if isinstance(value, list) else None


def length(value: object) -> int | None:
    """How many elements an array or members an object has."""
    return len(value) if isinstance(value, (list, dict)) else None


def object_keys(value: object) -> list[str] | None:
    """The names of an object's members, in order."""
    return list(value) if isinstance(value, dict) else None


def is_there(value: object) -> bool:
    """Whether the key found anything, a null too."""
    return value is not ABSENT


Convert = Callable[[object], object]
GETTERS: Mapping[str, tuple[Convert, pa.DataType]] = {
    "json_get": (as_json, pa.string()),
    "json_get_json": (as_json, pa.string()),
    "json_as_text": (as_text, pa.string()),
    "json_get_str": (as_string, pa.string()),
    "json_get_int": (as_int, pa.int64()),
    "json_get_float": (real, pa.float64()),
    "json_get_bool": (as_bool, pa.bool_()),
    "json_get_array": (as_array, pa.list_(pa.string())),
    "json_contains": (is_there, pa.bool_()),
}
"""Functions of a document and a key."""
WHOLES: Mapping[str, tuple[Convert, pa.DataType]] = {
    "json_length": (length, pa.int64()),
    "json_object_keys": (object_keys, pa.list_(pa.string())),
}
"""Functions of a document."""


def _found(convert: Convert, kind: pa.DataType, documents: pa.Array, keys: pa.Array) -> pa.Array:
    names = keys.unique().to_pylist()
    nothing = convert(ABSENT)
    if len(names) == 1 and names[0] is not None and _index(names[0]) is None:
        scanner = SCANNER.ready(len(documents)) if len(documents) >= SCANNED_MIN else None
        if scanner is not None:
            return _scanned(scanner, convert, kind, documents, names[0])
        rows = _of_one_name(documents.to_pylist(), names[0], convert, nothing)
    else:
        pairs = zip(documents.to_pylist(), keys.to_pylist(), strict=True)
        rows = [None if text is None or name is None else convert(_member(text, name)) for text, name in pairs]
    return pa.array(rows, kind)


class Scanner:
    """The compiled scan; it is compiled, or read from numba's cache, in the background when it is first wanted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loading: threading.Thread | None = None
        self._module: ModuleType | None = None
        self._without = 0
        """Documents that were parsed for want of it."""

    def ready(self, documents: int) -> ModuleType | None:
        """The module, when it can be used for so many documents more; who has many waits a little for it."""
        if self._module is None:
            with self._lock:
                if self._loading is None:
                    self._loading = threading.Thread(target=self._load, name="json-scan", daemon=True)
                    self._loading.start()
                self._without += documents
            if self._without > PARSED_MAX:
                self._loading.join(LOAD_WAIT_S)
        return self._module

    def wait(self) -> ModuleType | None:
        """The module, after it was compiled."""
        self.ready(0)
        assert self._loading is not None
        self._loading.join()
        return self._module

    def _load(self) -> None:
        try:
            module = importlib.import_module("query.json_scan")
            _scanned(module, as_text, pa.string(), pa.array(['{"a": "b"}']), "a")
        except Exception:  # noqa: BLE001  # whatever it is, there is another way
            _log.exception("the JSON scan cannot be compiled; parsing goes on instead")
        else:
            self._module = module


SCANNER = Scanner()


def _scanned(scan: ModuleType, convert: Convert, kind: pa.DataType, documents: pa.Array, name: str) -> pa.Array:
    """The members of one name, found by the compiled scan. Text is taken as it is written; the rest is parsed."""
    texts = documents if documents.type == pa.string() else documents.cast(pa.string())
    count = len(texts)
    parts: list[Any] = texts.buffers()
    data = parts[2].address if parts[2] else 0
    offsets = np.frombuffer(parts[1], np.int32)[texts.offset : texts.offset + count + 1]
    starts, ends, kinds = np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count, np.uint8)
    key = np.frombuffer(orjson.dumps(name)[1:-1], np.uint8)
    scan.scan(data, offsets, key, starts, ends, kinds)
    missing = np.asarray(pc.is_null(texts)) if texts.null_count else np.zeros(count, bool)
    written = _as_written(scan, convert, kinds) & ~missing
    quote = (kinds == scan.STRING) & (convert is as_text)
    quick = _slices(scan, data, starts + quote, np.where(written, ends - starts - 2 * quote, 0), written)
    rest = np.flatnonzero(~written & ~missing & (kinds != scan.ABSENT))
    view = memoryview(parts[2] or b"")
    slow = [
        convert(_member(view[offsets[row] : offsets[row + 1]], name) if kinds[row] == scan.UNSURE
                else _value(view[starts[row] : ends[row]]))
        for row in rest.tolist()
    ]  # fmt: skip
    if kind == pa.string():
        if not slow:
            return quick
        mask = np.zeros(count, bool)
        mask[rest] = True
        return pc.replace_with_mask(quick, pa.array(mask), pa.array(slow, kind))
    values: list[object] = [convert(ABSENT)] * count
    for row, value in zip(rest.tolist(), slow, strict=True):
        values[row] = value
    return pa.array(values, kind, mask=missing)


def _as_written(scan: ModuleType, convert: Convert, kinds: Kinds) -> Flags:
    """Which values are the answer as they are written in the document."""
    sure = (kinds != scan.ABSENT) & (kinds != scan.NULL) & (kinds != scan.UNSURE)
    if convert is as_json:
        return sure
    return sure & (kinds != scan.ESCAPED) & (convert is as_text)


def _slices(scan: ModuleType, data: int, starts: Numbers, lengths: Numbers, valid: Flags) -> pa.Array:
    """A text array of slices of the bytes at an address; null where they are not valid."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    out = np.empty(int(offsets[-1]), np.uint8)
    scan.gather(data, starts, lengths, offsets, out)
    made: list[Any] = [np.packbits(valid, bitorder="little"), offsets.astype(np.int32), out]
    return pa.Array.from_buffers(pa.string(), len(lengths), [pa.py_buffer(each) for each in made])


def _whole(convert: Convert, kind: pa.DataType, documents: pa.Array) -> pa.Array:
    return pa.array([None if text is None else convert(_value(text)) for text in documents.to_pylist()], kind)


def _of_one_name(texts: list[str | None], name: str, convert: Convert, nothing: object) -> list[object]:
    # parsing costs three times as much as looking whether the name is there; an escape may hide it
    quoted = orjson.dumps(name).decode() if name.isascii() else ""
    return [
        None if text is None
        else convert(_member(text, name)) if quoted in text or "\\" in text
        else nothing
        for text in texts
    ]  # fmt: skip


def _members_of(text: str, prefix: str) -> str | None:
    value = _value(text)
    if not isinstance(value, dict):
        return None
    kept = {name.removeprefix(prefix): member for name, member in value.items() if name.startswith(prefix)}
    return orjson.dumps(kept).decode()


def _value(text: str | memoryview) -> object:
    try:
        return orjson.loads(text)
    except ValueError:
        return ABSENT


def _member(text: str | memoryview, name: str) -> object:
    value = _value(text)
    if isinstance(value, dict):
        return value.get(name, ABSENT)
    index = _index(name)
    if isinstance(value, list) and index is not None and -len(value) <= index < len(value):
        return value[index]
    return ABSENT


def _index(name: str) -> int | None:
    """The whole number that a key spells, unless it has more digits than any array has elements."""
    return int(name) if _is_whole(name) and len(name) < 19 else None


def _is_whole(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit()
