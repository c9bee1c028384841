"""`tailrace token`: the secret alone on stdout, an expiry people can write, and a revocation that takes."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from core.clock import SystemClock
from core.errors import Unauthenticated
from core.projects import DEFAULT_PROJECT_ID
from server.commands import project, token
from server.settings import ledger_url
from storage.keys import open_keys

NOW = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory of the commands, which does not exist yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAILRACE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(token.app, arguments)


def make(*more: str, kind: str = "write") -> str:
    result = run("create", "--project", "default", "--kind", kind, *more)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout.strip()


def test_a_made_token_is_printed_alone_and_opens_its_project(data: Path) -> None:
    result = run("create", "--project", "default", "--kind", "write")
    assert re.fullmatch(r"pylf_v1_local_[a-zA-Z0-9]{44}\n", result.stdout)
    with open_keys(ledger_url(data), open_to_all=False, operator_token=None, clock=SystemClock()) as keys:
        assert keys.write_project(result.stdout.strip()) == DEFAULT_PROJECT_ID


def test_an_unknown_project_fails_naming_the_command_that_makes_it() -> None:
    result = run("create", "--project", "shop", "--kind", "read")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "tailrace: There is no project 'shop'; make it with: tailrace project create shop\n"
    assert run("list", "--project", "shop").exit_code == 1


@pytest.mark.parametrize(
    "wrong",
    [
        ("--kind", "admin"),
        ("--kind", "read", "--expires", "soon"),
        ("--kind", "read", "--expires", "0d"),
        ("--kind", "read", "--expires", "2020-01-01"),
        ("--kind", "read", "--expires", "999999999w"),
    ],
)
def test_a_wrong_option_is_a_wrong_use(wrong: tuple[str, ...]) -> None:
    result = run("create", "--project", "default", *wrong)
    assert (result.exit_code, result.stdout) == (2, "")
    assert json.loads(run("list", "--json").stdout) == []


def test_tokens_are_listed_by_project_without_their_secrets() -> None:
    CliRunner().invoke(project.app, ["create", "shop"])
    secret = make("--expires", "2126-01-31", "--description", "for CI")
    run("create", "--project", "shop", "--kind", "read")
    [listed] = json.loads(run("list", "--project", "default", "--json").stdout)
    assert listed.pop("id")
    assert listed.pop("created_at").endswith("Z")
    assert listed == {
        "prefix": secret[:18], "kind": "write", "project": "default",
        "expires_at": "2126-01-31T00:00:00Z", "revoked_at": None, "description": "for CI",
    }  # fmt: skip
    text = run("list").stdout
    assert [line.split()[2] for line in text.splitlines()] == ["project", "default", "shop"]
    assert text.splitlines()[2].split()[-2:] == ["-", "-"]
    assert secret not in text


@pytest.mark.parametrize("by", ["id", "secret"])
def test_a_revoked_token_is_refused(data: Path, by: str) -> None:
    secret = make()
    [listed] = json.loads(run("list", "--json").stdout)
    result = run("revoke", {"id": listed["id"], "secret": secret}[by])
    assert (result.exit_code, result.stdout) == (0, "")
    assert listed["id"] in result.stderr
    assert secret not in result.stderr
    with (
        open_keys(ledger_url(data), open_to_all=True, operator_token=None, clock=SystemClock()) as keys,
        pytest.raises(Unauthenticated, match="revoked"),
    ):
        keys.write_project(secret)


def test_a_token_that_is_not_there_cannot_be_revoked() -> None:
    result = run("revoke", "no-such-token")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "tailrace token list" in result.stderr


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("45s", NOW + timedelta(seconds=45)),
        ("90m", NOW + timedelta(minutes=90)),
        ("12h", NOW + timedelta(hours=12)),
        ("30d", NOW + timedelta(days=30)),
        ("2w", NOW + timedelta(weeks=2)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T08:15", datetime(2027, 1, 31, 8, 15, tzinfo=UTC)),
        ("2027-01-31T08:15:30+09:00", datetime(2027, 1, 30, 23, 15, 30, tzinfo=UTC)),
    ],
)
def test_an_expiry_is_a_duration_or_a_date(text: str, moment: datetime) -> None:
    assert token.parse_expiry(text, NOW) == moment


@given(st.one_of(st.text(), st.from_regex(r"[0-9]{1,12}[smhdwy]?", fullmatch=True), st.datetimes().map(str)))
def test_whatever_is_written_as_an_expiry_is_in_the_future_or_a_wrong_use(text: str) -> None:
    try:
        moment = token.parse_expiry(text, NOW)
    except typer.BadParameter:
        return
    assert moment > NOW
    assert moment.tzinfo is UTC
