"""The settings of the query engine."""

from dataclasses import dataclass
from typing import Any, Self

from core.projects import Asker
from query.statements import Statement


@dataclass(frozen=True, slots=True)
class Caps:
    """What one statement may take, where it differs from the general limit; of what is not given there is none."""

    timeout_s: float | None = None
    """Work, in seconds, instead of `statement_timeout_s`."""
    memory_bytes: int | None = None
    """Memory of sorts, joins and groups, instead of `statement_memory_bytes`."""
    result_bytes: int | None = None
    """Arrow bytes of the result, instead of `result_bytes_max`."""
    result_rows: int | None = None
    """Rows of the result; beyond it the statement is cancelled (StatementLimit)."""
    scan_bytes: int | None = None
    """Bytes of the files of the tables it names; a statement about more is refused (StatementLimit)."""


@dataclass(frozen=True, slots=True)
class QuerySettings:
    """Limits of the query engine. Bytes are bytes, `_s` is seconds."""

    workers: int = 2
    """Processes one owner of a token may keep at work; there is one more, for whoever comes next."""
    statements_per_worker_max: int = 32
    """Statements that hold a place on one worker, most of them waiting for their readers; more wait."""
    statements_waiting_max: int = 64
    """Statements that may wait for a worker; one more is refused as Overloaded."""
    statement_wait_s: float = 10.0
    """How long a statement waits for a worker before it is refused as Overloaded."""
    statement_timeout_s: float = 60.0
    """Work a statement may take before it is cancelled (StatementLimit); waiting for its reader does not count."""
    statement_timeout_max_s: float = 3600.0
    """The longest timeout a statement may ask for; a longer one is cut to this."""
    reader_stall_s: float = 300.0
    """How long a reader may take nothing of its result before the statement is cancelled (StatementLimit)."""
    statement_memory_bytes: int = 1 << 30
    """Memory of sorts, joins and groups; beyond it they spill to disk, or fail (StatementLimit) where they cannot."""
    spill_bytes_max: int = 16 << 30
    """Disk that one session's spilling may take; beyond it the statement fails (StatementLimit)."""
    worker_memory_bytes: int = 4 << 30
    """Address space a worker may add to what it starts with; a statement that needs more kills its worker."""
    worker_idle_memory_bytes: int = 512 << 20
    """Memory a worker may hold while it does nothing; with more it is started afresh."""
    result_bytes_max: int = 64 << 30
    """Arrow bytes of one result; beyond it the statement is cancelled (StatementLimit)."""
    reader: Caps = Caps()
    """For read tokens."""
    operator: Caps = Caps()
    """For the command line on the server's own machine."""
    anyone: Caps = Caps()
    """For who has no token, on loopback."""

    def caps(self, asker: Asker) -> Caps:
        """The caps of a kind of asker, with the general limits filled in."""
        own: Caps = getattr(self, asker.value)
        return Caps(
            own.timeout_s or self.statement_timeout_s, own.memory_bytes or self.statement_memory_bytes,
            own.result_bytes or self.result_bytes_max, own.result_rows, own.scan_bytes,
        )  # fmt: skip

    def timeout_s(self, statement: Statement) -> float:
        """Seconds of work that a statement may take."""
        return min(statement.timeout_s or self.caps(statement.asker).timeout_s or 0, self.statement_timeout_max_s)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The settings of the dictionary that `dataclasses.asdict` makes."""
        caps: dict[str, Any] = {asker.value: Caps(**values[asker.value]) for asker in Asker}
        return cls(**(values | caps))
