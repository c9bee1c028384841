"""JSON scan: where in each document a member is, found by compiled code that reads every byte once.

In:  documents as Arrow has them (one buffer of bytes, offsets) and a member's name.   Out: for each document the place
of the member's value and what it is. Whatever is not surely JSON, or takes more than looking, is left to who parses.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

ABSENT, NULL, STRING, ESCAPED, NUMBER, BOOLEAN, NESTED, UNSURE = range(8)
"""What a value is; a string with escapes has still to be parsed, and what is unsure is left to who parses."""
DEPTH_MAX = 62
"""Brackets within one another that are followed; deeper documents are left to who parses."""
TEXT_TRUE, TEXT_NULL, TEXT_FALSE = (np.frombuffer(text, np.uint8) for text in (b"true", b"null", b"false"))

ONES = np.uint64(0x0101010101010101)
HIGHS = np.uint64(0x8080808080808080)
QUOTES = np.uint64(34) * ONES
BACKSLASHES = np.uint64(92) * ONES
SPACES = np.uint64(32) * ONES

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
_jit: Any = numba.njit(cache=True, nogil=True, boundscheck=False)


def _read(bits: int) -> Any:
    """Read so many bits, of any alignment, at an address plus an offset."""
    result = types.uint8 if bits == 8 else types.uint64

    @intrinsic
    def read(typingctx: Any, address: Any, offset: Any) -> Any:  # numba's own form
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            place = builder.inttoptr(builder.add(*arguments), ir.PointerType())
            return builder.load(place, align=1, typ=ir.IntType(bits))

        return result(types.int64, types.int64), generate

    return read


# Memory: these two primitives read, `_byte` at `i` and `_word` at `i` to `i + 8`, at addresses: numba's own indexing
# would look for negative indices at every byte. Right before each stands `i < end`, or `i + 8 <= end`, and `end` is an
# offset of Arrow's, which lies in the buffer. Writes go to numpy arrays at the document's number, and in `gather` to an
# output whose size is the sum of the lengths that are copied.
_byte, _word = _read(8), _read(64)


@_jit
def _space(data: int, i: int, end: int) -> int:
    while i < end and (_byte(data, i) == 32 or _byte(data, i) == 10 or _byte(data, i) == 13 or _byte(data, i) == 9):
        i += 1
    return i


@_jit
def _unicode(data: int, i: int, end: int) -> bool:
    """Whether four hex digits stand at `i` that are no half of a surrogate pair."""
    if i + 4 > end:
        return False
    for j in range(4):
        byte = _byte(data, i + j)
        if not (48 <= byte <= 57 or 97 <= byte <= 102 or 65 <= byte <= 70):
            return False
    first, second = _byte(data, i), _byte(data, i + 1)
    return not ((first == 100 or first == 68) and (second > 55))


@_jit
def _string(data: int, i: int, end: int) -> tuple[int, bool]:
    """Behind the string that begins at `i`, and whether it has escapes; -1 when it is none or has a surrogate."""
    i += 1
    escaped = False
    while i < end:
        while i + 8 <= end:  # eight bytes at once, while none of them is a quote, a backslash or below a space
            word = _word(data, i)
            quote, backslash = word ^ QUOTES, word ^ BACKSLASHES
            low = (word - SPACES) & ~word
            found = low | ((quote - ONES) & ~quote) | ((backslash - ONES) & ~backslash)
            if found & HIGHS:
                break
            i += 8
        if i >= end:
            break
        byte = _byte(data, i)
        if byte == 34:
            return i + 1, escaped
        if byte < 32:
            return -1, False
        if byte == 92:
            escaped = True
            i += 1
            if i >= end:
                return -1, False
            byte = _byte(data, i)
            if byte == 117:
                if not _unicode(data, i + 1, end):
                    return -1, False
            elif not (
                byte == 34 or byte == 92 or byte == 47 or byte == 98 or byte == 102 or byte == 110 or byte == 114
                or byte == 116
            ):  # fmt: skip
                return -1, False
        i += 1
    return -1, False


@_jit
def _digits(data: int, i: int, end: int) -> int:
    """Behind the digits that begin at `i`; -1 when there are none."""
    start = i
    while i < end and 48 <= _byte(data, i) <= 57:
        i += 1
    return i if i > start else -1


@_jit
def _number(data: int, i: int, end: int) -> int:
    """Behind the number that begins at `i`; -1 when it is none."""
    if _byte(data, i) == 45:
        i += 1
    first = i
    i = _digits(data, i, end)
    if i < 0 or (i > first + 1 and _byte(data, first) == 48):
        return -1
    if i < end and _byte(data, i) == 46:
        i = _digits(data, i + 1, end)
    if 0 < i < end and (_byte(data, i) == 101 or _byte(data, i) == 69):
        i += 1
        if i < end and (_byte(data, i) == 43 or _byte(data, i) == 45):
            i += 1
        i = _digits(data, i, end)
    return i


@_jit
def _named(data: int, start: int, end: int, key: Bytes) -> bool:
    if end - start != len(key):
        return False
    for j in range(len(key)):
        if _byte(data, start + j) != key[j]:
            return False
    return True


@_jit
def _literal(data: int, i: int, end: int) -> tuple[int, int]:
    """Behind `true`, `false` or `null` at `i`, and which it is; -1 when it is none."""
    for literal, kind in ((TEXT_TRUE, BOOLEAN), (TEXT_NULL, NULL), (TEXT_FALSE, BOOLEAN)):
        after = i + len(literal)
        if after <= end and _named(data, i, after, literal):
            return after, kind
    return -1, UNSURE


@_jit
def _scalar(data: int, i: int, end: int) -> tuple[int, int]:
    """Behind the scalar that begins at `i`, and what it is; -1 when it is none."""
    if _byte(data, i) == 34:
        after, escaped = _string(data, i, end)
        return after, (ESCAPED if escaped else STRING)
    if _byte(data, i) == 45 or 48 <= _byte(data, i) <= 57:
        return _number(data, i, end), NUMBER
    return _literal(data, i, end)


@_jit
def _nested(data: int, i: int, end: int) -> int:
    """Behind the object or array that begins at `i`; -1 when it is none. One bit per bracket tells which it is."""
    objects = np.uint64(0)
    depth = 0
    value, opened = True, False  # whether a value comes next; whether a bracket was just opened
    while True:
        i = _space(data, i, end)
        if i >= end:
            return -1
        byte = _byte(data, i)
        in_object = depth > 0 and (objects & np.uint64(1)) == np.uint64(1)
        if value:
            if opened and byte == (125 if in_object else 93):
                value = opened = False
                continue
            if in_object:
                if byte != 34:
                    return -1
                i, _ = _string(data, i, end)
                if i < 0:
                    return -1
                i = _space(data, i, end)
                if i >= end or _byte(data, i) != 58:
                    return -1
                i = _space(data, i + 1, end)
                if i >= end:
                    return -1
                byte = _byte(data, i)
            if byte == 123 or byte == 91:
                depth += 1
                if depth > DEPTH_MAX:
                    return -1
                objects = (objects << np.uint64(1)) | np.uint64(1 if byte == 123 else 0)
                opened = True
                i += 1
                continue
            i, _ = _scalar(data, i, end)
            if i < 0:
                return -1
            value = opened = False
        elif byte == 44:
            value, opened = True, False
            i += 1
        elif byte == (125 if in_object else 93):
            objects >>= np.uint64(1)
            depth -= 1
            i += 1
            if depth == 0:
                return i
        else:
            return -1


@_jit
def _member(data: int, i: int, end: int, key: Bytes) -> tuple[int, int, int]:
    """Start, end and kind of the member's value in the document at `i`; what comes behind it is not looked at."""
    i = _space(data, i, end)
    if i >= end or _byte(data, i) != 123:
        return 0, 0, UNSURE
    i = _space(data, i + 1, end)
    if i < end and _byte(data, i) == 125:
        return (0, 0, ABSENT) if _space(data, i + 1, end) == end else (0, 0, UNSURE)
    while True:
        if i >= end or _byte(data, i) != 34:
            return 0, 0, UNSURE
        after, escaped = _string(data, i, end)
        if after < 0 or escaped:
            return 0, 0, UNSURE
        found = _named(data, i + 1, after - 1, key)
        i = _space(data, after, end)
        if i >= end or _byte(data, i) != 58:
            return 0, 0, UNSURE
        i = _space(data, i + 1, end)
        if i >= end:
            return 0, 0, UNSURE
        if _byte(data, i) == 123 or _byte(data, i) == 91:
            after, what = _nested(data, i, end), NESTED
        else:
            after, what = _scalar(data, i, end)
        if after < 0:
            return 0, 0, UNSURE
        if found:
            return i, after, what
        i = _space(data, after, end)
        if i >= end:
            return 0, 0, UNSURE
        if _byte(data, i) == 44:
            i = _space(data, i + 1, end)
        elif _byte(data, i) == 125 and _space(data, i + 1, end) == end:
            return 0, 0, ABSENT
        else:
            return 0, 0, UNSURE


@_jit
def scan(data: int, offsets: npt.NDArray[np.int32], key: Bytes, starts: Numbers, ends: Numbers, kinds: Bytes) -> None:
    """Find the member `key` (bytes, as JSON spells it) of each document: where its value starts and ends, and its kind.

    `data` is the address of the bytes; `offsets` has one more than there are documents, the three outputs one for each.
    """
    for row in range(len(kinds)):
        starts[row], ends[row], kinds[row] = _member(data, offsets[row], offsets[row + 1], key)


@_jit
def gather(data: int, starts: Numbers, lengths: Numbers, offsets: Numbers, out: Bytes) -> None:
    """Copy a slice of `data` per row to `out`, one behind the other; `offsets` are the sums of `lengths`."""
    for row in range(len(lengths)):
        start, to = starts[row], offsets[row]
        for j in range(lengths[row]):
            out[to + j] = _byte(data, start + j)
