"""`tailrace query`, `export` and `tail`: SQL from the command line, results on standard output."""

import sys
import time
from datetime import UTC, datetime, timedelta
from enum import Enum
from io import IOBase
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from pyarrow import csv as arrow_csv
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from core.errors import Refused
from core.levels import level_name
from server.clients import Target, ask
from server.commands.errors import fail_politely
from server.settings import read_settings

TAIL_PAUSE_S = 0.5
"""Pause between two looks of `tailrace tail`."""
COLOURS = {"warn": "yellow", "error": "red", "fatal": "bold red", "debug": "dim", "trace": "dim"}

Url = Annotated[str | None, typer.Option(help="Flight SQL address; default grpc://127.0.0.1:32010.")]
Token = Annotated[str | None, typer.Option(help="Read token; on the server's machine none is needed.")]
Project = Annotated[str | None, typer.Option(help="Project to ask; default: the token's, else `default`.")]
Data = Annotated[Path | None, typer.Option(help="Data directory of the server on this machine.")]


class Format(Enum):
    """How `tailrace query` prints rows."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    ARROW = "arrow"


class FileFormat(Enum):
    """What `tailrace export` writes."""

    PARQUET = "parquet"
    CSV = "csv"
    ARROW = "arrow"


@fail_politely()
def query(
    sql: Annotated[str, typer.Argument(help="One SELECT statement.")],
    *,
    format: Annotated[Format, typer.Option(help="How to print the rows.")] = Format.TABLE,  # noqa: A002  # the option's name
    url: Url = None,
    token: Token = None,
    project: Project = None,
    data: Data = None,
) -> None:
    """Run one SQL statement and print its rows."""
    with ask(Target.of(read_settings(data=data), url, token, project), sql) as rows:
        match format:
            case Format.TABLE:
                _print_table(rows.read_all())
            case Format.JSON:
                _print_json(rows)
            case Format.CSV:
                _write_csv(rows, sys.stdout.buffer)
            case Format.ARROW:
                with pa.ipc.new_stream(cast("IOBase", sys.stdout.buffer), rows.schema) as sink:
                    for batch in rows:
                        sink.write_batch(batch)
    sys.stdout.flush()


@fail_politely()
def export(
    sql: Annotated[str, typer.Argument(help="One SELECT statement.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    format: Annotated[FileFormat, typer.Option(help="File format.")] = FileFormat.PARQUET,  # noqa: A002  # the option's name
    url: Url = None,
    token: Token = None,
    project: Project = None,
    data: Data = None,
) -> None:
    """Stream the rows of one SQL statement into a file; there is no cap on rows."""
    draft = output.with_name(output.name + ".part")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rows]:,} rows"))
    try:
        with (
            ask(Target.of(read_settings(data=data), url, token, project), sql) as rows,
            Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress,
        ):
            task = progress.add_task(f"Writing {output}", total=None, rows=0)
            written = 0
            with draft.open("wb") as file, _file_writer(format, file, rows.schema) as sink:
                for batch in rows:
                    sink.write_batch(batch)
                    written += batch.num_rows
                    progress.update(task, rows=written)
            progress.update(task, total=1, completed=1)
        draft.replace(output)
    except OSError as error:
        raise Refused(f"{output} cannot be written: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)


@fail_politely()
def tail(
    *,
    url: Url = None,
    token: Token = None,
    project: Project = None,
    data: Data = None,
    seconds: Annotated[float | None, typer.Option(help="Stop after so many seconds; default: never.")] = None,
) -> None:
    """Follow new records as they become visible; Ctrl-C ends it."""
    target = Target.of(read_settings(data=data), url, token, project)
    end = None if seconds is None else time.monotonic() + seconds
    console = Console(highlight=False, soft_wrap=True)
    epoch = _newest_epoch(target)
    while end is None or time.monotonic() < end:
        sql = (
            "SELECT _epoch, start_timestamp, service_name, level,"  # noqa: S608  # numbers of our own
            f" kind, message, duration FROM records WHERE _epoch > {epoch} AND created_at > {_an_hour_ago()}"
            " ORDER BY _epoch, start_timestamp"
        )
        with ask(target, sql) as reader:
            for batch in reader:
                for row in batch.to_pylist():
                    console.print(_tail_line(row))
                    epoch = max(epoch, row["_epoch"])
        time.sleep(TAIL_PAUSE_S)


def _newest_epoch(target: Target) -> int:
    sql = f"SELECT max(_epoch) AS epoch FROM records WHERE created_at > {_an_hour_ago()}"  # noqa: S608  # our own time
    with ask(target, sql) as reader:
        newest = reader.read_all().column("epoch")[0].as_py()
    return -1 if newest is None else newest


def _an_hour_ago() -> str:
    return f"TIMESTAMP '{(datetime.now(UTC) - timedelta(hours=1)).isoformat()}'"


def _tail_line(row: dict[str, Any]) -> Text:
    level = level_name(row["level"]) or str(row["level"])
    duration = "" if row["duration"] is None else f"  {row['duration'] * 1000:.1f} ms"
    line = Text(f"{row['start_timestamp']:%H:%M:%S.%f}"[:-3] + f"  {row['service_name']}  ")
    line.append(f"{level:<6}", style=COLOURS.get(level, ""))
    return line.append(f"  {row['message']}{duration}")


def _print_table(rows: pa.Table) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    for field in rows.schema:
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        table.add_column(Text(field.name), justify="right" if number else "left", overflow="fold")
    for row in rows.to_pylist():
        table.add_row(*(Text(_spell(value)) for value in row.values()))
    console = Console() if sys.stdout.isatty() else Console(width=10_000)
    console.print(table)
    noun = "row" if rows.num_rows == 1 else "rows"
    print(f"{rows.num_rows} {noun}", file=sys.stderr)


def _print_json(rows: pa.RecordBatchReader) -> None:
    """A JSON array of objects, one object a line."""
    lines = (orjson.dumps(row, default=_json_default) for batch in rows for row in batch.to_pylist())
    sys.stdout.buffer.write(b"[")
    for number, line in enumerate(lines):
        sys.stdout.buffer.write((b",\n " if number else b"") + line)
    sys.stdout.buffer.write(b"]\n")


def _json_default(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _spell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return orjson.dumps(value, default=_json_default).decode()
    return str(value)


class _CsvRows:
    """CSV with nested values as JSON text; has the interface of Arrow's file writers."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._file = file
        file.write((",".join(_quoted(name) for name in schema.names) + "\n").encode())

    def __enter__(self) -> "_CsvRows":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.flush()

    def write_batch(self, batch: pa.RecordBatch) -> None:
        columns = [
            pa.array([None if v is None else _spell(v) for v in column.to_pylist()], pa.string())
            if pa.types.is_nested(column.type)
            else column
            for column in batch.columns
        ]
        flat = pa.table(columns, names=batch.schema.names)
        arrow_csv.write_csv(flat, self._file, arrow_csv.WriteOptions(include_header=False))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if any(c in name for c in ',"\n') else name


def _write_csv(rows: pa.RecordBatchReader, file: BinaryIO) -> None:
    with _CsvRows(file, rows.schema) as sink:
        for batch in rows:
            sink.write_batch(batch)


def _file_writer(format: FileFormat, file: Any, schema: pa.Schema) -> Any:  # noqa: A002  # Arrow's writers share no type
    match format:
        case FileFormat.PARQUET:
            return pq.ParquetWriter(file, schema, compression="zstd")
        case FileFormat.ARROW:
            return pa.ipc.new_file(file, schema)
        case FileFormat.CSV:
            return _CsvRows(file, schema)
