"""Which requests were sent before: a client that lost our answer sends the same bytes again (system.md D3).

In:  frames, in log order.   Out: for each whether to keep it. A frame is a repeat when the last kept frame of its
digest was received less than WINDOW_S before or after it (clocks step back); a kept frame takes the digest over.
The answer follows from the log alone: every entry knows its frame's position and speaks only for frames from
there on, so reading an interval again, in this process or the next, decides as it did the first time.
"""

import logging
import re
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from core.clock import NS_PER_S
from core.errors import Refused
from core.ids import DIGEST_BYTES
from storage.segments import replace_file

WINDOW_S = 24 * 3600
"""Two receipts of the same bytes within this time are one request."""
CLOCK_STEP_S = 3600
"""How far the wall clock may be set back without a repeat being taken for new: files are kept that much longer."""
FILES_MAX = 32
"""Sealed files; when there are more, the neighbours with the fewest entries are merged."""
DIGESTS_MAX = 32 << 20
"""Entries in sealed files (32 bytes each); beyond it the oldest file is dropped: repeats that late are stored twice."""
CATCH_UP_FRAMES = 8_192
"""Frames admitted at a time while reading the log up."""

_WINDOW_NS = WINDOW_S * NS_PER_S
_KEPT_NS = (WINDOW_S + CLOCK_STEP_S) * NS_PER_S
_FILE_NAME = re.compile(r"(\d+)-(\d+)\.npy")
_HIGH, _LOW, _RECEIVED, _POSITION = range(4)

_log = logging.getLogger(__name__)

Words = npt.NDArray[np.uint64]


class Received(Protocol):
    """What the index needs of a Frame or of a Head."""

    @property
    def position(self) -> int: ...  # noqa: D102  # as in Frame
    @property
    def end(self) -> int: ...  # noqa: D102  # as in Frame
    @property
    def received_ns(self) -> int: ...  # noqa: D102  # as in Frame
    @property
    def digest(self) -> bytes: ...  # noqa: D102  # as in Frame


class Heads(Protocol):
    """What the index needs of a LogReader."""

    @property
    def start(self) -> int: ...  # noqa: D102  # as in LogReader
    def headers(self, position: int, until: int) -> Iterator[Received]: ...  # noqa: D102  # as in LogReader


class Entry(NamedTuple):
    """A kept frame."""

    position: int
    received_ns: int
    digest: bytes
    earlier: "Entry | None"
    """The entry of the same digest that this one superseded."""


class SealedFile:
    """The kept frames of the log interval [start, end), in a file that never changes: `<start>-<end>.npy`.

    The file is a NumPy array of uint64 with four rows: first and second half of the digest (big endian), receipt
    in nanoseconds, position; its columns are sorted by digest, then position.
    """

    def __init__(self, path: Path, start: int, end: int) -> None:
        self.path = path
        self.start = start
        self.end = end
        try:
            self.rows: Words = np.load(path, mmap_mode="r")
        except ValueError as error:
            raise Refused(
                f"The digest file {path} cannot be read ({error}); delete it, and requests repeated within a day of"
                " their first receipt may be stored twice"
            ) from error
        self.newest_ns = int(self.rows[_RECEIVED].max(initial=0))

    @classmethod
    def write(cls, directory: Path, interval: tuple[int, int], rows: Words) -> Self:
        """Make the file of an interval, on the disk when this returns; rows in any order. Raises OSError."""
        start, end = interval
        path = directory / f"{start:020}-{end:020}.npy"
        order = np.lexsort((rows[_POSITION], rows[_LOW], rows[_HIGH]))
        replace_file(path, lambda file: np.save(file, rows[:, order]))
        return cls(path, start, end)

    def __len__(self) -> int:
        return self.rows.shape[1]

    def find(self, wanted: Words) -> Iterable[tuple[int, int, int]]:
        """(column of wanted, receipt, position) for each column that has an entry here at or before its position.

        `wanted`: uint64 rows (first half, second half, position). Of several entries the last is given.
        """
        highs = self.rows[_HIGH]
        first = np.searchsorted(highs, wanted[0])
        hits = np.flatnonzero(highs[np.minimum(first, len(self) - 1)] == wanted[0]) if len(self) else ()
        for column in map(int, hits):
            _, low, position = wanted[:, column]
            begin = int(first[column])
            end = begin + int(np.searchsorted(highs[begin:], wanted[0, column], side="right"))
            _, lows, received, positions = self.rows[:, begin:end]
            match = np.flatnonzero((lows == low) & (positions <= position))
            if len(match):
                yield column, int(received[match[-1]]), int(positions[match[-1]])


class DigestIndex:
    """The kept frames of the last day: sealed files for what may be trimmed from the log, memory for the rest.

    `directory` belongs to the index alone. Not thread-safe.
    """

    def __init__(self, directory: Path, reader: Heads) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._reader = reader
        self._files = _open_files(directory)
        self._kept: list[Entry] = []
        self._last: dict[bytes, Entry] = {}
        self._admitted_to = max(self.sealed_to, reader.start)

    @property
    def sealed_to(self) -> int:
        """Position below which the log is no longer needed to know the digests."""
        return self._files[-1].end if self._files else 0

    def catch_up(self, to: int) -> None:
        """Admit the frames of the log up to a position that were not admitted before."""
        heads = self._reader.headers(self._admitted_to, to) if self._admitted_to < to else iter(())
        while batch := list(islice(heads, CATCH_UP_FRAMES)):
            self.admit(batch)

    def admit(self, frames: Sequence[Received]) -> list[bool]:
        """For each frame whether it is to be kept (True) or repeats another; frames are given in log order.

        Nothing may be left out between calls, but any interval may be given again: its answers stay the same.
        """
        if not frames:
            return []
        sealed = self._find_sealed(frames)
        keep = [self._admit(frame, sealed.get(column)) for column, frame in enumerate(frames)]
        self._admitted_to = max(self._admitted_to, frames[-1].end)
        return keep

    def seal(self, to: int) -> None:
        """Keep what was admitted below a position in a file, and forget files and entries past their time.

        On a full disk `sealed_to` stays where it was, with a log line; call again later.
        """
        if to <= self.sealed_to:
            return
        assert to <= self._admitted_to, f"digests are known up to {self._admitted_to}, not {to}"
        count = bisect_left(self._kept, to, key=lambda entry: entry.position)
        entries = self._kept[:count]
        try:
            file = SealedFile.write(self._directory, (self.sealed_to, to), _rows(entries))
        except OSError as error:
            _log.warning("request digests could not be kept, so the log is not trimmed: %s", error)
            return
        self._files.append(file)
        del self._kept[:count]
        for entry in entries:
            if self._last.get(entry.digest) is entry:
                del self._last[entry.digest]
        # The last receipt below `to`, not the newest one known: frames from `to` on may have to be decided again.
        self._expire(entries[-1].received_ns - _KEPT_NS if entries else 0)

    def _admit(self, frame: Received, sealed: tuple[int, int] | None) -> bool:
        entry = latest = self._last.get(frame.digest)
        while entry is not None and entry.position > frame.position:
            entry = entry.earlier
        found = (entry.received_ns, entry.position) if entry is not None else sealed
        if found is not None:
            received_ns, position = found
            if position == frame.position:
                return True
            if abs(frame.received_ns - received_ns) < _WINDOW_NS:
                return False
        if latest is None or latest.position < frame.position:
            kept = Entry(frame.position, frame.received_ns, frame.digest, latest)
            insort(self._kept, kept)
            self._last[frame.digest] = kept
        return True

    def _find_sealed(self, frames: Sequence[Received]) -> dict[int, tuple[int, int]]:
        """(receipt, position) of the last sealed entry at or before each frame, by its place in `frames`."""
        if not self._files:
            return {}
        halves = _halves(frame.digest for frame in frames)
        wanted = np.vstack((halves, np.array([frame.position for frame in frames], np.uint64)))
        found: dict[int, tuple[int, int]] = {}
        for file in self._files:
            for column, received_ns, position in file.find(wanted):
                found[column] = (received_ns, position)
        return found

    def _expire(self, oldest_ns: int) -> None:
        """Drop files without an entry since `oldest_ns`, which the newest one has, and what is over the limits."""
        for file in [file for file in self._files if file.newest_ns < oldest_ns]:
            self._drop(file)
        while sum(map(len, self._files)) > DIGESTS_MAX and len(self._files) > 1:
            _log.warning("too many requests to remember: repeats of those before log position %d, received up to a"
                         " day ago, will be stored again", self._files[0].end)  # fmt: skip
            self._drop(self._files[0])
        while len(self._files) > FILES_MAX:
            try:
                self._merge(oldest_ns)
            except OSError as error:
                _log.warning("request digests could not be merged: %s", error)
                return

    def _merge(self, oldest_ns: int) -> None:
        """One file of the two neighbours with the fewest entries. The new one holds theirs before they go."""
        left, right = min(pairwise(self._files), key=lambda pair: len(pair[0]) + len(pair[1]))
        rows = np.concatenate((left.rows, right.rows), axis=1)
        rows = rows[:, rows[_RECEIVED] >= max(oldest_ns, 0)]
        merged = SealedFile.write(self._directory, (left.start, right.end), rows)
        self._files.insert(self._files.index(left), merged)
        self._drop(left)
        self._drop(right)

    def _drop(self, file: SealedFile) -> None:
        self._files.remove(file)
        file.path.unlink(missing_ok=True)


def _open_files(directory: Path) -> list[SealedFile]:
    """The sealed files in log order; what an interrupted write or merge has left is deleted."""
    for unfinished in directory.glob("*.tmp"):
        unfinished.unlink()
    named = [(path, _FILE_NAME.fullmatch(path.name)) for path in directory.iterdir()]
    found = [(int(match[1]), -int(match[2]), path) for path, match in named if match is not None]
    files: list[SealedFile] = []
    for start, end, path in sorted(found):
        if files and -end <= files[-1].end:
            path.unlink()  # it is part of a merged file
        else:
            files.append(SealedFile(path, start, -end))
    return files


def _halves(digests: Iterable[bytes]) -> Words:
    """Digests as two rows of uint64."""
    words = np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)
    return words.reshape(-1, DIGEST_BYTES // words.itemsize).T


def _rows(entries: Sequence[Entry]) -> Words:
    """Entries as the four rows of a sealed file."""
    times = [[entry.received_ns for entry in entries], [entry.position for entry in entries]]
    return np.vstack((_halves(entry.digest for entry in entries), np.array(times, np.uint64)))
