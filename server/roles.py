"""The processes of `tailrace serve`: `python -m server.roles ROLE`, with the settings as one JSON line on stdin.

Each reports to the supervisor, one JSON object a line on standard output, and dies with it.
"""

import asyncio
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import TextIO

from core.clock import NS_PER_S, NS_PER_US, SystemClock
from core.errors import TailraceError
from query.processes import die_with_parent, leave_out_pandas
from server.settings import Settings
from server.supervisor import EXIT_REFUSED, start_logging
from storage.failpoints import arm

WORKER_LOOK_S = 0.5
"""How often the flight process looks after the state of its workers."""
WORKER_START_LOOK_S = 0.05
"""The same while they start."""

_log = logging.getLogger(__name__)


class Reports:
    """The line to the supervisor."""

    def __init__(self, pipe: TextIO) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def send(self, event: str, **fields: object) -> None:
        """Report an event."""
        with self._lock:
            self._pipe.write(json.dumps({"event": event, **fields}) + "\n")
            self._pipe.flush()

    def ready(self) -> None:
        """Report that the process does its work."""
        self.send("ready")


def run_door(settings: Settings, reports: Reports, stop: threading.Event) -> None:
    """HTTP on :8000 and :4318, gRPC on :4317, and the log's only writer."""
    from server.serving import serve_doors  # noqa: PLC0415  # each role loads its own engines only

    asyncio.run(serve_doors(settings, reports.ready, stop))


def run_flow(settings: Settings, reports: Reports, stop: threading.Event) -> None:
    """From the log to the tables."""
    from pipelines.commit import Epoch  # noqa: PLC0415  # each role loads its own engines only
    from pipelines.flow import FlowHooks, run_flow  # noqa: PLC0415  # the same
    from storage.epochs import Progress  # noqa: PLC0415  # the same
    from storage.feed import announce_commit  # noqa: PLC0415  # the same

    clock = SystemClock()
    waiting = threading.Event()

    def on_ready(progress: Progress) -> None:
        if progress.epoch < 0:
            waiting.set()
        reports.ready()

    def on_epoch(epoch: Epoch, versions: dict[str, int]) -> None:
        announce_commit(settings.flight_socket, epoch.progress.epoch, versions)
        records = epoch.rows["records"]
        if waiting.is_set() and records.num_rows:
            waiting.clear()
            first = records.slice(0, 1).select(["service_name", "span_name", "created_at"]).to_pylist()[0]
            received_ns = records.column("created_at")[0].value * NS_PER_US  # pyright: ignore[reportAttributeAccessIssue]  # a timestamp
            seconds = (clock.now_ns() - received_ns) / NS_PER_S
            reports.send("first_span", service=first["service_name"], name=first["span_name"], seconds=seconds)

    run_flow(
        settings.log_directory, settings.lake_directory, settings.flow, clock,
        hooks=FlowHooks(on_ready, on_epoch, stop),
    )  # fmt: skip


def run_flight(settings: Settings, reports: Reports, stop: threading.Event) -> None:
    """Flight SQL on :32010, and the query workers."""
    from query.engine import open_engine  # noqa: PLC0415  # each role loads its own engines only

    with open_engine(settings.lake_directory, settings.run_directory, settings.query) as engine:
        # the workers are starting: only now what else takes its time to load
        from flight.server import open_flight  # noqa: PLC0415
        from storage.keys import open_keys  # noqa: PLC0415

        token = settings.operator_token_file.read_text()
        keys = open_keys(settings.ledger(), open_to_all=settings.open_to_all, operator_token=token, clock=SystemClock())
        with (
            keys as opened,
            open_flight(
                engine,
                opened,
                settings.flight,
                address=(settings.host, settings.flight_port),
                inner_socket=settings.flight_socket,
            ),
        ):
            _report_workers(engine.state, reports, stop)


def _report_workers(look: Callable[[], str], reports: Reports, stop: threading.Event) -> None:
    """Report that the flight process is ready, and then each change in the state of its workers."""
    reports.ready()
    state = ""
    while not stop.wait(WORKER_LOOK_S if state == "ready" else WORKER_START_LOOK_S):
        seen = look()
        if seen != state:
            reports.send("workers", state=seen)
            state = seen


def run_jobs(settings: Settings, reports: Reports, stop: threading.Event) -> None:
    """Upkeep of the tables."""
    from storage.upkeep import open_upkeep  # noqa: PLC0415  # each role loads its own engines only

    with open_upkeep(settings.lake_directory, settings.upkeep, settings.retention, SystemClock()) as upkeep:
        reports.ready()
        while not stop.wait(settings.upkeep.interval_s):
            try:
                upkeep.round()
            except Exception:  # noqa: BLE001  # the next round starts afresh; data is never at stake
                _log.exception("a round of upkeep failed")


ROLES: dict[str, Callable[[Settings, Reports, threading.Event], None]] = {
    "door": run_door,
    "flow": run_flow,
    "flight": run_flight,
    "jobs": run_jobs,
}


def main() -> None:
    """Run one role until SIGTERM."""
    role = sys.argv[1]
    parent = os.getppid()
    die_with_parent()
    leave_out_pandas()
    reports = Reports(sys.stdout)
    sys.stdout = sys.stderr  # a stray print is a log line, never a report
    settings = Settings.model_validate_json(sys.stdin.readline())
    start_logging(role)
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides, and stops upstream first
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if os.getppid() != parent:
        sys.exit(1)
    arm(settings.failpoints)
    try:
        partial(ROLES[role], settings, reports, stop)()
    except TailraceError as error:
        _log.error("%s", error.message)
        sys.exit(EXIT_REFUSED)


if __name__ == "__main__":
    main()
