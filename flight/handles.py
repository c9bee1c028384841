"""Handles: names that clients hold for statements, until they close them or let them lie too long.

In:  a statement.   Out: an opaque name that only who made it may use, and only for a while: clients forget to close,
and may never fetch what they asked for.
"""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from core.errors import NotFound
from query.statements import Statement

HANDLE_S_MAX = 3600.0
"""Seconds a handle stays good after its last use."""
HANDLES_MAX = 10_000
"""Handles kept; beyond it the one unused for longest is dropped."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a handle stands for."""

    statement: Statement
    owner: str
    """Who may use it."""
    schema: pa.Schema | None
    """The schema of its rows; None when it takes parameters and cannot be planned without."""


class Handles:
    """All handles of the server; every method may be called from any thread."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, tuple[float, Prepared]] = OrderedDict()

    def add(self, prepared: Prepared) -> bytes:
        """A new handle."""
        handle = secrets.token_bytes(16)
        with self._lock:
            self._kept[handle] = (self._monotonic(), prepared)
            self._sweep()
        return handle

    def get(self, handle: bytes, owner: str) -> Prepared:
        """What a handle of this owner stands for; NotFound when it is unknown, expired or another's."""
        with self._lock:
            self._sweep()
            found = self._kept.get(handle)
            if found is None or found[1].owner != owner:
                raise NotFound("The statement handle is not known or has expired; prepare the statement again")
            self._kept[handle] = (self._monotonic(), found[1])
            self._kept.move_to_end(handle)
            return found[1]

    def replace(self, handle: bytes, prepared: Prepared) -> None:
        """Let a handle stand for something else of the same owner: the statement with its parameters."""
        self.get(handle, prepared.owner)
        with self._lock:
            self._kept[handle] = (self._monotonic(), prepared)

    def remove(self, handle: bytes, owner: str) -> None:
        """Forget a handle; one that is not there is fine."""
        with self._lock:
            found = self._kept.get(handle)
            if found is not None and found[1].owner == owner:
                del self._kept[handle]

    def _sweep(self) -> None:
        oldest = self._monotonic() - HANDLE_S_MAX
        while self._kept:
            handle, (used, _) = next(iter(self._kept.items()))
            if used >= oldest and len(self._kept) <= HANDLES_MAX:
                return
            del self._kept[handle]
