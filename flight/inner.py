"""The flight process's inner door: a Unix socket for the other processes of this server.

In:  statements of the HTTP API, which has checked who asks; notices of commits.   Out: rows.
"""

import json
from collections.abc import Callable

import pyarrow as pa

from core.errors import NotFound
from query.engine import Engine
from query.statements import Rows, Statement


class Inner:
    """The backend of the inner socket: payloads are statements."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def schema(self, payload: bytes) -> pa.Schema:
        """The schema of a statement's rows."""
        return self._engine.schema(Statement.from_json(payload))

    def run(self, payload: bytes, gone: Callable[[], bool]) -> Rows:
        """A statement's rows."""
        return self._engine.run(Statement.from_json(payload), gone)

    def act(self, kind: str, payload: bytes) -> bytes:
        """`committed`: an epoch's number and table versions, which statements see from now on."""
        if kind != "committed":
            raise NotFound(f"There is no {kind!r} here")
        self._engine.committed(json.loads(payload)["versions"])
        return b""
