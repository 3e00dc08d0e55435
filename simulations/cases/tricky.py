"""Operations of a case that only a simulated world can do: at one point of a pass, behind a lock, on no watcher's word."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from simulations.cases.contents import Origin, content, digest_of
from simulations.cases.files import Step, write, write_many
from simulations.cases.grammar import Skipped
from simulations.cases.hands import OpenFile
from simulations.cases.world import Peer, World

Act = Callable[[], None]
_DAY_S: Final = 86_400.0
_DO: Final = (
    (re.compile(r"write_many count=(?P<count>\d+)"), "write_many"),
    (re.compile(r"write path=(?P<path>\S+) token=(?P<token>\S+)"), "write"),
    (re.compile(r"rename (?P<source>\S+)\(token (?P<token>\S+)\) over (?P<path>\S+)"), "rename"),
    (re.compile(r"append (?P<token>\S+) via old handle"), "append"),
)
_AT: Final = "apply:"
_OPEN_BEFORE: Final = "open_before_write_after"


def deed(world: World, peer: Peer, text: str) -> Act:
    """Return what a ``do`` says, to be done by the device's user.

    Raises:
        Skipped: It is none of the four forms.
    """
    for pattern, kind in _DO:
        if match := pattern.fullmatch(text):
            found = match.groupdict()
            return partial(_noted, world, peer, partial(_do, world, peer, kind, found))
    raise Skipped(f"unknown deed {text!r}")


def _noted(world: World, peer: Peer, act: Act) -> None:
    before = world.tree(peer)
    act()
    world.note_hand(peer, before)


def _do(world: World, peer: Peer, kind: str, found: Mapping[str, Any]) -> None:
    match kind:
        case "write_many":
            write_many(world, peer, {"dir": ".", "count": int(found["count"])})
        case "write":
            write(world, peer, found)
        case "rename":
            write(world, peer, {"path": found["source"], "token": found["token"]})
            peer.disk.rename(peer.at(found["source"]), peer.at(found["path"]))
        case _:
            _append_through(world, peer, world.memory["old handle"], found["token"])


def _append_through(world: World, peer: Peer, handle: OpenFile, token: str) -> None:
    handle.write(content(token))
    handle.close()
    before: bytes = world.memory["old bytes"]
    path = world.memory["old path"]
    world.contents.blocks[path].append(token)
    world.contents.note(token, digest_of(before + content(token)), Origin(peer.name, path))


async def sync_with_injection(world: World, peer: Peer, step: Step) -> None:
    """Do one pass, and at a point of it what the step says."""
    point, act = step["point"], deed(world, peer, step["do"])
    target = peer.at(step.get("path", "f"))
    if not point.startswith(_AT):
        raise Skipped(f"unknown point {point}")
    happened: list[str] = []

    def once() -> None:
        happened.append(point)
        act()

    tricks = world.hands.tricks
    if point == _AT + _OPEN_BEFORE:
        tricks.at_point(peer.machine, "A", target, lambda: _hold(world, peer, target, step.get("path", "f")))
        tricks.at_point(peer.machine, "D", target, once)
    else:
        tricks.at_point(peer.machine, point.removeprefix(_AT), target, once)
    await world.sync(peer)
    if not happened:
        raise Skipped(f"no pass came to {point}")


def _hold(world: World, peer: Peer, target: str, path: str) -> None:
    world.memory["old bytes"] = peer.disk.read(target)
    world.memory["old path"] = path
    world.memory["old handle"] = peer.disk.open(target)


async def hook_during_sync(world: World, peer: Peer, step: Step) -> None:
    """Have the user do something in the device's next pass, while it scans."""
    world.hands.tricks.during_scan(peer.machine, deed(world, peer, step["do"]))


async def lock_file(world: World, peer: Peer, step: Step) -> None:
    """Let no process of the product read or replace a file."""
    world.memory[f"locked:{peer.name}:{step['path']}"] = True
    world.hands.tricks.lock(peer.machine, peer.at(step["path"]))


async def unlock_file(world: World, peer: Peer, step: Step) -> None:
    """End that."""
    world.memory.pop(f"locked:{peer.name}:{step['path']}", None)
    world.hands.tricks.unlock(peer.machine, peer.at(step["path"]))


async def rename_matrix(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - the signature of an operation
    """Rename everything to everything, on a simulated and on a real file system."""
    world.memory["renames differ"] = world.hands.tricks.compare_renames()


async def unmount_subtree(world: World, peer: Peer, step: Step) -> None:
    """Let a directory be empty and on another disk."""
    world.hands.tricks.unmount(peer.machine, peer.at(step["path"]))


async def advance_time(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see rename_matrix
    """Let the clocks of all go on."""
    world.hands.tricks.advance(step["days"] * _DAY_S)


async def scan_path(world: World, peer: Peer, step: Step) -> None:
    """Have only this path scanned again."""
    await world.hands.tricks.scan(peer.machine, step["path"])


async def disable_watch(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see rename_matrix
    """No watcher tells anything any more, and the next pass applies what is remote before it scans."""
    if world.hands.orders_scans:
        await world.deafen(peer, applies=True)


OPERATIONS: Final[Mapping[str, Callable[[World, Peer, Step], Awaitable[None]]]] = {
    each.__name__: each
    for each in (
        sync_with_injection, hook_during_sync, lock_file, unlock_file, rename_matrix, unmount_subtree, advance_time,
        scan_path, disable_watch,
    )
}  # fmt: skip
