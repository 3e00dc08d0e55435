"""Logs that are given back in parts: only what follows, only so much, one folder at a time."""

from __future__ import annotations

import pytest

from coordinator.core import staging as module
from coordinator.core.staging import BYTES_MAX, ITEM_BYTES, ITEMS_A_MESSAGE_MAX, ITEMS_MAX, SILENT_S, Staging
from protocol.errors import LimitExceededError, ProtocolError, UnavailableError
from protocol.history import ItemKind, LogItem
from protocol.ids import FolderId
from tests.protocol.chain_world import fixed

F, G = FolderId(fixed("f")), FolderId(fixed("g"))


def items(first: int, last: int, data: bytes = b"") -> list[LogItem]:
    return [LogItem(position, ItemKind.VOID, 0, data) for position in range(first, last + 1)]


def add(some: Staging, part, *, folder=F, session=1, after=2, end=9, now_s=0.0):
    return some.add(session, folder, part, after=after, end=end, now_s=now_s)


def test_parts_come_together():
    some = Staging()
    assert add(some, items(1, 4)) is None  # 1 and 2 are there already
    assert some.size == 2 * ITEM_BYTES
    assert add(some, items(4, 6, b"again")) is None
    assert add(some, items(7, 9)) == [*items(3, 4), *items(5, 6, b"again"), *items(7, 9)]
    assert some.size == 0


def test_one_message_is_enough_and_waits_for_nobody():
    some = Staging()
    add(some, items(3, 4))
    assert add(some, items(1, 9), folder=G) == items(3, 9)
    assert add(some, items(3, 9)) == items(3, 9)
    assert some.size == 0


def test_a_new_beginning_takes_the_place_of_the_old():
    some = Staging()
    add(some, items(3, 6))
    assert add(some, items(3, 4, b"x")) is None
    assert some.size == 2 * ITEM_BYTES + 2
    assert add(some, items(5, 9)) == [*items(3, 4, b"x"), *items(5, 9)]


def test_what_is_there_already_is_not_kept():
    some = Staging()
    assert add(some, items(1, 9), after=9) == []
    assert add(some, items(1, 2)) is None
    assert add(some, []) is None
    assert some.size == 0


@pytest.mark.parametrize(
    "part", [items(4, 5), items(3, 10), items(10, 11), [*items(3, 3), *items(5, 5)], items(3, 3) * 2, items(-1, 0)]
)
def test_the_first_position_is_not_free(part):
    some = Staging()
    with pytest.raises(ProtocolError):
        add(some, part)
    assert some.size == 0


def test_a_gap_between_parts_forgets_all():
    some = Staging()
    add(some, items(3, 4))
    with pytest.raises(ProtocolError):
        add(some, items(6, 7))
    assert some.size == 0


def test_numbers_of_items_are_bounded():
    some = Staging()
    assert add(some, items(1, ITEMS_A_MESSAGE_MAX), after=0, end=ITEMS_MAX) is None
    with pytest.raises(LimitExceededError):
        add(some, items(1, ITEMS_A_MESSAGE_MAX + 1), after=0, end=ITEMS_MAX)
    with pytest.raises(LimitExceededError):
        add(some, items(1, 1), after=0, end=ITEMS_MAX + 1, session=2)


def test_bytes_of_a_session_are_bounded():
    """At the limit and one above; an item without data has its weight too."""
    some = Staging()
    data = bytes(BYTES_MAX // 64 - ITEM_BYTES)
    assert add(some, items(1, 64, data), after=0, end=99) is None
    assert some.size == BYTES_MAX
    with pytest.raises(LimitExceededError):
        add(some, items(65, 65), after=0, end=99)
    assert some.size == 0


def test_bytes_of_all_sessions_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "TOTAL_BYTES_MAX", 2 * ITEM_BYTES)
    some = Staging()
    add(some, items(3, 3))
    add(some, items(3, 3), session=2)
    with pytest.raises(UnavailableError):
        add(some, items(3, 3), session=3)
    some.drop(1)
    some.drop(1)
    assert add(some, items(3, 3), session=3) is None
    some.drop(2)
    some.drop(3)
    assert some.size == 0


def test_a_session_gives_back_one_folder_at_a_time():
    some = Staging()
    add(some, items(3, 4))
    with pytest.raises(UnavailableError):
        add(some, items(3, 4), folder=G, now_s=SILENT_S - 1)
    assert add(some, items(3, 5), folder=G, now_s=SILENT_S) is None
    assert some.size == 3 * ITEM_BYTES
