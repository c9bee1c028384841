"""What a machine lacks is said in one line and left out; on CI everything must be there."""

import glob
import os
import shutil

import pytest

NEEDED = {
    "browser": ("Chromium", lambda: shutil.which("chromium") is not None),
    "postgresql": ("a PostgreSQL server", lambda: bool(glob.glob("/usr/lib/postgresql/*/bin/initdb"))),
}
"""Marker → what it needs, and whether that is here."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests that cannot run here; fail instead on CI."""
    for marker, (what, is_here) in NEEDED.items():
        left_out = [item for item in items if item.get_closest_marker(marker)]
        if not left_out or is_here():
            continue
        if os.environ.get("CI") == "true":
            pytest.exit(f"{what} is missing, which {len(left_out)} tests need", returncode=1)
        config.stash.setdefault(LEFT_OUT, []).append(f"{len(left_out)} tests left out: {what} is not installed here")
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


LEFT_OUT = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was left out."""
    for line in config.stash.get(LEFT_OUT, []):
        terminalreporter.write_line(line)
