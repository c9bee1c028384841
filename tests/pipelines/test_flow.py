"""The flow on a real log and real tables: every request once, whatever the clock says and wherever the log was torn."""

import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from deltalake import DeltaTable

from benchmarks.payload import log_request, trace_request
from core.clock import NS_PER_S
from core.errors import Refused
from core.ids import request_digest
from core.telemetry import Encoding, Signal
from pipelines.commit import Epoch
from pipelines.flow import FlowHooks, run_flow
from pipelines.settings import FlowSettings
from storage.log import LogWriter
from storage.log_reader import LogReader
from storage.segments import Record
from storage.settings import LogSettings

PROJECT = "00000000-0000-4000-8000-000000000000"
FAST = FlowSettings(commit_interval_quiet_s=0.05, commit_interval_loaded_s=0.05)
HOUR_NS = 3600 * NS_PER_S


@dataclass
class Clock:
    ns: int = 1_795_600_000_000_000_000

    def now_ns(self) -> int:
        return self.ns


@dataclass
class Place:
    """A log and a lake in a directory."""

    directory: Path
    clock: Clock = field(default_factory=Clock)

    def log(self) -> LogWriter:
        return LogWriter(self.directory / "log", LogSettings(segment_bytes_max=4_000, bytes_max=1 << 20))

    def append(self, log: LogWriter, body: bytes, signal: Signal = Signal.TRACES) -> int:
        digest = request_digest(PROJECT, signal, body)
        record = Record(PROJECT, signal, Encoding.PROTOBUF, self.clock.now_ns(), digest, body)
        return log.append(record).result(10)

    def run(self, *, until: int) -> None:
        """Run the flow until the tables have a log position."""
        stop = threading.Event()

        def on_epoch(epoch: Epoch, versions: dict[str, int]) -> None:
            assert set(versions) == {"records", "pending_spans", "metrics", "dead_letters"}
            if epoch.progress.end >= until:
                stop.set()

        hooks = FlowHooks(lambda progress: stop.set() if progress.end >= until else None, on_epoch, stop)
        run_flow(self.directory / "log", self.directory / "lake", FAST, self.clock, hooks=hooks)

    def column(self, name: str) -> list[object]:
        return list(DeltaTable(self.directory / "lake" / "records").to_pyarrow_table()[name].to_pylist())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_every_request_is_stored_once_over_restarts(place: Place) -> None:
    with place.log() as log:
        for part in range(3):
            end = 0
            for seed in range(4):
                end = place.append(log, trace_request(part * 10 + seed, 3))
                place.append(log, trace_request(part * 10 + seed, 3))  # a client's retry after a lost answer
            end = place.append(log, log_request(part, 2), Signal.LOGS)
            place.run(until=end)
    ids = place.column("span_id")
    assert len(ids) == len(set(ids)) == 3 * (4 * 3 + 2)


def test_a_repeat_is_known_after_a_restart_too(place: Place) -> None:
    with place.log() as log:
        place.run(until=place.append(log, trace_request(1, 3)))
    with place.log() as log:
        place.append(log, trace_request(1, 3))
        place.run(until=place.append(log, trace_request(2, 3)))
    assert len(place.column("span_id")) == 6


def test_a_clock_that_goes_back_an_hour_loses_and_doubles_nothing(place: Place) -> None:
    with place.log() as log:
        place.run(until=place.append(log, trace_request(1, 3)))
        place.clock.ns -= HOUR_NS
        place.append(log, trace_request(1, 3))
        place.run(until=place.append(log, trace_request(2, 3)))
        place.clock.ns += 2 * HOUR_NS
        place.run(until=place.append(log, trace_request(3, 3)))
    ids = place.column("span_id")
    assert len(ids) == len(set(ids)) == 9


def test_a_torn_tail_is_cut_off_and_what_was_acked_is_stored(place: Place) -> None:
    with place.log() as log:
        end = place.append(log, trace_request(1, 3))
    newest = max((place.directory / "log").glob("*.log"), key=lambda path: path.name, default=None)
    assert newest is not None, list((place.directory / "log").iterdir())
    with newest.open("ab") as file:
        file.write(b"\x00\x00\x01\x00torn in the middle of a frame")
    with place.log() as log:
        assert log.end == end
        place.run(until=place.append(log, trace_request(2, 3)))
    assert len(place.column("span_id")) == 6


def test_tables_with_an_older_copy_of_their_log_are_refused(place: Place) -> None:
    with place.log() as log:
        place.append(log, trace_request(1, 3))
    shutil.copytree(place.directory / "log", place.directory / "backup")
    with place.log() as log:
        place.run(until=place.append(log, trace_request(2, 3)))
    shutil.rmtree(place.directory / "log")
    (place.directory / "backup").rename(place.directory / "log")
    with place.log(), pytest.raises(Refused, match="Restore"):
        place.run(until=1)


def test_a_new_log_goes_on_where_the_tables_are(place: Place) -> None:
    with place.log() as log:
        place.run(until=place.append(log, trace_request(1, 3)))
    shutil.rmtree(place.directory / "log")
    with place.log() as log:
        place.run(until=place.append(log, trace_request(2, 3)))
    assert len(place.column("span_id")) == 6


def test_what_every_table_has_is_trimmed_from_the_log(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.flow.TRIM_INTERVAL_S", 0.0)
    with place.log() as log:
        for seed in range(12):
            place.run(until=place.append(log, trace_request(seed, 3)))
        reader = LogReader(place.directory / "log")
        assert reader.start > 0
        assert log.bytes_kept < 12 * len(trace_request(1, 3))
        place.append(log, trace_request(0, 3))  # its frame is trimmed, its digest is kept
        place.run(until=place.append(log, trace_request(99, 3)))
        reader.close()
    assert len(place.column("span_id")) == 13 * 3
