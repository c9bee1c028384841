"""`tailrace token`: make, list and revoke tokens, whether or not the server runs."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from core.clock import SystemClock, at
from core.projects import Token, TokenKind
from server.commands.errors import fail_politely
from server.commands.listing import Cell, print_rows
from server.commands.options import DataOption, JsonOption
from server.settings import ledger_url
from storage.ledger import open_ledger

COLUMNS = ("prefix", "kind", "project", "id", "created_at", "expires_at", "revoked_at", "description")
DURATION = re.compile(r"(\d{1,9})([smhdw])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

app = typer.Typer(name="token", help="Make, list and revoke tokens.", no_args_is_help=True)


@app.command("create")
@fail_politely()
def create(
    project: Annotated[str, typer.Option("--project", metavar="NAME", help="The project it opens.")],
    kind: Annotated[TokenKind, typer.Option("--kind", help="To send telemetry (write) or to query (read).")],
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires", metavar="WHEN", help="30d, 12h, 90m …, or an ISO date or time (UTC unless it says otherwise)."
        ),
    ] = None,
    description: Annotated[str, typer.Option("--description", metavar="TEXT", help="What it is for.")] = "",
    data: DataOption = None,
) -> None:
    """Make a token and print it, alone; it cannot be shown again."""
    now = at(SystemClock().now_ns())
    expires_at = parse_expiry(expires, now) if expires is not None else None

    async def make() -> str:
        async with open_ledger(ledger_url(data)) as ledger:
            owner = await ledger.projects.get(project)
            _, secret = await ledger.tokens.create(owner, kind, now=now, expires_at=expires_at, description=description)
            return secret

    typer.echo(asyncio.run(make()))


@app.command("list")
@fail_politely()
def list_tokens(
    project: Annotated[str | None, typer.Option("--project", metavar="NAME", help="Only its tokens.")] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the tokens by their first characters; the secrets are not kept."""
    print_rows(COLUMNS, asyncio.run(_list(data, project)), as_json=as_json)


@app.command("revoke")
@fail_politely()
def revoke(
    token: Annotated[str, typer.Argument(metavar="ID|TOKEN", help="Its id, the prefix in the list, or all of it.")],
    data: DataOption = None,
) -> None:
    """Revoke a token; a running server refuses it within a second."""
    revoked = asyncio.run(_revoke(data, token))
    typer.echo(f"Token {revoked.prefix}… ({revoked.id}) is revoked.", err=True)


def parse_expiry(text: str, now: datetime) -> datetime:
    """The moment `--expires` means: a duration from now, or an ISO date or time, UTC unless it names an offset.

    Raises typer.BadParameter when it is neither, or not in the future.
    """
    duration = DURATION.fullmatch(text)
    try:
        if duration:
            moment = now + timedelta(**{UNITS[duration[2]]: int(duration[1])})
        else:
            moment = datetime.fromisoformat(text)
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            f"{text!r} is neither like 30d or 12h nor an ISO date", param_hint="--expires"
        ) from error
    if moment <= now:
        raise typer.BadParameter(f"{text!r} is not in the future", param_hint="--expires")
    return moment


async def _list(data: Path | None, project_name: str | None) -> list[dict[str, Cell]]:
    async with open_ledger(ledger_url(data)) as ledger:
        project = await ledger.projects.get(project_name) if project_name is not None else None
        names = {each.id: each.name for each in await ledger.projects.list()}
        return [_row(token, names[token.project_id]) for token in await ledger.tokens.list(project)]


async def _revoke(data: Path | None, which: str) -> Token:
    async with open_ledger(ledger_url(data)) as ledger:
        return await ledger.tokens.revoke(which, now=at(SystemClock().now_ns()))


def _row(token: Token, project_name: str) -> dict[str, Cell]:
    return {
        "prefix": token.prefix, "kind": token.kind.value, "project": project_name, "id": token.id,
        "created_at": token.created_at, "expires_at": token.expires_at, "revoked_at": token.revoked_at,
        "description": token.description,
    }  # fmt: skip
