"""Prepared images of worlds: an account, its devices, and a folder on all of them, made once by the real set-up.

Rule 1: an image is made on virtual time from a seed that no history has, so that it is the same in every process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, Final

from coordinator.store.repository import Repository
from peer import folder_commands
from peer.api.backend import Report
from peer.core.keys import AccountRoot, DeviceSecrets
from peer.core.links import make_account
from peer.device import Device
from peer.engine.context import Doors
from peer.joining import Target, fill_database, register_account
from peer.linking import Joined, be_linked
from peer.net.coordinator_link import Address, open_session
from peer.store.schema import SCHEMA
from protocol.link_codes import parse_link_code
from simulations.databases import SimDatabase, empty_image
from simulations.devices import FOLDER, ROOT, DeviceMachine, Kept
from simulations.doors import SimClock
from simulations.servers import TOKEN, URL
from simulations.world import World, WorldImage

SEED: Final = -1
USER: Final = "anna"


@cache
def prepared(
    devices: int = 3,
    nodes: int = 3,
    spare: int = 0,
    give: Callable[[DeviceMachine], None] | None = None,
    *,
    enrols: bool = False,
) -> WorldImage:
    """Return a world at rest: one account, all devices linked, one folder on all of them, in it nothing yet.

    Args:
        devices: How many devices there are.
        nodes: How many storage nodes; where these are fewer than the usual copies, there are fewer copies.
        spare: So many of the devices, the last ones, have no folder.
        give: What the first device's user puts into the folder, which then is on all others, too.
        enrols: Whether each device has the number that it writes under; else it takes one with its first change.
    """
    world = World(SEED, WorldImage(0, None, (None,) * nodes, (None,) * devices))
    images: list[WorldImage] = []

    async def story(world: World) -> None:
        await _set_up(world, spare)
        if give is not None:
            give(world.devices[0])
            await world.settle()
        if enrols:
            for device in world.devices:
                await device.do(_enrol(device))
            await world.settle()
        await world.stop_all()
        images.append(world.image())

    world.run(story, begins=False)
    return images[0]


async def _set_up(world: World, spare: int) -> None:
    await world.coordinator.start()
    await world.coordinator.do(_let_nodes_in(world))
    await asyncio.gather(*(node.start() for node in world.nodes))
    first, *others = world.devices
    keys, database = await first.process(lambda: _make_account(first))
    await first.become(keys, database)
    await first.do(folder_commands.add(first.device, ROOT, FOLDER, place=any_place))
    await first.sync()
    for other in others:
        keys, database = await link(lambda report: first.call("link_code", report, yes=True), other)
        await other.become(keys, database)
        if other in world.devices[len(world.devices) - spare :]:
            continue
        await other.do(folder_commands.get(other.device, FOLDER, ROOT, place=any_place))
        await other.sync()
    await world.settle()


async def _enrol(machine: DeviceMachine) -> None:
    for engine in machine.device.engines.values():
        await engine.recorder.enrol()


async def _let_nodes_in(world: World) -> None:
    now_ms = SimClock(world.loop, world.coordinator.host).now_ms()
    service, nodes = world.coordinator.service, len(world.nodes)

    def change(repository: Repository) -> None:
        repository.settings.add_token(TOKEN, "storage", "", nodes, now_ms)
        repository.settings.set_copies(min(nodes, service.replicas), min(nodes, service.quorum))

    await service.database.write(change)
    await service.refresh()


async def any_place(_: Device, path: str) -> str:
    """Take any directory of a simulated disk for a root: the checks of :func:`peer.folder_commands.new_root` ask the real one."""
    return path


async def _make_account(machine: DeviceMachine) -> tuple[Kept, bytes]:
    doors = machine.doors()
    secrets, root = DeviceSecrets.create(doors.entropy), AccountRoot.create(doors.entropy)
    genesis, account_keys = make_account(
        root, secrets, machine.name, hpke=doors.hpke, entropy=doors.entropy, now_ms=doors.clock.now_ms()
    )
    session = await open_session(Address(URL, b"", b"", b""), doors.dialer)
    try:
        record = await register_account(
            session, Target(URL, "", b""), genesis, secrets, user=USER, device=machine.name, entropy=doors.entropy
        )
    finally:
        await session.close()
    return await _filled(machine, Joined(record, secrets, account_keys, (genesis,), ()))


async def link(
    show: Callable[[Report], Coroutine[Any, Any, Any]], other: DeviceMachine, name: str = ""
) -> tuple[Kept, bytes]:
    """Let a machine on which nothing runs into an account; return what it then keeps.

    Args:
        show: Has a device of the account show its code, and report it.
        other: The machine.
        name: Of the device that it becomes; the machine's if it is empty.
    """
    shown: asyncio.Queue[str] = asyncio.Queue()

    def report(event: dict[str, Any]) -> None:
        if "code" in event:
            shown.put_nowait(event["code"])

    showing = asyncio.create_task(show(report))
    code = await shown.get()
    found = await other.process(lambda: _be_linked(other, other.doors(), code, name or other.name))
    await showing
    return found


async def _be_linked(machine: DeviceMachine, doors: Doors, code: str, name: str) -> tuple[Kept, bytes]:
    async def confirm(_: str) -> bool:
        return True

    return await _filled(machine, await be_linked(doors, parse_link_code(code), URL, name, confirm))


async def _filled(machine: DeviceMachine, joined: Joined) -> tuple[Kept, bytes]:
    database = SimDatabase(machine.loop, machine.host, empty_image(SCHEMA))
    await fill_database(database, joined.record, joined.chain, joined.heads)
    await database.close()
    return Kept(joined.secrets, joined.account_keys), database.image()
