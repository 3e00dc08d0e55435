"""A device on its LAN: what it announces, whom it dials and whom it lets in, kept true while keys and networks change.

One task looks whether anything changed, and each device that was found has a task that keeps a connection to it. With
nobody there, nothing runs but a look at this machine's addresses now and then.

Rule 1: whom an announcement brings is dialled on networks of ours only, and is nobody before its certificate was checked.
Rule 2: after :meth:`Lan.stop` nothing is announced, heard, asked or answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import structlog

from peer.core import lan as core
from peer.core.lan import LanDevice
from peer.engine.context import Context
from peer.engine.tasks import end
from peer.lan.client import LanClient, PeerConnection
from peer.lan.server import LanServer
from peer.lan.turns import Turns
from peer.store import folders
from protocol import limits
from protocol.errors import AccessDeniedError, KinfolderError, UnavailableError
from protocol.ids import ChunkId, DeviceId, FolderId
from protocol.lan import Wanted

if TYPE_CHECKING:
    from peer.engine.folder import FolderEngine
    from peer.engine.holdings import Holdings
    from peer.lan.doors import Announced, Discovery, Interface, Trusted

LOOK_S: Final = 30.0
"""Between looks at this machine's addresses."""
ROTATE_S: Final = 300.0
"""Between other tags, where there are too many for one announcement."""
CANDIDATES_MAX: Final = 64
"""Announcements that are dialled; a new one takes the place of that under which nobody answered most often, then of one
that is of no use, then of the oldest that had no turn."""
DIALLING_MAX: Final = 8
DIAL_S: Final = 5.0
FIRST_LOOK_S: Final = 1.0
"""How long after the start whoever wants something waits for the first device to be found."""
RETRY_S_MIN: Final = 0.5
RETRY_S_MAX: Final = 60.0

log = structlog.get_logger("lan")


class _Dial:
    """Somebody who was found, and the task that keeps a connection to him."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.failures = 0
        """In a row."""
        self.is_open = False
        self.is_spare = False
        """Another connection to the same device is used."""
        self.is_dialled = False
        """It is his turn, or was."""
        self.is_gone = False
        """He said goodbye; a connection that is open is used to its end."""

    def worth(self) -> tuple[int, bool, bool]:
        """Return what tells who makes room: the greatest does, and nobody for whom all of it is false."""
        return self.failures, self.is_spare, not self.is_dialled


class Lan:
    """The LAN as one device uses it.

    Args:
        context: Shared with the folders.
        engines: The device's folders as they are at any time.
    """

    def __init__(self, context: Context, engines: Mapping[int, FolderEngine]) -> None:
        self._context = context
        self._engines = engines
        self._network = context.doors.lan
        self.client = LanClient(context.clock, context.processor, self._may_read)
        self.server = LanServer(self._shelf, context.clock, context.processor, self._network)
        self._changed = asyncio.Event()
        self._found = asyncio.Event()
        self._looked_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._only: tuple[str, ...] | None = None
        self._port = 0
        self._trust: Trusted | None = None
        self._discovery: Discovery | None = None
        self._interfaces: list[Interface] = []
        self._keys: list[bytes] = []
        self._name = ("", 0)
        self._day = 0
        self._shown: tuple[str, int, bytes] | None = None
        self._dials: dict[str, _Dial] = {}
        self._dialling = Turns(DIALLING_MAX)
        self.trouble = ""
        """Not empty: why nobody can be found."""

    # --- On and off

    @property
    def is_on(self) -> bool:
        """Whether the LAN is used now."""
        return self._task is not None

    def start(self, only: tuple[str, ...] | None, port: int) -> None:
        """Begin to announce, hear, ask and answer; a second call does nothing.

        Args:
            only: The addresses of this machine that may be used; None: all.
            port: Where to listen; 0: anywhere.
        """
        if self._task is None:
            self._only, self._port = only, port
            self._looked_s = self._context.clock.monotonic_s() + FIRST_LOOK_S
            self._task = asyncio.create_task(self._run(), name="lan")

    async def stop(self) -> None:
        """End all of it; a second call does nothing."""
        task, self._task = self._task, None
        if task is None:
            return
        await end([task])
        await self._close()

    def changed(self) -> None:
        """Look again at folders, members, devices and keys."""
        self._changed.set()

    async def _close(self) -> None:
        await end([dial.task for dial in self._dials.values() if dial.task is not None])
        self._dials.clear()
        discovery, self._discovery = self._discovery, None
        if discovery is not None:
            await discovery.close()
        self._shown = None
        for peer in list(self.client.peers.values()):
            await peer.wait_closed()
        self.client.peers.clear()
        await self.server.close()
        self._trust, self._interfaces, self._name = None, [], ("", 0)
        self._found.clear()

    def near(self) -> frozenset[DeviceId]:
        """Return the devices that a connection is open to."""
        return frozenset(device.device for device, peer in self.client.peers.items() if not peer.closed.is_set())

    # --- What others get and give

    async def chunks(
        self, folder: FolderId, wanted: Sequence[Wanted]
    ) -> AsyncGenerator[tuple[Wanted, bytes | bytearray], None]:
        """Yield those raw chunks that some device on the LAN has."""
        await self._first_look()
        async with contextlib.aclosing(self.client.chunks(folder, wanted)) as found:
            async for each in found:
                yield each

    async def segments(
        self, folder: FolderId, ids: Sequence[ChunkId]
    ) -> AsyncGenerator[tuple[ChunkId, bytes | bytearray], None]:
        """Yield those sealed segments that some device on the LAN has."""
        await self._first_look()
        async with contextlib.aclosing(self.client.segments(folder, ids)) as found:
            async for each in found:
                yield each

    async def _first_look(self) -> None:
        """Wait a moment for the first device, where the LAN was only just begun and there are others."""
        left_s = self._looked_s - self._context.clock.monotonic_s()
        is_alone = self._trust is not None and not self._trust.allowed
        if left_s > 0 and self.is_on and not self.client.peers and not is_alone:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._found.wait()

    def _engine_of(self, folder: FolderId) -> FolderEngine | None:
        return next((engine for engine in self._engines.values() if engine.record.id == folder), None)

    def _may_read(self, device: LanDevice, folder: FolderId) -> bool:
        """Whether a device is active, and its account a member of the folder, as far as this device knows now."""
        engine = self._engine_of(folder)
        control = None if engine is None else engine.follower.control
        try:
            account = self._context.accounts(device.account)
        except KeyError:
            return False
        return control is not None and control.may_read(device.account) and account.is_active(device.device)

    def _shelf(self, device: LanDevice, folder: FolderId) -> Holdings | None:
        engine = self._engine_of(folder)
        return engine.holdings if engine is not None and self._may_read(device, folder) else None

    # --- Keeping it true

    async def _run(self) -> None:
        self._changed.set()
        turn = 0
        while True:
            today = core.day_of(self._context.clock.now_ms())
            if today != self._day:
                self._day = today
                self._changed.set()  # other epochs may count
            try:
                await self._refresh(turn)
                self.trouble = ""
            except (OSError, TimeoutError, KinfolderError) as error:
                self.trouble = f"this network cannot be used ({type(error).__name__})"
                log.info("the LAN cannot be used", error=type(error).__name__)
                await self._begin_anew()
            except Exception:  # a defect: the folders go on without the LAN
                log.exception("the LAN failed")
                self.trouble = "it failed; the log says why"
                await self._begin_anew()
            many = len(self._keys) > limits.LAN_TAGS_MAX
            pause_s = min(LOOK_S, core.next_day_s(self._context.clock.now_ms()) + 1.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await (self._changed.wait() if not self.trouble else asyncio.sleep(pause_s))
            turn = int(self._context.clock.monotonic_s() // ROTATE_S) if many else 0

    async def _refresh(self, turn: int) -> None:
        if self._changed.is_set():
            self._changed.clear()
            await self._refresh_trust()
        found = await self._context.processor.run(self._network.interfaces, self._only)
        if found != self._interfaces:
            await self._close_network()
            self._interfaces = found
        if not found:
            return
        assert self._trust is not None
        if not self._trust.allowed:
            # Nobody could connect: nothing is to be seen of this device.
            if self._discovery is not None:
                await self._close_network()
            return
        await self._open_network()
        await self._announce(turn)

    async def _refresh_trust(self) -> None:
        members = {
            engine.record.id: tuple(engine.follower.control.members)
            for engine in self._engines.values()
            if engine.follower.control is not None
        }
        allowed = core.allowed_devices(
            self._context.account, self._context.device, self._context.accounts.known(), members
        )
        if self._trust is None or allowed != self._trust.allowed:
            trust = await self._context.processor.run(self._network.trust, self._context.secrets, allowed)
            self._trust = trust
            self.server.trust(trust)
            for device, peer in list(self.client.peers.items()):
                if device not in trust.allowed.values():
                    peer.close()
        self._keys = await self._context.database.run(self._discovery_keys)

    def _discovery_keys(self, db: sqlite3.Connection) -> list[bytes]:
        """Return the discovery keys of all folders that count; runs in the database's thread."""
        now_ms = self._context.clock.now_ms()
        keys = []
        for engine in list(self._engines.values()):
            try:
                ring = self._context.folder_keys(engine.record.key)
            except KeyError:
                continue  # its control log is not known yet
            shown = core.epochs_shown(folders.control_links(db, engine.record.key), now_ms)
            keys += [ring.epochs[number].disc for number in sorted(shown) if number in ring.epochs]
        return keys

    async def _begin_anew(self) -> None:
        """After a failure: close what is open, and look at everything again at the next turn."""
        await self._close()
        self._changed.set()

    async def _close_network(self) -> None:
        trust = self._trust
        await self._close()
        self._trust = trust

    async def _open_network(self) -> None:
        if self._discovery is not None:
            return
        addresses = [one.address for one in self._interfaces]
        self.server.listen(addresses, self._port)
        self._discovery = self._network.discovery(addresses, self._on_found, self._on_gone)
        await self._discovery.start()

    async def _announce(self, turn: int) -> None:
        assert self._discovery is not None
        day = core.day_of(self._context.clock.now_ms())
        if self._name[1] != day:
            self._name = (self._context.entropy(core.NAME_BYTES).hex(), day)
        tags = core.tags_shown(self._keys, day, self.server.port, turn)
        shown = (self._name[0], self.server.port, tags)
        if shown != self._shown:
            await self._discovery.announce(*shown)
            self._shown = shown

    # --- Those who were found

    def _on_found(self, announced: Announced) -> None:
        if announced.name in self._dials:
            return
        signed = [e.record.checkpoint.checkpoint.time_ms for e in self._engines.values() if e.record.checkpoint]
        days = core.days_heard(self._context.clock.now_ms(), max(signed, default=0))
        if not core.is_kin(announced.tags, self._keys, days, announced.port):
            return
        addresses = core.addresses_to_dial(announced.addresses, [one.network for one in self._interfaces])
        if addresses and self._make_room():
            dial = self._dials[announced.name] = _Dial()
            dial.task = asyncio.create_task(self._keep(dial, addresses, announced.port), name="lan-dial")
            dial.task.add_done_callback(lambda task: self._forget(announced.name, dial, task))

    def _make_room(self) -> bool:
        """Tell whether one more may be dialled; somebody who never answers, or is of no use, makes room."""
        if len(self._dials) < CANDIDATES_MAX:
            return True
        name, worst = max(self._dials.items(), key=lambda pair: pair[1].worth())
        if worst.task is None or not any(worst.worth()):
            return False
        if not worst.is_spare and self._discovery is not None:
            self._discovery.ask_again()  # he may be real
        worst.task.cancel()
        del self._dials[name]
        return True

    def _forget(self, name: str, dial: _Dial, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            log.error("dialling failed", exc_info=failure)  # a defect: the others go on
        if self._dials.get(name) is dial:
            del self._dials[name]

    def _on_gone(self, name: str) -> None:
        dial = self._dials.get(name)
        if dial is not None and dial.task is not None:
            dial.is_gone = True
            if not dial.is_open:
                dial.task.cancel()

    async def _keep(self, dial: _Dial, addresses: Sequence[str], port: int) -> None:
        """Keep a connection to who announced this, until he has gone."""
        while not dial.is_gone:
            try:
                async with self._dialling.turn(dial.failures):
                    dial.is_dialled = True
                    peer = await self._dial(addresses, port)
            except (KinfolderError, OSError, TimeoutError) as error:
                dial.failures += 1
                log.debug("a device on the LAN cannot be reached", error=type(error).__name__)
            else:
                dial.is_open = True
                try:
                    dial.failures = 0 if await self._hold(dial, peer) else dial.failures + 1
                finally:
                    dial.is_open = dial.is_spare = False
            await asyncio.sleep(min(RETRY_S_MAX, RETRY_S_MIN * 2.0 ** min(dial.failures, 16)))

    async def _hold(self, dial: _Dial, peer: PeerConnection) -> bool:
        """Use a connection until it ends; another one to the same device goes first. Tell whether it was of use."""
        other = self.client.peers.get(peer.device)
        try:
            if other is not None:
                dial.failures, dial.is_spare = 0, True
                await peer.wait_closed()
                await other.closed.wait()
                return True
            # What was true when the handshake began may not be so any more.
            is_in = self._trust is not None and peer.device in self._trust.allowed.values()
            if not is_in or len(self.client.peers) >= limits.LAN_PEERS_MAX:
                return False  # tried again, ever more seldom
            dial.failures = 0
            self.client.peers[peer.device] = peer
            self._found.set()
            log.info("a device was found on the LAN", device=peer.device.device.hex()[:8])
            self._near_changed()
            await peer.closed.wait()
            return True
        finally:
            if self.client.peers.get(peer.device) is peer:
                del self.client.peers[peer.device]
                self._near_changed()
            await peer.wait_closed()

    def _near_changed(self) -> None:
        for engine in list(self._engines.values()):
            engine.near_changed()

    async def _dial(self, addresses: Sequence[str], port: int) -> PeerConnection:
        """Return a connection to the first address where somebody of ours answers.

        Raises:
            KinfolderError, OSError, TimeoutError: Nobody does.
        """
        failure: Exception = UnavailableError("nobody answers")
        for address in addresses:
            try:
                async with asyncio.timeout(DIAL_S):
                    return await self._connect(address, port)
            except (KinfolderError, OSError, TimeoutError) as error:
                failure = error
        raise failure

    async def _connect(self, address: str, port: int) -> PeerConnection:
        trust = self._trust
        if trust is None or not trust.allowed:
            raise AccessDeniedError("nobody may be connected to")
        stream, device = await self._network.dial(address, port, trust)
        try:
            peer = PeerConnection(device, address, stream, self._context.clock)
            await peer.greet()
        except BaseException:
            stream.close()
            raise
        return peer

    # --- For people

    def report(self) -> dict[str, Any]:
        """Return how it stands, without names."""
        return {
            "peers": sum(not peer.closed.is_set() for peer in self.client.peers.values()),
            "received_bytes": self.client.received_bytes,
            "sent_bytes": self.server.sent_bytes,
        }
