"""What a child process does to itself: it dies with its parent, and stays within its memory."""

import ctypes
import resource
import signal
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """SIGKILL this process when the thread that started it dies (prctl(2)): no old hands at work after a crash."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def limit_memory(further_bytes: int) -> None:
    """Let the address space of this process grow by so many bytes and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + further_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
