"""The workers: some that work and a warm spare, each in a process that may be killed and is started again.

In:  a request for a worker.   Out: the least busy one, after a wait if need be.
"""

import contextlib
import json
import logging
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from core.errors import Overloaded
from query.settings import QuerySettings
from query.transport import StatementClient

SPARES = 1
"""Workers kept warm beside those that work."""
SPARES_AFTER_S = 5.0
"""How long after the start the spares are started."""
RESTART_PAUSE_S = 1.0
"""Pause after a worker that died before it was ready."""
START_S = 60.0
"""How long leaving the pool waits for a worker's end."""

_log = logging.getLogger(__name__)


class Worker:
    """One worker process."""

    def __init__(self, number: int, directory: Path, settings: QuerySettings) -> None:
        """Start it; the calling thread must outlive it, for the worker dies with it."""
        self.running = 0
        self.ready = False
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


class Pool:
    """A `with` block around the workers; every method may be called from any thread."""

    def __init__(self, directory: Path, settings: QuerySettings) -> None:
        self._directory = directory
        self._settings = settings
        self._changed = threading.Condition()
        self._workers: list[Worker] = []
        self._waiting = 0
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

    def take(self) -> Worker:
        """A worker with one more statement; give it back. Raises Overloaded when none gets free in time."""
        deadline = time.monotonic() + self._settings.statement_wait_s
        with self._changed:
            if self._waiting >= self._settings.statements_waiting_max:
                raise Overloaded(f"{self._waiting} statements are waiting already; try again shortly")
            self._waiting += 1
            try:
                while (worker := self._free()) is None:
                    if not self._changed.wait(deadline - time.monotonic()):
                        raise Overloaded("No query worker got free in time; try again shortly")
            finally:
                self._waiting -= 1
            worker.running += 1
            return worker

    def lose(self, worker: Worker) -> None:
        """End a worker that does not answer any more; nobody is given it from now on."""
        with self._changed:
            worker.ready = False
            worker.kill()

    def give_back(self, worker: Worker) -> None:
        """The worker has one statement less."""
        with self._changed:
            worker.running -= 1
            self._changed.notify_all()

    def _free(self) -> Worker | None:
        """The least busy of those that work: the first ones ready; the others are spares."""
        ready = [worker for worker in self._workers if worker.ready and worker.alive][: self._settings.workers]
        free = [worker for worker in ready if worker.running < self._settings.statements_per_worker_max]
        return min(free, key=lambda worker: worker.running, default=None)

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
            self._changed.notify_all()
        status = worker.wait()
        with self._changed:
            worker.ready = False
            self._workers.remove(worker)
            if not ready:
                self._pause_until = time.monotonic() + RESTART_PAUSE_S
            if not self._closing:
                _log.warning("query worker %d ended with status %d", worker.pid, status)
            self._changed.notify_all()
