"""The supervisor: starts the processes, watches them, starts them again when they die, and drains them at the end.

In:  reports, one JSON object a line from each process's standard output.   Out: the health file, and lines for people.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from core.errors import Refused
from server.settings import Settings

START_ORDER = ("flight", "jobs", "flow", "door")
"""Downstream first, so that whoever sends has somebody to send to; stopping goes the other way."""
RESTART_PAUSES_S = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Pause before each restart of a process that keeps dying; the last one repeats."""
HEALTHY_AFTER_S = 30.0
"""A process that lived this long starts again without a pause."""
STOP_S = 10.0
"""How long a process may take to stop before it is killed; the flow has `drain_s`."""
EXIT_REFUSED = 2
"""Exit status of a process that says it cannot run on this data; starting it again would not help."""

_log = logging.getLogger(__name__)

Report = Mapping[str, object]


class Process:
    """One role's process, through all its lives."""

    def __init__(self, role: str, settings: Settings, on_report: Callable[[str, Report], None]) -> None:
        self.role = role
        self.pid: int | None = None
        self._settings = settings
        self._on_report = on_report
        self._child: asyncio.subprocess.Process | None = None
        self._stopping = False

    async def run(self) -> None:
        """Keep the process running until `stop`; Refused when it says that it cannot run."""
        deaths = 0
        while not self._stopping:
            born = time.monotonic()
            status = await self._live()
            self._on_report(self.role, {"event": "down"})
            if self._stopping:
                return
            if status == EXIT_REFUSED:
                raise Refused(f"The {self.role} process cannot run; its reason stands above")
            deaths = 0 if time.monotonic() - born > HEALTHY_AFTER_S else deaths + 1
            pause = RESTART_PAUSES_S[min(max(deaths - 1, 0), len(RESTART_PAUSES_S) - 1)]
            _log.warning("%s ended with status %d; starting it again in %.1f s", self.role, status, pause)
            await asyncio.sleep(pause)

    async def stop(self, patience_s: float) -> None:
        """Ask the process to finish and wait for it; kill it when its time is up."""
        self._stopping = True
        child = self._child
        if child is None or child.returncode is not None:
            return
        child.terminate()
        try:
            await asyncio.wait_for(child.wait(), patience_s)
        except TimeoutError:
            _log.warning("%s did not stop within %.0f s and was killed", self.role, patience_s)
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()

    async def _live(self) -> int:
        self._child = child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "server.roles", self.role,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self.pid = child.pid
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            child.stdin.write(self._settings.model_dump_json().encode() + b"\n")
            await child.stdin.drain()
        async for line in child.stdout:
            with contextlib.suppress(ValueError):
                self._on_report(self.role, json.loads(line))
        return await child.wait()


class Supervisor:
    """All processes of one `tailrace serve`."""

    def __init__(self, settings: Settings, tell: Callable[[str, Report], None]) -> None:
        self._settings = settings
        self._tell = tell
        self._states: dict[str, str] = dict.fromkeys((*START_ORDER, "workers"), "starting")
        self._processes = {role: Process(role, settings, self._on_report) for role in START_ORDER}
        self._all_ready = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Run everything until `stop` is set, then drain. Raises Refused when a process cannot run."""
        self._write_health()
        lives = {role: asyncio.create_task(process.run(), name=role) for role, process in self._processes.items()}
        stopped = asyncio.create_task(stop.wait(), name="stop")
        done, _ = await asyncio.wait([stopped, *lives.values()], return_when=asyncio.FIRST_COMPLETED)
        await self._drain()
        stopped.cancel()
        await asyncio.gather(*lives.values(), return_exceptions=True)
        for task in done:
            if task is not stopped:
                task.result()

    @property
    def all_ready(self) -> asyncio.Event:
        """Set when every part was ready for the first time."""
        return self._all_ready

    async def _drain(self) -> None:
        """Upstream first: nothing new comes in, then what came in reaches the tables, then the rest."""
        await self._processes["door"].stop(STOP_S)
        await self._processes["flow"].stop(self._settings.drain_s)
        await asyncio.gather(*(self._processes[role].stop(STOP_S) for role in ("jobs", "flight")))

    def _on_report(self, role: str, report: Report) -> None:
        match report.get("event"):
            case "ready":
                self._states[role] = "ready"
            case "down":
                self._states[role] = "down"
                if role == "flight":
                    self._states["workers"] = "down"
            case "workers":
                self._states["workers"] = str(report.get("state"))
            case _:
                self._tell(role, report)
                return
        self._write_health()
        if not self._all_ready.is_set() and all(state == "ready" for state in self._states.values()):
            self._all_ready.set()

    def _write_health(self) -> None:
        pids = {role: process.pid for role, process in self._processes.items()}
        health = {"supervisor": os.getpid(), "parts": self._states, "pids": pids}
        write_atomically(self._settings.health_file, json.dumps(health))


def start_logging(role: str) -> None:
    """Log to standard error; of libraries only what is wrong."""
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {role} %(levelname)s %(message)s")
    for name in ("alembic", "uvicorn", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file so that a reader sees the old text or the new one."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.replace(path)


def stop_on_signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT set the event."""
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
