"""The log's reader: only what is durable, from any process, and damage is told."""

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inline_snapshot import snapshot

from core.errors import Refused
from core.telemetry import Encoding, Frame, Signal
from storage import log_reader as log_reader_module
from storage import segments
from storage.log import LogWriter
from storage.log_reader import LogReader
from storage.segments import LogDamaged, Record, pack, read_head, seal, segment_path, segment_starts
from storage.settings import LogSettings

SMALL = LogSettings(segment_bytes_max=4_096)


def record(number: int, size: int) -> Record:
    return Record(
        "p", Signal.TRACES, Encoding.PROTOBUF, number, number.to_bytes(16, "big"), Random(number).randbytes(size)
    )


def fill(directory: Path, *sizes: int, settings: LogSettings = SMALL) -> list[int]:
    """A log of bodies of these sizes; returns where its frames begin, and where the last one ends."""
    with LogWriter(directory, settings) as log:
        return [log.end, *[log.append(record(number, size)).result() for number, size in enumerate(sizes)]]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    directory = tmp_path_factory.mktemp("log")
    random = Random(1)
    return directory, fill(directory, *[random.choice([0, 10, 500, 3_000, 9_000]) for _ in range(60)])


@given(st.integers(0, 59), st.integers(0, 40_000), st.none() | st.integers(0, 200_000))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_read_gives_the_whole_frames_that_fit_and_at_least_one(
    filled: tuple[Path, list[int]], first: int, bytes_max: int, until: int | None
) -> None:
    directory, places = filled
    reader = LogReader(directory)
    frames = reader.read(places[first], until=until, bytes_max=bytes_max)
    reader.close()
    limit = places[-1] if until is None else until
    fitting = [end for end in places[first + 1 :] if end <= min(limit, places[first] + bytes_max)]
    expected = fitting or [end for end in places[first + 1 : first + 2] if end <= limit]
    assert [frame.end for frame in frames] == expected
    assert [frame.position for frame in frames] == places[first : first + len(expected)]
    assert all(frame.body == record(frame.received_ns, len(frame.body)).body for frame in frames)


@given(st.integers(0, 60), st.integers(0, 200_000))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_headers_are_those_of_the_whole_frames(filled: tuple[Path, list[int]], first: int, until: int) -> None:
    directory, places = filled
    reader = LogReader(directory)
    heads = [(head.position, head.end, head.digest, head.received_ns) for head in reader.headers(places[first], until)]
    reader.close()
    assert heads == [
        (places[number], places[number + 1], number.to_bytes(16, "big"), number)
        for number in range(first, 60)
        if places[number + 1] <= until
    ]


def test_long_frames_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "READ_BYTES", 50)
    monkeypatch.setattr(segments, "HEADS_READ_BYTES", 60)
    places = fill(tmp_path, 0, 1_000, 3, 20_000, 5)
    reader = LogReader(tmp_path)
    assert [frame.end for frame in reader.read(0, bytes_max=1 << 20)] == places[1:]
    assert [head.end for head in reader.headers(0, 1 << 20)] == places[1:]
    reader.close()


def test_a_reader_may_come_before_the_writer(tmp_path: Path) -> None:
    reader = LogReader(tmp_path / "log")
    assert (reader.log_id, reader.start, reader.durable) == (None, 0, 0)
    assert reader.read(0, bytes_max=1) == []
    with LogWriter(tmp_path / "log", SMALL) as log:
        assert reader.log_id == log.log_id
        for number in range(30):  # through several segments
            log.append(record(number, 700)).result()
            (frame,) = reader.read(reader.durable - 741, bytes_max=1 << 20)
            assert (frame.received_ns, frame.end) == (number, log.durable)
    assert len(segment_starts(tmp_path / "log")) > 3
    reader.close()


def test_a_mark_from_before_the_machine_booted_waits_for_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, 10)
    (tmp_path / "boot_id").write_text("00000000-0000-4000-8000-000000000001\n")
    monkeypatch.setattr(segments, "BOOT_ID_FILE", tmp_path / "boot_id")
    reader = LogReader(tmp_path)
    assert reader.log_id is None
    with LogWriter(tmp_path, SMALL) as log:
        assert reader.log_id == log.log_id
    reader.close()


KILLED_BEFORE_SYNC = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from core.telemetry import Encoding, Signal
from storage.failpoints import arm
from storage.log import LogWriter
from storage.settings import LogSettings
from storage.segments import Record

log = LogWriter(Path(sys.argv[1]), LogSettings())
arm("log.before_sync=kill@2")
for number in range(2):
    log.append(Record("p", Signal.LOGS, Encoding.JSON, number, bytes(16), bytes(100))).result()
"""


def test_a_reader_in_another_process_sees_durable_frames_only(tmp_path: Path) -> None:
    root = str(Path(segments.__file__).parents[1])
    subprocess.run([sys.executable, "-c", KILLED_BEFORE_SYNC, str(tmp_path), root], check=False)
    reader = LogReader(tmp_path)
    assert segment_path(tmp_path, 0).stat().st_size == 2 * reader.durable
    assert [frame.received_ns for frame in reader.read(0, bytes_max=1 << 20)] == [0]
    assert [head.received_ns for head in reader.headers(0, 1 << 20)] == [0]
    LogWriter(tmp_path, SMALL).close()
    assert [frame.received_ns for frame in reader.read(0, bytes_max=1 << 20)] == [0, 1]
    reader.close()


def test_trimming_drops_whole_segments_below_and_never_the_newest(tmp_path: Path) -> None:
    end = fill(tmp_path, *[900] * 20)[-1]
    reader = LogReader(tmp_path)
    _, second, third, *_, newest = segment_starts(tmp_path)
    assert not reader.trimmable(second - 1)
    reader.trim(second - 1)
    assert reader.start == 0
    assert reader.trimmable(third + 1)
    reader.trim(third + 1)
    assert reader.start == third
    assert reader.read(third, bytes_max=1)[0].position == third
    with pytest.raises(Refused, match=f"was trimmed: the log begins at {third} now"):
        reader.read(0, bytes_max=1)
    reader.trim(end)
    assert reader.start == newest
    assert not reader.trimmable(end)
    reader.close()


def test_a_segment_trimmed_by_another_reader_is_refused_by_name(tmp_path: Path) -> None:
    end = fill(tmp_path, *[900] * 20)[-1]
    reader = LogReader(tmp_path)
    reader.read(end - 941, bytes_max=1)  # so that it has seen the old list
    LogReader(tmp_path).trim(end)
    with pytest.raises(Refused, match="was trimmed"):
        reader.read(0, bytes_max=1)
    reader.close()


def test_a_position_beyond_the_durable_end_is_refused(tmp_path: Path) -> None:
    end = fill(tmp_path, 10)[-1]
    reader = LogReader(tmp_path)
    assert reader.read(end, bytes_max=1) == []
    with pytest.raises(Refused, match=f"{end + 1} is beyond the durable end of the log, {end}"):
        reader.read(end + 1, bytes_max=1)
    reader.close()


def test_only_so_many_segments_are_kept_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reader_module, "OPEN_SEGMENTS_MAX", 2)
    places = fill(tmp_path, *[3_000] * 6)
    reader = LogReader(tmp_path)
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    for place in [*places[:-1], *places[:-1]]:
        assert reader.read(place, bytes_max=1)[0].position == place
        assert len(list(descriptors.iterdir())) <= before + 2 + 1  # the mark's mapping has none
    reader.close()


@pytest.mark.parametrize("place", [5, 40, 200])
def test_a_fault_in_a_sealed_segment_is_told_after_the_frames_before_it(place: int, tmp_path: Path) -> None:
    places = fill(tmp_path, *[900] * 20)
    path = segment_path(tmp_path, segment_starts(tmp_path)[2])
    content = bytearray(path.read_bytes())
    damaged = places.index(int(path.stem)) + 1
    content[places[damaged] - places[damaged - 1] + place] ^= 1
    path.write_bytes(content)
    reader = LogReader(tmp_path)
    assert [frame.end for frame in reader.read(0, bytes_max=1 << 20)] == places[1 : damaged + 1]
    with pytest.raises(LogDamaged, match="The log is damaged at position") as told:
        reader.read(places[damaged], bytes_max=1 << 20)
    assert told.value.position == places[damaged]
    reader.close()


@pytest.mark.parametrize("cut", [0, 1, 500, 1_000])
def test_a_sealed_segment_that_ends_early_is_told(cut: int, tmp_path: Path) -> None:
    places = fill(tmp_path, *[900] * 20)
    starts = segment_starts(tmp_path)
    with segment_path(tmp_path, starts[1]).open("r+b") as file:
        file.truncate(cut)
    good = max(place for place in places if place <= starts[1] + cut)
    reader = LogReader(tmp_path)
    assert reader.read(0, bytes_max=1 << 20)[-1].end == good
    for read in (lambda: reader.read(good, bytes_max=1 << 20), lambda: list(reader.headers(good, places[-1]))):
        with pytest.raises(LogDamaged) as told:
            read()
        assert told.value.position == good
    reader.close()


def test_a_missing_segment_is_told(tmp_path: Path) -> None:
    places = fill(tmp_path, *[900] * 20)
    gone = segment_starts(tmp_path)[2]
    segment_path(tmp_path, gone).unlink()
    reader = LogReader(tmp_path)
    assert reader.read(0, bytes_max=1 << 20)[-1].end == gone
    with pytest.raises(LogDamaged, match="not in the log's files"):
        reader.read(gone, bytes_max=1 << 20)
    assert gone in places
    reader.close()


def test_a_position_within_a_frame_is_told(tmp_path: Path) -> None:
    fill(tmp_path, 100)
    reader = LogReader(tmp_path)
    with pytest.raises(LogDamaged, match="no frame begins there"):
        reader.read(7, bytes_max=1 << 20)
    reader.close()


def test_a_frame_of_a_newer_format_is_refused_and_never_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(segments, "FRAME_FORMAT", 2)
        end = fill(tmp_path, 10)[-1]
    reader = LogReader(tmp_path)
    with pytest.raises(Refused, match="newer Tailrace"):
        reader.read(0, bytes_max=1)
    with pytest.raises(Refused, match="newer Tailrace"):
        LogWriter(tmp_path, SMALL)
    assert segment_path(tmp_path, 0).stat().st_size == end
    reader.close()


@given(
    st.builds(
        Record, st.text(max_size=60), st.sampled_from(Signal), st.sampled_from(Encoding),
        st.integers(0, 2**63 - 1), st.binary(min_size=16, max_size=16), st.binary(max_size=300),
    ),
    st.integers(0, 2**62),
)  # fmt: skip
def test_a_frame_is_read_at_its_own_position_and_nowhere_else(original: Record, position: int) -> None:
    data = seal(pack(original), position) + original.body
    assert segments.read_frames(data, position) == [
        Frame(
            position, position + len(data), original.project_id, original.signal, original.encoding,
            original.received_ns, original.digest, original.body,
        )
    ]  # fmt: skip
    with pytest.raises(LogDamaged):
        read_head(data, 0, position + 1)
    assert segments.read_frames(data[:-1], position) == []


def test_the_format_on_disk_stays_as_it_was_decided() -> None:
    head = seal(
        pack(Record("p1", Signal.METRICS, Encoding.JSON, 0x0102030405060708, bytes(range(16)), b"{}")), 1 << 40 | 77
    )
    assert head.hex(" ", -4) == snapshot(
        "951ada86 02000000 43bfa6a3 01020102 08070605 04030201 00010203 04050607 08090a0b 0c0d0e0f 7031"
    )
