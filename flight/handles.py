"""Handles: names that clients hold for statements, until they close them or let them lie too long.

In:  a statement.   Out: an opaque name that only who made it may use, and only for a while: clients forget to close,
and may never fetch what they asked for.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from core.errors import NotFound
from flight.expiring import Expiring
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
        self._kept = Expiring[bytes, Prepared](HANDLE_S_MAX, HANDLES_MAX, monotonic)

    def add(self, prepared: Prepared) -> bytes:
        """A new handle."""
        handle = secrets.token_bytes(16)
        self._kept.put(handle, prepared)
        return handle

    def get(self, handle: bytes, owner: str) -> Prepared:
        """What a handle of this owner stands for; NotFound when it is unknown, expired or another's."""
        found = self._kept.get(handle, lambda prepared: prepared.owner == owner)
        if found is None:
            raise NotFound("The statement handle is not known or has expired; prepare the statement again")
        return found

    def replace(self, handle: bytes, prepared: Prepared) -> None:
        """Let a handle stand for something else of the same owner: the statement with its parameters."""
        self.get(handle, prepared.owner)
        self._kept.put(handle, prepared)

    def remove(self, handle: bytes, owner: str) -> None:
        """Forget a handle; one that is not there is fine."""
        self._kept.remove(handle, lambda prepared: prepared.owner == owner)
