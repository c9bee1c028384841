"""Tokens: the secret is shown once and kept nowhere; a revoked one stays revoked."""

import logging
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.errors import NotFound, Refused
from core.projects import TokenKind, mint_token
from storage import tokens as tokens_module
from storage.ledger import Ledger, open_ledger

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 24, 12, 30, 15, 123456, UTC)
LATER = NOW + timedelta(days=30)


async def make(ledger: Ledger, project: str = "default") -> tuple[str, str]:
    token, secret = await ledger.tokens.create(await ledger.projects.get(project), TokenKind.WRITE, now=NOW)
    return token.id, secret


async def test_a_token_is_listed_as_it_was_made_with_its_project_or_all(ledger_url: str) -> None:
    async with open_ledger(ledger_url) as ledger:
        default, shop = await ledger.projects.get("default"), await ledger.projects.create("shop", NOW)
        first, secret = await ledger.tokens.create(shop, TokenKind.READ, now=NOW, expires_at=LATER, description="CI")
        second, _ = await ledger.tokens.create(default, TokenKind.WRITE, now=LATER)
        assert await ledger.tokens.list(shop) == [first]
        assert await ledger.tokens.list() == [first, second]
    assert re.fullmatch(r"pylf_v1_local_[a-zA-Z0-9]{44}", secret)
    assert secret.startswith(first.prefix)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


async def test_the_secret_is_on_no_disk_and_in_no_log(
    sqlite_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "sqlalchemy.engine")
    async with open_ledger(sqlite_url) as ledger:
        token_id, secret = await make(ledger)
        while_open = contents(tmp_path)
        await ledger.tokens.revoke(secret, now=NOW)
    after = contents(tmp_path)
    assert "ledger.sqlite3-wal" in while_open
    assert token_id.encode() in b"".join(while_open.values())
    random_part = secret[-40:]
    assert not [name for name, content in (*while_open.items(), *after.items()) if random_part.encode() in content]
    assert "INSERT INTO tokens" in caplog.text
    assert random_part not in caplog.text


@pytest.mark.parametrize("by", ["id", "prefix", "secret"])
async def test_a_token_is_revoked_by_id_prefix_or_secret(ledger_url: str, by: str) -> None:
    async with open_ledger(ledger_url) as ledger:
        _, other = await make(ledger)
        token, secret = await ledger.tokens.create(
            await ledger.projects.get("default"), TokenKind.READ, now=NOW + timedelta(seconds=1)
        )
        revoked = await ledger.tokens.revoke({"id": token.id, "prefix": token.prefix, "secret": secret}[by], now=LATER)
        assert (revoked.id, revoked.revoked_at) == (token.id, LATER)
        assert [each.revoked_at for each in await ledger.tokens.list()] == [None, LATER]
        assert not other.startswith(token.prefix)


async def test_revoking_again_keeps_the_first_moment(ledger_url: str) -> None:
    async with open_ledger(ledger_url) as ledger:
        token_id, _ = await make(ledger)
        first = await ledger.tokens.revoke(token_id, now=NOW)
        assert await ledger.tokens.revoke(token_id, now=LATER) == first


@pytest.fixture
def one_prefix(monkeypatch: pytest.MonkeyPatch) -> str:
    """All tokens begin the same."""
    monkeypatch.setattr(tokens_module, "mint_token", lambda: f"pylf_v1_local_same{mint_token()[-40:]}")
    return "pylf_v1_local_same"


async def test_a_prefix_of_several_tokens_revokes_none(ledger_url: str, one_prefix: str) -> None:
    async with open_ledger(ledger_url) as ledger:
        ids = [(await make(ledger))[0], (await make(ledger))[0]]
        with pytest.raises(Refused, match="give the id of one") as caught:
            await ledger.tokens.revoke(one_prefix, now=NOW)
        assert all(each in caught.value.message for each in ids)
        assert [token.revoked_at for token in await ledger.tokens.list()] == [None, None]


async def test_an_unknown_token_is_not_found_and_not_repeated(ledger_url: str) -> None:
    secret = mint_token()
    async with open_ledger(ledger_url) as ledger:
        with pytest.raises(NotFound, match="tailrace token list") as caught:
            await ledger.tokens.revoke(secret, now=NOW)
    assert secret not in caught.value.message
