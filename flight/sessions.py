"""Sessions: options that clients set once for the statements that follow (Flight's SetSessionOptions).

In:  who asks, and the cookie that tells their sessions apart.   Out: the options. A session is only good with the
credentials it was begun with; options of one that is not used are forgotten.
"""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from zoneinfo import ZoneInfo

from core.errors import BadQuery

COOKIE = "arrow_flight_session_id"
"""The name that Flight's specification gives the cookie."""
SESSION_S_MAX = 3600.0
"""Seconds a session keeps its options after its last use."""
SESSIONS_MAX = 10_000
"""Sessions with options; beyond it the one unused for longest is dropped."""
CATALOG = "tailrace"
DB_SCHEMA = "public"
TIME_ZONE = "time_zone"
NAMES = {TIME_ZONE: TIME_ZONE, "timezone": TIME_ZONE, "catalog": "catalog", "schema": "schema"}
"""The options there are, by their spellings in lower case."""


def new_cookie() -> str:
    """A name for a session that nobody guesses."""
    return secrets.token_urlsafe(18)


def cookie_of(header: str | None) -> str | None:
    """The session's cookie among those of a header."""
    for part in (header or "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value.strip('"')
    return None


def check(name: str, value: str | None) -> tuple[str, str]:
    """An option as it is kept; KeyError for one there is none of, BadQuery for a value that makes no sense."""
    known = NAMES[name.lower()]
    right = {"catalog": CATALOG, "schema": DB_SCHEMA}.get(known)
    if value is None or (right is not None and value != right):
        raise BadQuery(f"The option {name!r} cannot be {value!r}" + (f"; there is {right!r} only" if right else ""))
    if known == TIME_ZONE:
        try:
            ZoneInfo(value)
        except (LookupError, OSError, ValueError):
            raise BadQuery(f"{value!r} is not the IANA name of a time zone") from None
    return known, value


class Sessions:
    """The options of all sessions; every method may be called from any thread."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[float, Mapping[str, str]]] = OrderedDict()

    def options(self, session: str) -> Mapping[str, str]:
        """The options of a session; none of one that is not known."""
        with self._lock:
            self._sweep()
            found = self._kept.get(session)
            if found is None:
                return {}
            self._keep(session, found[1])
            return found[1]

    def change(self, session: str, options: Mapping[str, str]) -> None:
        """Set options of a session, beside those it has."""
        with self._lock:
            _, before = self._kept.get(session, (0.0, {}))
            self._keep(session, {**before, **options})
            self._sweep()

    def close(self, session: str) -> None:
        """Forget the options of a session."""
        with self._lock:
            self._kept.pop(session, None)

    def _keep(self, session: str, options: Mapping[str, str]) -> None:
        self._kept[session] = (self._monotonic(), options)
        self._kept.move_to_end(session)

    def _sweep(self) -> None:
        oldest = self._monotonic() - SESSION_S_MAX
        while self._kept:
            session, (used, _) = next(iter(self._kept.items()))
            if used >= oldest and len(self._kept) <= SESSIONS_MAX:
                return
            del self._kept[session]
