"""Places where a test can make this process die or its disk fail; nothing happens unless armed.

Armed by the setting `failpoints`, for example `log.after_sync=kill@3,lake.commit=enospc`: at the third
passage of the first the process kills itself with SIGKILL; each passage of the second raises ENOSPC.
"""

import errno
import os
import signal

_armed: dict[str, tuple[str, int]] = {}


def arm(spec: str) -> None:
    """Arm the failpoints of `name=action[@passage]`, comma separated; actions are `kill` and `enospc`.

    Without `@passage` the action happens at every passage. An empty spec disarms everything.
    """
    _armed.clear()
    for item in filter(None, (part.strip() for part in spec.split(","))):
        name, _, action = item.partition("=")
        action, _, passage = action.partition("@")
        if action not in {"kill", "enospc"} or (passage and not passage.isdigit()):
            raise ValueError(f"{item!r} is not a failpoint; write name=kill, name=kill@3 or name=enospc")
        _armed[name] = (action, int(passage or 0))


def failpoint(name: str) -> None:
    """Mark a place by name; acts only when armed."""
    if not _armed or name not in _armed:
        return
    action, passage = _armed[name]
    if passage > 1:
        _armed[name] = (action, passage - 1)
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise OSError(errno.ENOSPC, f"failpoint {name}: no space left on device")
