"""One engine with real workers for the tests of a run, over two projects' rows."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.schema import METRICS, PENDING_SPANS, RECORDS
from query.engine import Engine, open_engine
from query.settings import QuerySettings
from tests.lakes import A, B, append

READY_S = 60.0


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("lake")
    mine = [
        {"project_id": A, "message": str(n), "attributes": json.dumps({"n": n, "deep": {"list": [1, "two"]}})}
        for n in range(10)
    ]
    append(directory, RECORDS, *mine, {"project_id": B, "message": "secret-of-b", "deployment_environment": "prod"})
    append(directory, PENDING_SPANS, {"project_id": A, "message": "pending", "kind": "pending_span"})
    append(directory, METRICS, {"project_id": A, "metric_name": "m", "scalar_value": 1.5})
    return directory


def wait_ready(engine: Engine) -> Engine:
    deadline = time.monotonic() + READY_S
    while engine.state() != "ready":
        assert time.monotonic() < deadline, "the workers did not start"
        time.sleep(0.02)
    return engine


@pytest.fixture(scope="session")
def engine(lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    settings = QuerySettings(workers=1, statement_timeout_s=20.0, statement_wait_s=20.0)
    with open_engine(lake, tmp_path_factory.mktemp("run"), settings) as engine:
        yield wait_ready(engine)
