"""What people have ``kin`` do, beside the agent that runs.

Rule 1: a command may be refused or end with its machine: that is an answer like another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from protocol.entries import Kind
from protocol.errors import KinfolderError
from simulations.history.ledger import Decision, Tree
from simulations.history.people import GivenUp, Person
from simulations.machines import MachineGone

PATIENCE_S: Final = 60.0


async def ask(person: Person, method: str, **params: Any) -> dict[str, Any]:
    """Have the agent do something.

    Raises:
        GivenUp: It is not there, or refuses, or takes too long.
    """
    person.ledger.ask(person.device, person.number, method, person.inside(str(params.get("path") or "")))
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await person.device.call(method, **params)
    except (KinfolderError, MachineGone, TimeoutError) as error:
        raise GivenUp(f"{method}: {error}") from error


async def sync(person: Person) -> None:
    """Have it sync; if it says that all is in sync, what stood there before is safe."""
    before = person.ledger.see(person.device, person.number)
    began_ns = person.device.loop.now_ns
    answer = await ask(person, "sync", timeout=PATIENCE_S / 2)
    if answer["in_sync"]:
        person.ledger.acknowledge(before, began_ns)


async def go_offline(person: Person) -> None:
    """Stop network use, for a while."""
    await ask(person, "offline")
    await person.wait(30.0)
    await ask(person, "online")


async def stay_offline(person: Person) -> None:
    """Stop network use until somebody resumes it."""
    await ask(person, "offline")


async def resolve(person: Person) -> None:
    """Decide about a conflict copy: its bytes become the file's, or it is removed."""
    row = person.choose((await ask(person, "conflicts"))["conflicts"])
    await decide(person, row, keep=person.chance.random() < 0.5)


async def decide(person: Person, row: Mapping[str, Any], *, keep: bool) -> None:
    """Decide about one conflict copy, of those that the agent listed."""
    copy, path = row["copy"], row["path"]
    before = person.ledger.see(person.device, person.number)
    began_ns = person.device.loop.now_ns
    meant = meaning(before, copy, path, keep=keep)
    try:
        await ask(person, "resolve", copy=copy, path=person.path(copy), keep=keep)
        await person.wait(2.0)
    except GivenUp:
        meant = None
        raise
    finally:
        if meant is not None and not keep:
            meant = meant._replace(gone=meant.gone | newer(person, meant.gone, began_ns))
        what = f"decides about {copy}, {keep=}"
        person.ledger.note_by_command(person.device, person.number, what, before, meant, since_ns=began_ns)


def newer(person: Person, dropped: frozenset[bytes], since_ns: int) -> frozenset[bytes]:
    """Return what others made of contents, that came to a device since a time and stands there no more.

    Who drops a copy names it: the agent drops what that is by then, and another may have edited it since it was looked at.
    """
    makers = person.ledger.makers
    return frozenset(
        content
        for content in person.ledger.passed(person.device, person.number, since_ns)
        for maker in makers.get(content, ())
        for path, came in maker.came.items()
        if came == content and path in maker.before and maker.before[path].content in dropped
    )


def meaning(before: Tree, copy: str, path: str, *, keep: bool) -> Decision | None:
    """Return what a decision about a copy is to do, also where it went elsewhere with its directory since it was listed."""
    if copy not in before:
        above, _, name = copy.rpartition("/")
        places = [one for one in before if one.rpartition("/")[2] == name]
        if len(places) != 1:
            return None
        (copy,) = places
        if path.rpartition("/")[0] == above:
            path = f"{copy.removesuffix(name)}{path.rpartition('/')[2]}"
    if before[copy].kind is not Kind.FILE:
        return None
    chosen = before[copy].content
    main = frozenset([before[path].content]) if path in before else frozenset[bytes]()
    return Decision({path: chosen}, main - {chosen}) if keep else Decision({}, frozenset([chosen]))


async def restore(person: Person) -> None:
    """Bring back what a path was some time ago: of the whole folder, also in place of what comes until that is done."""
    inside = person.anything() if person.chance.random() < 0.7 else ""
    await bring_back(person, inside, int(person.chance.choice((1.0, 10.0, 100.0, 3_600.0)) * 1_000))


async def bring_back(person: Person, inside: str, ago_ms: int) -> None:
    """Bring back what a path, or the whole folder, was so many milliseconds ago."""
    before = person.ledger.see(person.device, person.number)
    began_ns, may_go_on = person.device.loop.now_ns, person.device.is_running
    try:
        await ask(
            person,
            "restore",
            path=person.path(inside).rstrip("/"),
            version=None,
            snapshot=None,
            at_ms=None,
            ago_ms=ago_ms,
            to=None,
        )
    except GivenUp as error:
        may_go_on = may_go_on and not isinstance(error.__cause__, KinfolderError)
        raise
    finally:
        meant = Decision({}, person.ledger.passed(person.device, person.number, began_ns))
        what = f"restores {inside or 'all'}"
        action = person.ledger.note_by_command(
            person.device, person.number, what, before, meant, since_ns=began_ns, inside=inside
        )
        if may_go_on or action.came:
            person.ledger.restore(action, inside)


async def snapshot(person: Person) -> None:
    """Name the state of the folder."""
    name = f"kiwi-{person.ledger.token()}"
    person.ledger.see(person.device, person.number)
    await ask(person, "snapshot", folder="docs", name=name)
    person.ledger.snapshots.append(name)
