"""The end of the log, where frames are added: all of a group or none, durable before `write` returns.

It owns the newest segment file: it cuts off what an interrupted or failed write has left, and begins new files.
Not for more than one thread: storage/log.py brings the senders together.
"""

import logging
import os
from collections import deque
from contextlib import suppress
from pathlib import Path

from storage.failpoints import failpoint
from storage.segments import LogDamaged, Segment, segment_path, segment_starts, sync_directory

IOV_MAX = os.sysconf("SC_IOV_MAX")
"""Buffers the system takes in one write; a longer group is several."""

_log = logging.getLogger(__name__)


class Tail:
    """The newest segment, open for writing. It belongs to one thread; `end` is always durable."""

    def __init__(self, directory: Path, segment_bytes_max: int) -> None:
        """Open it at the end of its last good frame, which is made durable; what follows that is cut off."""
        starts = segment_starts(directory)
        self._directory = directory
        self._segment_bytes_max = segment_bytes_max
        self._start = starts[-1] if starts else 0
        path = segment_path(directory, self._start)
        self.end = _good_end(path) if starts else 0
        self._file = self._create(self._start) if not starts else os.open(path, os.O_WRONLY | os.O_APPEND)
        self._torn = self._rolling = False
        cut = os.fstat(self._file).st_size - (self.end - self._start)
        if cut:
            _log.warning("cut %d bytes off the log at position %d: a write was interrupted there", cut, self.end)
            os.ftruncate(self._file, self.end - self._start)
        os.fsync(self._file)
        sync_directory(directory)

    def room(self, size: int) -> int:
        """Bytes that may be written next when the first frame of them has that size, in a new segment if need be."""
        written = self.end - self._start
        if self._rolling or (written and written + size > self._segment_bytes_max):
            return self._segment_bytes_max
        return self._segment_bytes_max - written

    def write(self, buffers: list[bytes], size: int) -> None:
        """Write frames and make them durable, all or none; raises OSError."""
        self._mend()
        if self._rolling or (self.end > self._start and self.end - self._start + size > self._segment_bytes_max):
            self._roll()
        self._torn = True
        try:
            middle = len(buffers) // 4 * 2 + 1  # behind a head, so that a test can tear a frame here
            _write_all(self._file, buffers[:middle])
            failpoint("log.segment_write")
            _write_all(self._file, buffers[middle:])
            failpoint("log.before_sync")
            os.fdatasync(self._file)
            failpoint("log.after_sync")
        except BaseException:
            with suppress(OSError):  # the next write tries again
                self._mend()
            raise
        self._torn = False
        self.end += size

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)

    def _mend(self) -> None:
        """Forget what was written since the last good fsync, in a file opened anew.

        After a failed fsync the kernel may hold pages it calls clean and has never written; cutting the file
        drops them, and what senders were not promised is gone.
        """
        if not self._torn:
            return
        file = os.open(segment_path(self._directory, self._start), os.O_WRONLY | os.O_APPEND)
        os.close(self._file)
        self._file = file
        os.ftruncate(file, self.end - self._start)
        os.fsync(file)
        self._torn = False

    def _roll(self) -> None:
        """Begin a new segment at the end. Once begun it must succeed before anything else is written."""
        self._rolling = True
        os.fsync(self._file)
        file = self._create(self.end)
        os.close(self._file)
        self._file, self._start, self._rolling = file, self.end, False

    def _create(self, start: int) -> int:
        path = segment_path(self._directory, start)
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            sync_directory(self._directory)
        except BaseException:
            os.close(file)
            raise
        return file


def _good_end(path: Path) -> int:
    """Where the last whole and undamaged frame of a segment ends."""
    with Segment(path) as segment:
        position, end = segment.start, segment.end
        with suppress(LogDamaged):
            while frames := segment.frames(position, end):
                position = frames[-1].end
        return position


def _write_all(file: int, buffers: list[bytes]) -> None:
    """Write every byte: writev takes IOV_MAX buffers at a time and may stop early."""
    waiting: deque[bytes | memoryview] = deque(buffers)
    while waiting:
        portion = [waiting.popleft() for _ in range(min(IOV_MAX, len(waiting)))]
        written = os.writev(file, portion)
        for place, buffer in enumerate(portion):
            if written < len(buffer):
                waiting.extendleft(reversed([memoryview(buffer)[written:], *portion[place + 1 :]]))
                break
            written -= len(buffer)
