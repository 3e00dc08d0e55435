"""Take a device out of the account, and see that every folder gets a key that it never learns.

Rule 1: the chain comes first: once the coordinator has the link, the device is refused everywhere. New keys follow, and
    whoever is left finishes what is cut off.
Rule 2: that all folders have new keys is written down once it was seen, so that nobody asks for them at each start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from peer.api.backend import Json
from peer.core.keys import open_device_name
from peer.core.links import make_revoke_device
from peer.core.membership import open_epochs
from peer.engine.renewal import append_epoch, may_renew
from peer.folder_commands import remote_folders
from peer.net.coordinator_link import StaleError
from peer.store.folders import put_setting, setting
from protocol import messages as m
from protocol.errors import KinfolderError, SecurityError, UnavailableError, UserError
from protocol.ids import DeviceId
from protocol.membership import AccountState

if TYPE_CHECKING:
    from peer.device import Device

TRIES_MAX: Final = 5
ID_DIGITS_MIN: Final = 8
ID_DIGITS_SHOWN: Final = 12
_RENEWED: Final = "renewed"
"""The setting that holds the generation of the account's key to which every folder is known to be sealed."""
_TAKEN_OUT: Final = "taken_out"
log = structlog.get_logger("revoking")


class Named(msgspec.Struct, frozen=True):
    """A device of the account as a person may name it."""

    id: DeviceId
    name: str
    is_active: bool


async def revoke(device: Device, name: str) -> Json:
    """Take a device out of the account; one that is out already only has the folders' keys looked after again.

    Returns:
        ``device`` (id and name), ``was_in``, ``renewed``: folders that got new keys, ``left``: names of those whose keys
        could not be renewed yet, ``note``: why.

    Raises:
        UserError: No device of this name, several, or this very one.
        UnavailableError: The coordinator cannot be reached.
    """
    await device.need_link()
    state = await device.accounts.refresh(device.record.account)
    target = choose(name, named_devices(device, state), device.record.device)
    was_in = target.is_active
    for _ in range(TRIES_MAX):
        if not state.is_active(target.id):
            break
        await _append(device, state, target.id)
        state = await device.accounts.refresh(device.record.account)
    else:
        raise UnavailableError("the account's devices change too fast: try again")
    note = ""
    try:
        renewed, left = await renew_all(device)
    except UnavailableError as error:
        renewed, left, note = 0, _outdated_here(device), str(error)
    return {
        "device": {"id": target.id.hex(), "name": target.name},
        "was_in": was_in,
        "renewed": renewed,
        "left": left,
        "note": note,
    }


def _outdated_here(device: Device) -> list[str]:
    controls = ((engine.record.name, engine.follower.control) for engine in device.engines.values())
    return sorted(name for name, control in controls if control is not None and may_renew(device.context, control))


async def _append(device: Device, state: AccountState, target: DeviceId) -> None:
    context = device.context
    context.open_account_keys()
    link, _ = make_revoke_device(
        state,
        context.account_keys,
        target,
        (),  # what it registered and what is not ordered yet counts no more
        signer=context.secrets,
        hpke=context.hpke,
        entropy=context.entropy,
        now_ms=context.clock.now_ms(),
    )
    try:
        await device.coordinator.ask(m.AppendAccountLink(link), m.Ok)
    except StaleError:
        log.info("the account's chain has grown meanwhile")


# --- Which device


def named_devices(device: Device, state: AccountState) -> list[Named]:
    """Return the account's devices, those that were taken out too."""
    found = []
    for id, record in state.devices.items():
        try:
            name = open_device_name(record.keys, device.context.account_keys)
        except SecurityError:
            name = ""  # whoever enrolled it sealed no name for us; its id is enough
        found.append(Named(id, name, record.revoked_seq is None))
    return found


def choose(name: str, devices: Sequence[Named], this: DeviceId) -> Named:
    """Return the device that a person means, by name or by (the beginning of) its id.

    Raises:
        UserError: None, several, or the very device that was asked.
    """
    given = name.lower()
    is_id = len(given) >= ID_DIGITS_MIN
    found = [one for one in devices if is_id and one.id.hex().startswith(given)]
    named = [one for one in devices if one.name == name]
    found = found or [one for one in named if one.is_active] or named
    if not found:
        known = ", ".join(sorted(one.name for one in devices if one.is_active))
        raise UserError(f"the account has no device {name}; it has: {known}")
    if len(found) > 1:
        ids = ", ".join(sorted(one.id.hex()[:ID_DIGITS_SHOWN] for one in found))
        raise UserError(f"the account has several devices {name}: name one by its id ({ids})")
    if found[0].id == this:
        if sum(one.is_active for one in devices) == 1:
            raise UserError("this is the account's only device, and an account needs one: link another device first")
        raise UserError("a device cannot take itself out: use 'kin revoke' on another device of the account")
    return found[0]


# --- New keys for the folders


async def renew_all(device: Device) -> tuple[int, list[str]]:
    """Renew every outdated key of the account's folders, whether they are on this device or not.

    Returns:
        How many were renewed here, and the names of folders whose key is outdated still.

    Raises:
        UnavailableError: The coordinator cannot be reached.
    """
    context, renewed = device.context, 0
    generation = context.accounts(context.account).aek_generation
    left: list[str] = []
    for _ in range(TRIES_MAX):
        left = []
        for remote in await remote_folders(device):
            if not may_renew(context, remote.control):
                continue
            left.append(remote.name)
            try:
                epochs = open_epochs(remote.control, context.account, context.account_keys, context.hpke)
                await append_epoch(context, remote.control, epochs)
                renewed += 1
            except UnavailableError:
                raise
            except KinfolderError as error:
                log.warning("a folder's key was not renewed", folder=remote.info.folder.hex()[:12], code=error.code)
        if not left:
            break
    for engine in device.engines.values():
        engine.pull()
    if not left:
        value = generation.to_bytes(4, "big")
        await context.database.run(lambda db: put_setting(db, _RENEWED, value))
    return renewed, left


async def finish(device: Device) -> None:
    """Finish what another device's revocation may have left undone: renew the keys that are still outdated."""
    context = device.context
    known = await context.database.run(lambda db: setting(db, _RENEWED))
    if context.accounts(context.account).aek_generation <= int.from_bytes(known or b"\x01", "big"):
        return
    try:
        await renew_all(device)
    except KinfolderError as error:
        log.info("the keys of folders are not renewed yet", code=error.code)


# --- Being taken out oneself


async def note_taken_out(device: Device, *, is_out: bool) -> None:
    """Remember whether the coordinator says that this device was taken out, for ``status`` to tell without asking again."""
    if is_out != device.is_taken_out:
        device.is_taken_out = is_out
        value = b"1" if is_out else b""
        await device.context.database.run(lambda db: put_setting(db, _TAKEN_OUT, value))


async def load(device: Device) -> None:
    """Read whether this device was taken out."""
    device.is_taken_out = bool(await device.context.database.run(lambda db: setting(db, _TAKEN_OUT)))
