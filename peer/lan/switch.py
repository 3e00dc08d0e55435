"""``kin lan``: whether the LAN is used, kept in the home; and what was found there, for people and scripts."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from peer.api.backend import Json
from peer.core.keys import open_device_name
from peer.core.lan import LanDevice
from peer.store.folders import put_setting, setting
from protocol.errors import EXIT_USAGE, KinfolderError, UserError

if TYPE_CHECKING:
    from peer.device import Device

_SETTING: Final = "lan"
_OFF: Final = b"off"


async def load(device: Device) -> None:
    """Read whether the LAN is used."""
    device.lan_enabled = await device.context.database.run(lambda db: setting(db, _SETTING)) != _OFF


async def follow(device: Device) -> None:
    """Begin or end the use of the LAN, as it should be now: an agent's, online, and not switched off."""
    if device.watching and device.is_online and device.lan_enabled:
        settings = device.settings()
        device.lan.start(settings.lan_interfaces, settings.lan_port)
    else:
        await device.lan.stop()


async def lan(device: Device, switch: str | None) -> Json:
    """Switch the LAN on or off, or leave it; return the object of ``kin lan --json``."""
    if switch not in (None, "on", "off"):
        raise UserError("kin lan takes on, off or nothing", exit_code=EXIT_USAGE, code="usage")
    if switch is not None:
        device.lan_enabled = switch == "on"
        value = b"on" if device.lan_enabled else _OFF
        await device.context.database.run(lambda db: put_setting(db, _SETTING, value))
        await follow(device)
    found = [_peer(device, peer.device, peer.address) for _, peer in sorted(device.lan.client.peers.items())]
    return {
        "version": 1,
        **state(device),
        "port": device.lan.server.port,
        "text": device.lan.trouble,
        "found": found,
        "storage": {"received_bytes": device.chunks.received_bytes, "sent_bytes": device.chunks.sent_bytes},
    }


def state(device: Device) -> Json:
    """Return what ``status`` says of the LAN; bytes are those of this agent since it was started."""
    return {"enabled": device.lan_enabled, "running": device.lan.is_on, **device.lan.report()}


def _peer(device: Device, peer: LanDevice, address: str) -> dict[str, Any]:
    account = device.accounts(peer.account)
    name = ""
    if peer.account == device.record.account:
        with contextlib.suppress(KinfolderError, KeyError):
            name = open_device_name(account.devices[peer.device].keys, device.context.account_keys)
    return {"id": peer.device.hex(), "account": peer.account.hex(), "name": name, "address": address}
