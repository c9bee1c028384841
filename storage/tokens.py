"""The tokens of the ledger: minted, listed and revoked. Of the secret only its sha256 is kept."""

from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, Row, insert, select, update

from core.errors import NotFound, Refused
from core.projects import TOKEN_PREFIX, Project, Token, TokenKind, display_prefix, hash_token, mint_token
from storage.ledger_engine import Transactions
from storage.ledger_schema import tokens


class Tokens:
    """The rows of `tokens`; a revoked one stays, so that its user is told."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def create(
        self,
        project: Project,
        kind: TokenKind,
        *,
        now: datetime,
        expires_at: datetime | None = None,
        description: str = "",
    ) -> tuple[Token, str]:
        """A new token and its secret, which can never be read again."""
        secret = mint_token()
        token = Token(
            id=str(uuid4()), project_id=project.id, kind=kind, prefix=display_prefix(secret),
            description=description, created_at=now, expires_at=expires_at, revoked_at=None,
        )  # fmt: skip
        row = {
            "id": token.id, "project_id": project.id, "kind": kind.value, "prefix": token.prefix,
            "secret_sha256": hash_token(secret), "description": description,
            "created_at": now, "expires_at": expires_at,
        }  # fmt: skip
        async with self._transactions.writing() as connection:
            await connection.execute(insert(tokens).values(row))
        return token, secret

    async def list(self, project: Project | None = None) -> list[Token]:
        """The tokens of one project, or of all; the oldest first."""
        query = select(tokens).order_by(tokens.c.created_at, tokens.c.id)
        if project is not None:
            query = query.where(tokens.c.project_id == project.id)
        async with self._transactions.reading() as connection:
            return [to_token(row) for row in await connection.execute(query)]

    async def revoke(self, which: str, *, now: datetime) -> Token:
        """The token of that id, display prefix or secret, from now on refused; once revoked, it stays as it was.

        NotFound when there is none, Refused when a prefix fits several.
        """
        async with self._transactions.writing() as connection:
            rows = (await connection.execute(select(tokens).where(_fits(which)))).all()
            if not rows:
                raise NotFound(f"There is no token {display_prefix(which)!r}; see: tailrace token list")
            if len(rows) > 1:
                ids = ", ".join(row.id for row in rows)
                raise Refused(f"Several tokens begin with {which!r}; give the id of one: {ids}")
            if rows[0].revoked_at is not None:
                return to_token(rows[0])
            changed = update(tokens).where(tokens.c.id == rows[0].id).values(revoked_at=now).returning(tokens)
            return to_token((await connection.execute(changed)).one())


def _fits(which: str) -> ColumnElement[bool]:
    """Picks tokens by id, display prefix or secret; a secret never reaches a statement, since drivers log those."""
    if not which.startswith(TOKEN_PREFIX):
        return tokens.c.id == which
    if which == display_prefix(which):
        return tokens.c.prefix == which
    return tokens.c.secret_sha256 == hash_token(which)


def to_token(row: Row[Any]) -> Token:
    """The token of a row of `tokens`."""
    return Token(
        id=row.id, project_id=row.project_id, kind=TokenKind(row.kind), prefix=row.prefix,
        description=row.description, created_at=row.created_at, expires_at=row.expires_at, revoked_at=row.revoked_at,
    )  # fmt: skip
