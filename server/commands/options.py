"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", envvar="TAILRACE_DATA", help="Data directory.", show_default="./data"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
