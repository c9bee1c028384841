"""Handles: good for their own maker, for a while."""

import pytest

from core.errors import NotFound
from flight import handles as handles_module
from flight.handles import HANDLE_S_MAX, Handles, Prepared
from query.statements import Statement

MINE = Prepared(Statement("SELECT 1", "p"), "mine", None)


def test_a_handle_is_only_good_for_its_owner() -> None:
    handles = Handles()
    handle = handles.add(MINE)
    assert handles.get(handle, "mine") is MINE
    handles.remove(handle, "yours")
    with pytest.raises(NotFound):
        handles.get(handle, "yours")
    handles.remove(handle, "mine")
    with pytest.raises(NotFound):
        handles.get(handle, "mine")


def test_a_handle_expires_when_it_is_not_used() -> None:
    now = 0.0
    handles = Handles(lambda: now)
    handle = handles.add(MINE)
    now = HANDLE_S_MAX - 1
    handles.get(handle, "mine")
    now = 2 * HANDLE_S_MAX - 2
    handles.get(handle, "mine")
    now = 3 * HANDLE_S_MAX
    with pytest.raises(NotFound):
        handles.get(handle, "mine")


def test_the_handle_unused_for_longest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handles_module, "HANDLES_MAX", 2)
    handles = Handles()
    first, second = handles.add(MINE), handles.add(MINE)
    handles.get(first, "mine")
    handles.add(MINE)
    assert handles.get(first, "mine") is MINE
    with pytest.raises(NotFound):
        handles.get(second, "mine")
