"""The command line: `tailrace serve`, `query`, `export`, `tail`, `status`, `doctor`, `demo`, `project` and `token`."""

import os
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated

import typer

COMMANDS = {
    "serve": "serve",
    "query": "query",
    "export": "query",
    "tail": "query",
    "status": "status",
    "doctor": "doctor",
    "demo": "demo",
    "project": "project",
    "token": "token",
}
"""Each command and its module, which is imported only when it is called: the engines take seconds to load."""
GROUPS = frozenset({"project", "token"})

app = typer.Typer(
    name="tailrace", no_args_is_help=True, add_completion=False, rich_markup_mode=None,
    help="Observability for applications and AI agents, on your own machine.",
)  # fmt: skip


def _print_version(value: bool) -> None:  # typer's callback
    if value:
        typer.echo(f"tailrace {version('tailrace-server')}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The options of every command."""


def main() -> None:
    """Run the command line."""
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    if first != "demo":
        # where Logfire's SDK is installed, its plugin would load with pydantic in each process: 0.7 s
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # noqa: TID251  # must stand before any import
    for name in [first] if first in COMMANDS else COMMANDS if first != "--version" else []:
        module = import_module(f"server.commands.{COMMANDS[name]}")
        if name in GROUPS:
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(getattr(module, name))
    if first == "--version":
        app.command(hidden=True)(lambda: None)
    app()


if __name__ == "__main__":
    main()
