"""Whatever is killed whenever: what was acked is stored, once, and the server comes back by itself."""

import contextlib
import gzip
import http.client
import json
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psutil
import pytest
from deltalake import DeltaTable

from tests.acceptance.servers import Server, running, wait_for

ROUND_S = 7.0
KILL_PAUSE_S = (0.3, 1.2)
SPANS_A_REQUEST = 5
SENDERS = 4
ROLES = ("door", "flow", "flight", "jobs", "worker", "supervisor")

pytestmark = pytest.mark.xdist_group("crashes")


def spans_body(ids: list[str], name: str = "crash") -> bytes:
    """OTLP/JSON of spans that are told apart by their span id."""
    now = time.time_ns()
    spans = [
        {
            "traceId": "ab" * 16, "spanId": span_id, "name": name, "kind": 1,
            "startTimeUnixNano": str(now), "endTimeUnixNano": str(now + 1_000),
            "attributes": [{"key": "id", "value": {"stringValue": span_id}}],
        }
        for span_id in ids
    ]  # fmt: skip
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


def metrics_body(mark: str) -> bytes:
    point = {
        "timeUnixNano": str(time.time_ns()),
        "asInt": "1",
        "attributes": [{"key": "id", "value": {"stringValue": mark}}],
    }
    metric = {"name": "crash", "sum": {"dataPoints": [point], "aggregationTemporality": 1, "isMonotonic": True}}
    return json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}).encode()


@dataclass
class Ledger:
    """The senders' own account of what was answered with 200."""

    spans: set[str] = field(default_factory=set[str])
    metrics: set[str] = field(default_factory=set[str])
    tries: int = 0


class Senders:
    """Threads that send, and send the same bytes again until they are acked, as SDKs do."""

    def __init__(self, server: Server, seed: int) -> None:
        self.ledger = Ledger()
        self._server = server
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send, args=(Random(seed * 100 + n),)) for n in range(SENDERS)]

    def __enter__(self) -> "Senders":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self, random: Random) -> None:
        while not self._stop.is_set():
            if random.random() < 0.3:
                mark = random.randbytes(8).hex()
                self._until_acked("/v1/metrics", metrics_body(mark), random)
                with self._lock:
                    self.ledger.metrics.add(mark)
            else:
                ids = [random.randbytes(8).hex() for _ in range(SPANS_A_REQUEST)]
                self._until_acked("/v1/traces", spans_body(ids), random)
                with self._lock:
                    self.ledger.spans.update(ids)
            time.sleep(0.005)

    def _until_acked(self, path: str, body: bytes, random: Random) -> None:
        end = time.monotonic() + 45
        while self._post(path, body, random) != 200:
            assert time.monotonic() < end, "the server did not come back"
            time.sleep(0.05)

    def _post(self, path: str, body: bytes, random: Random) -> int:
        with self._lock:
            self.ledger.tries += 1
        connection = http.client.HTTPConnection("127.0.0.1", self._server.ports[random.randrange(2)], timeout=10)
        headers = {"Content-Type": "application/json"}
        if random.random() < 0.5:  # a retry may be compressed otherwise; its bytes are still the same
            body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
        try:
            connection.request("POST", path, body, headers)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()


@contextmanager
def crash_server(**environment: str) -> Generator[Server]:
    with (
        tempfile.TemporaryDirectory(prefix="tailrace-", ignore_cleanup_errors=True) as directory,
        running(Path(directory) / "data", **environment) as server,
    ):
        yield server


def kill_some(server: Server, role: str) -> None:
    """Kill a process of that role; the supervisor's successor is started by hand, as a service manager would."""
    if role == "worker":
        with contextlib.suppress(psutil.NoSuchProcess, KeyError, IndexError):
            psutil.Process(server.pids()["flight"]).children()[0].kill()
        return
    server.kill(role)
    if role == "supervisor":
        server.launch()


def check_everything(server: Server, ledger: Ledger) -> None:
    """acked = stored = distinct, by SQL and in the Delta tables themselves."""
    server.wait_until_ready()
    server.wait_for_rows("SELECT span_id FROM records WHERE span_name = 'crash'", len(ledger.spans))
    stored = server.query("SELECT span_id FROM records WHERE span_name = 'crash'").column(0).to_pylist()
    assert len(stored) == len(set(stored)), "no row twice"
    assert set(stored) == ledger.spans
    points = server.query("SELECT attributes->>'id' FROM metrics WHERE metric_name = 'crash'").column(0).to_pylist()
    assert sorted(map(str, points)) == sorted(ledger.metrics)
    rows = DeltaTable(server.data / "lake" / "records").to_pyarrow_table(columns=["span_id"])
    assert sorted(map(str, rows.column(0).to_pylist())) == sorted(ledger.spans)


def survive(seed: int, seconds: float, **environment: str) -> tuple[Ledger, list[str]]:
    """One round: send while random processes die; everything must add up."""
    random, killed = Random(seed), list[str]()
    with crash_server(TAILRACE_UPKEEP__INTERVAL_S="0.3", **environment) as server:
        with Senders(server, seed) as senders:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                time.sleep(random.uniform(*KILL_PAUSE_S))
                role = random.choice(ROLES)
                kill_some(server, role)
                killed.append(role)
        check_everything(server, senders.ledger)
        assert server.stop() == 0
    return senders.ledger, killed


@pytest.mark.parametrize("seed", range(3))
def test_random_deaths_lose_and_double_nothing(seed: int) -> None:
    ledger, killed = survive(seed, ROUND_S)
    assert len(ledger.spans) > 50
    assert killed


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 120))
def test_random_deaths_lose_and_double_nothing_in_many_rounds(seed: int) -> None:
    ledger, _ = survive(seed, ROUND_S)
    assert len(ledger.spans) > 50


@pytest.mark.parametrize(
    ("failpoint", "role"),
    [
        ("log.segment_write=kill@40", "door"),
        ("log.after_sync=kill@40", "door"),
        ("epoch.after_leader=kill@3", "flow"),
        ("epoch.after_metrics=kill@2", "flow"),
        ("upkeep.before_commit=kill@1", "jobs"),
        ("upkeep.after_commit=kill@1", "jobs"),
    ],
)
def test_a_death_at_a_nasty_place_loses_and_doubles_nothing(failpoint: str, role: str) -> None:
    with crash_server(
        TAILRACE_FAILPOINTS=failpoint, TAILRACE_UPKEEP__INTERVAL_S="0.3", TAILRACE_FLOW__COMMIT_INTERVAL_QUIET_S="0.05"
    ) as server:
        born = server.pids()[role]
        with Senders(server, 1) as senders:
            wait_for(
                lambda: server.pids().get(role, born) != born and len(senders.ledger.spans) > 50,
                30,
                lambda: f"{failpoint} did not happen:\n{server.output[-3_000:]}",
            )
        server.environment.pop("TAILRACE_FAILPOINTS")
        server.kill("supervisor")
        server.launch()
        check_everything(server, senders.ledger)
