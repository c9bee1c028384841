"""`tailrace project`: results on stdout, messages on stderr, and exit codes scripts can rely on."""

import json
import re
from io import StringIO
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from core.errors import BadSettings, Overloaded
from core.projects import DEFAULT_PROJECT_ID
from server.commands import project
from server.commands.errors import fail_politely
from server.commands.listing import print_rows

UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory of the commands, which does not exist yet."""
    directory = tmp_path / "data"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAILRACE_DATA", str(directory))
    return directory


def test_a_made_project_prints_its_id_and_is_listed(data: Path) -> None:
    made = CliRunner().invoke(project.app, ["create", "shop"])
    assert (made.exit_code, bool(re.fullmatch(UUID + "\n", made.stdout))) == (0, True)
    assert "tailrace token create --project shop" in made.stderr
    listed = CliRunner().invoke(project.app, ["list", "--json"])
    assert [(each["name"], each["id"]) for each in json.loads(listed.stdout)] == [
        ("default", DEFAULT_PROJECT_ID),
        ("shop", made.stdout.strip()),
    ]
    assert (data / "ledger.sqlite3").exists()


def test_the_data_directory_can_be_given(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert CliRunner().invoke(project.app, ["create", "shop", "--data", str(other)]).exit_code == 0
    assert (other / "ledger.sqlite3").exists()
    assert not data.exists()


def test_a_list_in_a_pipe_is_aligned_and_has_a_head(data: Path) -> None:
    CliRunner().invoke(project.app, ["create", "a-rather-long-name"])
    head, long, default = CliRunner().invoke(project.app, ["list"]).stdout.splitlines()
    assert head.split() == ["name", "id", "created_at"]
    assert re.fullmatch(rf"a-rather-long-name  {UUID}  \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ", long)
    assert [line.index(line.split()[1]) for line in (head, long, default)] == [20, 20, 20]


class Terminal(StringIO):
    """A screen."""

    def isatty(self) -> bool:
        return True


def test_a_list_on_a_narrow_terminal_cuts_nothing_short(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout", screen)
    print_rows(("name", "id"), [{"name": "default", "id": DEFAULT_PROJECT_ID}], as_json=False)
    head, *cells = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue()).splitlines()
    assert head.split() == ["name", "id"]
    assert "".join("".join(cells).split()) == f"default{DEFAULT_PROJECT_ID}"


@pytest.mark.parametrize(
    ("name", "sentence"), [("default", "already a project 'default'"), ("My Shop", "is not a project name")]
)
def test_a_name_that_cannot_be_made_fails_in_one_line(data: Path, name: str, sentence: str) -> None:
    result = CliRunner().invoke(project.app, ["create", name])
    assert (result.exit_code, result.stdout) == (1, "")
    [line] = result.stderr.splitlines()
    assert line.startswith("tailrace: ")
    assert sentence in line


def test_a_command_without_its_argument_is_a_wrong_use(data: Path) -> None:
    assert CliRunner().invoke(project.app, ["create"]).exit_code == 2


def test_a_ledger_of_a_wrong_kind_is_a_wrong_use(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILRACE_LEDGER_URL", "mysql://localhost/ledger")
    result = CliRunner().invoke(project.app, ["list"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "tailrace: The ledger cannot be kept in 'mysql'; use SQLite or PostgreSQL\n"


@pytest.mark.parametrize(("error", "code"), [(Overloaded("Too\nmuch."), 1), (BadSettings("Too\nmuch."), 2)])
def test_any_error_of_ours_is_one_line_and_an_exit_code(error: Exception, code: int) -> None:
    app = typer.Typer()

    @app.command()
    @fail_politely()
    def fail() -> None:
        raise error

    result = CliRunner().invoke(app, [])
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", "tailrace: Too much.\n")


def test_our_own_mistakes_are_not_hidden() -> None:
    with pytest.raises(AssertionError), fail_politely():
        raise AssertionError
