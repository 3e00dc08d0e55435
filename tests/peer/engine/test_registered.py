"""What is taken of entries that are registered and not ordered yet."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from peer.engine.registered import Registered
from protocol import messages as m
from protocol.ids import DeviceId

A, B = DeviceId(b"a" * 32), DeviceId(b"b" * 32)


class Here:
    async def run(self, function, /, *args):
        return function(*args)


class Nowhere:
    async def run(self, function):
        return 0


class World:
    """A coordinator that holds entries, each just the id of its author, and who of these is near."""

    def __init__(self, *authors: DeviceId) -> None:
        self.entries = tuple(enumerate(authors, start=1))
        self.near = {A}
        self.comes: DeviceId | None = None
        """Who comes near while entries are asked for."""
        self.received: list[DeviceId] = []
        lan = SimpleNamespace(near=lambda: frozenset(self.near))
        context: Any = SimpleNamespace(lan=lan, link=self, processor=Here(), database=Nowhere())
        follower: Any = SimpleNamespace(record=SimpleNamespace(id=b"f" * 32, key=1))
        judge: Any = None
        self.registered = Registered(context, follower, judge)
        self.registered._receive = self.receive  # type: ignore[method-assign]

    async def ask(self, message: m.PullRegistered, kind: type) -> m.Registered:
        if self.comes is not None:
            self.near.add(self.comes)
            self.comes = None
            self.registered.look_again()
        return m.Registered(tuple(one for one in self.entries if one[0] > message.after), more=False)

    async def receive(self, data: bytes, near: Any) -> Any:
        if data not in near:
            return None
        self.received.append(DeviceId(data))
        return SimpleNamespace(entry=None)

    def follow(self) -> list[DeviceId]:
        self.received.clear()
        asyncio.run(self.registered.follow())
        return self.received


def test_what_a_device_wrote_that_comes_near_while_others_are_followed_is_not_passed_over():
    world = World(B, A)
    world.comes = B
    assert world.follow() == [A]
    assert world.follow() == [B, A]
    world.registered.newest = 2
    assert world.follow() == []
