"""What a child process does to itself: it dies with its parent, stays within its memory, and starts fast."""

import ctypes
import resource
import signal
import sys
from importlib.abc import MetaPathFinder
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


class _NoPandas(MetaPathFinder):
    """Finds nothing, and nothing instead of pandas."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Turn the import of pandas away; leave all others to the next finder."""
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is not used here", name=fullname)


def leave_out_pandas() -> None:
    """Keep pyarrow from importing pandas, where it is installed, for the first list it is given: 1 s and 60 MB."""
    sys.meta_path.insert(0, _NoPandas())
