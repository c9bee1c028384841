"""The intake: who may send, how much at once, and what reaches the log."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.payload import trace_request
from core.errors import DiskFull, Malformed, Overloaded, Unauthenticated
from core.ids import request_digest
from core.telemetry import Encoding, Signal
from pipelines.receive import intake as intake_module
from pipelines.receive.intake import FreeSpace, FreeSpaceLimit, Intake, Limits
from storage.log import LogSettings, LogWriter
from storage.log_reader import LogReader
from storage.segments import Record
from tests.doors import Disk, Gate

BODY = trace_request(1, 3)
NOW_NS = 1_795_000_000_000_000_000


class Stopped:
    """A clock that stands still."""

    def now_ns(self) -> int:
        return NOW_NS


class Kept:
    """A log in memory."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def append(self, record: Record) -> Future[int]:
        self.records.append(record)
        return Future()


def make(*, log: Kept | None = None, disk: Disk | None = None, inflight_bytes_max: int = 1_000) -> Intake:
    limits = Limits(inflight_bytes_max=inflight_bytes_max)
    return Intake(log or Kept(), Gate(), Stopped(), disk=disk or Disk(), limits=limits)


@pytest.mark.parametrize("spelling", ["tok", "Bearer tok", "bearer tok", "  BEARER   tok "])
def test_a_token_is_read_in_each_spelling(spelling: str) -> None:
    assert make().welcome(spelling) == "project-of-tok"


def test_nobody_is_let_in_without_leave_even_when_the_disk_is_full() -> None:
    with pytest.raises(Unauthenticated):
        make(disk=Disk(full=True)).welcome("bad")
    with pytest.raises(DiskFull):
        make(disk=Disk(full=True)).welcome("tok")
    assert make().welcome(None) == "project-of-None"


def test_what_is_admitted_is_in_the_log_when_its_future_is_done(tmp_path: Path) -> None:
    with LogWriter(tmp_path, LogSettings()) as log:
        intake = Intake(log, Gate(), Stopped(), disk=Disk())
        end = intake.admit("p", Signal.TRACES, Encoding.PROTOBUF, BODY).result(10)
        reader = LogReader(tmp_path)
        (frame,) = reader.read(reader.start, bytes_max=1 << 20)
        reader.close()
    assert (frame.end, frame.project_id, frame.signal, frame.encoding) == (end, "p", Signal.TRACES, Encoding.PROTOBUF)
    assert (frame.body, frame.received_ns) == (BODY, NOW_NS)
    assert frame.digest == request_digest("p", Signal.TRACES, BODY)


def test_an_empty_request_is_welcome_and_not_logged() -> None:
    log = Kept()
    assert make(log=log).admit("p", Signal.LOGS, Encoding.PROTOBUF, b"").result(0) == 0
    assert log.records == []


def test_a_malformed_body_never_reaches_the_log() -> None:
    log = Kept()
    with pytest.raises(Malformed):
        make(log=log).admit("p", Signal.LOGS, Encoding.PROTOBUF, b"hello")
    assert log.records == []


@given(st.lists(st.lists(st.integers(0, 400), max_size=5), max_size=6))
def test_rooms_never_take_more_than_the_limit_together_and_give_all_of_it_back(rooms: list[list[int]]) -> None:
    intake = make(inflight_bytes_max=1_000)
    taken, opened = 0, [(intake.room(), counts) for counts in rooms]
    for room, counts in opened:
        with_room = room.__enter__()
        for count in counts:
            if taken + count > 1_000 and count:
                with pytest.raises(Overloaded):
                    with_room.take(count)
            else:
                with_room.take(count)
                taken += count
    for room, _ in opened:
        room.__exit__(None, None, None)
    with intake.room() as whole:
        whole.take(1_000)


def test_rooms_are_counted_right_from_many_threads() -> None:
    intake = make(inflight_bytes_max=1_000_000)

    def use(_: int) -> None:
        for _ in range(200):
            with intake.room() as room:
                room.take(7)
                room.take(3)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, range(8)))
    with intake.room() as whole:
        whole.take(1_000_000)


class Usage(NamedTuple):
    free: int


def test_free_space_is_looked_at_once_a_second_and_names_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []
    free = {"log": 100 << 20, "lake": 100 << 20}
    now = 0.0

    def usage(path: Path) -> Usage:
        looks.append(path)
        return Usage(free[path.name])

    monkeypatch.setattr(intake_module.shutil, "disk_usage", usage)
    for name in free:
        (tmp_path / name).mkdir()
    limits = [FreeSpaceLimit(f"the {name}", tmp_path / name, 50 << 20) for name in free]
    space = FreeSpace(limits, lambda: now)
    space.check()
    free["lake"] = 49 << 20
    space.check()
    assert looks == [tmp_path / "log", tmp_path / "lake"]
    now += 1.0
    for _ in range(3):
        with pytest.raises(DiskFull, match="the lake has 49 MiB left and needs 50") as caught:
            space.check()
        assert caught.value.retry_after_s == intake_module.DISK_RETRY_S
    assert len(looks) == 4
    free["lake"] = 50 << 20
    now += 1.0
    space.check()


def test_a_store_that_is_not_there_yet_counts_by_its_parent(tmp_path: Path) -> None:
    FreeSpace([FreeSpaceLimit("the log", tmp_path / "data" / "log", 1)]).check()
    with pytest.raises(DiskFull, match="the log"):
        FreeSpace([FreeSpaceLimit("the log", tmp_path / "data" / "log", 1 << 62)]).check()
