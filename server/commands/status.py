"""`tailrace status`: what the log and the tables hold, read from the data directory with the server up or down."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from core.clock import NS_PER_US, Clock, SystemClock
from core.errors import NotFound
from server.commands.errors import fail_politely
from server.settings import Settings, read_settings
from storage.compaction import data_files
from storage.epochs import Progress, read_progress
from storage.lake import Lake
from storage.log_reader import LogReader
from storage.segments import read_log_id

US_PER_S = 1_000_000


@dataclass(frozen=True, slots=True)
class TableStatus:
    """One table."""

    name: str
    rows: int
    files: int
    size_bytes: int
    version: int


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a data directory."""

    parts: dict[str, str]
    """State of each process; empty when the server is not running."""
    log_backlog_bytes: int
    """Accepted, but not yet in the tables."""
    log_kept_bytes: int
    epoch: int
    commit_lag_s: float | None
    """Seconds since the last commit while something waits; None when nothing does."""
    tables: list[TableStatus]


def read_status(settings: Settings, clock: Clock) -> Status:
    """The state of the data directory. NotFound when there is none yet."""
    if not (settings.lake_directory / "records").exists():
        raise NotFound(f"There is nothing in {settings.data} yet; start `tailrace serve` first")
    reader, lake = LogReader(settings.log_directory), Lake(settings.lake_directory)
    progress = read_progress(lake, read_log_id(settings.log_directory) or "", log_start=reader.start)
    backlog = max(0, reader.durable - progress.end)
    return Status(
        parts=_parts(settings),
        log_backlog_bytes=backlog,
        log_kept_bytes=reader.durable - reader.start,
        epoch=progress.epoch,
        commit_lag_s=_lag_s(progress, clock) if backlog else None,
        tables=[
            TableStatus(
                table.definition.name,
                sum(file.rows for file in files),
                len(files),
                sum(file.size_bytes for file in files),
                table.version,
            )
            for table in lake
            for files in [data_files(table)]
        ],
    )


def _lag_s(progress: Progress, clock: Clock) -> float:
    return max(0.0, (clock.now_ns() // NS_PER_US - progress.now_us) / US_PER_S) if progress.now_us else 0.0


def _parts(settings: Settings) -> dict[str, str]:
    try:
        health = json.loads(settings.health_file.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    if not Path(f"/proc/{health['supervisor']}").exists():
        return {}
    return dict(health["parts"])


@fail_politely()
def status(
    *,
    data: Annotated[Path | None, typer.Option(help="Data directory.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the log's backlog, the last epoch, the commit lag and the tables' rows, files and bytes."""
    now = read_status(read_settings(data=data), SystemClock())
    if as_json:
        print(orjson.dumps(asdict(now)).decode())
        return
    console = Console()
    state = ", ".join(f"{part} {state}" for part, state in now.parts.items()) or "not running"
    console.print(f"Server      {state}", highlight=False)
    console.print(f"Log         {now.log_backlog_bytes:,} bytes waiting, {now.log_kept_bytes:,} kept", highlight=False)
    lag = "nothing waits" if now.commit_lag_s is None else f"last commit {now.commit_lag_s:.1f} s ago"
    console.print(f"Epoch       {now.epoch} ({lag})", highlight=False)
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("table", "rows", "files", "bytes", "version"):
        table.add_column(name, justify="left" if name == "table" else "right")
    for row in now.tables:
        table.add_row(row.name, f"{row.rows:,}", f"{row.files:,}", f"{row.size_bytes:,}", f"{row.version:,}")
    console.print(table)
