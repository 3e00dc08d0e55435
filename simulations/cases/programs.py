"""Programs that work on one file for a while: one that writes it block by block, and one that does to it what files allow.

Rule 1: what a program has written so far is known at each moment, so that whoever saw the file then can be judged.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from blake3 import blake3

from simulations.cases.contents import Origin, content, digest_of, pieces
from simulations.cases.files import Step, remember
from simulations.cases.hands import Failed
from simulations.cases.world import Peer, World

FSX: Final = "fsx"
_FSX_MAX: Final = "64KB"


async def write_slow(world: World, peer: Peer, step: Step) -> None:
    """Write one block of a content every interval, in place."""
    path, token = step["path"], str(step["token"])
    size, block = world.size(step["size"]), max(1, world.size(step["block"]))
    remember(peer, path)
    hashing = blake3()
    allowed = world.published.setdefault(path, set())
    if path in (before := world.tree(peer)):
        allowed.add(before[path])  # others have what was there so far
    world.slow[path] = peer.name
    for number, data in enumerate(_blocks(token, size, block)):
        if number:
            await asyncio.sleep(step["interval_s"])
        before = world.tree(peer)
        hashing.update(data)
        allowed.add(hashing.hexdigest())
        with peer.disk.open(peer.at(path)) as file:
            if not number:
                file.truncate(0)
            file.write(data)
        world.note_hand(peer, before)
    world.contents.note(token, hashing.hexdigest(), Origin(peer.name, path), size)
    del world.slow[path]


def _blocks(token: str, size: int, block: int) -> Iterator[bytes]:
    """Yield a content in blocks of one size; the last one may be smaller."""
    held = bytearray()
    for piece in pieces(token, size):
        held += piece
        while len(held) >= block:
            yield bytes(held[:block])
            del held[:block]
    if held:
        yield bytes(held)


async def sync_during(world: World, peer: Peer, writing: asyncio.Task[None]) -> None:
    """Do passes of a device, one after the other, until a program has ended."""
    while not writing.done():
        await world.sync(peer)


# --- All that can be done to a file


async def fsx(world: World, peer: Peer, step: Step) -> None:
    """Write, truncate, extend, punch holes and rename over a file, by seed; every so often all devices must hold the model.

    A hole is what reads as one: zeros.
    """
    rnd = random.Random(f"{world.seed}:{FSX}")
    size_max = max(1, world.size(step.get("max_size", _FSX_MAX)))
    model = bytearray()
    world.model_of = peer.name
    for number in range(1, step["ops"] + 1):
        before = world.tree(peer)
        _deed(world, peer, rnd, model, size_max, number)
        world.note_hand(peer, before)
        world.contents.note(f"{FSX}#{number}", digest_of(bytes(model)), Origin(peer.name, FSX), len(model))
        if number % step["settle_every"] == 0:
            await world.settle()
            check_fsx(world, bytes(model))


def check_fsx(world: World, model: bytes) -> None:
    """Compare the file on every device with the model.

    Raises:
        Failed: One holds something else.
    """
    for peer in world.active():
        if not peer.disk.exists(peer.at(FSX)) or peer.disk.read(peer.at(FSX)) != model:
            raise Failed(f"{FSX} on {peer.name} is not what the model is")


def _deed(world: World, peer: Peer, rnd: random.Random, model: bytearray, size_max: int, number: int) -> None:
    """Do one thing to the file and to the model."""
    if not peer.disk.exists(peer.at(FSX)):
        model[:] = b""
    kinds = list(_DEEDS)
    _DEEDS[rnd.choice(kinds)](peer, rnd, model, size_max)
    if rnd.random() < _RENAMES:
        model[:] = content(f"{FSX}:{world.seed}:{number}", rnd.randint(1, size_max))[:size_max]
        peer.disk.write(peer.at(f"{FSX}.new"), bytes(model))
        peer.disk.rename(peer.at(f"{FSX}.new"), peer.at(FSX))


_RENAMES: Final = 0.1
"""How often a new file is renamed over the old one."""


def _write(peer: Peer, rnd: random.Random, model: bytearray, size_max: int) -> None:
    offset = rnd.randint(0, len(model))
    _put(peer, model, offset, rnd.randbytes(rnd.randint(1, max(1, size_max - offset))))


def _truncate(peer: Peer, rnd: random.Random, model: bytearray, size_max: int) -> None:  # noqa: ARG001 - a deed
    _resize(peer, model, rnd.randint(0, len(model)))


def _extend(peer: Peer, rnd: random.Random, model: bytearray, size_max: int) -> None:
    _resize(peer, model, rnd.randint(len(model), max(len(model), size_max)))


def _punch(peer: Peer, rnd: random.Random, model: bytearray, size_max: int) -> None:  # noqa: ARG001 - a deed
    if model:
        offset = rnd.randrange(len(model))
        _put(peer, model, offset, bytes(rnd.randint(1, len(model) - offset)))


def _put(peer: Peer, model: bytearray, offset: int, data: bytes) -> None:
    model[offset : offset + len(data)] = data
    with peer.disk.open(peer.at(FSX)) as file:
        file.write(data, offset)


def _resize(peer: Peer, model: bytearray, size: int) -> None:
    del model[size:]
    model += bytes(size - len(model))
    with peer.disk.open(peer.at(FSX)) as file:
        file.truncate(size)


_DEEDS: Final[Mapping[str, Callable[[Peer, random.Random, bytearray, int], None]]] = {
    "write": _write,
    "truncate": _truncate,
    "extend": _extend,
    "punch": _punch,
}
