"""Who is dialled next, where only few are dialled at once."""

import asyncio

from peer.lan.turns import Turns


def order(*who: tuple[str, int], most: int = 1, cancelled: tuple[str, ...] = ()) -> list[str]:
    """Return in what order some have their turn who came while all turns were taken."""

    async def main() -> list[str]:
        had: list[str] = []
        turns, release = Turns(most), asyncio.Event()

        async def hold() -> None:
            async with turns.turn(0):
                await release.wait()

        async def wait(name: str, failures: int) -> None:
            async with turns.turn(failures):
                had.append(name)
                await asyncio.sleep(0)

        held = [asyncio.create_task(hold()) for _ in range(most)]
        await asyncio.sleep(0)
        waiting = {name: asyncio.create_task(wait(name, failures), name=name) for name, failures in who}
        await asyncio.sleep(0)
        assert not had
        release.set()
        for name in cancelled:
            waiting[name].cancel()
        await asyncio.wait([*held, *waiting.values()])
        async with asyncio.timeout(5), turns.turn(0):  # none is lost
            return had

    return asyncio.run(main())


def test_the_newest_goes_first():
    assert order(("first", 0), ("second", 0), ("third", 0)) == ["third", "second", "first"]


def test_who_failed_goes_behind_who_did_not():
    assert order(("once", 1), ("never", 0), ("twice", 2), ("later once", 1)) == ["never", "later once", "once", "twice"]


def test_who_is_cancelled_leaves_his_turn_to_the_others():
    assert order(("a", 0), ("b", 0), ("c", 0), cancelled=("c", "a")) == ["b"]
    assert order(("a", 0), cancelled=("a",)) == []
    assert order(("a", 0), ("b", 0), ("c", 0), most=2, cancelled=("b",)) == ["c", "a"]
