"""The log's writer: what it acknowledges is on the disk, whatever is interrupted, full or killed."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from concurrent.futures import Future
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import BadSettings, DiskFull, Overloaded, Refused, TooLarge, Unavailable
from core.telemetry import Encoding, Frame, Signal
from storage import log as log_module
from storage import log_tail
from storage.failpoints import arm
from storage.log import LogWriter
from storage.log_reader import LogReader
from storage.segments import MARK_FILE, Record, segment_path, segment_starts
from storage.settings import LogSettings

PROJECT = "00000000-0000-4000-8000-000000000000"
SMALL = LogSettings(segment_bytes_max=4_096, bytes_max=16_384)


@pytest.fixture(autouse=True)
def disarmed() -> Generator[None]:
    yield
    arm("")


def record(number: int, size: int = 100) -> Record:
    body = number.to_bytes(8, "little") + Random(number).randbytes(max(0, size - 8))
    return Record(PROJECT, Signal.LOGS, Encoding.JSON, 1_795_000_000 + number, number.to_bytes(16, "big"), body)


def read_all(directory: Path) -> list[Frame]:
    reader = LogReader(directory)
    frames: list[Frame] = []
    at = reader.start
    while found := reader.read(at, bytes_max=1 << 20):
        frames += found
        at = found[-1].end
    reader.close()
    return frames


def numbers(directory: Path) -> list[int]:
    return [int.from_bytes(frame.digest, "big") for frame in read_all(directory)]


def write(directory: Path, *wanted: int, size: int = 100, settings: LogSettings = LogSettings()) -> list[int]:  # noqa: B008  # frozen
    """Append records one by one; returns their end positions."""
    with LogWriter(directory, settings) as log:
        return [log.append(record(number, size)).result() for number in wanted]


def test_what_was_appended_is_read_back_as_it_was(tmp_path: Path) -> None:
    records = [
        Record("p", Signal.TRACES, Encoding.PROTOBUF, 0, bytes(16), b""),
        Record("projekt-ä", Signal.METRICS, Encoding.JSON, 2**62, b"\xff" * 16, bytes(100_000)),
        record(3),
    ]
    with LogWriter(tmp_path, LogSettings()) as log:
        ends = [future.result() for future in [log.append(entry) for entry in records]]
        assert log.durable == log.end == log.bytes_kept == ends[-1]
    frames = read_all(tmp_path)
    found = [Record(f.project_id, f.signal, f.encoding, f.received_ns, f.digest, f.body) for f in frames]
    assert found == records
    assert [frame.end for frame in frames] == ends
    assert [frame.position for frame in frames] == [0, *ends[:-1]]


def test_a_log_keeps_its_id(tmp_path: Path) -> None:
    ids: set[str | None] = set()
    for _ in range(2):
        with LogWriter(tmp_path, LogSettings()) as log:
            ids |= {log.log_id, LogReader(tmp_path).log_id}
    assert len(ids) == 1


def test_a_log_without_its_id_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (tmp_path / "log.json").unlink()
    with pytest.raises(Refused, match=r"log\.json is missing"):
        LogWriter(tmp_path, LogSettings())


def test_a_second_writer_is_refused_until_the_first_is_closed(tmp_path: Path) -> None:
    with LogWriter(tmp_path, LogSettings()), pytest.raises(Refused, match="Another process is writing the log"):
        LogWriter(tmp_path, LogSettings())
    LogWriter(tmp_path, LogSettings()).close()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="cannot be written"):
        LogWriter(tmp_path / "file" / "log", LogSettings())


def test_limits_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="two segments"):
        LogWriter(tmp_path, LogSettings(segment_bytes_max=100, bytes_max=199))


def test_a_torn_tail_is_cut_off_at_every_byte(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, kept, end = write(tmp_path, 1, 2, 3, size=20)
    path = segment_path(tmp_path, 0)
    whole = path.read_bytes()
    (tmp_path / MARK_FILE).unlink()
    for cut in range(kept, end):
        path.write_bytes(whole[:cut])
        assert write(tmp_path, 4, size=20) == [end]
        assert numbers(tmp_path) == [1, 2, 4]
    assert "cut 1 bytes off the log" in caplog.text


@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_garbled_tail_costs_nothing_before_the_fault(tmp_path: Path, data: st.DataObject) -> None:
    directory = tmp_path / str(len(list(tmp_path.iterdir())))
    ends = [0, *write(directory, *range(8), size=40)]
    (directory / MARK_FILE).unlink()
    path = segment_path(directory, 0)
    whole = path.read_bytes()
    content = bytearray(whole)
    place = data.draw(st.integers(0, len(content) - 1), "place")
    match data.draw(st.sampled_from(["flip", "zeros", "cut", "noise"]), "fault"):
        case "flip":
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        case "zeros":
            content[place:] = bytes(len(content) - place)
        case "cut":
            del content[place:]
        case _:
            content[place:] = bytes([content[place] ^ 0xFF]) + data.draw(st.binary(max_size=200))
    path.write_bytes(content)
    same = next((at for at, (a, b) in enumerate(zip(whole, content, strict=False)) if a != b), len(content))
    good = max(number for number, end in enumerate(ends) if end <= same)
    write(directory, 100)
    assert numbers(directory) == [*range(good), 100]


@pytest.mark.parametrize("mark", [None, b"", bytes(24), b"\xff" * 24], ids=["missing", "empty", "stale", "too high"])
def test_the_durable_mark_is_made_anew_on_open(mark: bytes | None, tmp_path: Path) -> None:
    *_, end = write(tmp_path, 1, 2)
    (tmp_path / MARK_FILE).unlink()
    if mark is not None:
        (tmp_path / MARK_FILE).write_bytes(mark)
    LogWriter(tmp_path, LogSettings()).close()
    reader = LogReader(tmp_path)
    assert reader.durable == end
    assert reader.log_id is not None


def test_senders_in_many_threads_each_get_their_own_position(tmp_path: Path) -> None:
    acked: dict[int, int] = {}

    def send(log: LogWriter, first: int) -> None:
        for number in range(first, first + 50):
            acked[log.append(record(number, size=number % 300)).result()] = number

    with LogWriter(tmp_path, LogSettings(segment_bytes_max=10_000)) as log:
        threads = [threading.Thread(target=send, args=(log, sender * 50)) for sender in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    frames = read_all(tmp_path)
    assert len(acked) == len(frames) == 600
    for frame in frames:
        assert frame.body == record(acked[frame.end], size=acked[frame.end] % 300).body


def test_close_writes_what_is_queued(tmp_path: Path) -> None:
    log = LogWriter(tmp_path, LogSettings())
    futures = [log.append(record(number)) for number in range(100)]
    log.close()
    assert all(future.done() and not future.exception() for future in futures)
    assert numbers(tmp_path) == list(range(100))
    with pytest.raises(Unavailable, match="stopping"):
        log.append(record(1))


def test_a_group_longer_than_the_system_takes_at_once_is_written_whole(tmp_path: Path) -> None:
    with LogWriter(tmp_path, LogSettings()) as log:
        futures = [log.append(record(number, size=8)) for number in range(3 * log_tail.IOV_MAX)]
        assert len({future.result() for future in futures}) == 3 * log_tail.IOV_MAX
    assert numbers(tmp_path) == list(range(3 * log_tail.IOV_MAX))


def test_a_write_that_stops_early_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(file: int, buffers: list[bytes]) -> int:
        return os.write(file, b"".join(buffers)[:7])

    monkeypatch.setattr(log_tail.os, "writev", short)
    write(tmp_path, 1, 2, 3)
    assert numbers(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("place", ["log.segment_write", "log.before_sync", "log.after_sync"])
def test_a_full_disk_leaves_a_clean_log_and_passes(place: str, tmp_path: Path) -> None:
    with LogWriter(tmp_path, LogSettings()) as log:
        end = log.append(record(1)).result()
        arm(f"{place}=enospc")
        futures = [log.append(record(number)) for number in range(2, 20)]
        assert all(isinstance(future.exception(), DiskFull) for future in futures)
        assert log.durable == log.end == segment_path(tmp_path, 0).stat().st_size == end
        arm("")
        log.append(record(20)).result()
    assert numbers(tmp_path) == [1, 20]


def test_a_file_that_cannot_be_mended_is_mended_by_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with LogWriter(tmp_path, LogSettings()) as log:
        log.append(record(1)).result()
        with monkeypatch.context() as broken:
            for name in ("fdatasync", "ftruncate"):
                broken.setattr(log_tail.os, name, fail)
            for number in (2, 3):
                with pytest.raises(Unavailable, match="Input/output error"):
                    log.append(record(number)).result()
        log.append(record(4)).result()
    assert numbers(tmp_path) == [1, 4]


def test_a_segment_that_cannot_be_begun_is_begun_by_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with LogWriter(tmp_path, SMALL) as log:
        log.append(record(1, size=3_000)).result()
        with monkeypatch.context() as broken:
            broken.setattr(log_tail, "sync_directory", fail)
            with pytest.raises(DiskFull):
                log.append(record(2, size=3_000)).result()
        log.append(record(3, size=10)).result()  # it would have fitted the old segment
    assert numbers(tmp_path) == [1, 3]


def test_segments_roll_and_never_split_a_frame(tmp_path: Path) -> None:
    ends = write(tmp_path, *range(40), size=900, settings=LogSettings(segment_bytes_max=4_096))
    starts = segment_starts(tmp_path)
    assert set(starts[1:]) < set(ends)
    assert [following - start for start, following in pairwise(starts)] == [4 * ends[0]] * 9
    assert numbers(tmp_path) == list(range(40))


def test_a_frame_longer_than_a_segment_gets_one_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, 1, size=100, settings=SMALL)
    ends = write(tmp_path, 2, size=8_000, settings=SMALL) + write(tmp_path, 3, size=100, settings=SMALL)
    assert segment_starts(tmp_path)[1:] == [ends[0] - 8_000 - 76, ends[0]]
    assert numbers(tmp_path) == [1, 2, 3]


def test_a_full_log_refuses_until_it_is_trimmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "RELIST_INTERVAL_S", 0.0)

    def fill(log: LogWriter) -> None:
        for number in range(100):
            log.append(record(number, size=900)).result()

    with LogWriter(tmp_path, SMALL) as log:
        with pytest.raises(Overloaded, match="The log is full") as refusal:
            fill(log)
        assert refusal.value.retry_after_s == 5
        assert SMALL.bytes_max - 1_000 < log.bytes_kept <= SMALL.bytes_max
        LogReader(tmp_path).trim(log.durable)
        assert log.start == segment_starts(tmp_path)[0] > 0
        log.append(record(1_000, size=900)).result()
    assert numbers(tmp_path)[-1] == 1_000


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A disk that finishes nothing before this event is set."""
    free, fdatasync = threading.Event(), os.fdatasync

    def slow(file: int) -> None:
        free.wait()
        fdatasync(file)

    monkeypatch.setattr(log_tail.os, "fdatasync", slow)
    return free


def test_a_full_queue_refuses_and_recovers(
    tmp_path: Path, disk: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "QUEUE_BYTES_MAX", 2_000)
    with LogWriter(tmp_path, LogSettings()) as log:
        futures: list[Future[int]] = []
        with pytest.raises(Overloaded, match="waiting for the disk"):
            futures.extend(log.append(record(number, size=500)) for number in range(10))
        with pytest.raises(TooLarge):
            log.append(record(10, size=2_000))
        disk.set()
        for future in futures:
            future.result()
        log.append(record(11, size=500)).result()
    assert numbers(tmp_path) == [*range(len(futures)), 11]


def occupy(log: LogWriter) -> Future[int]:
    """Append record 1 and wait until it is being written."""
    first = log.append(record(1))
    while not first.running():
        threading.Event().wait(0.001)
    return first


def test_a_cancelled_sender_does_not_stop_the_others(tmp_path: Path, disk: threading.Event) -> None:
    with LogWriter(tmp_path, LogSettings()) as log:
        first = occupy(log)
        cancelled, last = log.append(record(2)), log.append(record(3))
        assert cancelled.cancel()
        assert not first.cancel()
        disk.set()
        assert first.result() < last.result() == log.end == log.durable
    assert numbers(tmp_path) == [1, 3]


def test_the_log_waits_for_as_many_senders_as_last_time_and_no_longer(tmp_path: Path, disk: threading.Event) -> None:
    forever = LogSettings(linger_s=3_600)
    with LogWriter(tmp_path, forever) as log:
        occupy(log)
        together = [log.append(record(2)), log.append(record(3))]
        disk.set()
        assert [future.result() for future in together]
        again = [log.append(record(4)), log.append(record(5))]
        assert [future.result() for future in again]
        log.append(record(6))  # left waiting for company; close sends it off
    with LogWriter(tmp_path, forever) as log:
        for number in (7, 8, 9):
            log.append(record(number)).result()  # alone, it waits for nobody
    assert numbers(tmp_path) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


SENDERS = """
import os, sys, threading
from pathlib import Path
sys.path[:0] = sys.argv[4:]
from core.telemetry import Encoding, Signal
from storage.failpoints import arm
from storage.log import LogWriter
from storage.settings import LogSettings
from storage.segments import Record

first, failpoints = int(sys.argv[2]), sys.argv[3]
log = LogWriter(Path(sys.argv[1]), LogSettings(segment_bytes_max=50_000))
arm(failpoints)

def send(sender):
    for number in range(first + sender, first + 1_000_000, 8):
        body = bytes([number % 256]) * (number % 3_000)
        log.append(Record("p", Signal.LOGS, Encoding.JSON, 1, number.to_bytes(16, "big"), body)).result()
        os.write(1, b"%d\\n" % number)

for sender in range(8):
    threading.Thread(target=send, args=(sender,)).start()
"""


def lives(directory: Path, first: int, failpoints: str, acks: int | None) -> set[int]:
    """Run senders in a process until it has told of so many acks and is killed, or kills itself; returns the acked."""
    root = str(Path(log_module.__file__).parents[1])
    command = [sys.executable, "-c", SENDERS, str(directory), str(first), failpoints, root]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        acked: set[int] = set()
        for line in child.stdout:
            acked.add(int(line))
            if len(acked) == acks:
                child.kill()
    assert child.returncode == -signal.SIGKILL
    return acked


def test_what_a_killed_writer_acknowledged_is_kept(tmp_path: Path) -> None:
    acked: set[int] = set()
    for life, (failpoints, acks) in enumerate([("", 700), ("log.segment_write=kill@60", None), ("", 400)]):
        acked |= lives(tmp_path, life * 1_000_000, failpoints, acks)
        LogWriter(tmp_path, LogSettings()).close()
        frames = read_all(tmp_path)
        found = [int.from_bytes(frame.digest, "big") for frame in frames]
        assert len(found) == len(set(found))
        assert acked <= set(found)
        assert len(acked) > 400 * life
        for frame, number in zip(frames, found, strict=True):
            assert frame.body == bytes([number % 256]) * (number % 3_000)
