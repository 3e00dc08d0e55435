"""A device's home: one directory of mode 0700, one lock, one database, one record that says which device it is.

Rule 1: one process at a time works on a home; the lock is the kernel's and goes with the process.
Rule 2: a home becomes a device in one commit, after everything else succeeded.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Final, Protocol

import msgspec

from peer.store.folders import put_setting, setting
from protocol.codec import encode
from protocol.errors import CorruptStateError, UserError
from protocol.history import SignedCheckpoint
from protocol.ids import AccountId, DeviceId, FolderId

DATABASE: Final = "state.db"
LOCK: Final = "lock"
_DEVICE: Final = "device"
_HEAD: Final = "head:"
"""Before the hexadecimal id of a folder."""


class DeviceRecord(msgspec.Struct, frozen=True, array_like=True):
    """Which device a home is, and how it reaches its coordinator."""

    account: AccountId
    user: str
    device: DeviceId
    name: str
    url: str
    certificate_sha256: bytes
    log_key: bytes
    token_key: bytes
    offline: bool = False
    """Whether its user has stopped all network use."""


_record = msgspec.msgpack.Decoder(DeviceRecord)
_checkpoint = msgspec.msgpack.Decoder(SignedCheckpoint)


def device_record(connection: sqlite3.Connection) -> DeviceRecord | None:
    """Return which device the home is; None if it is none yet."""
    data = setting(connection, _DEVICE)
    try:
        return None if data is None else _record.decode(data)
    except msgspec.MsgspecError as error:
        raise CorruptStateError("the home's record of its device is damaged") from error


def refuse_device(home: Path) -> None:
    """Refuse a home that is a device already, also while an agent works on it; nothing is made or changed.

    Raises:
        UserError: It is one.
    """
    if not (home / DATABASE).is_file():
        return
    with contextlib.suppress(sqlite3.Error, CorruptStateError):  # whoever opens it to work with it says what is wrong
        address = f"{(home / DATABASE).absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
            if device_record(connection) is not None:
                raise is_device(home)


def is_device(home: Path) -> UserError:
    """Return what says that a home is a device already."""
    return UserError(f"{home} is a device already: use another --home for another device", code="is_device")


def put_device_record(connection: sqlite3.Connection, record: DeviceRecord) -> None:
    """Make the home this device, or change how it is reached."""
    put_setting(connection, _DEVICE, encode(record))


def put_known_head(connection: sqlite3.Connection, signed: SignedCheckpoint) -> None:
    """Remember how far a folder that is not on this device had come, checked; what reaches further stays."""
    folder = signed.checkpoint.folder
    known = known_head(connection, folder)
    if known is None or known.checkpoint.position < signed.checkpoint.position:
        put_setting(connection, _HEAD + folder.hex(), encode(signed))


def known_head(connection: sqlite3.Connection, folder: FolderId) -> SignedCheckpoint | None:
    """Return the highest head of a folder that is known from the device that let this one in."""
    data = setting(connection, _HEAD + folder.hex())
    try:
        return None if data is None else _checkpoint.decode(data)
    except msgspec.MsgspecError as error:
        raise CorruptStateError("the home's record of a folder's head is damaged") from error


class Lock(Protocol):
    """Holds a home."""

    def release(self) -> None:
        """Let go of it; a second call does nothing."""


class HomeLock:
    """Holds a home for this process."""

    def __init__(self, home: Path) -> None:
        """Make the home if it is missing, and lock it.

        Raises:
            UserError: It cannot be made, belongs to somebody else, or (code ``in_use``) another process holds it.
        """
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = home.stat()
            if found.st_uid != os.geteuid():
                raise UserError(f"{home} belongs to another user: choose another home with --home")
            if found.st_mode & 0o077:
                os.chmod(home, 0o700)
            self._handle = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except NotADirectoryError:
            raise UserError(f"{home} is not a directory: choose another home with --home") from None
        except FileExistsError:
            raise UserError(f"{home} is not a directory: choose another home with --home") from None
        except OSError as error:
            raise UserError(f"{home} cannot be used as a home: {error.strerror}") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._handle)
            raise UserError(
                f"another Kinfolder process works on {home}: wait for it, or stop it", code="in_use"
            ) from None

    def release(self) -> None:
        """Let go of the home; a second call does nothing."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
