"""Projects: made once, found by name and by id, and a missing one says how to make it."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from core.errors import Exists, NotFound, Refused
from core.projects import DEFAULT_PROJECT_ID
from storage.ledger import open_ledger

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 24, 12, 30, 15, 123456, UTC)


async def test_a_project_is_found_by_name_and_by_id_after_the_ledger_was_closed(ledger_url: str) -> None:
    async with open_ledger(ledger_url) as ledger:
        made = await ledger.projects.create("shop", NOW.astimezone(timezone(timedelta(hours=9))))
    async with open_ledger(ledger_url) as ledger:
        by_name, by_id = await ledger.projects.get("shop"), await ledger.projects.get(made.id)
    assert by_name == by_id == made
    assert by_name.created_at.tzinfo is UTC


async def test_projects_are_listed_by_name(ledger_url: str) -> None:
    async with open_ledger(ledger_url) as ledger:
        for name in ("zebra", "ant"):
            await ledger.projects.create(name, NOW)
        assert [project.name for project in await ledger.projects.list()] == ["ant", "default", "zebra"]


@pytest.mark.parametrize("name", ["shop", "default"])
async def test_a_name_is_given_once(ledger_url: str, name: str) -> None:
    async with open_ledger(ledger_url) as ledger:
        await ledger.projects.create("shop", NOW)
        with pytest.raises(Exists, match=f"already a project '{name}'"):
            await ledger.projects.create(name, NOW)
        assert len(await ledger.projects.list()) == 2


async def test_a_name_that_breaks_the_rule_is_refused(sqlite_url: str) -> None:
    async with open_ledger(sqlite_url) as ledger:
        with pytest.raises(Refused, match="lower-case letters"):
            await ledger.projects.create("My Shop", NOW)
        assert [project.id for project in await ledger.projects.list()] == [DEFAULT_PROJECT_ID]


async def test_a_missing_project_says_how_to_make_it(ledger_url: str) -> None:
    async with open_ledger(ledger_url) as ledger:
        with pytest.raises(NotFound, match="tailrace project create shop"):
            await ledger.projects.get("shop")
