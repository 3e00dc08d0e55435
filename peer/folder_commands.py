"""Add, get and remove folders.

Rule 1: ``add`` needs no coordinator: the folder is made here and told to it later.
Rule 2: a directory becomes a root before the folder is recorded, so a crash leaves at most an unused marker.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final
from unicodedata import category

import msgspec
import structlog

from peer.api.backend import Json
from peer.core.keys import check_label
from peer.core.links import make_folder
from peer.core.membership import open_epochs, open_name
from peer.disk.journal import Journal
from peer.disk.kept_places import refuse_kept_place
from peer.disk.recovery import empty_trash, recover
from peer.disk.roots import RootGuard, RootMissing, check_new_root
from peer.engine.journal import StoredJournal
from peer.store import folders
from peer.store.folders import FolderRecord
from peer.store.home import known_head
from peer.store.spool import named_files
from protocol import limits
from protocol import messages as m
from protocol.chains import SignedLink, parse_control_link
from protocol.effects import FileSystem, Handle
from protocol.errors import (
    EXIT_USAGE,
    AccessDeniedError,
    KinfolderError,
    LimitExceededError,
    ProtocolError,
    RollbackError,
    SecurityError,
    UnavailableError,
    UserError,
)
from protocol.history import verify_checkpoint
from protocol.ids import FolderId
from protocol.membership import ControlState, accounts_of

if TYPE_CHECKING:
    from peer.device import Device
    from peer.engine.folder import FolderEngine

SEND_REST_S: Final = 10.0
"""How long a folder that is to be forgotten goes on sending what is signed."""
FOLDER_PAGES_MAX: Final = 1_000
CONTROL_LOG_LINKS_MAX: Final = limits.DEVICE_NUMBER_MAX * 2
CONTROL_LOG_BYTES_MAX: Final = 64 * limits.MIB
_UNSEEN: Final = frozenset({"Cc", "Zl", "Zp"})
"""Unicode categories that a folder's name holds none of: control characters, and what ends a line."""
log = structlog.get_logger("folder_commands")


Place = Callable[["Device", str], Awaitable[str]]
"""Says which directory is meant by a path, and that it may become a root."""


class Remote(msgspec.Struct, frozen=True):
    """A folder of the account as the coordinator lists it."""

    info: m.FolderInfo
    links: tuple[SignedLink, ...]
    control: ControlState
    name: str


async def new_root(device: Device, path: str) -> str:
    """Return the real path of a directory of this machine, existing or not, that may become a folder's root.

    Raises:
        UserError: It may not; the text says why.
    """
    roots = [os.fsdecode(engine.record.path) for engine in device.engines.values()]
    real = check_new_root(path, state=[str(device.home)], roots=roots)
    await device.context.processor.run(refuse_kept_place, real)
    return real


async def add(device: Device, path: str, name: str | None, *, place: Place = new_root) -> Json:
    """Make a directory a folder of this account; it is created if it is missing."""
    real = await place(device, path)
    shown = os.path.basename(os.fsencode(real)).decode(errors="replace") if name is None else name
    _check_name(shown)
    if any(engine.record.name == shown for engine in device.engines.values()):
        raise UserError(f"there is a folder {shown} on this device already: choose another --name")
    context = device.context
    link, _ = make_folder(
        context.accounts(context.account),
        context.secrets,
        shown,
        hpke=context.hpke,
        entropy=context.entropy,
        now_ms=context.clock.now_ms(),
    )
    id = FolderId(link.hash)
    await context.processor.run(_make_root, device, real, id)

    def operation(db: sqlite3.Connection) -> FolderRecord:
        record = FolderRecord(folders.next_key(db), id, shown, os.fsencode(real), None, number=1, incarnation=1)
        folders.put_folder(db, record)
        folders.put_control_link(db, record.key, 0, link)
        return record

    record = await context.database.run(operation)
    engine = await device.start_folder(record)
    note = ""
    try:
        await device.need_link()
        await engine.ensure_known()
    except (UnavailableError, UserError) as error:
        note = f"the coordinator does not know the folder yet: {error}"
    return {"id": id.hex(), "name": shown, "path": os.fsdecode(record.path), "note": note}


async def get(device: Device, folder: str, path: str, *, place: Place = new_root) -> Json:
    """Bring a folder of the account to this device.

    Raises:
        RollbackError: The coordinator shows less of it than the device that let this one in had seen.
    """
    await device.need_link()
    remote = _choose(folder, await remote_folders(device))
    if any(engine.record.id == remote.info.folder for engine in device.engines.values()):
        raise UserError(f"the folder {remote.name} is on this device already")
    if any(engine.record.name == remote.name for engine in device.engines.values()):
        raise UserError(f"there is another folder {remote.name} on this device already: remove that one first")
    head = await device.context.database.run(lambda db: known_head(db, remote.info.folder))
    if head is not None and remote.info.checkpoint.checkpoint.position < head.checkpoint.position:
        raise RollbackError(f"the coordinator shows an older {remote.name} than the one that this account has seen")
    real = await place(device, path)
    await device.context.processor.run(_make_root, device, real, remote.info.folder)

    def operation(db: sqlite3.Connection) -> FolderRecord:
        record = FolderRecord(
            folders.next_key(db),
            remote.info.folder,
            remote.name,
            os.fsencode(real),
            remote.info.pseudonym,
            checkpoint=head,
        )
        folders.put_folder(db, record)
        for seq, link in enumerate(remote.links):
            folders.put_control_link(db, record.key, seq, link)
        return record

    record = await device.context.database.run(operation)
    await device.start_folder(record)
    return {"id": record.id.hex(), "name": record.name, "path": os.fsdecode(record.path), "note": ""}


async def remove(device: Device, folder: str, *, everywhere: bool) -> Json:
    """Have this device forget a folder; its files stay."""
    if everywhere:
        raise UserError("--everywhere: not in this version", exit_code=2)
    engine = find(device, folder)
    record = engine.record
    unsent = await _send_rest(device, engine)
    await device.stop_folder(record.key)
    try:
        await _empty_trash(device, record)
    except BaseException:
        await device.start_folder(await device.context.database.run(lambda db: folders.folder(db, record.key)))
        raise
    guard = RootGuard(device.context.files, os.fsdecode(record.path), record.id, device.record.device.hex())
    with contextlib.suppress(KinfolderError):  # where the root is away, its marker is foreign to everybody
        await device.context.processor.run(guard.unmark)

    def forget(db: sqlite3.Connection) -> list[int]:
        folders.drop_folder(db, record.key)
        return device.context.spool.retire_rest(named_files(db))

    going = await device.context.database.run(forget)
    await device.context.processor.run(device.context.spool.drop, going)
    path = os.fsdecode(record.path)
    note = f"{unsent:,} changes were not sent yet: 'kin get {record.name} {path}' takes these files up again"
    return {"id": record.id.hex(), "name": record.name, "path": path, "note": note if unsent else ""}


async def _send_rest(device: Device, engine: FolderEngine) -> int:
    """Give what is signed a moment to be sent, since nobody else may have it; return how many changes are left."""

    def count(db: sqlite3.Connection) -> int:
        return len(folders.tail_hashes(db, engine.record.key))

    unsent = await device.context.database.run(count)
    if unsent and device.coordinator.is_up and device.watching:
        engine.retry_all()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SEND_REST_S):
                await engine.quiet()
        unsent = await device.context.database.run(count)
    return unsent


async def _empty_trash(device: Device, record: FolderRecord) -> None:
    """Settle and empty all that lies in the hidden directories, since nobody will know of it afterwards.

    Raises:
        UserError: Something must stay there for now; the folder is to be kept.
    """
    context = device.context
    guard = RootGuard(context.files, os.fsdecode(record.path), record.id, device.record.device.hex())
    journal = StoredJournal(context.database, record.key)
    left = await context.processor.run(_settle_all, guard, journal, context.clock.now_ms())
    if left:
        raise UserError(left)


def _settle_all(guard: RootGuard, journal: Journal, now_ms: int) -> str:
    """Return why not all could be settled; empty if it was. Runs in the pool."""
    root = guard.open()
    if isinstance(root, RootMissing):
        return ""  # nothing there can be reached, and a folder whose disk is gone must not stay for ever
    with root:
        left = recover(root, journal).left
        if left:
            return f"{left[0]} could not be put back to its place yet, so the folder stays: free some space or mend its disk"
        journal.date_back(now_ms)
        skip = 0
        while True:
            emptied = empty_trash(root, journal, before_ms=now_ms, skip=skip)
            skip += emptied.stuck
            if not emptied.more:
                break
    if journal.count(checked=False):
        return "something that was replaced could not be put back yet, so the folder stays: try again"
    if skip:
        name = journal.checked(now_ms, 1)[0].path
        return f"{name} was replaced or removed while a program has it open: close that program first and try again"
    return ""


def find(device: Device, folder: str) -> FolderEngine:
    """Return the engine of a folder of this device by name, id or a path in it."""
    engines = list(device.engines.values())
    named = [e for e in engines if e.record.name == folder]
    named = named or [e for e in engines if len(folder) >= 8 and e.record.id.hex().startswith(folder.lower())]
    if not named and os.path.isabs(folder) and "\0" not in folder:
        # A path that is not absolute would be one in the agent's directory, which nobody means.
        real = os.path.realpath(folder)
        named = [e for e in engines if (real + "/").startswith(os.fsdecode(e.record.path) + "/")]
    if len(named) != 1:
        known = ", ".join(sorted(e.record.name for e in engines)) or "none"
        raise UserError(f"no folder {folder} on this device; there are: {known}")
    return named[0]


async def remote_folders(device: Device) -> list[Remote]:
    """Return the folders of this account, checked and opened. What anybody else put into the list is left out.

    Raises:
        UnavailableError: The coordinator cannot be asked.
        ProtocolError: It shows a list that does not rise or does not end.
    """
    found: list[Remote] = []
    after = b""
    for _ in range(FOLDER_PAGES_MAX):
        page = await device.coordinator.ask(m.ListFolders(after), m.Folders)
        for info in page.folders:
            if info.folder <= after:
                raise ProtocolError("the coordinator lists its folders out of order")
            after = info.folder
            try:
                found.append(await _open_remote(device, info))
            except (SecurityError, ProtocolError, LimitExceededError) as error:
                # Somebody else's, or it does not hold together: no folder of ours, and no reason to hide the others.
                log.info("a listed folder was left out", folder=info.folder.hex()[:12], code=error.code)
        if not page.more or not page.folders:
            return found
    raise ProtocolError("the coordinator shows an endless list of folders")


async def _open_remote(device: Device, info: m.FolderInfo) -> Remote:
    """Check and open a folder of the list.

    While folders are not shared between accounts, a folder is this account's alone or nothing to us: whoever makes one
    with our account as a member could otherwise pass it off for ours, name and all, and read what we put there.

    Raises:
        SecurityError, ProtocolError, LimitExceededError: It is somebody else's, or does not hold.
    """
    context = device.context
    own = context.account
    if verify_checkpoint(info.checkpoint, device.record.log_key).folder != info.folder:
        raise SecurityError("the coordinator signed another folder's head")
    links: list[SignedLink] = []
    size = 0
    control: ControlState | None = None
    while True:
        page = await device.coordinator.ask(m.GetControlLog(info.folder, len(links) - 1), m.ControlLog)
        size += sum(len(link.body) + len(link.signature) for link in page.links)
        if len(links) + len(page.links) > CONTROL_LOG_LINKS_MAX:
            raise LimitExceededError("links of a control log", CONTROL_LOG_LINKS_MAX)
        if size > CONTROL_LOG_BYTES_MAX:
            raise LimitExceededError("bytes of a control log", CONTROL_LOG_BYTES_MAX)
        bodies = [parse_control_link(link) for link in page.links]
        if any(accounts_of(body) != {own} for body in bodies):
            raise AccessDeniedError("the folder is not this account's alone")
        if any(context.accounts(own).seq_of(body.account_head) is None for body in bodies):
            await context.accounts.refresh(own)
        # Page by page: only what this account's devices signed is ever kept.
        if control is None:
            control = ControlState.replay(page.links, context.accounts, folder=info.folder)
            if control.genesis.owner != own:
                raise AccessDeniedError("the folder is another account's")
        else:
            control = control.extend(page.links, context.accounts)
        links += page.links
        if not page.more:
            break
        if not page.links:
            raise ProtocolError("the coordinator holds links back")
    if set(control.members) != {own}:
        raise AccessDeniedError("the folder is not this account's alone")
    keys = open_epochs(control, own, context.account_keys, context.hpke)
    return Remote(info, tuple(links), control, open_name(control, keys))


def _choose(folder: str, found: list[Remote]) -> Remote:
    named = [r for r in found if r.name == folder]
    named = named or [r for r in found if len(folder) >= 8 and r.info.folder.hex().startswith(folder.lower())]
    if not named:
        known = ", ".join(sorted(r.name for r in found)) or "none"
        raise UserError(f"the account has no folder {folder}; it has: {known}")
    if len(named) > 1:
        ids = ", ".join(r.info.folder.hex()[:12] for r in named)
        raise UserError(f"the account has several folders {folder}: name one by its id ({ids})")
    return named[0]


def _check_name(name: str) -> None:
    """Refuse a folder's name that no path can begin with, or that misleads who reads it."""
    check_label(name)
    if "/" in name or name in {".", ".."} or not name.strip() or any(category(each) in _UNSEEN for each in name):
        text = f"{name!r} cannot be a folder's name: give --name one without '/' and control characters"
        raise UserError(text, exit_code=EXIT_USAGE)


def _make_root(device: Device, real: str, id: FolderId) -> None:
    files = device.context.files
    try:
        files.close(_made(files, real))
    except OSError as error:
        raise UserError(f"{real} cannot be made: {error.strerror}") from error
    RootGuard(files, real, id, device.record.device.hex()).mark()


def _made(files: FileSystem, real: str) -> Handle:
    """Open a directory, made with all above it that is missing."""
    try:
        return files.open_root(real)
    except FileNotFoundError:
        above, name = os.path.split(real)
        parent = _made(files, above)
    try:
        with contextlib.suppress(FileExistsError):
            files.make_directory(parent, name, 0o777)
        return files.open_directory(parent, name)
    finally:
        files.close(parent)
