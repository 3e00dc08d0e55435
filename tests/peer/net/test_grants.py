"""Grants at hand: which is used once more, and when another is asked for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from peer.net.coordinator_link import CoordinatorLink
from peer.net.grants import RENEW_BEFORE_MS, Grants
from protocol import limits
from protocol.grants import Grant, Operation, sign_body
from protocol.ids import FolderId, Pseudonym
from protocol.messages import Granted
from protocol.signing import public_key

SEED = bytes(range(32))
FOLDER = FolderId(b"f" * 32)
LIFE_MS = limits.GRANT_S_MAX * 1000
NOW_MS = 1_800_000_000_000


class Link:
    """A coordinator that grants everything, by a clock that is not the one it told of when this device logged in."""

    def __init__(self, ahead_ms: int) -> None:
        self.heard_ms = NOW_MS
        self.ahead_ms = ahead_ms
        self.asked = 0
        self.address = SimpleNamespace(token_key=public_key(SEED))

    def now_ms(self) -> int:
        return self.heard_ms

    async def ask(self, message: Any, _: type[Granted]) -> Granted:
        self.asked += 1
        now_ms = self.heard_ms + self.ahead_ms
        id = self.asked.to_bytes(16)
        body = Grant(
            id, Pseudonym(b"p" * 16), public_key(SEED), message.operations, 1 << 40, 1 << 20, now_ms, now_ms + LIFE_MS
        )
        return Granted(sign_body(body, SEED), Pseudonym(b"p" * 16), 1, 1, ())


@pytest.mark.parametrize(
    ("ahead_ms", "later_ms", "asked"),
    [
        (0, 0, 1),
        (0, LIFE_MS - RENEW_BEFORE_MS - 1, 1),
        (0, LIFE_MS - RENEW_BEFORE_MS, 2),
        (limits.CLOCK_SKEW_S_MAX * 1000, 0, 1),
        (limits.CLOCK_SKEW_S_MAX * 1000 + 1, 0, 2),
        (limits.CLOCK_SKEW_S_MAX * 1000 + 1, 1, 1),
    ],
)
def test_a_grant_is_used_again_for_as_long_as_nodes_take_it(ahead_ms, later_ms, asked):
    """The history 7000453: one of a clock that was a day ahead was shown for a day after that had been put right."""

    async def story() -> None:
        link = Link(ahead_ms)
        grants = Grants(cast("CoordinatorLink", link), SEED)
        await grants.get(FOLDER, Operation.GET, size=1, chunks=1)
        link.heard_ms += later_ms
        link.ahead_ms = 0
        await grants.get(FOLDER, Operation.GET, size=1, chunks=1)
        assert link.asked == asked

    asyncio.run(story())
