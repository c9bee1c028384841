"""Whether everything runs: what the supervisor knows of its processes, for anyone who asks.

In:  the supervisor's health file.   Out: a status and the state of each part. Process ids stay here.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

READY = "ready"
SERVING = frozenset({READY, "degraded"})
"""States in which a part does its work, if more slowly."""


@dataclass(frozen=True, slots=True)
class Health:
    """What the server's parts are doing."""

    status: Literal["ok", "degraded", "unavailable"]
    parts: dict[str, str]
    """Part → `starting`, `ready`, `degraded` or `down`."""


def read_health(path: Path) -> Health:
    """The health in the supervisor's file; unavailable while there is none."""
    try:
        parts: dict[str, str] = json.loads(path.read_bytes())["parts"]
    except FileNotFoundError:
        return Health("unavailable", {})
    states = set(parts.values())
    if states <= {READY}:
        return Health("ok", parts)
    return Health("degraded" if states <= SERVING else "unavailable", parts)
