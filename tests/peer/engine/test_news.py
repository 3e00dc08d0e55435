"""What the coordinator tells without being asked: what was followed already is not asked for again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from peer.engine.follower import Follower
from peer.engine.news import News
from peer.store.database import InlineDatabase
from peer.store.folders import FolderRecord
from peer.store.schema import SCHEMA
from protocol.history import Checkpoint, SignedCheckpoint
from protocol.ids import DeviceId, FolderId, LinkHash
from protocol.messages import FolderHead

FOLDER = FolderId(bytes(32))
KNOWN = Checkpoint(1, FOLDER, 5, b"\x05" * 32, LinkHash(bytes(32)), 1_000)
NEAR = frozenset({DeviceId(b"\x01" * 32)})


def news_of(near: frozenset[DeviceId] = frozenset(), position: int = 5) -> News:
    """Return the news of a device that followed all up to KNOWN."""
    lan = SimpleNamespace(near=lambda: near)
    context: Any = SimpleNamespace(database=InlineDatabase(":memory:", SCHEMA), lan=lan, clock=None)
    signed = SignedCheckpoint(KNOWN, bytes(64))
    follower = Follower(context, FolderRecord(1, FOLDER, "f", b"/f", None, position=position, checkpoint=signed))
    follower.has_caught_up = True
    return News(follower)


def told(registered: int = 0, **changes: object) -> FolderHead:
    return FolderHead(SignedCheckpoint(replace(KNOWN, **changes), bytes(64)), registered)


@pytest.mark.parametrize(
    ("why", "head", "near", "wanted"),
    [
        ("just what was followed", told(), frozenset(), False),
        ("the same, signed later", told(time_ms=2_000), frozenset(), False),
        ("one more item", told(position=6), frozenset(), True),
        ("one item less", told(position=4), frozenset(), True),
        ("another history of that length", told(chain=b"\x06" * 32), frozenset(), True),
        ("of another generation", told(generation=2), frozenset(), True),
        ("other members", told(control_head=LinkHash(b"\x01" * 32)), frozenset(), True),
        ("registered by somebody who is not near", told(registered=3), frozenset(), False),
        ("registered by somebody who may be near", told(registered=3), NEAR, True),
        ("somebody near, and nothing registered", told(), NEAR, False),
    ],
)
def test_the_log_is_asked_for_by_what_is_news(why, head, near, wanted):
    news = news_of(near)
    news.hear(head)
    assert news.is_open, why
    assert (news.take(), news.is_open) == (wanted, False), why


def test_nothing_told_is_no_news():
    assert not news_of().take()


def test_what_is_followed_by_the_time_that_it_is_looked_at_is_no_news():
    news = news_of(position=4)
    news.hear(told())
    news._follower.record = replace(news._follower.record, position=5)
    assert not news.take()


def test_who_has_not_caught_up_or_holds_another_state_than_was_signed_asks():
    news = news_of()
    news._follower.has_caught_up = False
    assert not news.has_followed(KNOWN)
    assert not news_of(position=4).has_followed(replace(KNOWN, position=4))
    assert not news_of().has_followed(None)
