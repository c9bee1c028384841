"""The digest index: sealed, merged, restarted or read again, it decides as a dict that never forgets would."""

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clock import NS_PER_S
from core.errors import Refused
from core.telemetry import Encoding, Signal
from storage import digests as digests_module
from storage.digests import WINDOW_S, DigestIndex
from storage.log import LogWriter
from storage.log_reader import LogReader
from storage.segments import Record
from storage.settings import LogSettings

HOUR = 3_600 * NS_PER_S
WINDOW = WINDOW_S * NS_PER_S
NOON = 1_795_000_000 * NS_PER_S
FRAME = 10
"""Bytes of a frame of the fake log: frame n stands at n * FRAME."""
POOL = [bytes(8) + bytes([n] * 8) for n in range(3)] + [bytes([255] * 8) + bytes([n] * 8) for n in range(2)]
"""Digests; several share their first half."""


@dataclass(frozen=True, slots=True)
class Received:
    position: int
    end: int
    received_ns: int
    digest: bytes


@dataclass
class FakeLog:
    """A log of frames, all durable."""

    frames: list[Received] = field(default_factory=list[Received])
    start: int = 0

    def add(self, digest: bytes, received_ns: int) -> Received:
        position = len(self.frames) * FRAME
        self.frames.append(Received(position, position + FRAME, received_ns, digest))
        return self.frames[-1]

    def headers(self, position: int, until: int) -> Iterator[Received]:
        yield from self.frames[position // FRAME : until // FRAME]


def by_a_dict(frames: Sequence[Received]) -> list[bool]:
    """The rule, in its plainest form."""
    last: dict[bytes, int] = {}
    keep: list[bool] = []
    for frame in frames:
        seen = last.get(frame.digest)
        keep.append(seen is None or abs(frame.received_ns - seen) >= WINDOW)
        if keep[-1]:
            last[frame.digest] = frame.received_ns
    return keep


def log_of(steps: Sequence[tuple[int, int]]) -> FakeLog:
    """A log of (digest number, nanoseconds after the latest receipt so far)."""
    log, latest = FakeLog(), NOON
    for number, step in steps:
        latest = max(latest, log.add(POOL[number], latest + step).received_ns)
    return log


STEPS = st.tuples(
    st.integers(0, len(POOL) - 1),
    st.sampled_from([-HOUR, -1, 0, 1, HOUR, 6 * HOUR, WINDOW - 1, WINDOW, WINDOW + HOUR, WINDOW + 2 * HOUR]),
)
ACTIONS = st.tuples(st.sampled_from(["admit", "admit", "commit", "seal", "restart", "again"]), st.floats(0, 1))


@given(st.lists(STEPS, min_size=1, max_size=60), st.lists(ACTIONS, max_size=60))
@settings(max_examples=150, deadline=None)
def test_the_index_decides_like_a_dict_through_seals_and_restarts(
    steps: list[tuple[int, int]], actions: list[tuple[str, float]]
) -> None:
    log = log_of(steps)
    expected = by_a_dict(log.frames)
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests_module, "FILES_MAX", 2)
        directory = Path(name)
        index = DigestIndex(directory, log)
        read = committed = 0  # in frames
        for action, share in [*actions, ("admit", 1.0)]:
            match action:
                case "admit":
                    end = read + round(share * (len(steps) - read))
                    assert index.admit(log.frames[read:end]) == expected[read:end]
                    read = end
                case "commit":
                    committed += round(share * (read - committed))
                case "seal":
                    index.seal(committed * FRAME)
                    assert index.sealed_to == committed * FRAME
                case "again":
                    begin = committed + round(share * (read - committed))
                    assert index.admit(log.frames[begin:read]) == expected[begin:read]
                case _:
                    index = DigestIndex(directory, log)
                    index.catch_up(committed * FRAME)
                    read = committed
        assert len(list(directory.iterdir())) <= 2


def test_many_digests_are_found_in_any_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests_module, "FILES_MAX", 5)
    random = Random(7)
    known = [random.randbytes(16) for _ in range(3_000)]
    log = FakeLog()
    for number in range(9_000):
        log.add(random.choice(known), NOON + number)
    expected = by_a_dict(log.frames)
    index = DigestIndex(tmp_path, log)
    for begin in range(0, 9_000, 500):
        assert index.admit(log.frames[begin : begin + 500]) == expected[begin : begin + 500]
        index.seal(begin * FRAME)
    again = DigestIndex(tmp_path, log)
    assert again.admit(log.frames) == expected
    assert len(list(tmp_path.iterdir())) == 5
    assert sum(expected) == len({frame.digest for frame in log.frames})


@pytest.mark.parametrize(
    ("apart", "kept"), [(0, False), (WINDOW - 1, False), (1 - WINDOW, False), (WINDOW, True), (-WINDOW, True)]
)
@pytest.mark.parametrize("sealed", [False, True])
def test_a_repeat_is_one_within_a_day_on_either_side(apart: int, kept: bool, sealed: bool, tmp_path: Path) -> None:
    log = FakeLog()
    index = DigestIndex(tmp_path, log)
    assert index.admit([log.add(POOL[0], NOON)]) == [True]
    if sealed:
        index.seal(FRAME)
    assert index.admit([log.add(POOL[0], NOON + apart)]) == [kept]


@pytest.mark.parametrize("sealed", [False, True])
def test_the_day_begins_at_the_kept_frame_and_not_at_its_repeats(sealed: bool, tmp_path: Path) -> None:
    log = FakeLog()
    index = DigestIndex(tmp_path, log)
    for hours, kept in [(0, True), (20, False), (24, True), (47, False), (48, True)]:
        assert index.admit([log.add(POOL[0], NOON + hours * HOUR)]) == [kept]
        if sealed:
            index.seal(len(log.frames) * FRAME)


@pytest.mark.parametrize("sealed", [False, True])
def test_what_was_decided_before_the_digest_was_taken_over_is_decided_so_again(sealed: bool, tmp_path: Path) -> None:
    log = log_of([(0, 0), (0, 1), (1, 0), (0, WINDOW + HOUR), (0, HOUR), (1, 0)])
    index = DigestIndex(tmp_path, log)
    expected = index.admit(log.frames)
    assert expected == by_a_dict(log.frames) == [True, False, True, True, False, True]
    if sealed:  # as when the tables are restored from a backup and the log is not
        index.seal(len(log.frames) * FRAME)
        index = DigestIndex(tmp_path, log)
        index.catch_up(FRAME)
    assert index.admit(log.frames[1:3]) + index.admit(log.frames[3:]) == expected[1:]


def test_catching_up_reads_the_log_from_where_the_files_end(tmp_path: Path) -> None:
    def record(number: int) -> Record:
        return Record("p", Signal.LOGS, Encoding.JSON, NOON, number.to_bytes(16, "big"), bytes(50))

    with LogWriter(tmp_path, LogSettings()) as log:
        ends = [log.append(record(number)).result() for number in [1, 2, 1, 3, 4, 2]]
    reader = LogReader(tmp_path)
    frames = reader.read(0, bytes_max=1 << 20)
    index = DigestIndex(tmp_path / "digests", reader)
    index.catch_up(ends[2])
    index.seal(ends[1])
    index = DigestIndex(tmp_path / "digests", reader)
    assert index.sealed_to == ends[1]
    index.catch_up(ends[3])
    assert index.admit(frames[4:]) == [True, False]
    reader.close()


def test_sealing_beyond_what_was_admitted_is_our_mistake(tmp_path: Path) -> None:
    log = log_of([(0, 0), (1, 0)])
    index = DigestIndex(tmp_path, log)
    index.admit(log.frames[:1])
    with pytest.raises(AssertionError, match="known up to 10, not 20"):
        index.seal(2 * FRAME)


def test_files_past_their_time_are_deleted(tmp_path: Path) -> None:
    log = log_of([(0, 0), (1, 0), (2, WINDOW + HOUR), (2, 1), (3, 0), (2, WINDOW)])
    index = DigestIndex(tmp_path, log)
    counts: list[int] = []
    for number, frame in enumerate(log.frames):
        index.admit([frame])
        index.seal((number + 1) * FRAME)
        counts.append(len(list(tmp_path.iterdir())))
    assert counts == [1, 2, 3, 4, 2, 3]
    assert DigestIndex(tmp_path, log).sealed_to == len(log.frames) * FRAME


def test_too_many_digests_drop_the_oldest_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(digests_module, "DIGESTS_MAX", 2)
    log = log_of([(0, 0), (1, 1), (2, 1)])
    index = DigestIndex(tmp_path, log)
    for number, frame in enumerate(log.frames):
        index.admit([frame])
        index.seal((number + 1) * FRAME)
    assert "will be stored again" in caplog.text
    assert index.admit([log.add(POOL[number], NOON) for number in range(3)]) == [True, False, False]


def test_an_interrupted_merge_is_tidied_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests_module, "FILES_MAX", 1)
    log = log_of([(0, 0), (1, 1)])
    index = DigestIndex(tmp_path, log)
    index.admit(log.frames)
    index.seal(FRAME)
    with monkeypatch.context() as killed:
        killed.setattr(DigestIndex, "_drop", lambda *_: None)
        killed.setattr(digests_module, "FILES_MAX", 2)
        index.seal(2 * FRAME)
        index._merge(0)
    (tmp_path / "0-99.npy.tmp").write_bytes(b"half")
    assert len(list(tmp_path.iterdir())) == 4
    again = DigestIndex(tmp_path, log)
    assert [path.name for path in tmp_path.iterdir()] == [f"{0:020}-{20:020}.npy"]
    assert again.sealed_to == 20
    assert again.admit([log.add(POOL[number], NOON) for number in range(3)]) == [False, False, True]


def test_a_full_disk_leaves_everything_unsealed_until_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    log = log_of([(0, 0), (0, 0)])
    index = DigestIndex(tmp_path, log)
    index.admit(log.frames[:1])
    with monkeypatch.context() as broken:
        broken.setattr(digests_module, "replace_file", full)
        index.seal(FRAME)
    assert index.sealed_to == 0
    assert "could not be kept" in caplog.text
    index.seal(FRAME)
    assert index.sealed_to == FRAME
    assert index.admit(log.frames[1:]) == [False]


def test_an_unreadable_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "0-10.npy").write_bytes(b"not an array")
    with pytest.raises(Refused, match=r"0-10\.npy cannot be read"):
        DigestIndex(tmp_path, FakeLog())


def test_a_sealed_file_is_an_array_that_anyone_can_load(tmp_path: Path) -> None:
    log = FakeLog()
    index = DigestIndex(tmp_path, log)
    index.admit([log.add(bytes([1] * 8 + [2] * 8), NOON), log.add(bytes(15) + b"\7", NOON + 1)])
    index.seal(2 * FRAME)
    rows = np.load(tmp_path / f"{0:020}-{20:020}.npy")
    assert rows.dtype == np.uint64
    assert rows.tolist() == [
        [0, 0x0101010101010101],
        [7, 0x0202020202020202],
        [NOON + 1, NOON],
        [FRAME, 0],
    ]
