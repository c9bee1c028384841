"""Reading the log: whole frames below the writer's durable mark, from any process.

In:  a position.   Out: frames, or their heads alone. The one reader that everything depends on (the flow) also
trims: it may drop what lies below both the `from` of the last finished epoch and the digest index's
`sealed_to`, because after a crash that epoch is read again, and so are the digests that are not sealed yet.
"""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from core.errors import Refused
from core.telemetry import Frame
from storage.segments import (
    MARK_FILE,
    DurableMark,
    Head,
    LogDamaged,
    Segment,
    read_log_id,
    segment_path,
    segment_starts,
)

OPEN_SEGMENTS_MAX = 4
"""Segment files kept open; the one opened first is closed when another is needed."""


class LogReader:
    """A log directory, open for reading; it may be opened before the writer has made it. Not thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._log_id: str | None = None
        self._mark: DurableMark | None = None
        self._starts: list[int] = []
        self._open: dict[int, Segment] = {}

    @property
    def log_id(self) -> str | None:
        """The log's uuid; None until a writer has opened the log since the machine booted.

        Only then is the durable mark to be trusted: one that a power cut has left may lie too low.
        """
        mark = self._durable_mark()
        if self._log_id is None and mark is not None and mark.current:
            self._log_id = read_log_id(self._directory)
        return self._log_id

    @property
    def start(self) -> int:
        """Position of the first byte kept; 0 when there is no log yet."""
        starts = segment_starts(self._directory)
        return starts[0] if starts else 0

    @property
    def durable(self) -> int:
        """Position below which everything is on the disk; 0 when there is no log yet."""
        mark = self._durable_mark()
        return 0 if mark is None else mark.position

    def read(self, position: int, *, until: int | None = None, bytes_max: int) -> list[Frame]:
        """Whole frames from a position on, below `until` and the durable mark, in at most bytes_max of the log.

        At least one frame, however long, if there is one. Raises Refused when the position was trimmed or is not
        durable, LogDamaged (once the good frames before it are read) where the log cannot be read.
        """
        limit = self._limit(position, until)
        frames: list[Frame] = []
        at, stop = position, min(limit, position + bytes_max)
        while at < stop:
            try:
                found = self._frames(at, stop)
            except LogDamaged:
                if not frames:
                    raise
                break
            if not found:
                break
            frames += found
            at = found[-1].end
        return frames or (self._frames(position, limit)[:1] if position < limit else [])

    def headers(self, position: int, until: int) -> Iterator[Head]:
        """The heads of the whole frames of [position, until), as far as they are durable; bodies stay unread."""
        limit = self._limit(position, until)
        while position < limit:
            segment, end = self._segment(position)
            begun = position
            for head in segment.heads(position, min(end, limit)):
                yield head
                position = head.end
            if position == begun:
                _check_whole(segment, position, end)
                return

    def trimmable(self, below: int) -> bool:
        """Whether `trim` would free anything."""
        starts = segment_starts(self._directory)
        return len(starts) > 1 and starts[1] <= below

    def trim(self, below: int) -> None:
        """Delete the segments that lie wholly below a position, the oldest first; never the newest one."""
        for start, following in pairwise(segment_starts(self._directory)):
            if following > below:
                return
            if (segment := self._open.pop(start, None)) is not None:
                segment.close()
            segment_path(self._directory, start).unlink(missing_ok=True)

    def close(self) -> None:
        """Give the files back."""
        while self._open:
            self._open.popitem()[1].close()
        if self._mark is not None:
            self._mark.close()
            self._mark = None

    def _durable_mark(self) -> DurableMark | None:
        if self._mark is None:
            try:
                self._mark = DurableMark(self._directory / MARK_FILE)
            except FileNotFoundError:
                return None
        return self._mark

    def _limit(self, position: int, until: int | None) -> int:
        durable = self.durable
        if position > durable:
            raise Refused(f"Log position {position} is beyond the durable end of the log, {durable}")
        return durable if until is None else min(until, durable)

    def _frames(self, position: int, stop: int) -> list[Frame]:
        """The next whole frames of [position, stop) from one segment; none when one reaches beyond `stop`."""
        segment, end = self._segment(position)
        frames = segment.frames(position, min(end, stop))
        if not frames:
            _check_whole(segment, position, end)
        return frames

    def _segment(self, position: int) -> tuple[Segment, int]:
        """The segment that holds a durable position, and where it ends as far as it is durable."""
        for listed_anew in (False, True):
            if listed_anew:
                self._list()
            index = bisect_right(self._starts, position) - 1
            segment = self._opened(self._starts[index]) if index >= 0 else None
            if segment is not None and position < (end := segment.end):
                following = self._starts[index + 1 : index + 2]
                return segment, min(end, self.durable, *following)
        if not self._starts or position < self._starts[0]:
            start = self._starts[0] if self._starts else self.durable
            raise Refused(f"Log position {position} was trimmed: the log begins at {start} now")
        raise LogDamaged(position, f"it is not in the log's files, though everything below {self.durable} was durable")

    def _list(self) -> None:
        self._starts = segment_starts(self._directory)
        for start in self._open.keys() - set(self._starts):
            self._open.pop(start).close()

    def _opened(self, start: int) -> Segment | None:
        """The segment that begins at a position; None when it has been trimmed."""
        if (segment := self._open.get(start)) is not None:
            return segment
        try:
            segment = Segment(segment_path(self._directory, start))
        except FileNotFoundError:
            return None
        if len(self._open) >= OPEN_SEGMENTS_MAX:
            self._open.pop(next(iter(self._open))).close()
        self._open[start] = segment
        return segment


def _check_whole(segment: Segment, position: int, end: int) -> None:
    """Raise LogDamaged unless a whole frame begins at a position and ends by `end`, where everything is durable."""
    if next(segment.heads(position, end), None) is None:
        raise LogDamaged(position, f"the frame there is cut off: segment {segment.start} ends at {segment.end}")
