"""Decompression within a limit: a small body that swells without end is refused before it takes memory.

In:  the bytes of the wire.   Out: the body, or TooLarge as soon as the limit is passed.
"""

import zlib
from collections.abc import Callable, Iterator
from enum import Enum

import pyarrow as pa

from core.errors import Malformed, TooLarge, UnsupportedMedia

BODY_BYTES_MAX = 100_000_000
"""Bytes of a request on the wire, and again decompressed; more is refused with TooLarge (413, OUT_OF_RANGE)."""
PIECE_BYTES_MAX = 1 << 20
"""Bytes decompressed at a time, and so the most by which a body may swell past a limit."""
SLICE_BYTES = 1 << 16
GZIP_MAGIC = b"\x1f\x8b"


class Coding(Enum):
    """How a body is compressed; the value is its name in Content-Encoding."""

    IDENTITY = "identity"
    GZIP = "gzip"
    DEFLATE = "deflate"
    ZSTD = "zstd"


def coding_named(name: str | None) -> Coding:
    """The coding of a Content-Encoding header; UnsupportedMedia for those not read here."""
    try:
        return Coding((name or "identity").strip().lower())
    except ValueError:
        known = ", ".join(coding.value for coding in Coding)
        raise UnsupportedMedia(f"The content encoding {name!r} is not one of {known}") from None


def coding_of(message: bytes) -> Coding:
    """The coding of a gRPC message, told by its first bytes.

    No OTLP request begins like a gzip or zlib stream: 0x1f has the wire type 7, which does not exist, and the low
    half 8 of a zlib header's first byte is the wire type of a number, which no request begins with.
    """
    if message.startswith(GZIP_MAGIC):
        return Coding.GZIP
    return Coding.DEFLATE if _has_zlib_header(message) else Coding.IDENTITY


def decompress(coding: Coding, wire: bytes, *, bytes_max: int, claim: Callable[[int], None]) -> bytes:
    """The decompressed body, of at most `bytes_max` bytes.

    `claim` hears of the bytes of each piece before the next is made, and may stop it all by raising.
    Raises TooLarge, and Malformed when the stream is damaged or cut off.
    """
    if coding is Coding.IDENTITY or not wire:
        if len(wire) > bytes_max:
            raise too_large(bytes_max)
        return wire
    size, pieces = 0, list[bytes]()
    try:
        for piece in _inflated(wire) if coding is Coding.DEFLATE else _unpacked(coding, wire):
            size += len(piece)
            if size > bytes_max:
                raise too_large(bytes_max)
            claim(len(piece))
            pieces.append(piece)
    except (OSError, zlib.error) as error:
        raise Malformed(f"The body is not valid {coding.value}: {error}") from error
    return b"".join(pieces)


def too_large(bytes_max: int) -> TooLarge:
    """The refusal of a body above the limit."""
    return TooLarge(f"The request is larger than {bytes_max} bytes, on the wire or decompressed; send it in parts")


def _unpacked(coding: Coding, wire: bytes) -> Iterator[bytes]:
    """Pieces of a gzip or zstd stream. Arrow's reader takes several members and knows when the last is cut off."""
    with pa.CompressedInputStream(pa.BufferReader(wire), "zstd" if coding is Coding.ZSTD else "gzip") as stream:
        while piece := stream.read(PIECE_BYTES_MAX):
            yield piece


def _inflated(wire: bytes) -> Iterator[bytes]:
    """Pieces of a deflate stream: in the zlib format, as RFC 9110 means it, or raw, as some send it."""
    inflater = zlib.decompressobj(zlib.MAX_WBITS if _has_zlib_header(wire) else -zlib.MAX_WBITS)
    for start in range(0, len(wire), SLICE_BYTES):
        rest = wire[start : start + SLICE_BYTES]
        while rest and not inflater.eof:
            yield inflater.decompress(rest, PIECE_BYTES_MAX)
            rest = inflater.unconsumed_tail
    yield inflater.flush()
    if not inflater.eof:
        raise zlib.error("the stream is cut off")


def _has_zlib_header(wire: bytes) -> bool:
    """RFC 1950: method 8 in the low half of the first byte, and both bytes a multiple of 31."""
    return len(wire) >= 2 and wire[0] & 0x0F == 8 and int.from_bytes(wire[:2], "big") % 31 == 0
