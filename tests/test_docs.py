"""The documents are true: links lead somewhere, made pages are up to date, commands and settings are all there."""

import re
from pathlib import Path

import pytest
import typer

from docs.render import settings_text, tables_text
from server.__main__ import COMMANDS

ROOT = Path(__file__).parent.parent
ROUTE = re.compile(r'@(?:app|router)\.(get|post|put|delete)\("([^"]+)"\)')
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target
    for name in re.findall(
        r"`((?:agents|api|benchmarks|core|docs|flight|pipelines|query|server|storage|tests)/[\w./-]+)`", text
    ):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize(("name", "text"), [("settings.md", settings_text()), ("tables.md", tables_text())])
def test_pages_made_from_the_code_are_up_to_date(name: str, text: str) -> None:
    assert (ROOT / "docs" / name).read_text("utf-8") == text, "run: python -m docs.render"


def test_every_command_and_its_options_are_documented() -> None:
    from importlib import import_module  # noqa: PLC0415  # loads every command

    text = (ROOT / "docs" / "command-line.md").read_text("utf-8")
    for name, module in COMMANDS.items():
        assert f"`tailrace {name}" in text, name
        assert import_module(f"server.commands.{module}"), name
    app = typer.Typer()
    app.command("serve")(import_module("server.commands.serve").serve)
    app.command("other")(lambda: None)
    for parameter in typer.main.get_command(app).commands["serve"].params:  # pyright: ignore[reportAttributeAccessIssue]  # a group
        assert parameter.opts[0] in text or parameter.name == "help", parameter.opts


def test_every_http_route_is_documented() -> None:
    text = (ROOT / "docs" / "http-api.md").read_text("utf-8")
    routes = [route for file in (ROOT / "api").glob("*.py") for route in ROUTE.findall(file.read_text("utf-8"))]
    assert routes
    for method, path in routes:
        name = path.replace("{organization}/{project}", "local/<project>")
        assert f"`{method.upper()} {name}`" in text, path


def test_the_readme_opens_with_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    first = re.search(r"```sh\n(.*?)```", text, re.DOTALL)
    assert first is not None
    assert [line.split("#")[0].strip() for line in first[1].splitlines()] == ["make serve", "make test"]
