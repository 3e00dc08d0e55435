"""Coordinator, storage nodes and devices built from doors alone: one process, one thread, no port, databases in memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest
from blake3 import blake3

from coordinator.keys import new_keys
from coordinator.server import Server
from coordinator.service import Coordinator
from coordinator.store.database import InlineDatabase as CoordinatorDatabase
from coordinator.store.database import connect_memory
from peer.core.hpke import EphemeralHpke
from peer.core.keys import AccountKeys, AccountRoot, DeviceSecrets
from peer.core.links import make_account
from peer.device import Device
from peer.disk.files import LinuxFileSystem
from peer.disk.watcher import InotifyWatcher
from peer.doors import SystemClock
from peer.engine.context import Doors as DeviceDoors
from peer.joining import Target, fill_database, register_account
from peer.linking import Joined, be_linked
from peer.net.coordinator_link import Address, open_session
from peer.store.database import InlineDatabase
from peer.store.keyfile import Lock
from peer.store.schema import SCHEMA
from protocol.link_codes import parse_link_code
from storage_node.chunks.memory import MemoryStore
from storage_node.config import make_settings
from storage_node.doors import SystemDisk
from storage_node.identity import Identity
from storage_node.service import Doors as NodeDoors
from storage_node.service import StorageNode
from tests.contracts.memory import MemoryAcceptor, MemoryListener, MemoryNetwork, MemoryNodes
from tests.contracts.memory_lan import Switch

T = TypeVar("T")
URL = "ws://127.0.0.1:1"
NODE_TOKEN = "letanodein"
NODES = 3


class SeededEntropy:
    """Bytes that are the same in each run."""

    def __init__(self, name: str) -> None:
        self._name = name.encode()
        self._drawn = 0

    def __call__(self, count: int, /) -> bytes:
        """Return the next bytes."""
        self._drawn += 1
        return blake3(self._name + self._drawn.to_bytes(8, "big")).digest(count)


class InlineProcessor:
    """Does the work where it is asked for."""

    async def run(self, function: Callable[..., T], /, *args: Any) -> T:
        """Do it."""
        return function(*args)

    def close(self) -> None:
        """Nothing runs."""

    async def finish(self) -> None:
        """Nothing runs."""


class MemoryIdentity:
    """Where a node keeps who it is."""

    def __init__(self) -> None:
        self.kept: Identity | None = None

    def load(self) -> Identity | None:
        """Return it."""
        return self.kept

    def save(self, identity: Identity, /) -> None:
        """Keep it."""
        self.kept = identity


class NoLock:
    """Of a home that nobody else could open."""

    def release(self) -> None:
        """Nothing is held."""


class OpenKeys:
    """Keys that lie on no disk."""

    lock = Lock.NOTHING

    def __init__(self, secrets: DeviceSecrets, account_keys: AccountKeys) -> None:
        self.secrets = secrets
        self.account_keys = account_keys


class World:
    """Everything, over networks in memory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.network = MemoryNetwork()
        self.storage = MemoryNodes()
        self.switch = Switch()
        self.clock = SystemClock()
        self.devices: list[Device] = []
        self._entered = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start a coordinator and storage nodes."""
        entropy = SeededEntropy("coordinator")
        self.coordinator = Coordinator(
            database=CoordinatorDatabase(connect_memory()),
            keys=new_keys(entropy),
            clock=self.clock,
            entropy=entropy,
            open_registration=True,
        )
        await self.coordinator.start()
        self._entered.push_async_callback(self.coordinator.stop)
        now_ms = self.clock.now_ms()
        await self.coordinator.database.write(
            lambda repository: repository.settings.add_token(NODE_TOKEN, "storage", "", NODES, now_ms)
        )
        server = Server(self.coordinator, MemoryAcceptor(self.network, URL), certificates=[bytes(32)])
        await server.start()
        self._entered.push_async_callback(server.stop)
        self.nodes = [await self._node(number) for number in range(NODES)]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop all of it."""
        for device in self.devices:
            await device.close()
        await self._entered.aclose()

    async def _node(self, number: int) -> StorageNode:
        settings = make_settings(
            data=Path("/nowhere"),
            listen="127.0.0.1:0",
            coordinator=URL,
            invite=NODE_TOKEN,
            advertise=None,
            zone=None,
            limit=None,
            backend=None,
        )
        doors = NodeDoors(
            clock=self.clock,
            entropy=SeededEntropy(f"node {number}"),
            processor=InlineProcessor(),
            disk=SystemDisk(),  # of packs, which a store in memory has none of
            open_database=_no_database,
            identity=MemoryIdentity(),
            dialer=self.network,
            nodes=self.storage,
            listener=MemoryListener(self.storage, f"http://127.0.0.1:{number + 1}"),
        )
        node = StorageNode(settings, doors, MemoryStore())
        await node.start()
        self._entered.push_async_callback(node.stop)
        return node

    def doors(self, name: str) -> DeviceDoors:
        """Return the doors of a device."""
        entropy = SeededEntropy(name)
        return DeviceDoors(
            clock=self.clock,
            entropy=entropy,
            processor=InlineProcessor(),
            files=LinuxFileSystem(),
            hpke=EphemeralHpke(entropy),
            dialer=self.network,
            nodes=self.storage,
            lan=self.switch.network(f"192.0.2.{len(self.devices) + 1}"),
            watchers=InotifyWatcher,
        )

    async def first_device(self) -> Device:
        """Make an account."""
        doors = self.doors("laptop")
        secrets, root = DeviceSecrets.create(doors.entropy), AccountRoot.create(doors.entropy)
        genesis, account_keys = make_account(
            root, secrets, "laptop", hpke=doors.hpke, entropy=doors.entropy, now_ms=doors.clock.now_ms()
        )
        session = await open_session(Address(URL, b"", b"", b""), doors.dialer)
        target = Target(URL, "", b"")
        try:
            record = await register_account(
                session, target, genesis, secrets, user="anna", device="laptop", entropy=doors.entropy
            )
        finally:
            await session.close()
        return await self._open(doors, Joined(record, secrets, account_keys, (genesis,), ()))

    async def linked_device(self, other: Device, name: str) -> Device:
        """Link a device to the account of another one."""
        shown: asyncio.Queue[str] = asyncio.Queue()

        def report(event: dict[str, Any]) -> None:
            if "code" in event:
                shown.put_nowait(event["code"])

        async def confirm(_: str) -> bool:
            return True

        showing = asyncio.create_task(other.call("link_code", {"yes": True}, report))
        doors = self.doors(name)
        joined = await be_linked(doors, parse_link_code(await shown.get()), URL, name, confirm)
        assert (await showing)["device"]["name"] == name
        return await self._open(doors, joined)

    async def _open(self, doors: DeviceDoors, joined: Joined) -> Device:
        database = InlineDatabase(":memory:", SCHEMA)
        await fill_database(database, joined.record, joined.chain, joined.heads)
        keys = OpenKeys(joined.secrets, joined.account_keys)
        home = self.directory / f"home-{joined.record.name}"
        device = Device(home, NoLock(), doors, database, joined.record, keys)
        await device.load()
        self.devices.append(device)
        return device


def _no_database(anew: bool) -> Any:  # as the door has it
    raise AssertionError(anew)


async def settle(device: Device) -> None:
    """Bring a device in sync."""
    left = await device.call("sync", {"timeout": 20}, lambda _: None)
    assert left["in_sync"], left


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The means to make a world; no thread may start, and no socket be made."""

    def refuse(*_: object) -> None:
        raise AssertionError("a thread or a socket")

    world = World(tmp_path)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(socket.socket, "bind", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return world


def run(world: World, test: Callable[[World], Any]) -> None:
    """Run a test in a world of its own."""

    async def main() -> None:
        async with asyncio.timeout(60), world:
            await test(world)

    asyncio.run(main())


@contextlib.asynccontextmanager
async def at_work(*devices: Device) -> AsyncIterator[None]:
    """Have devices meet on their LAN meanwhile."""
    for device in devices:
        device.lan.start(None, 0)
    try:
        yield
    finally:
        for device in devices:
            await device.lan.stop()


def tree(root: Path) -> dict[str, bytes]:
    """Return the files of a folder."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".kinfolder" not in path.parts
    }


def test_a_second_device_gets_what_the_first_one_added(world):
    async def test(world: World) -> None:
        files = {"a.txt": b"hello", "deep/b.bin": os.urandom(3_000_000)}
        laptop = await world.first_device()
        root = world.directory / "docs"
        for name, data in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        await laptop.call("add", {"path": str(root), "name": None}, lambda _: None)
        await settle(laptop)
        assert len([node for node in world.nodes if node.store.chunks]) == NODES  # type: ignore[attr-defined]
        desktop = await world.linked_device(laptop, "desktop")
        there = world.directory / "docs-there"
        await desktop.call("get", {"folder": "docs", "path": str(there)}, lambda _: None)
        await settle(desktop)
        assert tree(there) == files
        (there / "a.txt").write_bytes(b"changed")
        await settle(desktop)
        await settle(laptop)
        assert tree(root) == files | {"a.txt": b"changed"}
        assert sorted(path.name for path in world.directory.iterdir()) == ["docs", "docs-there"]

    run(world, test)


def test_devices_give_each_other_chunks_over_a_lan(world):
    async def test(world: World) -> None:
        laptop = await world.first_device()
        root = world.directory / "docs"
        root.mkdir()
        await laptop.call("add", {"path": str(root), "name": None}, lambda _: None)
        await settle(laptop)
        desktop = await world.linked_device(laptop, "desktop")
        there = world.directory / "docs-there"
        await desktop.call("get", {"folder": "docs", "path": str(there)}, lambda _: None)
        await settle(desktop)
        await settle(laptop)
        async with at_work(laptop, desktop):
            while not (laptop.lan.near() and desktop.lan.near()):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
            data = os.urandom(2_000_000)
            (root / "big.bin").write_bytes(data)
            await settle(laptop)
            await settle(desktop)
            assert tree(there) == {"big.bin": data}
            assert desktop.lan.client.received_bytes >= len(data)
            assert desktop.chunks.received_bytes < len(data) // 2

    run(world, test)
