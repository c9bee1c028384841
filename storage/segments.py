"""The log on disk: frames in segment files, the durable mark, the log's id (docs/decisions/0001-the-log.md).

A position is a byte offset in the whole log. A segment is a file named by the position of its first byte; a
frame never spans two. Nothing here knows of threads: storage/log.py writes, storage/log_reader.py reads.
"""

import json
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self
from zlib import crc32

from core.errors import Refused
from core.telemetry import Encoding, Frame, Signal

FRAME_FORMAT = 1
READ_BYTES = 4 << 20
"""Bytes read at a time; a longer frame is read whole, by itself."""
HEADS_READ_BYTES = 256 << 10
"""Bytes read at a time for the heads alone: long bodies are skipped."""
SEGMENT_SUFFIX = ".log"
POSITION_DIGITS = 20
LOG_ID_FILE = "log.json"
MARK_FILE = "durable"
BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")

_CRC = struct.Struct("<I")
_HEAD = struct.Struct("<IIBBBBq16s")  # behind the head's crc: see the decision, "A frame"
HEAD_BYTES = _CRC.size + _HEAD.size
_SIGNALS = (Signal.TRACES, Signal.LOGS, Signal.METRICS)
_ENCODINGS = (Encoding.PROTOBUF, Encoding.JSON)
_SIGNAL_CODES = {signal: code for code, signal in enumerate(_SIGNALS)}
_ENCODING_CODES = {encoding: code for code, encoding in enumerate(_ENCODINGS)}


class LogDamaged(Refused):
    """A part of the log that was once durable can no longer be read."""

    def __init__(self, position: int, fault: str) -> None:
        super().__init__(
            f"The log is damaged at position {position}: {fault}. What stands before it is good; restore the log from"
            " a backup, or see docs/operations.md, Restore"
        )
        self.position = position
        """Where the unreadable frame begins."""


@dataclass(frozen=True, slots=True)
class Record:
    """One accepted request on its way into the log: a Frame without its place."""

    project_id: str
    """At most 255 bytes of UTF-8."""
    signal: Signal
    encoding: Encoding
    received_ns: int
    digest: bytes
    """16 bytes: core.ids.request_digest."""
    body: bytes


class Head(NamedTuple):
    """All of a frame but its body."""

    position: int
    end: int
    project_id: str
    signal: Signal
    encoding: Encoding
    received_ns: int
    digest: bytes
    body_bytes: int
    body_crc: int


def pack(record: Record) -> bytes:
    """The head of a record but for its first field, which depends on the position: see `seal`."""
    project = record.project_id.encode()
    return (
        _HEAD.pack(
            len(record.body), crc32(record.body), FRAME_FORMAT, _SIGNAL_CODES[record.signal],
            _ENCODING_CODES[record.encoding], len(project), record.received_ns, record.digest,
        ) + project
    )  # fmt: skip


def seal(head: bytes, position: int) -> bytes:
    """The whole head at its position: what `pack` made, behind its crc."""
    return _CRC.pack(crc32(head, position & 0xFFFF_FFFF)) + head


def read_head(data: bytes, offset: int, position: int) -> Head | None:
    """The head at an offset of data, which stands at `position` of the log; None when the data ends within it.

    Raises LogDamaged when no frame begins there, Refused when a newer Tailrace wrote it.
    """
    start = offset + HEAD_BYTES
    if len(data) < start:
        return None
    (crc,) = _CRC.unpack_from(data, offset)
    body_bytes, body_crc, form, signal, encoding, project_bytes, received_ns, digest = _HEAD.unpack_from(
        data, offset + _CRC.size
    )
    stop = start + project_bytes
    if len(data) < stop:
        return None
    if crc32(data[offset + _CRC.size : stop], position & 0xFFFF_FFFF) != crc:
        raise LogDamaged(position, "no frame begins there, or its head does not match its checksum")
    if form != FRAME_FORMAT or signal >= len(_SIGNALS) or encoding >= len(_ENCODINGS):
        raise Refused(f"The frame at log position {position} was written by a newer Tailrace; upgrade this one")
    return Head(
        position, position + stop - offset + body_bytes, data[start:stop].decode(), _SIGNALS[signal],
        _ENCODINGS[encoding], received_ns, digest, body_bytes, body_crc,
    )  # fmt: skip


def read_frames(data: bytes, position: int) -> list[Frame]:
    """The whole frames at the beginning of data, which stands at `position` of the log.

    Faults are raised as in `read_head`, but only at the first frame: the good ones before a fault are returned.
    """
    frames: list[Frame] = []
    offset = 0
    try:
        while (head := read_head(data, offset, position + offset)) is not None:
            end = head.end - position
            if end > len(data):
                break
            body = data[end - head.body_bytes : end]
            if crc32(body) != head.body_crc:
                raise LogDamaged(head.position, "the frame's body does not match its checksum")
            frames.append(
                Frame(
                    head.position, head.end, head.project_id, head.signal, head.encoding, head.received_ns,
                    head.digest, body,
                )
            )  # fmt: skip
            offset = end
    except Refused:
        if not frames:
            raise
    return frames


class Segment:
    """A segment file, open for reading."""

    def __init__(self, path: Path) -> None:
        self.start = int(path.stem)
        self._file = os.open(path, os.O_RDONLY)

    @property
    def end(self) -> int:
        """Position behind its last byte, whole frame or not."""
        return self.start + os.fstat(self._file).st_size

    def frames(self, position: int, stop: int) -> list[Frame]:
        """The next whole frames of [position, stop), about READ_BYTES of them; none only when there is none."""
        data = self._read(position, min(stop - position, READ_BYTES))
        frames = read_frames(data, position)
        if not frames and (head := read_head(data, 0, position)) is not None and head.end <= stop:
            frames = read_frames(self._read(position, head.end - position), position)
        return frames

    def heads(self, position: int, stop: int) -> Iterator[Head]:
        """The heads of the whole frames of [position, stop)."""
        begun = -1
        while begun < position < stop:
            begun = position
            data = self._read(position, min(stop - position, HEADS_READ_BYTES))
            while (head := read_head(data, position - begun, position)) is not None and head.end <= stop:
                yield head
                position = head.end

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, position: int, size: int) -> bytes:
        return os.pread(self._file, size, position - self.start)


class DurableMark:
    """The position below which everything is on the disk: a number shared between processes through a mapped file.

    The number outlives the death of its writer, as the page cache does, but not always the death of the machine; so
    it is kept with the id of the boot it was written in, and `current` says whether that is this one.
    """

    _SIZE = 24

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if create and not (path.exists() and path.stat().st_size == self._SIZE):
            replace_file(path, lambda file: file.write(bytes(self._SIZE)))
        with path.open("r+b" if create else "rb") as file:
            access = mmap.ACCESS_WRITE if create else mmap.ACCESS_READ
            self._map = mmap.mmap(file.fileno(), self._SIZE, access=access)
        self._words = memoryview(self._map).cast("Q")  # one aligned store each: never seen half written

    @property
    def position(self) -> int:
        """The last published position."""
        return self._words[0]

    @property
    def current(self) -> bool:
        """Whether it was published since the machine booted."""
        return self._map[8:] == boot_id()

    def publish(self, position: int) -> None:
        """Let everyone see a new position."""
        self._words[0] = position

    def open(self, position: int) -> None:
        """Publish the first position of a writer."""
        self.publish(position)
        self._map[8:] = boot_id()

    def close(self) -> None:
        """Give the file back."""
        self._words.release()
        self._map.close()


def boot_id() -> bytes:
    """16 bytes that change when the machine boots; zeros where the system does not tell."""
    try:
        return bytes.fromhex(BOOT_ID_FILE.read_text().strip().replace("-", ""))
    except OSError:
        return bytes(16)


def segment_path(directory: Path, start: int) -> Path:
    """The file of the segment that begins at a position."""
    return directory / f"{start:0{POSITION_DIGITS}}{SEGMENT_SUFFIX}"


def segment_starts(directory: Path) -> list[int]:
    """Where the segments in a directory begin, in order; empty when there is no such directory."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    stems = [name.removesuffix(SEGMENT_SUFFIX) for name in names if name.endswith(SEGMENT_SUFFIX)]
    return sorted(int(stem) for stem in stems if stem.isdigit())


def read_log_id(directory: Path) -> str | None:
    """The log's uuid; None when there is no log yet."""
    try:
        return str(json.loads((directory / LOG_ID_FILE).read_bytes())["log_id"])
    except FileNotFoundError:
        return None


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Make or replace a file at once: what `write` wrote is on the disk under that name, or nothing has changed."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Put a directory's names on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
