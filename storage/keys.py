"""Who may do what: every token in memory, so that no request asks the ledger.

In:  the token of a request, what it is used for and perhaps a project's name.   Out: the project, or why not.
The copy is renewed when the ledger's revision changes: looked at each second, and at once when a token or
project is not found. Rules: design D13.
"""

import logging
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from secrets import compare_digest
from typing import TypeVar

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import SQLAlchemyError

from core.clock import Clock, at
from core.errors import Forbidden, TailraceError, Unauthenticated, Unavailable
from core.projects import DEFAULT_PROJECT_NAME, Asker, Project, Token, TokenKind, hash_token
from storage.ledger import migrate
from storage.ledger_engine import ledger_errors, sync_engine
from storage.ledger_schema import projects, revision, tokens
from storage.projects import no_such_project, to_project
from storage.tokens import to_token

POLL_INTERVAL_S = 1.0
"""How long a change in the ledger may go unseen; a revoked token works for that long."""
MISS_RELOAD_INTERVAL_S = 0.05
"""Least time between two looks at the ledger for things not found; misses in between trust the copy."""

_log = logging.getLogger(__name__)
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class _Key:
    token: Token
    project: Project


@dataclass(frozen=True, slots=True)
class _Copy:
    """The ledger at one revision; replaced as a whole, never changed."""

    revision: int = -1
    keys: Mapping[str, _Key] = field(default_factory=dict[str, _Key])
    """sha256 of the secret → the token and its project."""
    projects: Mapping[str, Project] = field(default_factory=dict[str, Project])
    """Name → project."""


class Keys:
    """The projects that tokens open; every method may be called from any thread.

    With `open_to_all` a missing or unknown token opens the default project. The operator's token, when
    there is one, opens every project. All methods raise Unauthenticated for a missing, unknown, revoked
    or expired token, Forbidden for one that may not do this, NotFound for a project that does not exist.
    """

    def __init__(self, engine: Engine, clock: Clock, *, open_to_all: bool, operator_token: str | None) -> None:
        self._engine = engine
        self._clock = clock
        self._open_to_all = open_to_all
        self._operator_token = operator_token.encode() if operator_token else None
        self._lock = threading.Lock()
        self._copy = _Copy()
        self._missed_at = float("-inf")
        self._failing = False

    def project_for(self, token: str | None, kind: TokenKind, *, project_name: str | None = None) -> Project:
        """The project in which this token may do what `kind` says, by name if one is asked for."""
        return self._admit(token, kind, project_name)

    def any_project_for(self, token: str | None, *, project_name: str | None = None) -> Project:
        """The project this token belongs to, whatever its kind."""
        return self._admit(token, None, project_name)

    def write_project(self, token: str | None) -> str:
        """The id of the project this token may send telemetry to."""
        return self.project_for(token, TokenKind.WRITE).id

    def read_project(self, token: str | None) -> str:
        """The id of the project this token may query."""
        return self.project_for(token, TokenKind.READ).id

    def known(self, token: str | None) -> Token | None:
        """What is known of a token; None without one, or when the server is open to who has none."""
        key = self._key(token)
        return None if key is None else key.token

    def asker(self, token: str | None) -> Asker:
        """Who asks with this token."""
        if self._is_operator(token):
            return Asker.OPERATOR
        return Asker.ANYONE if self._key(token) is None else Asker.READER

    def renew(self) -> None:
        """Look at the ledger's revision, and copy the ledger if it has changed; the errors of the ledger."""
        with self._lock:
            self._renew()

    def renew_or_keep(self) -> None:
        """Renew the copy; while the ledger cannot be read the old one stays, and the log says so once."""
        with self._lock:
            self._renew_or_keep()

    def _renew(self) -> None:
        with ledger_errors(), self._engine.connect() as connection:
            value = connection.execute(select(revision.c.value)).scalar_one()
            if value != self._copy.revision:
                self._copy = _read(connection, value)

    def _renew_or_keep(self) -> None:
        try:
            self._renew()
        except (TailraceError, SQLAlchemyError) as error:
            if not self._failing:
                _log.warning("the ledger cannot be read, tokens stay as they were: %s", error)
            self._failing = True
        else:
            self._failing = False

    def _admit(self, token: str | None, kind: TokenKind | None, name: str | None) -> Project:
        if self._is_operator(token):
            return self._named(name or DEFAULT_PROJECT_NAME)
        key = self._key(token)
        if key is None:
            return self._without_key(token, name)
        self._check(key.token, kind)
        if name is not None and name != key.project.name:
            raise Forbidden(f"This token belongs to another project than {name!r}")
        return key.project

    def _is_operator(self, token: str | None) -> bool:
        expected = self._operator_token
        return expected is not None and token is not None and compare_digest(token.encode(), expected)

    def _key(self, token: str | None) -> _Key | None:
        if not token:
            return None
        digest = hash_token(token)
        return self._find(lambda copy: copy.keys.get(digest))

    def _named(self, name: str) -> Project:
        project = self._find(lambda copy: copy.projects.get(name))
        if project is None:
            raise no_such_project(name)
        return project

    def _find(self, find: Callable[[_Copy], _Found | None]) -> _Found | None:
        found = find(self._copy)
        if found is None:
            self._look_again()
            found = find(self._copy)
        return found

    def _look_again(self) -> None:
        """Renew the copy after a miss, unless that was just done; waits for a renewal under way."""
        if self._failing:
            return  # only the poll keeps trying: a ledger out of reach must not hold up the doors
        with self._lock:
            if time.monotonic() - self._missed_at >= MISS_RELOAD_INTERVAL_S:
                self._missed_at = time.monotonic()
                self._renew_or_keep()

    def _check(self, token: Token, kind: TokenKind | None) -> None:
        if token.revoked_at is not None:
            raise Unauthenticated(f"The token {token.prefix}… was revoked on {token.revoked_at:%Y-%m-%d %H:%M} UTC")
        if token.expires_at is not None and token.expires_at <= at(self._clock.now_ns()):
            raise Unauthenticated(f"The token {token.prefix}… expired on {token.expires_at:%Y-%m-%d %H:%M} UTC")
        if kind is not None and token.kind is not kind:
            raise Forbidden(
                f"This is a {token.kind.value} token; make a {kind.value} token with `tailrace token create`"
            )

    def _without_key(self, token: str | None, name: str | None) -> Project:
        if not self._open_to_all:
            if not token:
                raise Unauthenticated("A token is required; make one with `tailrace token create`")
            if self._failing:
                raise Unavailable("The token is not known, and the ledger cannot be read just now; try again")
            raise Unauthenticated("The token is not known; make one with `tailrace token create`")
        if name is not None and name != DEFAULT_PROJECT_NAME:
            raise Forbidden(
                f"Without a token only the project {DEFAULT_PROJECT_NAME!r} is open;"
                f" make one with `tailrace token create --project {name}`"
            )
        return self._named(DEFAULT_PROJECT_NAME)


@contextmanager
def open_keys(url: str, *, open_to_all: bool, operator_token: str | None, clock: Clock) -> Generator[Keys]:
    """The keys of the ledger at a SQLAlchemy URL, kept fresh until the block ends; the errors of `open_ledger`."""
    migrate(url)
    engine = sync_engine(url)
    keys = Keys(engine, clock, open_to_all=open_to_all, operator_token=operator_token)
    stop = threading.Event()
    poll = threading.Thread(target=_poll, args=(keys, stop), name="keys", daemon=True)
    try:
        keys.renew()
        poll.start()
        yield keys
    finally:
        stop.set()
        if poll.is_alive():
            poll.join()
        engine.dispose()


def _poll(keys: Keys, stop: threading.Event) -> None:
    while not stop.wait(POLL_INTERVAL_S):
        keys.renew_or_keep()


def _read(connection: Connection, at_revision: int) -> _Copy:
    """Everything, read after the revision: rows newer than it are only read once more."""
    rows = connection.execute(select(tokens)).all()
    found = {row.id: to_project(row) for row in connection.execute(select(projects))}  # older than their tokens
    keys = {row.secret_sha256: _Key(to_token(row), found[row.project_id]) for row in rows}
    return _Copy(at_revision, keys, {project.name: project for project in found.values()})
