"""Where every receiver hands in what it got: who sends, is there room, is it framed right, and into the log.

In:  a token, bytes.   Out: a future that is done when the request is durable; only then may it be acked (D1).
The receivers read bodies only inside a `Room`, so that all requests together cannot take more than a fixed memory.
"""

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from core.clock import Clock
from core.errors import DiskFull, Overloaded
from core.ids import request_digest
from core.projects import bearer
from core.telemetry import Encoding, Signal
from pipelines.receive import framing
from pipelines.receive.bodies import BODY_BYTES_MAX
from storage.segments import Record

INFLIGHT_BYTES_MAX = 512 << 20
"""Bytes of all requests being received, as sent and decompressed; more is answered Overloaded."""
DISK_LOOK_INTERVAL_S = 1.0
"""How old the knowledge of the free disk space may be."""
DISK_RETRY_S = 30.0
"""What a sender is told to wait when a disk is full: somebody has to free space."""


class Log(Protocol):
    """Where accepted requests are kept: storage.log.LogWriter."""

    def append(self, record: Record) -> Future[int]:
        """Queue a record; the future gives the frame's end position once it is durable."""
        ...


class Gate(Protocol):
    """Who may send telemetry: storage.keys.Keys."""

    def write_project(self, token: str | None) -> str:
        """The id of the project a token writes to; raises Unauthenticated or Forbidden."""
        ...


class Disk(Protocol):
    """Whether there is space left: FreeSpace."""

    def check(self) -> None:
        """Raise DiskFull when requests should not be taken in."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request and all requests together may take."""

    body_bytes_max: int = BODY_BYTES_MAX
    inflight_bytes_max: int = INFLIGHT_BYTES_MAX


class Intake:
    """What the receivers share. Every method may be called from any thread and returns at once."""

    def __init__(self, log: Log, gate: Gate, clock: Clock, *, disk: Disk, limits: Limits = Limits()) -> None:
        self._log = log
        self._gate = gate
        self._clock = clock
        self._disk = disk
        self.limits = limits
        self._lock = threading.Lock()
        self._inflight_bytes = 0

    def welcome(self, authorization: str | None) -> str:
        """The project id for an Authorization header, before the body is read.

        Raises Unauthenticated or Forbidden, and DiskFull.
        """
        project_id = self._gate.write_project(bearer(authorization))
        self._disk.check()
        return project_id

    def room(self) -> "Room":
        """Memory for one request, given back when the block ends."""
        return Room(self._claim)

    def admit(self, project_id: str, signal: Signal, encoding: Encoding, body: bytes) -> Future[int]:
        """Check a decompressed body and append it to the log.

        The future gives the end position in the log once the request is durable; an empty body is a valid request
        and is not logged, its position is 0. Raises Malformed, TooLarge and whatever the log raises; the future may
        be given Unavailable's kinds.
        """
        if not body:
            durable = Future[int]()
            durable.set_result(0)
            return durable
        framing.check(signal, encoding, body)
        digest = request_digest(project_id, signal, body)
        return self._log.append(Record(project_id, signal, encoding, self._clock.now_ns(), digest, body))

    def _claim(self, count: int) -> None:
        with self._lock:
            if count > 0 and self._inflight_bytes + count > self.limits.inflight_bytes_max:
                raise Overloaded("Too many bytes are being received at once; send this again shortly")
            self._inflight_bytes += count


class Room:
    """The memory one request takes, counted with that of all others."""

    def __init__(self, claim: Callable[[int], None]) -> None:
        self._claim = claim
        self._bytes = 0

    def take(self, count: int) -> None:
        """Count bytes in; Overloaded when all requests together would pass the limit."""
        self._claim(count)
        self._bytes += count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._claim(-self._bytes)


@dataclass(frozen=True, slots=True)
class FreeSpaceLimit:
    """The space a store needs left on its disk."""

    store: str
    """What a person calls it: the log, the lake, the ledger."""
    path: Path
    """A file or directory on that disk; while it is missing, its nearest parent counts."""
    free_bytes_min: int


class FreeSpace:
    """The free space of the disks, looked at once a second at most."""

    def __init__(self, limits: Sequence[FreeSpaceLimit], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._monotonic = monotonic
        self._looked_at = float("-inf")
        self._fault: str | None = None

    def check(self) -> None:
        """Raise DiskFull while a store has less space than its limit."""
        now = self._monotonic()
        if now - self._looked_at >= DISK_LOOK_INTERVAL_S:
            self._looked_at = now
            self._fault = next(filter(None, map(_fault, self._limits)), None)
        if self._fault is not None:
            raise DiskFull(self._fault, retry_after_s=DISK_RETRY_S)


def _fault(limit: FreeSpaceLimit) -> str | None:
    path = limit.path
    while not path.exists() and path != path.parent:
        path = path.parent
    free = shutil.disk_usage(path).free
    if free >= limit.free_bytes_min:
        return None
    return (
        f"The disk of {limit.store} has {free >> 20} MiB left and needs {limit.free_bytes_min >> 20};"
        " free some space or lower the retention"
    )
