"""The command line: `tailrace serve`, `query`, `export`, `tail`, `status`, `doctor`, `demo`, `project` and `token`."""

from importlib.metadata import version
from typing import Annotated

import typer

from server.commands import demo, doctor, project, query, serve, status, token

app = typer.Typer(
    name="tailrace", no_args_is_help=True, add_completion=False, rich_markup_mode=None,
    help="Observability for applications and AI agents, on your own machine.",
)  # fmt: skip

for _name, _command in {
    "serve": serve.serve,
    "query": query.query,
    "export": query.export,
    "tail": query.tail,
    "status": status.status,
    "doctor": doctor.doctor,
    "demo": demo.demo,
}.items():
    app.command(_name)(_command)
app.add_typer(project.app, name="project")
app.add_typer(token.app, name="token")


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
    app()


if __name__ == "__main__":
    main()
