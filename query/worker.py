"""A worker: a closed process that plans and runs statements, and may be killed at any time (system.md D7).

`python -m query SOCKET SPILL_DIRECTORY`, with the query settings as one JSON line on standard input; it writes
`ready` on standard output when it listens.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from core.errors import NotFound
from query.processes import limit_memory
from query.session import Session, start_loop
from query.settings import QuerySettings
from query.statements import Rows, Task
from query.transport import StatementServer


class Worker:
    """The backend of a worker's socket: payloads are tasks."""

    def __init__(self, settings: QuerySettings, spill_directory: Path) -> None:
        self._settings = settings
        self._spill_directory = spill_directory
        self._loop = start_loop()

    def schema(self, payload: bytes) -> pa.Schema:
        """Plan a statement."""
        return self._session(payload).schema

    def run(self, payload: bytes, gone: Callable[[], bool]) -> Rows:
        """Plan a statement; it runs as its rows are taken."""
        session = self._session(payload)
        rows = session.rows(self._loop, gone)
        return Rows(session.schema, rows, lambda: None)

    def act(self, kind: str, payload: bytes) -> bytes:
        """There is nothing else."""
        raise NotFound(f"A worker does not know {kind!r}")

    def _session(self, payload: bytes) -> Session:
        return Session(Task.from_json(payload), self._settings, self._spill_directory)


def main() -> None:
    """Serve until killed."""
    settings = QuerySettings.from_json(json.loads(sys.stdin.readline()))
    socket, spill_directory = Path(sys.argv[1]), Path(sys.argv[2])
    worker = Worker(settings, spill_directory)
    worker.run(Task.warm_up().to_json(), lambda: False).read_all()
    server = StatementServer(socket, worker)
    limit_memory(settings.worker_memory_bytes)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.wait()
