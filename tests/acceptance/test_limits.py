"""Limits as a user meets them: a full disk stops the intake and nothing else."""

from pathlib import Path

import pytest
import requests

from tests.acceptance.servers import running
from tests.acceptance.test_crashes import spans_body

JSON = {"content-type": "application/json", "authorization": "local"}


@pytest.mark.parametrize("store", ["LOG", "LAKE", "LEDGER"])
def test_a_disk_that_is_nearly_full_refuses_telemetry_and_answers_queries(tmp_path: Path, store: str) -> None:
    with running(tmp_path / "data", **{f"TAILRACE_DISK__{store}_FREE_BYTES_MIN": str(1 << 60)}) as server:
        answer = requests.post(f"{server.url}/v1/traces", data=spans_body(["a" * 16]), headers=JSON, timeout=20)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
        assert f"the {store.lower()}" in answer.json()["message"]
        assert server.value("SELECT count(*) FROM records") == 0


def test_a_log_that_is_full_tells_senders_to_wait_and_loses_nothing(tmp_path: Path) -> None:
    small = {"TAILRACE_LOG__SEGMENT_BYTES_MAX": "20000", "TAILRACE_LOG__BYTES_MAX": "60000"}
    slow = {"TAILRACE_FLOW__COMMIT_INTERVAL_QUIET_S": "4", "TAILRACE_FLOW__COMMIT_INTERVAL_LOADED_S": "4"}
    with running(tmp_path / "data", **small, **slow) as server:
        acked, refused = 0, 0
        for number in range(400):
            body = spans_body([f"{number + 1:016x}"])
            answer = requests.post(f"{server.url}/v1/traces", data=body, headers=JSON, timeout=20)
            if answer.status_code == 200:
                acked += 1
            else:
                assert answer.status_code == 429
                refused += 1
                if refused > 20:
                    break
        assert acked
        assert refused
        server.wait_for_rows("SELECT span_id FROM records", acked)
        assert server.value("SELECT count(DISTINCT span_id) FROM records") == acked
        assert server.value("SELECT count(*) FROM records") == acked
