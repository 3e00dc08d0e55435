"""The spool is sent beside the loop, which sleeps meanwhile."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from peer.engine.folder import FolderEngine
from peer.engine.room import Room
from protocol.errors import NoQuorumError, UserError
from protocol.ids import Pseudonym
from tests.peer.engine.test_trash import Calm, World


class Lagging:
    """A spool of which nothing is taken at the first try; the second one goes on for as long as it is let."""

    def __init__(self) -> None:
        self.tries = 0
        self.on_kept = lambda: None
        self.may_end = asyncio.Event()

    async def is_empty(self) -> bool:
        return False

    async def drain(self, remake: Any) -> None:
        self.tries += 1
        if self.tries == 1:
            raise NoQuorumError("away")
        await self.may_end.wait()


def test_the_loop_sleeps_while_the_spool_is_sent_after_it_failed_once(tmp_path):
    world = World(tmp_path / "f")

    async def main() -> None:
        spool = Lagging()
        follower = SimpleNamespace(
            is_mixed=False, has_caught_up=False, record=replace(world.record, pseudonym=Pseudonym(b"p" * 32))
        )
        safety = Calm()
        uploader = SimpleNamespace(spool=spool)
        holdings = SimpleNamespace(remake=None)
        room = Room(world.context.processor, world.guard)
        parts: list[Any] = [
            world.context,
            follower,
            world.observer,
            *[None] * 4,
            uploader,
            None,
            safety,
            holdings,
            room,
        ]
        engine = FolderEngine(*parts)
        world.observer.has_looked, world.observer._full_wanted = True, False
        for part in ("pull", "push", "plan"):
            engine._block_part(part, UserError("not here"))
            engine.outlook.parts[part].until_s = 1e12
        turns = 0
        turn = engine._turn

        async def counted() -> bool:
            nonlocal turns
            turns += 1
            return await turn()

        engine._turn = counted  # type: ignore[method-assign]
        task = asyncio.create_task(engine.run())
        async with asyncio.timeout(5):
            await engine.quiet()
            assert spool.tries == 1
            world.clock.s += 60
            engine.wake()
            while spool.tries < 2:  # noqa: ASYNC110 - the loop tells nobody
                await asyncio.sleep(0.01)
            turns = 0
            await asyncio.sleep(0.2)
            assert turns <= 2
            spool.may_end.set()
            await engine.quiet()
            assert engine.outlook.trouble == "not here"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
