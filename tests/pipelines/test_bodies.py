"""Bodies: decompressed within a limit, whatever they swell to."""

import contextlib
import gzip
import zlib

import psutil
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Malformed, Overloaded, TooLarge, UnsupportedMedia
from pipelines.receive.bodies import PIECE_BYTES_MAX, Coding, coding_named, coding_of, decompress


def raw_deflate(body: bytes) -> bytes:
    made = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return made.compress(body) + made.flush()


PACK = {
    Coding.GZIP: [gzip.compress, lambda body: gzip.compress(body[:1]) + gzip.compress(body[1:])],
    Coding.DEFLATE: [zlib.compress, raw_deflate],
    Coding.ZSTD: [lambda body: pa.compress(body, "zstd", asbytes=True)],
    Coding.IDENTITY: [bytes],
}


def free(_: int) -> None:
    """Claim nothing."""


@given(st.binary(max_size=5_000), st.sampled_from(list(Coding)))
def test_a_body_comes_back_however_it_was_packed(body: bytes, coding: Coding) -> None:
    for pack in PACK[coding]:
        assert decompress(coding, pack(body), bytes_max=10_000, claim=free) == body


@pytest.mark.parametrize("coding", list(Coding))
def test_a_bomb_is_refused_before_it_takes_memory(coding: Coding) -> None:
    bomb = PACK[coding][0](bytes(40 << 20))
    claimed: list[int] = []
    with pytest.raises(TooLarge):
        decompress(coding, bomb, bytes_max=1 << 20, claim=claimed.append)
    assert sum(claimed) <= (1 << 20) + PIECE_BYTES_MAX


@pytest.mark.parametrize("coding", [Coding.GZIP, Coding.DEFLATE, Coding.ZSTD])
def test_memory_stays_flat_while_a_bomb_swells(coding: Coding) -> None:
    bomb = PACK[coding][0](bytes(200_000_000))
    process = psutil.Process()
    before, seen = process.memory_info().rss, list[int]()

    def look(_: int) -> None:
        seen.append(process.memory_info().rss)

    with pytest.raises(TooLarge):
        decompress(coding, bomb, bytes_max=8 << 20, claim=look)
    assert len(seen) >= 8
    assert max(seen) - before < 40 << 20


@given(st.sampled_from([Coding.GZIP, Coding.DEFLATE, Coding.ZSTD]), st.data())
def test_a_damaged_stream_gives_a_body_or_a_refusal(coding: Coding, data: st.DataObject) -> None:
    packed = bytearray(PACK[coding][0](bytes(3_000) + bytes(range(256))))
    for place in data.draw(st.lists(st.integers(0, len(packed) - 1), max_size=4)):
        packed[place] ^= data.draw(st.integers(0, 255))
    wire = bytes(packed[: data.draw(st.integers(0, len(packed)))])
    with contextlib.suppress(Malformed, TooLarge):
        assert len(decompress(coding, wire, bytes_max=10_000, claim=free)) <= 10_000


def test_claims_may_stop_the_work() -> None:
    def refuse(_: int) -> None:
        raise Overloaded

    with pytest.raises(Overloaded):
        decompress(Coding.GZIP, gzip.compress(bytes(1_000)), bytes_max=10_000, claim=refuse)


@pytest.mark.parametrize("coding", [Coding.GZIP, Coding.DEFLATE, Coding.ZSTD])
def test_a_damaged_or_cut_off_stream_is_malformed(coding: Coding) -> None:
    packed = PACK[coding][0](bytes(range(256)) * 50)
    for damaged in (b"nonsense", packed[:-9], packed[: len(packed) // 2]):
        with pytest.raises(Malformed):
            decompress(coding, damaged, bytes_max=1 << 20, claim=free)


def test_codings_are_named_as_in_http_and_others_refused() -> None:
    assert coding_named(None) is Coding.IDENTITY
    assert coding_named(" GZip ") is Coding.GZIP
    with pytest.raises(UnsupportedMedia, match="br"):
        coding_named("br")


def test_a_packed_message_is_told_by_its_first_bytes() -> None:
    assert coding_of(gzip.compress(b"x")) is Coding.GZIP
    assert coding_of(zlib.compress(b"x")) is Coding.DEFLATE
    assert coding_of(b"\x0a\x02ab") is Coding.IDENTITY
    assert coding_of(b"") is Coding.IDENTITY
