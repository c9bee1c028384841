"""Levels: names for severity numbers, as Logfire names them on top of OpenTelemetry's data model for logs."""

LEVELS = {"trace": 1, "debug": 5, "info": 9, "notice": 10, "warn": 13, "error": 17, "fatal": 21}
"""The severity number of each name, rising."""
LEVEL_MAX = 24
ALIASES = {"warning": "warn"}
"""Other spellings, understood but never written."""


def level_number(name: str) -> int | None:
    """The severity number of a level's name in any case; None for a name that is not one."""
    lower = name.lower()
    return LEVELS.get(ALIASES.get(lower, lower))


def level_name(number: int) -> str | None:
    """The name of a severity number, 1-24; numbers between two names have the lower one's."""
    if not 1 <= number <= LEVEL_MAX:
        return None
    names = [name for name, least in LEVELS.items() if least <= number and (name != "notice" or number == least)]
    return names[-1]
