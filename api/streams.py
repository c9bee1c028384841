"""Rows as an HTTP body that is sent while it is made: CSV, an Arrow stream, or JSON lines (contract §3.1).

In:  the engine's rows.   Out: pieces of the body, at most so many rows, and a mark at its end when there were more.
"""

import csv
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import pyarrow as pa
import zstandard

from api.formats import batch_rows, cells, dumps, schema_json
from core.errors import TailraceError
from query.statements import Rows

COMPRESSED_BYTES_MIN = 1_024
"""A body that is known to be smaller is sent as it is."""
GZIP_LEVEL = 1
ZSTD_LEVEL = 1
Compress = Callable[[Iterable[bytes]], Iterator[bytes]]


class Limited:
    """The rows of an answer, at most so many; iterate its batches. The first one is there from the start.

    Making it and iterating raise what running the statement raises.
    """

    def __init__(self, rows: Rows, rows_max: int) -> None:
        self.schema = rows.schema
        self.row_count = 0
        """Rows given so far."""
        self.truncated = False
        """Whether there was one more, once all were given."""
        self._rows_max = rows_max
        self._rows = rows
        self._first = next(rows, None)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        batch = self._first
        with self._rows:
            while batch is not None and not self.truncated:
                left = self._rows_max - self.row_count
                self.truncated = batch.num_rows > left
                given = batch.slice(0, left)
                self.row_count += given.num_rows
                yield given
                batch = next(self._rows, None)


def csv_pieces(rows: Limited) -> Iterator[bytes]:
    """A header and the rows; null is empty, lists and structs are JSON text. The mark is a line with a `#`."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(rows.schema.names)
    for batch in rows:
        writer.writerows(cells(batch))
        yield sink.getvalue().encode()
        sink.seek(0)
        sink.truncate()
    rest = f"# truncated after {rows.row_count} rows\n" if rows.truncated else ""
    yield (sink.getvalue() + rest).encode()


def arrow_pieces(rows: Limited) -> Iterator[bytes]:
    """An Arrow IPC stream. The mark is an empty batch at the end, with `truncated` in its metadata."""
    sink = io.BytesIO()

    def taken() -> bytes:
        piece = sink.getvalue()
        sink.seek(0)
        sink.truncate()
        return piece

    with pa.ipc.new_stream(pa.PythonFile(sink, "w"), rows.schema) as stream:
        for batch in rows:
            stream.write_batch(batch)
            yield taken()
        if rows.truncated:
            empty = pa.RecordBatch.from_pylist([], rows.schema)
            stream.write_batch(empty, {b"truncated": str(rows.row_count).encode()})
    yield taken()


def ndjson_pieces(rows: Limited, plans: Mapping[str, object]) -> Iterator[bytes]:
    """Lines of JSON: the schema, plans when asked for, rows, and the end, which says whether there were more."""
    yield _line({"type": "schema", "schema": schema_json(rows.schema)})
    if plans:
        yield _line({"type": "explain", **{name: plan for name, plan in plans.items() if "metrics" not in name}})
    try:
        for batch in rows:
            yield _line({"type": "data", "rows": batch_rows(batch)})
    except TailraceError as error:
        yield _line({"type": "error", "message": error.message})
        return
    measured = {name: plan for name, plan in plans.items() if "metrics" in name}
    yield _line({"type": "end", "row_count": rows.row_count, "truncated": rows.truncated, **measured})


def compression(accepted: str) -> tuple[str, Compress] | None:
    """The content coding to use for an Accept-Encoding header, with what makes it; zstd before gzip."""
    wanted = dict(_weighted(part) for part in accepted.lower().split(","))
    for coding, compress in (("zstd", _zstd), ("gzip", _gzip)):
        if wanted.get(coding, 0.0) > 0:
            return coding, compress
    return None


def _weighted(part: str) -> tuple[str, float]:
    coding, _, parameters = part.partition(";")
    weight = parameters.strip().removeprefix("q=")
    try:
        return coding.strip(), float(weight) if weight else 1.0
    except ValueError:
        return coding.strip(), 0.0


def _zstd(pieces: Iterable[bytes]) -> Iterator[bytes]:
    made = zstandard.ZstdCompressor(ZSTD_LEVEL).compressobj()
    for piece in pieces:
        yield made.compress(piece) + made.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    yield made.flush()


def _gzip(pieces: Iterable[bytes]) -> Iterator[bytes]:
    made = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for piece in pieces:
        yield made.compress(piece) + made.flush(zlib.Z_SYNC_FLUSH)
    yield made.flush()


def _line(value: object) -> bytes:
    return dumps(value) + b"\n"
