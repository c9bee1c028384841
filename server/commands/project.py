"""`tailrace project`: make and list projects, whether or not the server runs."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from core.clock import SystemClock, at
from core.projects import Project
from server.commands.errors import fail_politely
from server.commands.listing import print_rows
from server.commands.options import DataOption, JsonOption
from server.settings import ledger_url
from storage.ledger import open_ledger

COLUMNS = ("name", "id", "created_at")

app = typer.Typer(name="project", help="Make and list projects.", no_args_is_help=True)


@app.command("create")
@fail_politely()
def create(
    name: Annotated[str, typer.Argument(help="Lower-case letters and digits, single hyphens between them.")],
    data: DataOption = None,
) -> None:
    """Make a project and print its id."""
    project = asyncio.run(_create(name, data))
    typer.echo(project.id)
    typer.echo(
        f"Project {project.name} is ready; make it a token with:"
        f" tailrace token create --project {project.name} --kind write",
        err=True,
    )


@app.command("list")
@fail_politely()
def list_projects(data: DataOption = None, as_json: JsonOption = False) -> None:
    """List the projects."""
    rows = [
        {"name": project.name, "id": project.id, "created_at": project.created_at}
        for project in asyncio.run(_list(data))
    ]
    print_rows(COLUMNS, rows, as_json=as_json)


async def _create(name: str, data: Path | None) -> Project:
    async with open_ledger(ledger_url(data)) as ledger:
        return await ledger.projects.create(name, at(SystemClock().now_ns()))


async def _list(data: Path | None) -> list[Project]:
    async with open_ledger(ledger_url(data)) as ledger:
        return await ledger.projects.list()
