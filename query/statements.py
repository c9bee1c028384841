"""A statement: what is asked of one project, how it travels between processes, and what comes back.

The SQL text is the user's; everything else is decided by the door that took it.
"""

import json
import weakref
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from core.projects import Asker


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement about one project."""

    sql: str
    project_id: str
    parameters: pa.RecordBatch | None = None
    """One row; its columns, in order, are `$1`, `$2`, … and the `?`s."""
    time_zone: str | None = None
    """IANA name that `now()` and date functions use; UTC when None."""
    min_timestamp: datetime | None = None
    """Least value of a table's time column, aware."""
    max_timestamp: datetime | None = None
    """Greatest value of a table's time column, aware."""
    deployment_environments: tuple[str, ...] | None = None
    """Only rows of these environments; the empty string stands for rows without one."""
    row_limit: int | None = None
    """Rows to return at most, whatever LIMIT the text has."""
    timeout_s: float | None = None
    """Seconds of work allowed; the setting's when None, never more than its maximum."""
    owner: str = ""
    """Whose it is, for a fair share of the workers: the same for all statements of one token."""
    asker: Asker = Asker.READER
    """Who asks: some have limits of their own."""

    def to_json(self) -> bytes:
        """The statement as JSON; the parameters are an Arrow IPC stream in base64."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        fields["parameters"] = None if self.parameters is None else b64encode(_ipc(self.parameters)).decode()
        for name in ("min_timestamp", "max_timestamp"):
            fields[name] = fields[name] and fields[name].isoformat()
        fields["asker"] = self.asker.value
        return json.dumps(fields).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """The statement of a JSON text made by `to_json`."""
        fields = json.loads(text)
        if fields["parameters"] is not None:
            with pa.ipc.open_stream(b64decode(fields["parameters"])) as stream:
                fields["parameters"] = stream.read_next_batch()
        for name in ("min_timestamp", "max_timestamp"):
            fields[name] = fields[name] and datetime.fromisoformat(fields[name])
        fields["asker"] = Asker(fields["asker"])
        environments = fields["deployment_environments"]
        fields["deployment_environments"] = None if environments is None else tuple(environments)
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Task:
    """A statement with the files it may read: what a worker is given."""

    statement: Statement
    snapshots: Mapping[str, Path]
    """Directory of each pinned table; a table that is not named has no rows for this statement."""

    def to_json(self) -> bytes:
        """The task as JSON: the ticket of a worker."""
        directories = {name: str(path) for name, path in self.snapshots.items()}
        return json.dumps({"statement": self.statement.to_json().decode(), "snapshots": directories}).encode()

    @classmethod
    def warm_up(cls) -> Self:
        """A task that makes a new worker load what the first statement will need."""
        return cls(Statement("SELECT count(*) FROM records_all", project_id=""), {})

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """The task of a JSON text made by `to_json`."""
        fields = json.loads(text)
        directories = {name: Path(path) for name, path in fields["snapshots"].items()}
        return cls(Statement.from_json(fields["statement"].encode()), directories)


class Rows:
    """The answer to a statement: iterate its record batches, then close; a context manager.

    Iterating raises what running raises: BadQuery, StatementLimit, Unavailable, Overloaded.
    """

    def __init__(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch], on_close: Callable[[], object]) -> None:
        self.schema = schema
        """The schema of every batch."""
        self._batches = batches
        self._finish = weakref.finalize(self, on_close)  # a reader that forgets to close holds nothing for ever

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> pa.RecordBatch:
        return next(self._batches)

    def close(self) -> None:
        """Stop the work, if any is left, and let go of what it held."""
        self._finish()

    def read_all(self) -> pa.Table:
        """The rest of the answer as one table; closes."""
        with self:
            return pa.Table.from_batches(list(self), self.schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _ipc(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue().to_pybytes()
