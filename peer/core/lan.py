"""Decide what a device shows of itself on a LAN, whom it takes for kin, and which certificates it lets in (security 3.12).

An announcement holds tags, each the keyed hash of a day and a port under a folder's discovery key. Who has that key knows
the folder's devices by it; for everybody else tags, names and ports of two days have nothing in common.

Rule 1: a tag only says whom to dial. Who somebody is, is decided by the certificate in the account's chain alone.
Rule 2: what is announced by others costs a bounded number of hashes, whatever it holds.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from peer.core.keys import discovery_tag
from protocol import limits
from protocol.chains import Epoch, SignedLink, parse_control_link
from protocol.ids import AccountId, DeviceId, FolderId
from protocol.membership import AccountState

SERVICE_TYPE: Final = "_kinfolder._tcp.local."
TAG_BYTES: Final = 8
NAME_BYTES: Final = 8
"""Of chance in an instance's name of one day."""
TAGS_KEY: Final = b"t"
DAY_MS: Final = 86_400_000
KEYS_KEPT_MS: Final = 90 * DAY_MS
"""How long the discovery key of a former epoch counts, for a device that was off when the new one began."""
AVOID_S: Final = 30.0
AVOID_S_MAX: Final = 600.0


ADDRESSES_MAX: Final = 8
"""Of one announcement."""

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class LanDevice(NamedTuple):
    """A device that may be talked to."""

    account: AccountId
    device: DeviceId
    certificate: bytes


def day_of(now_ms: int) -> int:
    """Return the day that tags are made for: days since 1970, in UTC; at the ends of what four bytes can hold."""
    return min(max(now_ms // DAY_MS, 1), (1 << 32) - 2)


def days_heard(now_ms: int, signed_ms: int) -> frozenset[int]:
    """Return the days for which tags of others count: yesterday, today and tomorrow, by either clock.

    Args:
        now_ms: This device's clock.
        signed_ms: The newest time that the coordinator signed; 0: none.
    """
    today = {day_of(now_ms)} | ({day_of(signed_ms)} if signed_ms else set())
    return frozenset(day + shift for day in today for shift in (-1, 0, 1))


def next_day_s(now_ms: int) -> float:
    """Return the seconds until the next day begins."""
    return (DAY_MS - now_ms % DAY_MS) / 1000


def epochs_shown(links: Iterable[SignedLink], now_ms: int) -> frozenset[int]:
    """Return the epochs of a folder whose discovery keys count: the newest, and those that ended in the last 90 days.

    Args:
        links: The folder's control log, checked.
        now_ms: The time; a link's own time is its signer's word, which is good enough for whom to dial.
    """
    shown: set[int] = set()
    newest = 0
    for link in links:
        body = parse_control_link(link)
        for op in body.ops:
            if isinstance(op, Epoch):
                if newest and now_ms - body.time_ms < KEYS_KEPT_MS:
                    shown.add(newest)  # this link ended it
                newest = op.number
    return frozenset(shown | {newest})


def tags_shown(keys: Sequence[bytes], day: int, port: int, turn: int) -> bytes:
    """Return the tags of an announcement, one after the other; where there are too many keys, others at each turn."""
    most = limits.LAN_TAGS_MAX
    if len(keys) > most:
        start = turn * most % len(keys)
        keys = [*keys[start:], *keys[:start]][:most]
    return b"".join(sorted(discovery_tag(key, day, port) for key in keys))


def is_kin(tags: bytes, keys: Iterable[bytes], days: Collection[int], port: int) -> bool:
    """Tell whether an announcement shows a tag that only a member of one of our folders can have made."""
    if not 0 < len(tags) <= limits.LAN_TAGS_MAX * TAG_BYTES or len(tags) % TAG_BYTES or not 0 < port < 1 << 16:
        return False
    shown = {tags[i : i + TAG_BYTES] for i in range(0, len(tags), TAG_BYTES)}
    return any(discovery_tag(key, day, port) in shown for key in keys for day in days)


def allowed_devices(
    own_account: AccountId,
    own_device: DeviceId,
    accounts: Iterable[AccountState],
    members: Mapping[FolderId, Collection[AccountId]],
) -> dict[bytes, LanDevice]:
    """Return the devices that may connect, by the SHA-256 of their certificates: active, and of a member of some folder.

    One's own account's come first where there are more than :data:`protocol.limits.LAN_DEVICES_MAX`.
    """
    sharing = {account for each in members.values() for account in each}
    found: dict[bytes, LanDevice] = {}
    for state in sorted(accounts, key=lambda state: (state.id != own_account, state.id)):
        if state.id not in sharing:
            continue
        for id, keys in sorted(state.active_devices.items()):
            if (state.id, id) != (own_account, own_device) and len(found) < limits.LAN_DEVICES_MAX:
                found[hashlib.sha256(keys.certificate).digest()] = LanDevice(state.id, id, keys.certificate)
    return found


def addresses_to_dial(announced: Iterable[str], networks: Collection[Network]) -> list[str]:
    """Return the addresses of an announcement that lie on a network of ours; nothing makes this device dial elsewhere.

    Args:
        announced: As text; what is no address is left out.
        networks: Those of the interfaces that are used.
    """
    found = []
    for text in announced:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        if any(address.version == network.version and address in network for network in networks):
            found.append(str(address))
    return found[:ADDRESSES_MAX]


def avoid_s(failures: int) -> float:
    """Return how long a peer is left alone after so many failures in a row."""
    return min(AVOID_S_MAX, AVOID_S * 2.0 ** min(max(failures - 1, 0), 16))
