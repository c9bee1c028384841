"""One running server for all acceptance tests of a worker."""

import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.acceptance.servers import Server, running


@pytest.fixture(scope="session")
def server() -> Generator[Server]:
    """A server on a fresh data directory (with a short path: unix sockets)."""
    with tempfile.TemporaryDirectory(prefix="tailrace-") as directory, running(Path(directory) / "data") as server:
        yield server
