"""How every command fails: one line on stderr and an exit code scripts can rely on."""

from collections.abc import Generator
from contextlib import contextmanager

import typer

from core.errors import BadSettings, TailraceError

EXIT_FAILED = 1
"""The command was understood, and could not be done."""
EXIT_USAGE = 2
"""The command or a setting is wrong."""


@contextmanager
def fail_politely() -> Generator[None]:
    """End the command with one line on stderr when a TailraceError is raised; exit 2 for a bad setting, else 1.

    Use it around a block, or as a decorator under `@app.command()`.
    """
    try:
        yield
    except TailraceError as error:
        typer.echo(f"tailrace: {' '.join(error.message.split())}", err=True)
        raise typer.Exit(EXIT_USAGE if isinstance(error, BadSettings) else EXIT_FAILED) from error
