"""How commands print rows: a table on a terminal, aligned text in a pipe, JSON when asked for."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime

import typer
from rich.console import Console
from rich.table import Table

Cell = str | datetime | None
NOTHING = "-"
GAP = "  "


def print_rows(columns: Sequence[str], rows: Sequence[Mapping[str, Cell]], *, as_json: bool) -> None:
    """Print rows on stdout; moments in UTC (ISO 8601), what is missing as `-` (JSON: null)."""
    if as_json:
        typer.echo(json.dumps([{name: _plain(row[name]) for name in columns} for row in rows], indent=2))
        return
    texts = [[_plain(row[name]) or NOTHING for name in columns] for row in rows]
    if sys.stdout.isatty():
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in columns:
            table.add_column(name, overflow="fold")  # an id cut short cannot be copied
        for cells in texts:
            table.add_row(*cells)
        Console().print(table)
        return
    lines = [list(columns), *texts]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for cells in lines:
        typer.echo(GAP.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def _plain(cell: Cell) -> str | None:
    return cell.isoformat(timespec="seconds").replace("+00:00", "Z") if isinstance(cell, datetime) else cell
