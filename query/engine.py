"""The query engine of the flight process: a statement, its files pinned, on a worker that is watched.

In:  statements; notices of commits.   Out: rows, which see every commit that was announced before. When a worker dies,
statements that have sent nothing run once more on another; a statement that hangs takes its worker with it.
"""

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from core.errors import Cancelled, Overloaded, StatementLimit, TailraceError, Unavailable
from core.schema import VIEWS
from query.guard import check_length
from query.pool import Lease, Pool, Worker
from query.settings import QuerySettings
from query.statements import Rows, Statement, Task
from query.tables import SOURCES
from storage.snapshots import Snapshots

TRIES = 2
"""Workers a statement may end before it is held to be the cause."""
ENDED = f"The statement was tried on {TRIES} workers and each ended: it needs more memory than one has"
KILL_GRACE_S = 2.0
"""How long a worker may fail to cancel a statement whose time is up before it is killed."""
WATCH_INTERVAL_S = 0.05
"""How often running statements are looked at; a reader that has left is noticed so soon."""
SWEEP_INTERVAL_S = 1.0
"""How often snapshots that nobody uses any more are removed."""

SCHEMAS_MAX = 1_000
"""Schemas of statements that are remembered; the oldest are forgotten first."""
SCHEMA_TEXT_CHARS_MAX = 10_000
"""Characters of a statement whose schema is remembered; longer ones are planned each time."""
LONG_S = 1.0
"""Work after which a statement is a long one: on a crowded server each owner keeps one of these."""

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class Engine:
    """Runs statements; every method may be called from any thread."""

    def __init__(self, snapshots: Snapshots, pool: Pool, settings: QuerySettings) -> None:
        self._snapshots = snapshots
        self.pool = pool
        """The workers."""
        self._settings = settings
        self._lock = threading.Lock()
        self._versions: Mapping[str, int] = {}
        self._runs: set[_Run] = set()
        self._schemas: OrderedDict[tuple[str, str, str | None] | None, pa.Schema] = OrderedDict()

    def schema(self, statement: Statement) -> pa.Schema:
        """The schema of a statement's rows. Raises BadQuery, StatementLimit, Overloaded or Unavailable.

        Schemas of texts without parameters are remembered: clients ask before each run, and tables keep their columns.
        """
        key = None if statement.parameters else (statement.sql, statement.project_id, statement.time_zone)
        with self._lock:
            known = self._schemas.get(key)
        if known is None or key is None:
            with _Run(self, statement) as run:
                known = run.schema()
            with self._lock:
                if key is not None and len(statement.sql) <= SCHEMA_TEXT_CHARS_MAX:
                    self._schemas[key] = known
                while len(self._schemas) > SCHEMAS_MAX:
                    self._schemas.popitem(last=False)
        return known

    def run(self, statement: Statement, gone: Callable[[], bool] = lambda: False) -> Rows:
        """A statement's rows; raises the same, also while they are read.

        `gone` tells whether the reader has left; it is asked now and then until the rows are closed.
        """
        run = _Run(self, statement, gone)
        try:
            rows = run.start()
        except BaseException:
            run.close()
            raise
        return Rows(rows.schema, run.batches(rows), run.close)

    def committed(self, versions: Mapping[str, int]) -> None:
        """Statements from now on see at least these Delta versions."""
        with self._lock:
            known = self._versions
            self._versions = {name: max(known.get(name, -1), version) for name, version in versions.items()}

    def tables(self) -> Mapping[str, pa.Schema]:
        """The tables there are, with the columns clients see."""
        return {name: view.schema for name, view in VIEWS.items()}

    def state(self) -> str:
        """`ready`, `degraded` or `down`: how many workers there are to work."""
        return self.pool.state()

    def watch(self) -> None:
        """Look after what runs, once: end what hangs and what nobody reads."""
        with self._lock:
            runs = list(self._runs)
        for run in runs:
            run.look()
        self.pool.look()
        if self.pool.crowded():
            _evict(runs)

    def sweep(self) -> None:
        """Give back what nobody uses any more: snapshots, memory."""
        self._snapshots.sweep()
        self.pool.slim()

    def pin(self, statement: Statement) -> tuple[Task, ExitStack]:
        """The task of a statement, and the hold on its files."""
        check_length(statement.sql)
        text = statement.sql.lower()  # tokens would be exact, and too dear here, where everyone waits for everyone
        named = {source.name for name in SOURCES if name in text for source in SOURCES[name]}
        with ExitStack() as pins:
            snapshots = {
                name: pins.enter_context(
                    self._snapshots.pin(name, statement.project_id, version_min=self._versions.get(name))
                ).path
                for name in sorted(named)
            }
            return Task(statement, snapshots), pins.pop_all()

    def enter(self, run: "_Run", owner: str) -> Lease:
        """A place for a run, which is watched from now on."""
        lease = self.pool.take(owner)
        with self._lock:
            self._runs.add(run)
        return lease

    def leave(self, run: "_Run", lease: Lease, *, cut_off: bool) -> None:
        """Give a run's place back."""
        with self._lock:
            self._runs.discard(run)
        self.pool.end(lease, cut_off=cut_off)

    @property
    def settings(self) -> QuerySettings:
        """The limits."""
        return self._settings


class _Run:
    """One statement on its way through one worker after another."""

    def __init__(self, engine: Engine, statement: Statement, gone: Callable[[], bool] = lambda: False) -> None:
        self._engine = engine
        self._gone = gone
        settings = engine.settings
        self._left_s = settings.timeout_s(statement)
        self._allowed_s = self._left_s
        self._lock = threading.RLock()
        self._task, self._pins = engine.pin(statement)
        self._lease: Lease | None = None
        self._rows: Rows | None = None
        self._over = False
        """Whether the worker has said the last word."""
        self._asked: float | None = None
        """When the worker was asked for what it has not answered yet."""
        self._idle = time.monotonic()
        """When the reader was last given something."""
        self._verdict: TailraceError | None = None

    @property
    def owner(self) -> str:
        """Whose statement it is."""
        return self._task.statement.owner

    def work_s(self) -> float:
        """Seconds it has worked, if it works now; else 0."""
        asked = self._asked
        return 0.0 if asked is None else self._allowed_s - self._left_s + time.monotonic() - asked

    def schema(self) -> pa.Schema:
        """Plan."""
        schema = self._try(lambda worker: worker.client.schema(self._task.to_json()))
        self._over = True
        return schema

    def start(self) -> Rows:
        """Plan and begin; the worker's rows."""
        self._rows = self._try(lambda worker: worker.client.run(self._task.to_json()))
        return self._rows

    def batches(self, rows: Rows) -> Generator[pa.RecordBatch]:
        """The rows, on another worker from the start if this one dies before any was sent."""
        sent = again = False
        while True:
            try:
                batch = self._ask(partial(next, rows, None))
            except ConnectionError:
                if sent:
                    raise Unavailable("The query worker was lost in the middle of the result; try again") from None
                if again:
                    raise StatementLimit(ENDED) from None
                rows, again = self.start(), True
                continue
            if batch is None:
                self._over = True
                return
            sent = True
            yield batch

    def look(self) -> None:
        """Called by the watch: kill the worker when it hangs, hang up when nobody reads."""
        now = time.monotonic()
        with self._lock:
            lease, asked = self._lease, self._asked
            if lease is None:
                return
            if asked is not None and now - asked > self._left_s + KILL_GRACE_S:
                self._verdict = StatementLimit("The statement could not be cancelled in time; its worker was killed")
                _log.warning("killing query worker %d: a statement hangs", lease.worker.pid)
                lease.worker.kill()
            elif asked is None and now - self._idle > self._engine.settings.reader_stall_s:
                self.cut_off(StatementLimit("Nobody read the result for too long; it was given up"))
            elif self._gone():
                self.cut_off(Cancelled())

    def cut_off(self, verdict: TailraceError) -> None:
        """End it from outside, with what its reader is told."""
        with self._lock:
            if self._verdict is None:
                self._verdict = verdict
                self.close()

    def close(self) -> None:
        """Stop the work and let go of worker and files."""
        with self._lock:
            rows, self._rows = self._rows, None
            if rows is not None:
                rows.close()
            self._let_go()
            self._pins.close()

    def __enter__(self) -> "_Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _let_go(self) -> None:
        with self._lock:
            lease, self._lease = self._lease, None
            if lease is not None:
                self._engine.leave(self, lease, cut_off=not self._over)

    def _try(self, ask: Callable[[Worker], _Result]) -> _Result:
        """Ask a worker, and another one when the first is lost."""
        for _ in range(TRIES):
            self._let_go()
            self._lease = lease = self._engine.enter(self, self.owner)
            try:
                return self._ask(partial(ask, lease.worker))
            except ConnectionError:
                continue
        raise StatementLimit(ENDED)

    def _ask(self, ask: Callable[[], _Result]) -> _Result:
        """Wait for an answer, and count the time."""
        with self._lock:
            if self._verdict is not None:
                raise self._verdict
            lease = self._lease
            if lease is not None:
                self._engine.pool.resume(lease)
            self._asked = started = time.monotonic()
        try:
            return ask()
        except ConnectionError:
            if self._verdict is not None:
                raise self._verdict from None
            if lease is not None:
                self._engine.pool.lose(lease.worker)
            raise
        except StatementLimit:
            raise
        except TailraceError:
            self._over = True
            raise
        finally:
            self._idle = time.monotonic()
            self._left_s -= self._idle - started
            self._asked = None
            if lease is not None:
                self._engine.pool.rest(lease)


def _evict(runs: list[_Run]) -> None:
    """End the newest long statement of the owner who has most of them, if it is not the only one."""
    long = [(run.owner, run.work_s(), run) for run in runs if run.work_s() > LONG_S]
    counts = Counter(owner for owner, _, _ in long)
    owner, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    if count > 1:
        _, _, newest = min((each for each in long if each[0] == owner), key=lambda each: each[1])
        newest.cut_off(
            Overloaded("Others wait, and this was the newest of several long statements of yours; try again shortly")
        )


@contextmanager
def open_engine(lake_directory: Path, run_directory: Path, settings: QuerySettings) -> Generator[Engine]:
    """The engine, with its workers starting, until the block ends. Raises Refused when snapshots cannot be made."""
    snapshots = Snapshots(lake_directory, run_directory / "snapshots")
    with Pool(run_directory, settings) as pool:
        engine = Engine(snapshots, pool, settings)
        stop = threading.Event()
        watch = threading.Thread(target=_watch, args=(engine, stop), name="watch", daemon=True)
        watch.start()
        try:
            yield engine
        finally:
            stop.set()
            watch.join()


def _watch(engine: Engine, stop: threading.Event) -> None:
    swept = time.monotonic()
    while not stop.wait(WATCH_INTERVAL_S):
        try:
            engine.watch()
            if time.monotonic() - swept > SWEEP_INTERVAL_S:
                engine.sweep()
                swept = time.monotonic()
        except Exception:  # noqa: BLE001  # the watch must outlive what it watches
            _log.exception("a look at the running statements failed")
