"""Keys: who may do what (design D13), and how soon a change in the ledger is seen."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, TypeVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text

from core.clock import NS_PER_S, at
from core.errors import Forbidden, NotFound, Refused, Unauthenticated, Unavailable
from core.projects import Project, TokenKind, mint_token
from storage import keys as keys_module
from storage.keys import Keys, open_keys
from storage.ledger import Ledger, open_ledger
from storage.ledger_engine import sync_engine

REPOSITORY = Path(__file__).parents[2]
OPERATOR = "the-operators-secret"
NEVER_S = 3600.0
WAIT_S_MAX = 20.0

Result = TypeVar("Result")

REVOKE = """
import asyncio, sys
from datetime import UTC, datetime
from storage.ledger import open_ledger

async def main(url, which):
    async with open_ledger(url) as ledger:
        await ledger.tokens.revoke(which, now=datetime.now(UTC))

asyncio.run(main(*sys.argv[1:]))
"""


@dataclass
class SteppedClock:
    """A clock that stands still until it is moved."""

    ns: int = 1_795_000_000 * NS_PER_S

    def now_ns(self) -> int:
        return self.ns


@dataclass
class World:
    """A ledger and its keys."""

    url: str
    clock: SteppedClock
    keys: Keys

    def project(self, name: str) -> Project:
        return self.edit(lambda ledger: ledger.projects.create(name, at(self.clock.ns)))

    def token(self, kind: TokenKind, project: str = "default", expires_in_s: int | None = None) -> str:
        async def create(ledger: Ledger) -> str:
            now = at(self.clock.ns)
            expires_at = None if expires_in_s is None else now + timedelta(seconds=expires_in_s)
            found = await ledger.projects.get(project)
            _, secret = await ledger.tokens.create(found, kind, now=now, expires_at=expires_at)
            return secret

        return self.edit(create)

    def revoke(self, secret: str) -> None:
        self.edit(lambda ledger: ledger.tokens.revoke(secret, now=at(self.clock.ns)))

    def edit(self, change: Callable[[Ledger], Awaitable[Result]]) -> Result:
        async def story() -> Result:
            async with open_ledger(self.url) as ledger:
                return await change(ledger)

        return asyncio.run(story())

    @contextmanager
    def looks(self) -> Generator[list[str]]:
        """The questions put to the ledger by the keys meanwhile."""
        asked: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
            asked.append(statement)

        event.listen(self.keys._engine, "before_cursor_execute", note)
        try:
            yield asked
        finally:
            event.remove(self.keys._engine, "before_cursor_execute", note)


@contextmanager
def a_world(url: str, *, open_to_all: bool) -> Generator[World]:
    clock = SteppedClock()
    with open_keys(url, open_to_all=open_to_all, operator_token=OPERATOR, clock=clock) as keys:
        yield World(url, clock, keys)


@pytest.fixture(params=[True, False], ids=["open to all", "tokens required"])
def world(request: pytest.FixtureRequest, sqlite_url: str, unpolled: None) -> Generator[World]:
    with a_world(sqlite_url, open_to_all=request.param) as made:
        yield made


@pytest.fixture
def unpolled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only misses look at the ledger, and each one does."""
    monkeypatch.setattr(keys_module, "POLL_INTERVAL_S", NEVER_S)
    monkeypatch.setattr(keys_module, "MISS_RELOAD_INTERVAL_S", 0.0)


@pytest.fixture
def only_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the poll looks at the ledger, and often."""
    monkeypatch.setattr(keys_module, "POLL_INTERVAL_S", 0.02)
    monkeypatch.setattr(keys_module, "MISS_RELOAD_INTERVAL_S", NEVER_S)


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    while not check():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def refusal(ask: Callable[[], object]) -> type[Exception] | None:
    try:
        ask()
    except Refused as error:
        return type(error)
    return None


@pytest.mark.parametrize("token", [None, "", "local", "pylf_v1_local_" + "x" * 44])
def test_without_a_known_token_only_an_open_server_opens_its_default_project(sqlite_url: str, token: str) -> None:
    with a_world(sqlite_url, open_to_all=True) as world:
        for kind in TokenKind:
            assert world.keys.project_for(token, kind).name == "default"
            assert world.keys.project_for(token, kind, project_name="default").name == "default"
        assert world.keys.any_project_for(token).name == "default"
        world.project("shop")
        with pytest.raises(Forbidden, match="tailrace token create --project shop"):
            world.keys.project_for(token, TokenKind.READ, project_name="shop")
    with a_world(sqlite_url, open_to_all=False) as world:
        for name in (None, "default", "shop", "nowhere"):
            with pytest.raises(Unauthenticated, match="tailrace token create"):
                world.keys.project_for(token, TokenKind.WRITE, project_name=name)
        with pytest.raises(Unauthenticated):
            world.keys.any_project_for(token)


def test_making_a_token_does_not_close_an_open_server(sqlite_url: str, unpolled: None) -> None:
    with a_world(sqlite_url, open_to_all=True) as world:
        world.keys.project_for(world.token(TokenKind.WRITE), TokenKind.WRITE)
        assert world.keys.project_for(None, TokenKind.WRITE).name == "default"


def test_a_token_opens_its_own_project_for_its_own_kind(world: World) -> None:
    shop = world.project("shop")
    write, read = world.token(TokenKind.WRITE, "shop"), world.token(TokenKind.READ, "shop")
    assert world.keys.write_project(write) == world.keys.read_project(read) == shop.id
    assert world.keys.project_for(read, TokenKind.READ, project_name="shop") == shop
    assert world.keys.any_project_for(write) == world.keys.any_project_for(read) == shop
    with pytest.raises(Forbidden, match="This is a read token; make a write token"):
        world.keys.write_project(read)
    with pytest.raises(Forbidden, match="This is a write token; make a read token"):
        world.keys.read_project(write)


def test_a_token_never_opens_another_project(world: World) -> None:
    world.project("shop")
    token = world.token(TokenKind.READ, "shop")
    for name in ("default", "nowhere"):
        with pytest.raises(Forbidden, match="another project"):
            world.keys.project_for(token, TokenKind.READ, project_name=name)


def test_a_revoked_token_opens_nothing_even_where_none_is_needed(world: World) -> None:
    token = world.token(TokenKind.WRITE)
    world.revoke(token)
    for ask in (world.keys.write_project, world.keys.read_project, world.keys.any_project_for):
        with pytest.raises(Unauthenticated, match="was revoked on 2026-11-18"):
            ask(token)


def test_a_token_expires_at_its_moment_by_the_clock(world: World) -> None:
    token = world.token(TokenKind.WRITE, expires_in_s=60)
    world.clock.ns += 60 * NS_PER_S - 1
    assert world.keys.write_project(token)
    world.clock.ns += 1
    for ask in (world.keys.write_project, world.keys.read_project, world.keys.any_project_for):
        with pytest.raises(Unauthenticated, match="expired on 2026-11-18"):
            ask(token)


def test_the_operator_acts_for_any_project_by_name(world: World) -> None:
    shop = world.project("shop")
    for kind in TokenKind:
        assert world.keys.project_for(OPERATOR, kind, project_name="shop") == shop
        assert world.keys.project_for(OPERATOR, kind).name == "default"
    assert world.keys.any_project_for(OPERATOR, project_name="shop") == shop
    with pytest.raises(NotFound, match="tailrace project create nowhere"):
        world.keys.project_for(OPERATOR, TokenKind.READ, project_name="nowhere")


def test_without_an_operator_no_token_is_one(sqlite_url: str) -> None:
    with open_keys(sqlite_url, open_to_all=False, operator_token="", clock=SteppedClock()) as keys:
        for token in ("", "None", OPERATOR):
            with pytest.raises(Unauthenticated):
                keys.read_project(token)


def test_a_new_token_opens_at_once_and_is_then_answered_from_memory(ledger_url: str, unpolled: None) -> None:
    with a_world(ledger_url, open_to_all=False) as world:
        token = world.token(TokenKind.WRITE)
        with world.looks() as first:
            world.keys.write_project(token)
        with world.looks() as then:
            for _ in range(1000):
                world.keys.write_project(token)
    assert [sql for sql in first if "FROM tokens" in sql]
    assert then == []


def test_a_flood_of_unknown_tokens_asks_the_ledger_once_an_interval(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "POLL_INTERVAL_S", NEVER_S)
    monkeypatch.setattr(keys_module, "MISS_RELOAD_INTERVAL_S", NEVER_S)
    with a_world(sqlite_url, open_to_all=False) as world, world.looks() as asked:
        outcomes: list[type[Exception] | None] = []

        def flood() -> None:
            outcomes.extend(refusal(lambda: world.keys.write_project(mint_token())) for _ in range(500))

        threads = [threading.Thread(target=flood) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert outcomes == [Unauthenticated] * 2000
    assert len([sql for sql in asked if "FROM revision" in sql]) == 1
    assert not [sql for sql in asked if "FROM tokens" in sql]


def test_a_miss_waits_for_the_look_another_has_begun(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "POLL_INTERVAL_S", NEVER_S)
    monkeypatch.setattr(keys_module, "MISS_RELOAD_INTERVAL_S", NEVER_S)
    with a_world(sqlite_url, open_to_all=False) as world:
        token = world.token(TokenKind.WRITE)
        outcomes: list[type[Exception] | None] = []
        gate = threading.Barrier(8)

        def ask() -> None:
            gate.wait()
            outcomes.append(refusal(lambda: world.keys.write_project(token)))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert outcomes == [None] * 8


def test_what_another_process_revokes_is_refused_after_the_next_poll(ledger_url: str, only_polled: None) -> None:
    with a_world(ledger_url, open_to_all=True) as world:
        token = world.token(TokenKind.WRITE)
        eventually(lambda: world.keys._copy.revision > 1)
        assert world.keys.write_project(token)
        subprocess.run([sys.executable, "-c", REVOKE, ledger_url, token], cwd=REPOSITORY, check=True)
        eventually(lambda: refusal(lambda: world.keys.write_project(token)) is Unauthenticated)


def test_a_poll_that_sees_no_change_reads_one_number(sqlite_url: str, unpolled: None) -> None:
    with a_world(sqlite_url, open_to_all=True) as world:
        world.keys.renew()  # the pool's first connection is made
        with world.looks() as asked:
            world.keys.renew()
    assert [sql.split() for sql in asked if sql != "BEGIN"] == [["SELECT", "revision.value", "FROM", "revision"]]


def test_while_the_ledger_cannot_be_read_known_tokens_work_and_unknown_ones_should_try_again(
    ledger_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keys_module, "POLL_INTERVAL_S", 0.02)

    def sql(statement: str) -> None:
        engine = sync_engine(ledger_url)
        with engine.begin() as connection:
            connection.execute(text(statement))
        engine.dispose()

    with a_world(ledger_url, open_to_all=False) as world:
        known = world.token(TokenKind.WRITE)
        eventually(lambda: refusal(lambda: world.keys.write_project(known)) is None)
        sql("ALTER TABLE revision RENAME TO lost")
        eventually(lambda: world.keys._failing)
        assert world.keys.write_project(known)
        with pytest.raises(Unavailable, match="try again"):
            world.keys.write_project(mint_token())
        sql("ALTER TABLE lost RENAME TO revision")
        eventually(lambda: not world.keys._failing)
        assert refusal(lambda: world.keys.write_project(mint_token())) is Unauthenticated
    assert [record.levelname for record in caplog.records if record.name == "storage.keys"] == ["WARNING"]


class Step(NamedTuple):
    """Something an operator does, or the passing of time."""

    what: str
    kind: TokenKind
    number: int


STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(["project", "token", "mortal token", "revoke", "wait"]),
        st.sampled_from(TokenKind),
        st.integers(0, 9),
    ),
    max_size=12,
)


@dataclass
class Known:
    """What the test itself remembers of a token."""

    secret: str
    kind: TokenKind
    project: str
    expires_ns: float
    revoked: bool = False


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, open_to_all=st.booleans())
def test_whatever_is_done_to_the_ledger_the_keys_agree(tmp_path: Path, steps: list[Step], open_to_all: bool) -> None:
    url = f"sqlite:///{tmp_path / uuid4().hex}"
    projects, tokens = ["default"], list[Known]()
    with a_world(url, open_to_all=open_to_all) as world:
        for step in steps:
            if step.what == "project":
                projects.append(world.project(f"project-{len(projects)}").name)
            elif step.what == "wait":
                world.clock.ns += step.number * NS_PER_S
            elif step.what == "revoke" and tokens:
                chosen = tokens[step.number % len(tokens)]
                world.revoke(chosen.secret)
                chosen.revoked = True
            elif step.what.endswith("token"):
                project = projects[step.number % len(projects)]
                life_s = step.number + 1 if step.what == "mortal token" else None
                secret = world.token(step.kind, project, expires_in_s=life_s)
                ends_ns = float("inf") if life_s is None else world.clock.ns + life_s * NS_PER_S
                tokens.append(Known(secret, step.kind, project, ends_ns))
        world.keys.renew()
        for token in tokens:
            for kind in TokenKind:
                if token.revoked or token.expires_ns <= world.clock.ns:
                    assert refusal(lambda: world.keys.project_for(token.secret, kind)) is Unauthenticated  # noqa: B023  # called at once
                elif kind is not token.kind:
                    assert refusal(lambda: world.keys.project_for(token.secret, kind)) is Forbidden  # noqa: B023  # called at once
                else:
                    assert world.keys.project_for(token.secret, kind).name == token.project
