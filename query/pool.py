"""The workers: processes that may be killed and are started again, and who may work on them.

In:  an owner's wish to run a statement.   Out: a lease on a worker on which nothing else works, after a wait if need
be; who has least at work comes first, and nobody is given the last worker: it is for whoever comes next.
"""

import contextlib
import json
import logging
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from core.errors import Overloaded
from query.settings import QuerySettings
from query.transport import StatementClient

SPARES = 1
"""Workers kept warm beside those that work."""
SPARES_AFTER_S = 5.0
"""How long after the start the spares are started."""
SETTLE_S = 1.0
"""How long a worker may go on after its statement was cut off before it is killed: not all work can be cancelled."""
SETTLED_SHARE = 0.25
"""Share of a core below which a worker is not busy."""
SETTLED_LOOK_S = 0.04
"""Over how long that is measured; the kernel counts CPU in steps of 0.01 s."""
CROWDED_S = 0.5
"""How long an owner with nothing at work waits before the server counts as crowded."""
RESTART_PAUSE_S = 1.0
"""Pause after a worker that died before it was ready."""
START_S = 60.0
"""How long leaving the pool waits for a worker's end."""

_log = logging.getLogger(__name__)


class Worker:
    """One worker process."""

    def __init__(self, number: int, directory: Path, settings: QuerySettings) -> None:
        """Start it; the calling thread must outlive it, for the worker dies with it."""
        self.open = 0
        """Statements that hold a place on it."""
        self.working = 0
        """Those whose next rows are being made."""
        self.ready = False
        self.settling: Settling | None = None
        self._client: StatementClient | None = None
        self._socket = directory / f"worker-{number:02}.sock"
        spill = directory / "spill"
        spill.mkdir(exist_ok=True)
        self._process = subprocess.Popen(  # noqa: S603  # our own words
            [sys.executable, "-m", "query", str(self._socket), str(spill)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(asdict(settings)).encode() + b"\n")
            self._process.stdin.flush()

    def connect(self) -> bool:
        """Wait until it listens; False when it dies first."""
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            return False
        self._client = StatementClient(self._socket)
        return True

    def wait(self) -> int:
        """Wait for its end; the exit status."""
        status = self._process.wait()
        if self._client is not None:
            self._client.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._socket.unlink(missing_ok=True)
        return status

    @property
    def client(self) -> StatementClient:
        """The line to a worker that is ready."""
        assert self._client is not None
        return self._client

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL, at once."""
        self._process.kill()

    def use(self) -> tuple[float, int]:
        """Seconds of CPU it has taken, and bytes of memory it holds; nothing of one that has ended."""
        try:
            process = psutil.Process(self.pid)
            times = process.cpu_times()
            return times.user + times.system, process.memory_info().rss
        except psutil.Error:
            return 0.0, 0


@dataclass(slots=True)
class Settling:
    """A worker whose statement was cut off, until it is seen to rest."""

    since: float
    looked: float
    cpu_s: float


@dataclass(slots=True, eq=False)
class Lease:
    """A statement's place on a worker."""

    worker: Worker
    owner: str
    working: bool = True


@dataclass(slots=True, eq=False)
class _Waiter:
    owner: str
    since: float
    lease: Lease | None = None
    given: threading.Event = field(default_factory=threading.Event)


class Pool:
    """A `with` block around the workers; every method may be called from any thread."""

    def __init__(self, directory: Path, settings: QuerySettings) -> None:
        self._directory = directory
        self._settings = settings
        self._changed = threading.Condition()
        self._workers: list[Worker] = []
        self._waiting: list[_Waiter] = []
        self._at_work: Counter[str] = Counter()
        self._started = 0
        self._pause_until = 0.0
        self._spares_from = time.monotonic() + SPARES_AFTER_S
        self._closing = False
        self._starter = threading.Thread(target=self._keep_up, name="workers", daemon=True)

    def __enter__(self) -> Self:
        self._starter.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            for worker in self._workers:
                worker.kill()
            self._changed.wait_for(lambda: not self._workers, START_S)
        self._starter.join()

    def state(self) -> str:
        """`ready`, `degraded` while fewer than all work, or `down`."""
        with self._changed:
            ready = sum(worker.ready for worker in self._workers)
        if ready >= self._settings.workers:
            return "ready"
        return "degraded" if ready else "down"

    def take(self, owner: str) -> Lease:
        """A place to work on a worker; end it. Raises Overloaded when none gets free in time."""
        waiter = _Waiter(owner, time.monotonic())
        with self._changed:
            if len(self._waiting) >= self._settings.statements_waiting_max:
                raise Overloaded(f"{len(self._waiting)} statements are waiting already; try again shortly")
            self._waiting.append(waiter)
            self._give()
        waiter.given.wait(self._settings.statement_wait_s)
        with self._changed:
            if waiter.lease is None:
                self._waiting.remove(waiter)
                raise Overloaded("No query worker got free in time; try again shortly")
            return waiter.lease

    def rest(self, lease: Lease) -> None:
        """The statement has answered; it keeps its place for what comes next."""
        with self._changed:
            self._stop_work(lease)

    def resume(self, lease: Lease) -> None:
        """The statement is asked for more; it does not wait, for its place is kept."""
        with self._changed:
            if not lease.working:
                lease.working = True
                lease.worker.working += 1
                self._at_work[lease.owner] += 1

    def end(self, lease: Lease, *, cut_off: bool) -> None:
        """The statement is over; when it was cut off, its worker is watched until it rests."""
        worker = lease.worker
        with self._changed:
            if cut_off and worker.alive and worker.settling is None:
                now = time.monotonic()
                worker.settling = Settling(now, now, worker.use()[0])
            worker.open -= 1
            self._stop_work(lease)
            self._give()

    def lose(self, worker: Worker) -> None:
        """End a worker that does not answer any more; nobody is given it from now on."""
        with self._changed:
            worker.ready = False
            worker.kill()

    def crowded(self) -> bool:
        """Whether an owner who has nothing at work has waited for some time."""
        now = time.monotonic()
        with self._changed:
            return any(now - waiter.since > CROWDED_S and not self._at_work[waiter.owner] for waiter in self._waiting)

    def look(self) -> None:
        """Look after the workers, once: end those that do not rest when they should."""
        now = time.monotonic()
        with self._changed:
            for worker in self._workers:
                if worker.settling is not None and worker.ready:
                    self._settle(worker, worker.settling, now)

    def slim(self) -> None:
        """Start workers afresh that hold much memory and do nothing."""
        with self._changed:
            for worker in self._workers:
                if worker.ready and not worker.open and worker.use()[1] > self._settings.worker_idle_memory_bytes:
                    _log.info("query worker %d is started afresh to give its memory back", worker.pid)
                    worker.ready = False
                    worker.kill()

    def _settle(self, worker: Worker, settling: Settling, now: float) -> None:
        if now - settling.looked < SETTLED_LOOK_S:
            return
        cpu_s, _ = worker.use()
        rests = cpu_s - settling.cpu_s < SETTLED_SHARE * (now - settling.looked)
        if rests or worker.working:  # with other work on it, no one can tell
            worker.settling = None
            self._give()
        elif now - settling.since > SETTLE_S:
            _log.warning("killing query worker %d: a statement that was cut off goes on", worker.pid)
            worker.ready = False
            worker.kill()
        else:
            settling.looked, settling.cpu_s = now, cpu_s

    def _stop_work(self, lease: Lease) -> None:
        if lease.working:
            lease.working = False
            lease.worker.working -= 1
            self._at_work[lease.owner] -= 1
            if not self._at_work[lease.owner]:
                del self._at_work[lease.owner]
            self._give()

    def _give(self) -> None:
        """Give free workers to those who wait, in their order."""
        ready = [worker for worker in self._workers if worker.ready]
        free = [
            worker for worker in ready
            if worker.settling is None and not worker.working and worker.open < self._settings.statements_per_worker_max
        ]  # fmt: skip
        share = max(len(ready) - 1, 1)  # each owner leaves one for others; workers that are starting are none yet
        while free:
            may = (waiter for waiter in self._waiting if self._at_work[waiter.owner] < share)
            waiter = min(may, key=self._order, default=None)
            if waiter is None:
                return
            worker = min(free, key=lambda worker: worker.open)
            free.remove(worker)
            worker.open += 1
            worker.working += 1
            self._at_work[waiter.owner] += 1
            self._waiting.remove(waiter)
            waiter.lease = Lease(worker, waiter.owner)
            waiter.given.set()

    def _order(self, waiter: _Waiter) -> tuple[int, float]:
        return self._at_work[waiter.owner], waiter.since

    def _wanted(self) -> int:
        """How many workers there should be; the spares come later, for a fast start of the rest."""
        late = time.monotonic() >= self._spares_from
        return self._settings.workers + (SPARES if late else 0)

    def _keep_up(self) -> None:
        """Start workers until there are enough, for as long as the pool is open."""
        with self._changed:
            while not self._closing or self._workers:
                pause_s = self._pause_until - time.monotonic()
                if self._closing or len(self._workers) >= self._wanted():
                    self._changed.wait(max(self._spares_from - time.monotonic(), 0) or None)
                elif pause_s > 0:
                    self._changed.wait(pause_s)
                else:
                    self._started += 1
                    worker = Worker(self._started, self._directory, self._settings)
                    self._workers.append(worker)
                    threading.Thread(target=self._watch, args=(worker,), daemon=True).start()

    def _watch(self, worker: Worker) -> None:
        """One worker's life, from its first word to its end."""
        ready = worker.connect()
        with self._changed:
            worker.ready = ready
            self._give()
        status = worker.wait()
        with self._changed:
            worker.ready = False
            self._workers.remove(worker)
            if not ready:
                self._pause_until = time.monotonic() + RESTART_PAUSE_S
            if not self._closing:
                _log.warning("query worker %d ended with status %d", worker.pid, status)
            self._changed.notify_all()
