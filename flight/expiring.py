"""What clients leave with the server, for a while: forgotten when it is not used, or when there is too much of it.

In:  keys with their values.   Out: the values, until they expire. Clients forget to close what they opened.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Expiring(Generic[Key, Value]):
    """A map that forgets; every method may be called from any thread."""

    def __init__(self, seconds_max: float, count_max: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Keep values so many seconds after their last use, and so many of them; the one unused for longest goes."""
        self._seconds_max = seconds_max
        self._count_max = count_max
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, tuple[float, Value]] = OrderedDict()

    def put(self, key: Key, value: Value) -> None:
        """Keep a value, which counts as its use."""
        with self._lock:
            self._keep(key, value)
            self._sweep()

    def get(self, key: Key, mine: Callable[[Value], bool] = lambda _: True) -> Value | None:
        """The value, which is used so; None when there is none, or it is not the asker's."""
        with self._lock:
            self._sweep()
            found = self._kept.get(key)
            if found is None or not mine(found[1]):
                return None
            self._keep(key, found[1])
            return found[1]

    def remove(self, key: Key, mine: Callable[[Value], bool] = lambda _: True) -> None:
        """Forget a value; one that is not there, or not the asker's, is fine."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None and mine(found[1]):
                del self._kept[key]

    def _keep(self, key: Key, value: Value) -> None:
        self._kept[key] = (self._monotonic(), value)
        self._kept.move_to_end(key)

    def _sweep(self) -> None:
        oldest = self._monotonic() - self._seconds_max
        while self._kept:
            key, (used, _) = next(iter(self._kept.items()))
            if used >= oldest and len(self._kept) <= self._count_max:
                return
            del self._kept[key]
