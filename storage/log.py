"""Writing the log: a request is on the disk before anyone says so (system.md D1, docs/decisions/0001-the-log.md).

In:  records, from any thread.   Out: a future each, resolved with the frame's end position after the fsync that
covers it. One thread writes whatever has gathered while it was away: one write and one fsync for all of it.
"""

import errno
import fcntl
import json
import logging
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from core.errors import BadSettings, DiskFull, Overloaded, Refused, TailraceError, TooLarge, Unavailable
from storage.log_tail import Tail
from storage.segments import (
    LOG_ID_FILE,
    MARK_FILE,
    DurableMark,
    Record,
    pack,
    read_log_id,
    replace_file,
    seal,
    segment_starts,
)
from storage.settings import LogSettings

QUEUE_BYTES_MAX = 256 << 20
"""Bytes accepted but not yet durable; more is refused with Overloaded, a longer frame with TooLarge."""
RELIST_INTERVAL_S = 1.0
"""How old the writer's knowledge of what the reader has trimmed may be."""
RETRY_FULL_S = 5.0
"""What a sender is told to wait when the log is full: trimming takes a commit of the flow."""
LOCK_FILE = "writer.lock"
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Waiting:
    """A record on its way to the disk."""

    head: bytes
    body: bytes
    future: Future[int]

    @property
    def size(self) -> int:
        """Bytes of its frame."""
        return 4 + len(self.head) + len(self.body)


class LogWriter:
    """The one writer of a log directory, from construction to `close`. All methods may be called from any thread.

    Raises Refused when another process writes there or the directory cannot be written, BadSettings when the
    limits do not fit together.
    """

    def __init__(self, directory: Path, settings: LogSettings) -> None:
        if settings.bytes_max < 2 * settings.segment_bytes_max:
            raise BadSettings("log.bytes_max must hold at least two segments: the newest one is never trimmed")
        self._directory = directory
        self._settings = settings
        with ExitStack() as opened:
            _own(directory, opened)
            self.log_id = _make_log_id(directory)
            self._mark = DurableMark(directory / MARK_FILE, create=True)
            opened.callback(self._mark.close)
            self._tail = Tail(directory, settings.segment_bytes_max)
            opened.callback(self._tail.close)
            if (lost := self._mark.position - self._tail.end) > 0:
                _log.error("the log is damaged: it ends at %d, %d durable bytes too early", self._tail.end, lost)
            self._mark.open(self._tail.end)
            self._opened = opened.pop_all()
        self._changed = threading.Condition()
        self._queue: deque[Waiting] = deque()
        self._queued_bytes = 0
        self._awaited = 0
        self._company = 0
        self._closing = False
        self._durable = self._tail.end
        self._start, self._listed = segment_starts(directory)[0], time.monotonic()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def append(self, record: Record) -> Future[int]:
        """Queue a record; the future gives the frame's end position once it is durable.

        Raises, or sets on the future: Overloaded (the queue or the log is full), DiskFull, Unavailable (the disk
        failed, or the log was closed); raises TooLarge. A future cancelled before its record is written takes the
        record with it. The future's callbacks run on the writing thread: they must be brief.
        """
        waiting = Waiting(pack(record), record.body, Future())
        size = waiting.size
        if size > QUEUE_BYTES_MAX:
            raise TooLarge(f"A request of {size} bytes is too large for the log")
        with self._changed:
            if self._closing:
                raise Unavailable("The server is stopping; send this again shortly")
            if self._queued_bytes + size > QUEUE_BYTES_MAX:
                raise Overloaded("Too much is waiting for the disk; send this again shortly")
            if self._durable + self._queued_bytes + size - self._start > self._settings.bytes_max:
                self._relist()
                if self._durable + self._queued_bytes + size - self._start > self._settings.bytes_max:
                    raise Overloaded(
                        f"The log is full at {self._settings.bytes_max} bytes: the flow is behind or stopped",
                        retry_after_s=RETRY_FULL_S,
                    )
            self._queue.append(waiting)
            self._queued_bytes += size
            if 0 < self._awaited <= len(self._queue):
                self._changed.notify()
        return waiting.future

    @property
    def start(self) -> int:
        """Position of the first byte kept, as of a second ago at most."""
        with self._changed:
            self._relist()
            return self._start

    @property
    def durable(self) -> int:
        """Position below which everything is on the disk."""
        return self._durable

    @property
    def end(self) -> int:
        """Position behind everything accepted, durable or on its way."""
        with self._changed:
            return self._durable + self._queued_bytes

    @property
    def bytes_kept(self) -> int:
        """Bytes between `start` and `durable`."""
        return self.durable - self.start

    def close(self) -> None:
        """Write what is queued, resolve its futures, and let another writer in."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _relist(self) -> None:
        now = time.monotonic()
        if now - self._listed >= RELIST_INTERVAL_S:
            self._start, self._listed = segment_starts(self._directory)[0], now

    def _run(self) -> None:
        while (group := self._gather()) is not None:
            self._commit(group)

    def _gather(self) -> list[Waiting] | None:
        """The next group for one write; None when the log is closed and nothing is left.

        It is as much of the queue as fits the segment. Waiting for company is useful only where the last group had
        some: the same senders are likely on their way again. A lone sender never waits.
        """
        with self._changed:
            self._wait(1, None)
            if 0 < len(self._queue) < self._company:
                self._wait(self._company, self._settings.linger_s)
            if not self._queue:
                return None
            self._company = len(self._queue)
            group: list[Waiting] = []
            room = self._tail.room(self._queue[0].size)
            while self._queue and (not group or self._queue[0].size <= room):
                waiting = self._queue.popleft()
                if waiting.future.set_running_or_notify_cancel():
                    group.append(waiting)
                    room -= waiting.size
                else:
                    self._queued_bytes -= waiting.size
            return group

    def _wait(self, count: int, timeout_s: float | None) -> None:
        self._awaited = count
        self._changed.wait_for(lambda: len(self._queue) >= count or self._closing, timeout_s)
        self._awaited = 0

    def _commit(self, group: list[Waiting]) -> None:
        if not group:
            return
        buffers: list[bytes] = []
        ends: list[int] = []
        position = self._tail.end
        for waiting in group:
            buffers += (seal(waiting.head, position), waiting.body)
            position += waiting.size
            ends.append(position)
        failure: Exception | None = None
        size = position - self._tail.end
        try:
            self._tail.write(buffers, size)
            self._mark.publish(position)
        except Exception as error:  # noqa: BLE001  # whatever it is, whoever waits must be told
            failure = error
            _log.error("%d requests could not be written to the log: %s", len(group), error)
        with self._changed:
            self._queued_bytes -= size
            self._durable = self._tail.end
        for waiting, end in zip(group, ends, strict=True):
            if failure is None:
                waiting.future.set_result(end)
            else:
                waiting.future.set_exception(_told(failure))


def _told(error: Exception) -> TailraceError:
    """What a sender is told of a failed write."""
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return DiskFull()
    return Unavailable(f"The log could not be written: {error}")


def _own(directory: Path, opened: ExitStack) -> None:
    """Hold the directory's lock until `opened` is left."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = opened.enter_context((directory / LOCK_FILE).open("a"))
    except OSError as error:
        raise Refused(f"The log directory {directory} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Refused(f"Another process is writing the log in {directory}; stop it first") from error


def _make_log_id(directory: Path) -> str:
    """The log's uuid, made with the first segment."""
    if (log_id := read_log_id(directory)) is not None:
        return log_id
    if segment_starts(directory):
        raise Refused(f"{LOG_ID_FILE} is missing in {directory} though there is a log; restore it from a backup")
    log_id = str(uuid4())
    replace_file(directory / LOG_ID_FILE, lambda file: file.write(json.dumps({"log_id": log_id}).encode()))
    return log_id
