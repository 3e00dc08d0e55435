"""One open device: its home, its keys, its link to the coordinator, and an engine for each folder.

The agent (``kin run``) and a single command (``kin sync`` without an agent) both open a device; the agent also watches
the disks and answers the local API.

Rule 1: whatever may be asked from outside is a method of :data:`METHODS`; nothing else is reachable.
Rule 2: a folder that fails stops alone; the others and the API go on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog

from peer import (
    conflict_commands,
    exclusion_commands,
    folder_commands,
    joining,
    linking,
    past_commands,
    reports,
    revoking,
    safety_commands,
)
from peer.api.backend import Json, Report
from peer.config import KeyOptions, Settings, load_settings
from peer.disk.files import LinuxFileSystem
from peer.disk.watcher import InotifyWatcher
from peer.doors import SystemClock, SystemEntropy, ThreadProcessor
from peer.engine.accounts import AccountBook
from peer.engine.assembly import assemble
from peer.engine.context import Context, Doors
from peer.engine.folder import FolderEngine
from peer.engine.tasks import end
from peer.hpke import LibraryHpke
from peer.lan import switch
from peer.lan.exchange import Lan
from peer.lan.network import SystemLan
from peer.net.chunk_client import ChunkClient
from peer.net.coordinator_link import Address, CoordinatorLink, Identity, Session
from peer.net.grants import Grants
from peer.net.http_nodes import HttpNodes
from peer.net.websocket import WebSocketDialer
from peer.store import folders
from peer.store.database import Database, ThreadedDatabase
from peer.store.folders import FolderRecord
from peer.store.home import DATABASE, DeviceRecord, HomeLock, Lock, device_record, put_device_record
from peer.store.keyfile import Keys, KeyStore
from peer.store.parts import Parts
from peer.store.schema import SCHEMA
from peer.store.spool import SpoolFiles, named_files
from protocol import messages as m
from protocol.errors import (
    EXIT_FAILED,
    EXIT_NEEDS_PERSON,
    EXIT_TIMEOUT,
    CorruptStateError,
    KinfolderError,
    SecurityError,
    UnavailableError,
    UserError,
)

FIRST_CONTACT_S: Final = 10.0
TRIES_MAX: Final = 4
"""How often a pass without a time limit tries what another party refuses."""
ROUNDS_MAX: Final = 5
"""How often a pass begins again for what came up since it was over."""
MOVING: Final = frozenset(["queued", "transferring"])
TIDY_S: Final = 2.0
"""How long a command that ends may empty the trash for."""
BREAKS_MAX: Final = 2
"""So often the link may break under a pass that has no time to wait for the coordinator."""
RETRY_LOOK_S: Final = 0.1
RETRY_LINK_S: Final = 0.5
NEEDS_PERSON: Final = frozenset(["held", "frozen", "unreadable", "name", "disk_full", "quota", "read_only"])

log = structlog.get_logger("device")


def real_doors() -> Doors:
    """Return the doors to this machine."""
    return Doors(
        clock=SystemClock(),
        entropy=SystemEntropy(),
        processor=ThreadProcessor(),
        files=LinuxFileSystem(),
        hpke=LibraryHpke(),
        dialer=WebSocketDialer(),
        nodes=HttpNodes(),
        lan=SystemLan(),
        watchers=InotifyWatcher,
    )


class Device:
    """One open device."""

    def __init__(
        self,
        home: Path,
        lock: Lock,
        doors: Doors,
        database: Database,
        record: DeviceRecord,
        keys: Keys,
        *,
        online: bool = True,
        settings: Callable[[], Settings] | None = None,
    ) -> None:
        """Put a device together; nothing is read, sent or started yet (:meth:`load`).

        Args:
            home: Its directory: settings, the spool, beginnings of chunks.
            lock: Holds the home; let go of by :meth:`close`.
            doors: The world.
            database: Open; closed by :meth:`close`.
            record: Which device it is.
            keys: Its keys, open.
            online: Whether it may use the network at all.
            settings: Reads what it is told from outside; None: from the home and the environment.
        """
        secrets = keys.secrets
        self.keys = keys
        self.home = home
        self.record = record
        self.doors = doors
        self.settings = settings or partial(load_settings, home)
        self._lock = lock
        self._may_go_online = online
        self.watching = False
        identity = Identity(record.account, record.device, secrets.sign_seed)
        address = Address(record.url, record.certificate_sha256, record.log_key, record.token_key)
        self.coordinator = CoordinatorLink(
            address,
            identity,
            dialer=doors.dialer,
            clock=doors.clock,
            entropy=doors.entropy,
            on_session=self._on_session,
            on_notice=self._on_notice,
            on_taken_out=self._on_taken_out,
        )
        grants = Grants(self.coordinator, secrets.sign_seed)
        place = str(home.resolve())
        parts = Parts(doors.files, place, doors.clock.now_ms)
        self.chunks = ChunkClient(doors.nodes, grants, doors.clock, doors.processor, parts)
        self.accounts = AccountBook(database, self.coordinator)
        self.context = Context(
            doors=doors,
            database=database,
            link=self.coordinator,
            chunks=self.chunks,
            accounts=self.accounts,
            account=record.account,
            device=secrets,
            account_keys=keys.account_keys,
            label=record.name,
            spool=SpoolFiles(doors.files, place, self.settings().spool_bytes),
        )
        self.engines: dict[int, FolderEngine] = {}
        self.lan = self.context.lan = Lan(self.context, self.engines)
        self.lan_enabled = True
        self.context.on_change = self.lan.changed
        self.accounts.on_change = self._chains_changed
        self.is_taken_out = False
        """Whether the coordinator said so when it was last asked."""
        self._finishing: set[asyncio.Task[None]] = set()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._link_task: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()
        self.confirmations: dict[str, asyncio.Future[bool]] = {}
        self.mailboxes: dict[int, asyncio.Queue[m.Message]] = {}
        self.storage: m.Storage | None = None

    # --- Opening and closing

    @staticmethod
    async def create(
        home: Path,
        *,
        coordinator: str,
        invite: str,
        user: str,
        device: str,
        keys: KeyOptions,
        recovery_file: Path | None,
        report: Report,
    ) -> Json:
        """Make an account with this device."""
        target = joining.target_of(coordinator, invite)
        return await joining.create_account(
            home,
            real_doors(),
            target=target,
            user=user,
            device=device,
            keys=keys,
            recovery_file=recovery_file,
            report=report,
        )

    @staticmethod
    async def link(
        home: Path,
        *,
        code: str,
        coordinator: str | None,
        device: str,
        keys: KeyOptions,
        confirm: Callable[[str], Awaitable[bool]],
        report: Report,
    ) -> Json:
        """Join the account of the device that shows this code."""
        return await linking.join(
            home,
            real_doors(),
            code=code,
            coordinator=coordinator,
            device=device,
            keys=keys,
            confirm=confirm,
            report=report,
        )

    @staticmethod
    async def open(home: Path, *, keys: KeyOptions, online: bool = True, rehearsal: bool = False) -> Device:
        """Take the home's lock and open it; in a rehearsal, whatever the device learns is forgotten when it is closed.

        Raises:
            UserError: There is no device here, or (code ``in_use``) another process holds it.
            CorruptStateError: Its database or keys are damaged.
        """
        if not (home / DATABASE).exists():
            raise UserError(f"there is no device in {home}: make one with 'kin init' or 'kin link'", code="no_device")
        lock = HomeLock(home)
        try:
            database = ThreadedDatabase(home / DATABASE, SCHEMA, keeps=not rehearsal)
            try:
                record = await database.run(device_record)
                if record is None:
                    raise UserError(
                        f"there is no device in {home}: make one with 'kin init' or 'kin link'", code="no_device"
                    )
                store = KeyStore.load(home, keys)
                if store.secrets.id != record.device:
                    raise CorruptStateError(f"the keys in {home} are another device's")
                device = Device(home, lock, real_doors(), database, record, store, online=online)
                await device.load()
            except BaseException:
                await database.close()
                raise
        except BaseException:
            lock.release()
            raise
        return device

    async def load(self) -> None:
        """Read what the home holds; call it once, before anything else is asked."""
        await self.accounts.load()
        self._chains_changed()
        await switch.load(self)
        await revoking.load(self)
        self.context.spool.load(await self.context.database.run(named_files))
        await self.chunks.tidy()
        for record in await self.context.database.run(folders.all_folders):
            await self._load_folder(record)

    async def _load_folder(self, record: FolderRecord) -> FolderEngine:
        engine = await assemble(self.context, record)
        self.engines[record.key] = engine
        # A command that needs no network is not "offline": nothing there waits for 'kin online'.
        engine.outlook.online = not self.record.offline
        return engine

    async def close(self) -> None:
        """Record what must be recorded, and let go of the home."""
        self._closed.set()
        self.context.stopping.set()
        tasks = list(self._tasks.values()) + ([self._link_task] if self._link_task else [])
        for task in tasks:
            task.cancel()
        await self.lan.stop()
        await end(self._finishing)
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.chunks.close()
        for engine in self.engines.values():
            engine.observer.close()
        await self.coordinator.close()
        # A thread that is still changing the disk writes its journal: the home is given away only after it has ended.
        await self.doors.processor.finish()
        self.context.spool.close()
        await self.context.database.close()
        self._lock.release()

    # --- Working

    async def run(self, ready: Callable[[], None]) -> None:
        """Be the agent: work until closed or cancelled."""
        self.watching = True
        self._start_link()
        for key in self.engines:
            self.start_engine(key)
        await switch.follow(self)
        ready()
        await self._closed.wait()

    @property
    def is_online(self) -> bool:
        """Whether network use is allowed."""
        return self._may_go_online and not self.record.offline

    def _start_link(self) -> None:
        if self._link_task is None and self.is_online:
            self._link_task = asyncio.create_task(self.coordinator.run(), name="coordinator-link")

    async def _stop_link(self) -> None:
        task, self._link_task = self._link_task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def start_engine(self, key: int) -> None:
        """Have a folder's loop run, if it does not yet."""
        if key not in self._tasks:
            engine = self.engines[key]
            if self.watching:
                engine.observer.watch(engine.wake)
            self._tasks[key] = asyncio.create_task(engine.run(), name=f"folder-{key}")

    async def start_folder(self, record: FolderRecord) -> FolderEngine:
        """Begin to work on a folder that was just added."""
        engine = await self._load_folder(record)
        if self._tasks or self.watching:
            self.start_engine(record.key)
        return engine

    async def stop_folder(self, key: int) -> None:
        """Stop working on a folder."""
        task = self._tasks.pop(key, None)
        engine = self.engines.pop(key)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        engine.observer.close()
        self.lan.changed()

    async def _on_session(self, session: Session) -> None:
        log.info("coordinator is there")
        await revoking.note_taken_out(self, is_out=False)
        try:
            await self.accounts.meet(session, self.record.account)
        except UnavailableError:
            raise
        except KinfolderError as error:
            log.error("the account's chain", code=error.code)  # noqa: TRY400  # folders go on with the chain that was checked
        if (
            self.watching and self.storage is None
        ):  # known from now on, so that a status without the coordinator can count them
            with contextlib.suppress(KinfolderError):
                self.storage = await session.ask(m.GetStorage(), m.Storage)
        for engine in self.engines.values():
            engine.link_is_up()
        self._finish_renewal()

    async def _on_taken_out(self) -> None:
        await revoking.note_taken_out(self, is_out=True)

    def _chains_changed(self) -> None:
        """An account's chain has grown: who else may be met on the LAN, and to which key things are sealed."""
        with contextlib.suppress(SecurityError):  # of a device that was taken out: the coordinator tells it so
            self.context.open_account_keys()
        for engine in self.engines.values():
            engine.pull()  # a folder whose key became outdated has it renewed
        self.lan.changed()

    def _finish_renewal(self) -> None:
        """See to the keys of folders that are not on this device, beside all else; those that are see to themselves."""
        if not self._finishing:
            task = asyncio.create_task(revoking.finish(self), name="renewal")
            self._finishing.add(task)
            task.add_done_callback(self._finishing.discard)

    async def _on_notice(self, notice: m.Message) -> None:
        match notice:
            case m.Heads(heads):
                named = {head.checkpoint.checkpoint.folder: head for head in heads}
                for engine in self.engines.values():
                    if engine.record.id in named:
                        engine.news.hear(named[engine.record.id])
                        engine.wake()
            case m.MailboxMessage(number) | m.CloseMailbox(number):
                box = self.mailboxes.get(number)
                if box is not None and not box.full():
                    box.put_nowait(notice)
            case m.AccountChanged(account):
                # Only of those who are known: a notice brings no stranger's chain onto this disk.
                with contextlib.suppress(KinfolderError):
                    if any(one.id == account for one in self.accounts.known()):
                        await self.accounts.refresh(account)
                        self._finish_renewal()
            case m.NodeWelcome() | m.Storage():
                for engine in self.engines.values():
                    engine.link_is_up()
            case _:
                pass

    async def need_link(self, patience_s: float = FIRST_CONTACT_S) -> None:
        """Make sure that the coordinator can be asked.

        Args:
            patience_s: How long an attempt may take; where an agent's last one has failed, shorter than usual means
                that there is no time for another.

        Raises:
            UserError: Network use is stopped.
            UnavailableError: It cannot be reached.
        """
        if not self.is_online:
            raise UserError("network use is stopped: 'kin online' resumes it", code="offline")
        if not self.watching:
            try:
                async with asyncio.timeout(patience_s):
                    await self.coordinator.connect_once()
            except TimeoutError as error:
                raise UnavailableError(f"the coordinator at {self.record.url} does not answer") from error
            self._start_link()
            return
        self._start_link()
        self.coordinator.retry_now()
        if patience_s < FIRST_CONTACT_S and self.coordinator.failures:
            patience_s = 0.0
        if not await self.coordinator.wait_up(patience_s):
            await self.coordinator.ask(m.GetStorage(), m.Storage)  # raises why

    # --- The methods

    async def call(self, method: str, params: Json, report: Report) -> Json:
        """Do one thing of the API's table and return its result."""
        match method:
            case "folders":
                return await reports.folders(self)
            case "status":
                return await reports.status(self, everything=params["all"])
            case "conflicts":
                return await reports.conflicts(self)
            case "doctor":
                return await reports.checkup(self)
            case "devices":
                return await reports.devices(self)
            case "revoke":
                return await revoking.revoke(self, params["device"])
            case "add":
                return await folder_commands.add(self, params["path"], params["name"])
            case "get":
                return await folder_commands.get(self, params["folder"], params["path"])
            case "remove":
                return await folder_commands.remove(self, params["folder"], everywhere=params["everywhere"])
            case "exclude":
                return await exclusion_commands.exclude(
                    self, params["path"], remove=params["remove"], free=params["free"]
                )
            case "resolve":
                return await conflict_commands.resolve(self, params["copy"], params["path"], keep=params["keep"])
            case "sync" | "wait":
                return await self.settle(
                    params["timeout"], report, patient=method == "wait" or params["timeout"] is not None
                )
            case "preview":
                return await safety_commands.preview(self)
            case "approve":
                return await safety_commands.approve(self, params["folder"])
            case "undo":
                return await safety_commands.undo(self, params["folder"])
            case "history":
                return await past_commands.history(self, params["path"])
            case "restore":
                return await past_commands.restore(self, params, report)
            case "snapshot":
                return await past_commands.create_snapshot(self, params["folder"], params["name"])
            case "snapshots":
                return await past_commands.list_snapshots(self, params["folder"])
            case "offline" | "online":
                return await self._set_offline(offline=method == "offline")
            case "lan":
                return await switch.lan(self, params["switch"])
            case "link_code":
                return await linking.show_code(self, yes=params["yes"], report=report)
            case "confirm":
                future = self.confirmations.get(params["id"])
                if future is not None and not future.done():
                    future.set_result(params["yes"])
                return {}
            case _:
                raise UserError("not in this version", exit_code=2)

    async def _set_offline(self, *, offline: bool) -> Json:
        if offline != self.record.offline:
            self.record = msgspec.structs.replace(self.record, offline=offline)
            await self.context.database.run(lambda db: put_device_record(db, self.record))
        for engine in self.engines.values():
            engine.outlook.online = self.is_online
        if offline:
            await self._stop_link()
        elif self.watching:
            self._start_link()
            self.coordinator.retry_now()
        await switch.follow(self)
        for engine in self.engines.values():
            engine.link_is_up()
        return {"network": "offline" if offline else "online"}

    # --- Settling

    async def settle(self, timeout_s: float | None, report: Report, *, patient: bool) -> Json:
        """Bring everything in sync: scan, send, ask the coordinator for its heads, apply, until nothing is left.

        Args:
            timeout_s: When to stop; None: never.
            report: Told how far transfers are.
            patient: Whether to go on for ever with what another party refuses.

        Returns:
            ``in_sync``, ``exit`` (contract, "Exit codes"), ``remains``, a line for each thing left, and ``remains_total``.
        """
        if not self.is_online:
            raise UserError("network use is stopped: 'kin online' resumes it", code="offline")
        telling = asyncio.create_task(self._tell_progress(report))
        left: Json = {}
        try:
            async with asyncio.timeout(timeout_s):
                for _ in range(ROUNDS_MAX):
                    await self._settle(patient=patient)
                    left = await self._left(None)
                    if not left.pop("moves"):
                        break
        except TimeoutError:
            return await self._left(EXIT_TIMEOUT)
        finally:
            telling.cancel()
        if not self.watching:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TIDY_S):
                    for engine in self.engines.values():
                        await engine.tidy_now()
        return left

    async def _settle(self, *, patient: bool) -> None:
        for key in self.engines:
            self.start_engine(key)
        engines = list(self.engines.values())
        for engine in engines:
            engine.observer.look_everywhere()
            engine.retry_all()
        asked: set[int] = set()
        breaks = 0
        while True:
            is_linked = False
            try:
                await self.need_link()
                is_linked = True
                if await self._is_settled(engines, asked, patient=patient):
                    return
            except UnavailableError:
                # A link that broke may have been of no use for long: whether there is another one shows at once.
                breaks += is_linked
                if not patient and (not is_linked or breaks > BREAKS_MAX):
                    raise
                await asyncio.sleep(RETRY_LINK_S if patient else 0.0)
            await asyncio.sleep(RETRY_LOOK_S)

    async def _is_settled(self, engines: Sequence[FolderEngine], asked: set[int], *, patient: bool) -> bool:
        """Wait until no folder has anything to do, then ask the coordinator for its heads.

        ``asked`` gets the keys of folders whose log was asked for though their head seems to be known: once is enough.
        """
        await asyncio.gather(*(engine.quiet() for engine in engines))
        failures = max((engine.failures(NEEDS_PERSON) for engine in engines), default=0)
        if failures and (patient or failures < TRIES_MAX):
            return False
        engines = [engine for engine in engines if self.engines.get(engine.record.key) is engine]
        heads = {h.checkpoint.checkpoint.folder: h for h in (await self.coordinator.ask(m.GetHeads(), m.Heads)).heads}
        behind = False
        for engine in engines:
            head = None if (told := heads.get(engine.record.id)) is None else told.checkpoint.checkpoint
            is_behind = head is not None and head.position != engine.record.position
            is_strange = engine.record.key not in asked and not engine.news.has_followed(head)
            if (
                (is_behind or is_strange)
                and not (engine.record.frozen or engine.failed)
                and not (engine.outlook.is_deceived or engine.outlook.is_out_of_room)
            ):
                asked.add(engine.record.key)
                engine.pull()
                behind = True
        return not behind or bool(failures)

    async def _left(self, asked: int | None) -> Json:
        """Return what is left; with no exit code given, also whether all of it only came up since (``moves``)."""
        code = asked
        folders = await reports.folder_rows(self, everything=False)
        remains = []
        reasons = set()
        for folder in folders:
            if folder["state"] in ("frozen", "missing", "stopped"):
                remains.append(f"{folder['name']}: {folder['text']}")
                reasons.add("error" if folder["state"] == "stopped" else "frozen")
                continue
            if folder["state"] == "held":
                remains.append(f"{folder['name']}: {folder['text']}")
                reasons.add("held")
            for row in folder["unsynced"]:
                if row["reason"] == "held":
                    continue
                remains.append(f"{folder['name']}/{row['path']}: {row['text']}")
                reasons.add(row["reason"])
            if not folder["unsynced"] and folder["state"] != "in_sync":
                remains.append(f"{folder['name']}: {folder['text'] or 'is still being worked on'}")
                # It waits for nothing that has a name: it moved since its rows were read, or the coordinator went away.
                moves = folder["state"] == "working" or not folder["text"] or not self.coordinator.is_up
                full = {e.record.id.hex() for e in self.engines.values() if e.outlook.is_out_of_room}
                reasons.add("disk_full" if folder["id"] in full else "queued" if moves else "error")
        if code == EXIT_TIMEOUT and not remains:
            up = self.coordinator.is_up
            remains.append("the coordinator did not answer in time" if up else "the coordinator cannot be reached")
        if code is None:
            if not reasons:
                code = 0
            else:
                code = EXIT_NEEDS_PERSON if reasons <= NEEDS_PERSON else EXIT_FAILED
        total = len(remains) + sum(each["unsynced_total"] - len(each["unsynced"]) for each in folders)
        left = {"in_sync": not remains and code == 0, "exit": code, "remains": remains, "remains_total": total}
        return left | {"moves": bool(reasons) and reasons <= MOVING} if asked is None else left

    async def _tell_progress(self, report: Report) -> None:
        while True:
            await asyncio.sleep(0.1)
            for engine in self.engines.values():
                for event in engine.progress():
                    report(event)
