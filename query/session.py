"""One statement's session: a fresh DataFusion context that knows nothing but one project's files.

In:  a task.   Out: its schema, then its rows. The stream is polled, since only then can a statement be cancelled:
on its timeout, and when its reader has gone. Making a context costs 0.2 ms, so none is kept or shared.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
from datafusion import DataFrame, RecordBatchStream, RuntimeEnvBuilder, SessionConfig, SessionContext

from core.errors import StatementLimit, TailraceError
from query import functions, tables
from query.diagnostics import bad_query
from query.dialect import rewrite, spelled
from query.guard import CLOSED, REPORTING, check, redact, redact_batch
from query.settings import Caps, QuerySettings
from query.statements import Statement, Task
from query.tokens import Token, names, tokenize

POLL_S = 0.05
"""How often a running statement is asked whether its reader is still there."""
BATCH_ROWS = 16_384
"""Rows of a batch; twice DataFusion's default, for fewer messages on the way out."""
PARTITIONS = 2
"""Threads one statement may keep busy."""


class _Sent:
    """What a result amounts to so far."""

    def __init__(self, caps: Caps) -> None:
        self._caps = caps
        self._bytes = self._rows = 0

    def count(self, batch: pa.RecordBatch) -> None:
        """One batch more. Raises StatementLimit."""
        self._bytes += batch.nbytes
        self._rows += batch.num_rows
        if self._caps.result_bytes and self._bytes > self._caps.result_bytes:
            raise StatementLimit(f"The result is larger than {self._caps.result_bytes} bytes")
        if self._caps.result_rows and self._rows > self._caps.result_rows:
            raise StatementLimit(f"The result has more than {self._caps.result_rows} rows")


class Session:
    """A planned statement."""

    def __init__(self, task: Task, settings: QuerySettings, spill_directory: Path) -> None:
        """Plan it. Raises BadQuery or StatementLimit."""
        statement = task.statement
        tokens = tokenize(statement.sql)
        self._reports = check(statement.sql, tokens) in REPORTING
        self._rewritten = rewrite(tokens)
        self._caps = settings.caps(statement.asker)
        self._timeout_s = settings.timeout_s(statement)
        try:
            _check_scan(task, self._caps)
            context = _context(statement, tokens, self._caps, spill_directory)
            tables.register(context, task, names(tokens))
            self._frame = self._planned(context, statement, tokens)
            planned = self._frame.schema()
        except BaseException as error:  # noqa: BLE001  # a panic of the engine is no Exception
            raise self._translated(error) from None
        self.schema = pa.schema([_sent(field).with_name(spelled(field.name)) for field in planned])
        """What clients are given: as planned, text as plain utf8."""

    def rows(self, loop: asyncio.AbstractEventLoop, gone: Callable[[], bool]) -> Iterator[pa.RecordBatch]:
        """Run it on an event loop of another thread; ends early when the reader is gone.

        Raises BadQuery, StatementLimit.
        """
        work_s, sent = 0.0, _Sent(self._caps)
        waiting: Future[pa.RecordBatch | None] | None = None
        try:
            stream = asyncio.run_coroutine_threadsafe(_open(self._frame), loop).result()
            while True:
                waiting = asyncio.run_coroutine_threadsafe(_next(stream), loop)
                while not _done(waiting):
                    work_s += POLL_S
                    if gone():
                        return
                    if work_s > self._timeout_s:
                        raise StatementLimit(f"The statement ran longer than {self._timeout_s:g} s and was cancelled")
                batch = waiting.result()
                if batch is None:
                    return
                sent.count(batch)
                plain = batch.rename_columns(self.schema.names).cast(self.schema)
                yield redact_batch(plain) if self._reports else plain
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001  # the same
            raise self._translated(error) from None
        finally:
            if waiting is not None:
                waiting.cancel()

    def _planned(self, context: SessionContext, statement: Statement, tokens: list[Token]) -> DataFrame:
        """The plan; promoted columns are left out when it cannot be made with them: `attributes` may be another's."""
        try:
            return self._plan(context, statement)
        except Exception:
            plain = rewrite(tokens, promote=False)
            if plain.text == self._rewritten.text:
                raise
            self._rewritten = plain
            return self._plan(context, statement)

    def _plan(self, context: SessionContext, statement: Statement) -> DataFrame:
        parameters = statement.parameters
        values = (
            {str(number + 1): column[0] for number, column in enumerate(parameters.columns)} if parameters else None
        )
        frame = context.sql_with_options(self._rewritten.text, CLOSED, param_values=values)
        if statement.row_limit is not None and not self._reports:
            frame = frame.limit(statement.row_limit)
        return frame

    def _translated(self, error: BaseException) -> BaseException:
        """DataFusion's error as ours: where it is in the user's text, and without paths."""
        if isinstance(error, (TailraceError, KeyboardInterrupt, SystemExit)):
            return error
        text = redact(str(error)).strip()
        if "Resources exhausted" in text or "Memory Exhausted" in text:
            return StatementLimit(
                f"The statement needs more than {(self._caps.memory_bytes or 0) >> 20} MiB of memory;"
                " read fewer rows or columns"
            )
        return bad_query(text, self._rewritten, tables.SOURCES)


def _context(statement: Statement, tokens: list[Token], caps: Caps, spill_directory: Path) -> SessionContext:
    options = {
        "datafusion.sql_parser.dialect": "PostgreSQL",
        "datafusion.execution.batch_size": str(BATCH_ROWS),
        "datafusion.execution.time_zone": statement.time_zone or "UTC",
        "datafusion.execution.parquet.pushdown_filters": str(_looks_up(tokens)).lower(),
    }
    config = (
        SessionConfig(options)
        .with_information_schema(enabled=True)
        .with_default_catalog_and_schema(tables.CATALOG, tables.SCHEMA)
        .with_create_default_catalog_and_schema(enabled=True)
        .with_target_partitions(PARTITIONS)
    )
    runtime = (
        RuntimeEnvBuilder().with_fair_spill_pool(caps.memory_bytes or 0).with_disk_manager_specified(spill_directory)
    )
    context = SessionContext(config, runtime)
    functions.register(context)
    return context


def _check_scan(task: Task, caps: Caps) -> None:
    """StatementLimit when the files of a task's tables are more than its asker may read."""
    if caps.scan_bytes is None:
        return
    size = sum(file.stat().st_size for directory in task.snapshots.values() for file in directory.rglob("*.parquet"))
    if size > caps.scan_bytes:
        raise StatementLimit(f"The tables it names are {size} bytes large, and {caps.scan_bytes} may be read")


def _looks_up(tokens: list[Token]) -> bool:
    """Whether the text looks for single ids: filtering while reading pays then, and costs otherwise."""
    words = [token.text.lower() for token in tokens if token.kind != "space"]
    return any(word in {"trace_id", "span_id"} and follower in {"=", "in"} for word, follower in pairwise(words))


def _sent(field: pa.Field) -> pa.Field:
    return field.with_type(_plain(field.type))


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type with text as plain utf8 at every depth: not every client knows views."""
    if kind == pa.string_view():
        return pa.string()
    if kind == pa.binary_view():
        return pa.binary()
    if pa.types.is_list(kind):
        return pa.list_(_sent(kind.value_field))
    if pa.types.is_struct(kind):
        return pa.struct([_sent(kind.field(index)) for index in range(kind.num_fields)])
    return kind


async def _open(frame: DataFrame) -> RecordBatchStream:
    return frame.execute_stream()


async def _next(stream: RecordBatchStream) -> pa.RecordBatch | None:
    try:
        return (await stream.__anext__()).to_pyarrow()
    except StopAsyncIteration:
        return None


def _done(waiting: Future[pa.RecordBatch | None]) -> bool:
    """Wait a little; whether the future has an outcome."""
    try:
        waiting.exception(POLL_S)
    except TimeoutError:
        return False
    return True


def start_loop() -> asyncio.AbstractEventLoop:
    """An event loop that runs in a thread of its own for as long as the process lives."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="streams", daemon=True).start()
    return loop
