"""A device's machine: the real agent on a simulated disk, with the files of its user, its home and its database.

Rule 1: the user's files and the home lie on two disks, so that either can be put back to an earlier state alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from peer.api.backend import Report
from peer.config import Settings
from peer.core.hpke import EphemeralHpke
from peer.core.keys import AccountKeys, DeviceSecrets
from peer.device import Device
from peer.engine.context import Doors
from peer.store.home import device_record
from peer.store.keyfile import Lock
from peer.store.schema import SCHEMA
from simulations.databases import SimDatabase, empty_image
from simulations.delays import AT_ONCE_SHARE
from simulations.disk import SimDisk, Standing
from simulations.disk_door import SimFiles
from simulations.disk_images import Image, put_back, take_image
from simulations.doors import SimClock, SimProcessor
from simulations.lan import SimLan
from simulations.machines import Machine, Surroundings
from simulations.network import SimDialer
from simulations.nodes import SimNodes
from simulations.personalities import PLAIN, Personality
from simulations.user_files import UserFiles
from simulations.watcher import FINE, SimWatchers, Weather

T = TypeVar("T")

HOME: Final = "/kin"
FILES: Final = "/home"
FOLDER: Final = "docs"
ROOT: Final = f"{FILES}/{FOLDER}"
AWAY: Final = f"{ROOT}-away"
"""Where the folder is while it is not in its place."""
CONTROL: Final = ".kinfolder"


def _told_nobody(_: object) -> None:
    """Hear how far something is, and tell nobody."""


class Kept(NamedTuple):
    """A device's keys, which lie on no disk: a :class:`peer.store.keyfile.Keys`."""

    secrets: DeviceSecrets
    account_keys: AccountKeys
    lock: Lock = Lock.NOTHING

    def __repr__(self) -> str:
        """Show no secret."""
        return "Kept(...)"


class _NoLock:
    """Of a home that nobody else could open."""

    def release(self) -> None:
        """Do nothing: nothing is held."""


class DeviceImage(NamedTuple):
    """All that a device keeps, and who it is."""

    keys: Kept
    files: Image
    home: Image
    database: bytes


class DeviceMachine(Machine):
    """A device's machine.

    Args:
        around: The world.
        number: Of the device, from 0.
        image: What it keeps; None: it is no device yet (:meth:`become`).
        personality: What kind of file system holds the user's files.
        weather: How badly its watcher does.
    """

    def __init__(
        self,
        around: Surroundings,
        number: int,
        image: DeviceImage | None,
        *,
        personality: Personality = PLAIN,
        weather: Weather = FINE,
    ) -> None:
        super().__init__(around, f"device-{number}")
        self._lan = around.lan
        self._address = f"10.0.0.{number + 1}"
        self.weather = weather
        """How badly the watchers of its next process do."""
        self.on_loss: Callable[[str], None] | None = None
        """Called when its watcher loses something, with what: one of the two words of :mod:`simulations.watcher`."""
        self._weather_chance = self.loop.chance(f"weather/{self.name}")
        self.disk = self.make_disk(personality)
        self.home: SimDisk = self.make_disk(number=2)
        self.files = SimFiles(self.disk, life=self.host)
        self.user = UserFiles(self.disk)
        """What its user does."""
        self.keys: Kept
        self.device: Device
        self._database: SimDatabase | None = None
        self._kept = empty_image(SCHEMA)
        self._watchers: SimWatchers | None = None
        self.half_told = Counter[bytes]()
        """How often its watchers told of half of a file's move alone, by what the file held."""
        if image is None:
            self.user.make_directories(HOME)
            self.user.make_directories(FILES)
            self.disk.sync_all()
            self.disk.mount(HOME, self.home)
        else:
            self.keys, self._kept = image.keys, image.database
            put_back(self.disk, image.files)
            put_back(self.home, image.home)
            self.disk.mount(HOME, self.home)

    # --- Its life

    async def become(self, keys: Kept, database: bytes) -> None:
        """Be a device from now on, and start."""
        self.keys, self._kept = keys, database
        await self.start()

    def cut_power(self, *, spares_users: bool = True) -> None:
        """As of any machine; its user's programs end, too."""
        self.user.close_all()
        super().cut_power(spares_users=spares_users)

    def doors(self) -> Doors:
        """Return the doors of its process of now."""
        loop, host = self.loop, self.host
        self.files = SimFiles(self.disk, life=host)
        self._watchers = SimWatchers(
            self.disk, self._weather_chance, self.weather, half_told=self.half_told, on_loss=self.on_loss
        )
        return Doors(
            clock=SimClock(loop, host),
            entropy=self.entropy,
            processor=SimProcessor(loop, host, at_once=AT_ONCE_SHARE),
            files=self.files,
            hpke=EphemeralHpke(self.entropy),
            dialer=SimDialer(self.network, host),
            nodes=SimNodes(self.network, host),
            lan=SimLan(loop, self.network, host, self._lan, self._address),
            watchers=self._watchers,
        )

    async def _start(self) -> None:
        self.device = device = await self._open()
        ready = asyncio.Event()
        running = asyncio.create_task(device.run(ready.set), name="agent")
        is_ready = asyncio.create_task(ready.wait())
        await asyncio.wait([running, is_ready], return_when=asyncio.FIRST_COMPLETED)
        is_ready.cancel()
        if running.done():
            running.result()

    async def _open(self, *, online: bool = True, keeps: bool = True) -> Device:
        self._database = SimDatabase(self.loop, self.host, self._kept, keeps=keeps)
        record = await self._database.run(device_record)
        assert record is not None
        device = Device(
            Path(HOME),
            _NoLock(),
            self.doors(),
            self._database,
            record,
            self.keys,
            online=online,
            settings=lambda: Settings(home=Path(HOME)),
        )
        await device.load()
        return device

    async def _stop(self) -> None:
        await self.device.close()

    def _forget(self) -> None:
        if self._database is not None:
            self._kept, self._database = self._database.image(), None
        if self._watchers is not None:
            self._watchers.kill()

    def _lose_power(self) -> None:
        """Lose nothing more: a commit is durable."""

    async def command(
        self, work: Callable[[Device], Awaitable[T]], *, online: bool = True, keeps: bool = True, crash_at: int = 0
    ) -> T:
        """Have a process of its own open the home, do something and end, as a command does where no agent runs.

        Args:
            work: What it does with the open device.
            online: Whether it may use the network.
            keeps: False for a rehearsal.
            crash_at: It crashes before this effect of it; 0: it does not.

        Raises:
            MachineGone: It ended before that was done.
        """

        async def opened() -> T:
            device = await self._open(online=online, keeps=keeps)
            try:
                return await work(device)
            finally:
                await device.close()

        return await self.process(opened, crash_at=crash_at)

    async def process(self, work: Callable[[], Coroutine[Any, Any, T]], *, crash_at: int = 0) -> T:
        """Have a process do something and end.

        Raises:
            MachineGone: It ended before that was done.
        """
        self._begin()
        if crash_at:
            self.crash_at(crash_at)
        try:
            return await self.do(work())
        finally:
            if self.is_running:
                self._end()
                self.network.process_ended(self.host)

    # --- Asking its agent

    async def call(self, method: str, report: Report = _told_nobody, /, **params: Any) -> dict[str, Any]:
        """Ask the agent for something, as a command would."""
        return await self.do(self.device.call(method, params, report))

    async def sync(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Bring it in sync as far as that can be; return what is left."""
        return await self.call("sync", timeout=timeout_s)

    @property
    def position(self) -> int:
        """How far it has applied the folder's log."""
        return max((engine.record.position for engine in self.device.engines.values()), default=0)

    @property
    def kept_database(self) -> bytes:
        """What it knows, as of the last commit."""
        return self._kept if self._database is None else self._database.image()

    def tamper(self, database: bytes) -> None:
        """Have it know something else; it must not run."""
        assert not self.is_running
        self._kept = database

    # --- What stands there

    def tree(self) -> dict[str, Standing]:
        """Return what its user sees in the folder."""
        return self.disk.tree(ROOT, without=CONTROL)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what its database holds, whether it is durable or not."""
        assert self._database is not None
        return self._database.rows(query)

    def path(self, name: str) -> str:
        """Return the path of something in the folder."""
        return f"{ROOT}/{name}"

    def image(self) -> DeviceImage:
        """Return all that it keeps, as of this instant: what a backup of the whole machine holds."""
        return DeviceImage(self.keys, take_image(self.disk), take_image(self.home), self.kept_database)

    def restore(self, image: DeviceImage, *, files: bool = True, database: bool = True) -> None:
        """Go back to an image: the user's files, what the device knows (database and home), or both; it must not run."""
        assert not self.is_running
        self.loop.note("restore", f"{self.name} {files=} {database=}")
        self.disk.unmount(HOME)
        if files:
            put_back(self.disk, image.files)
        if database:
            put_back(self.home, image.home)
            self._kept = image.database
        self.disk.mount(HOME, self.home)
