"""Sessions: options that clients set once for the statements that follow (Flight's SetSessionOptions).

In:  who asks, and the cookie that tells their sessions apart.   Out: the options. A session is only good with the
credentials it was begun with; options of one that is not used are forgotten.
"""

import secrets
from collections.abc import Mapping

from core.clock import is_time_zone
from core.errors import BadQuery
from flight.catalog import CATALOG, DB_SCHEMA
from flight.expiring import Expiring

COOKIE = "arrow_flight_session_id"
"""The name that Flight's specification gives the cookie."""
SESSION_S_MAX = 3600.0
"""Seconds a session keeps its options after its last use."""
SESSIONS_MAX = 10_000
"""Sessions with options; beyond it the one unused for longest is dropped."""
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
    if known == TIME_ZONE and not is_time_zone(value):
        raise BadQuery(f"{value!r} is not the IANA name of a time zone")
    return known, value


class Sessions:
    """The options of all sessions; every method may be called from any thread."""

    def __init__(self) -> None:
        self._kept = Expiring[str, Mapping[str, str]](SESSION_S_MAX, SESSIONS_MAX)

    def options(self, session: str) -> Mapping[str, str]:
        """The options of a session; none of one that is not known."""
        return self._kept.get(session) or {}

    def change(self, session: str, options: Mapping[str, str]) -> None:
        """Set options of a session, beside those it has."""
        self._kept.put(session, {**self.options(session), **options})

    def close(self, session: str) -> None:
        """Forget the options of a session."""
        self._kept.remove(session)
