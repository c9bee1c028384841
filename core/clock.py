"""The one place that reads the wall clock; everyone else takes a `Clock` or a time as an argument."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

NS_PER_S = 1_000_000_000
NS_PER_US = 1_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Something that tells the time of day."""

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch, UTC. It may step back: wall clocks do."""
        ...


class SystemClock:
    """The machine's wall clock."""

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch, UTC."""
        return time.time_ns()  # noqa: TID251  # this is the one place


def at(ns: int) -> datetime:
    """The aware UTC moment of a count of nanoseconds since the Unix epoch, cut to microseconds."""
    return EPOCH + timedelta(microseconds=ns // NS_PER_US)


def to_ns(moment: datetime) -> int:
    """Nanoseconds since the Unix epoch of an aware moment (exact to the microsecond)."""
    return (moment - EPOCH) // timedelta(microseconds=1) * NS_PER_US


def is_time_zone(name: str) -> bool:
    """Whether a text is the IANA name of a time zone."""
    try:
        ZoneInfo(name)
    except (LookupError, OSError, ValueError):
        return False
    return True
