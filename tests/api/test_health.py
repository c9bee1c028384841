"""Health from the supervisor's file."""

import json
from pathlib import Path

import pytest

from api.health import read_health


@pytest.mark.parametrize(
    ("states", "status"),
    [
        (["ready", "ready"], "ok"),
        (["ready", "degraded"], "degraded"),
        (["ready", "starting"], "unavailable"),
        (["down"], "unavailable"),
    ],
)
def test_the_status_is_that_of_the_worst_part(tmp_path: Path, states: list[str], status: str) -> None:
    parts = {str(number): state for number, state in enumerate(states)}
    (tmp_path / "health.json").write_text(json.dumps({"parts": parts, "pids": {"door": 1}}))
    health = read_health(tmp_path / "health.json")
    assert (health.status, health.parts) == (status, parts)


def test_without_a_file_nothing_is_up(tmp_path: Path) -> None:
    assert read_health(tmp_path / "health.json").status == "unavailable"
