"""The spine end to end: start, freshness, CPU per span, bytes per span, idle cost, of a real `tailrace serve`.

CPU is user + system time of the server's whole process tree, read from the kernel, upkeep to quiescence included,
without the generator. Beside it, from the same run: protobuf's own parse of the same bodies, the floor of any decoder.
"""

import gzip
import http.client
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks.payload import trace_request
from tests.acceptance.servers import Server, running, wait_for

SPANS = 200_000
SPANS_A_REQUEST = 512
LONE_SPANS = 40
WARM_STARTS = 3
IDLE_S = 10.0
QUIET_S = 6.0
"""No new Delta version for so long means that upkeep is done."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report."""

    name: str
    value: str
    bar: str = ""


def cpu_seconds(server: Server) -> dict[str, float]:
    """CPU seconds of each process of the tree since it was born, by role."""
    assert server.process is not None
    roles = {pid: role for role, pid in server.pids().items()}
    used: dict[str, float] = {}
    root = psutil.Process(server.process.pid)
    for process in [root, *root.children(recursive=True)]:
        times = process.cpu_times()
        role = "supervisor" if process.pid == root.pid else roles.get(process.pid, "worker")
        used[role] = used.get(role, 0.0) + times.user + times.system
    return used


def memory_bytes(server: Server) -> int:
    """Proportional set size of the tree."""
    assert server.process is not None
    root = psutil.Process(server.process.pid)
    return sum(process.memory_full_info().pss for process in [root, *root.children(recursive=True)])


class Sender:
    """One keep-alive connection to the server's OTLP door."""

    def __init__(self, server: Server) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.ports[1], timeout=60)

    def send(self, body: bytes) -> None:
        """Send one gzipped request until it is acked."""
        headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
        while True:
            self._connection.request("POST", "/v1/traces", body, headers)
            answer = self._connection.getresponse()
            answer.read()
            if answer.status == 200:
                return
            assert answer.status == 429, answer.status
            time.sleep(0.2)


def measure_start(directory: Path) -> list[Figure]:
    """Seconds from the command to ready, on a data directory that has been used."""
    seconds: list[float] = []
    for _ in range(WARM_STARTS + 1):
        began = time.monotonic()
        with running(directory) as server:
            seconds.append(time.monotonic() - began)
            assert server.is_ready()
    warm = statistics.median(seconds[1:])
    return [Figure("start to ready, warm, median of 3", f"{warm:.1f} s (first: {seconds[0]:.1f} s)", "≤ 6 s")]


def measure_freshness(server: Server) -> list[Figure]:
    """Seconds from the ack of a lone span until SQL shows it."""
    sender, seconds = Sender(server), list[float]()
    for number in range(LONE_SPANS):
        body = gzip.compress(trace_request(1_000_000 + number, 1))
        before = server.value("SELECT count(*) FROM records")
        sender.send(body)
        acked = time.monotonic()
        while server.value("SELECT count(*) FROM records") == before:
            time.sleep(0.005)
        seconds.append(time.monotonic() - acked)
        time.sleep(0.3)
    seconds.sort()
    median, worst = statistics.median(seconds), seconds[int(len(seconds) * 0.95)]
    return [Figure("acked to visible, lone span", f"p50 {median:.2f} s, p95 {worst:.2f} s", "p50 ≤ 0.5 s")]


def measure_idle(server: Server) -> list[Figure]:
    """What the tree costs when nothing happens."""
    before = sum(cpu_seconds(server).values())
    time.sleep(IDLE_S)
    idle = (sum(cpu_seconds(server).values()) - before) / IDLE_S
    return [
        Figure("idle CPU of the tree", f"{idle * 100:.1f} % of one core"),
        Figure("PSS of the tree", f"{memory_bytes(server) / 2**20:.0f} MiB"),
    ]


def measure_cost(server: Server) -> list[Figure]:
    """CPU seconds per million spans and bytes per span, at saturation, upkeep included."""
    bodies = [trace_request(seed, SPANS_A_REQUEST) for seed in range(SPANS // SPANS_A_REQUEST)]
    raw = sum(map(len, bodies)) / (len(bodies) * SPANS_A_REQUEST)
    spans = len(bodies) * SPANS_A_REQUEST
    packed = [gzip.compress(body, 6) for body in bodies]
    stored = server.value("SELECT count(*) FROM records WHERE kind = 'span'")
    size = lake_bytes(server)
    before, began = cpu_seconds(server), time.monotonic()
    sender = Sender(server)
    for body in packed:
        sender.send(body)
    acked = time.monotonic() - began
    wait_for(
        lambda: server.value("SELECT count(*) FROM records WHERE kind = 'span'") >= stored + spans,
        600,
        lambda: "the spans did not arrive",
    )
    visible = time.monotonic() - began
    wait_until_quiet(server)
    after = cpu_seconds(server)
    used = {role: cpu - before.get(role, 0.0) for role, cpu in after.items()}
    million = 1e6 / spans
    parse = process_seconds(lambda: [ExportTraceServiceRequest.FromString(body) for body in bodies]) * million
    roles = ", ".join(f"{role} {cpu * million:.0f}" for role, cpu in sorted(used.items(), key=lambda item: -item[1]))
    total = sum(used.values()) * million
    return [
        Figure("payload", f"{spans:,} spans, {raw:,.0f} bytes each as protobuf, {SPANS_A_REQUEST} a request, gzip"),
        Figure("acked", f"{spans / acked:,.0f} spans/s"),
        Figure("acked and visible", f"{spans / visible:,.0f} spans/s"),
        Figure("CPU per million spans, whole tree", f"{total:.0f} s ({roles})"),
        Figure("the same, by protobuf's parse alone", f"{parse:.1f} s (the tree costs {total / parse:.1f} times that)"),
        Figure("bytes per span after upkeep", f"{(lake_bytes(server) - size) / spans:,.0f}"),
    ]


def process_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of a piece of work in this process."""
    began = time.process_time()
    work()
    return time.process_time() - began


def lake_bytes(server: Server) -> int:
    """Bytes of the active files of all tables."""
    tables = [DeltaTable(path) for path in (server.data / "lake").iterdir() if path.is_dir()]
    sizes = [pa.table(table.get_add_actions(flatten=True)).column("size_bytes") for table in tables]
    return sum(pc.sum(column).as_py() or 0 for column in sizes)


def wait_until_quiet(server: Server) -> None:
    """Wait until upkeep has nothing left to do."""
    table = server.data / "lake" / "records"
    version, since = -1, time.monotonic()
    while time.monotonic() - since < QUIET_S:
        now = DeltaTable(table).version()
        if now != version:
            version, since = now, time.monotonic()
        time.sleep(0.5)


def run() -> list[Figure]:
    """All figures of the spine."""
    with tempfile.TemporaryDirectory(prefix="tailrace-", ignore_cleanup_errors=True) as directory:
        figures = measure_start(Path(directory) / "start")
        with running(Path(directory) / "data") as server:
            figures += measure_freshness(server)
            wait_until_quiet(server)
            figures += measure_idle(server)
            figures += measure_cost(server)
    return figures
