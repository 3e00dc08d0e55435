"""Replay an account's chain: who its devices are and which keys are its own (security 3.2).

Rule 1: a state is never changed; extending it gives another one, or raises and leaves it as it was.
Rule 2: times are not checked: nobody's clock decides who may do what.
Rule 3: a link whose previous link is not the head is refused; whether it is stale or a fork is the caller's matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, Self

import msgspec

from protocol import limits
from protocol.chains import (
    LINK_VERSION,
    NO_LINK,
    ROOT_RECIPIENT,
    SUITE,
    AccountGenesis,
    AccountLink,
    AddDevice,
    DeviceKeys,
    RevokeDevice,
    SignedLink,
    device_keys_proof_bytes,
    parse_account_link,
)
from protocol.errors import AccessDeniedError, LimitExceededError, ProtocolError
from protocol.ids import ID_BYTES, AccountId, DeviceId, FolderId, LinkHash, device_id
from protocol.signing import PUBLIC_KEY_BYTES, verify

WRAP_BYTES: Final = 80
"""HPKE of a 32-byte key: 32 bytes of encapsulated key, 32 of ciphertext, 16 of tag."""


class DeviceRecord(msgspec.Struct, frozen=True):
    """A device of an account, active or revoked."""

    id: DeviceId
    keys: DeviceKeys
    added_seq: int
    revoked_seq: int | None

    def is_active_at(self, seq: int) -> bool:
        """Tell whether the device was enrolled and not yet revoked right after link ``seq``."""
        return self.added_seq <= seq and (self.revoked_seq is None or seq < self.revoked_seq)


def check_version(version: int, suite: int) -> None:
    """Refuse a link of another format.

    Raises:
        ProtocolError: Its version or suite is not ours.
    """
    if version != LINK_VERSION or suite != SUITE:
        raise ProtocolError("link of an unknown version or suite: update Kinfolder")


class AccountState:
    """What an account's chain says after its newest link (security 3.2)."""

    __slots__ = (
        "_cuts",
        "_devices",
        "_keys",
        "_seqs",
        "_wraps",
        "aek_backs",
        "aek_publics",
        "head",
        "id",
        "root_box",
        "root_sign",
        "seq",
    )

    id: AccountId
    root_sign: bytes
    root_box: bytes
    seq: int
    head: LinkHash
    aek_publics: tuple[bytes, ...]
    """Public keys of the account's encryption key, from generation 1."""
    aek_backs: tuple[bytes, ...]
    """For each generation from 2 on, the secret of the one before, sealed under it."""

    def __init__(self, genesis: SignedLink) -> None:
        """Begin with a chain's first link.

        Raises:
            ProtocolError: Malformed.
            BadSignatureError: Not signed by the root that it names, or the device does not prove its keys.
        """
        link = parse_account_link(genesis)
        check_version(link.version, link.suite)
        op = link.op
        if not isinstance(op, AccountGenesis) or link.account or link.seq != 0 or link.previous != NO_LINK:
            raise ProtocolError("account chain does not begin with a genesis link")
        if link.signer != op.root_sign:
            raise AccessDeniedError("account genesis is not signed by its root")
        if len(op.root_sign) != PUBLIC_KEY_BYTES or len(op.root_box) != PUBLIC_KEY_BYTES:
            raise ProtocolError("account genesis holds a key of a wrong length")
        verify("account-link", genesis.body, genesis.signature, link.signer)
        self.id = AccountId(genesis.hash)
        self.root_sign = op.root_sign
        self.root_box = op.root_box
        self.seq = 0
        self.head = genesis.hash
        self.aek_publics = ()
        self.aek_backs = ()
        self._wraps: dict[bytes, bytes] = {}
        self._devices: dict[DeviceId, DeviceRecord] = {}
        self._keys: set[bytes] = {op.root_sign, op.root_box}
        self._seqs: dict[LinkHash, int] = {genesis.hash: 0}
        self._cuts: dict[tuple[FolderId, int], tuple[int, bytes]] = {}
        self._enrol(op.device, op.device_proof)
        self._renew(op.aek_public, op.aek_wraps)

    @classmethod
    def replay(cls, links: Iterable[SignedLink], *, account: AccountId | None = None) -> AccountState:
        """Return the state after a whole chain; where ``account`` is given, it must be that account's.

        Raises:
            ProtocolError, BadSignatureError, AccessDeniedError, LimitExceededError: As for :meth:`extend`.
        """
        rest = iter(links)
        first = next(rest, None)
        if first is None:
            raise ProtocolError("account chain is empty")
        if account is not None and bytes(first.hash) != account:
            raise AccessDeniedError("account chain is another account's")
        return cls(first).extend(rest)

    def extend(self, links: Iterable[SignedLink]) -> AccountState:
        """Return the state after further links.

        Raises:
            ProtocolError: A link is malformed or does not follow the one before.
            BadSignatureError: A signature or a device's proof does not hold.
            AccessDeniedError: A signer was not active at that point.
            LimitExceededError: Too many links or devices.
        """
        state = self._copy()
        for link in links:
            state._append(link)  # noqa: SLF001  # the copy is ours
        return state

    @property
    def devices(self) -> Mapping[DeviceId, DeviceRecord]:
        """All devices that ever were, revoked ones included."""
        return MappingProxyType(self._devices)

    @property
    def active_devices(self) -> dict[DeviceId, DeviceKeys]:
        """The devices that are enrolled now."""
        return {id: record.keys for id, record in self._devices.items() if record.revoked_seq is None}

    @property
    def aek_generation(self) -> int:
        """The newest generation of the account's encryption key, from 1."""
        return len(self.aek_publics)

    @property
    def aek_public(self) -> bytes:
        """The newest public encryption key of the account."""
        return self.aek_publics[-1]

    def is_active(self, device: DeviceId) -> bool:
        """Tell whether the device is enrolled now."""
        record = self._devices.get(device)
        return record is not None and record.revoked_seq is None

    def seq_of(self, head: LinkHash) -> int | None:
        """Return the position of a link of this chain, None if it is none of it (or newer than what we know)."""
        return self._seqs.get(head)

    def aek_wrap(self, recipient: bytes) -> bytes | None:
        """Return the newest generation's secret as sealed to an active device, or to the root (32 zero bytes)."""
        return self._wraps.get(recipient)

    def cut_of(self, folder: FolderId, number: int) -> tuple[int, bytes] | None:
        """Return (last seq that counts unordered, its entry's hash) of a revoked device's number in a folder, if any."""
        return self._cuts.get((folder, number))

    def _copy(self) -> Self:
        twin = object.__new__(type(self))
        for name in ("id", "root_sign", "root_box", "seq", "head", "aek_publics", "aek_backs"):
            setattr(twin, name, getattr(self, name))
        twin._devices = dict(self._devices)
        twin._keys = set(self._keys)
        twin._seqs = dict(self._seqs)
        twin._wraps = dict(self._wraps)
        twin._cuts = dict(self._cuts)
        return twin

    def _append(self, signed: SignedLink) -> None:
        link = parse_account_link(signed)
        check_version(link.version, link.suite)
        if link.account != self.id or link.seq != self.seq + 1 or link.previous != self.head:
            raise ProtocolError("account link does not follow the newest one")
        if link.seq >= limits.ACCOUNT_CHAIN_LINKS_MAX:
            raise LimitExceededError("account chain links", limits.ACCOUNT_CHAIN_LINKS_MAX)
        if link.signer != self.root_sign and not self.is_active(device_id(link.signer)):
            raise AccessDeniedError("account link is not signed by the root or an active device")
        verify("account-link", signed.body, signed.signature, link.signer)
        self.seq = link.seq
        match link.op:
            case AddDevice() as op:
                if op.aek_generation != self.aek_generation or len(op.aek_wrap) != WRAP_BYTES:
                    raise ProtocolError("new device is not given the account's newest key")
                self._enrol(op.device, op.device_proof)
                self._wraps[device_id(op.device.sign)] = op.aek_wrap
            case RevokeDevice() as op:
                self._revoke(link, op)
            case AccountGenesis():
                raise ProtocolError("account chain begins twice")
        self.head = signed.hash
        self._seqs[signed.hash] = link.seq

    def _enrol(self, keys: DeviceKeys, proof: bytes) -> None:
        if len(keys.sign) != PUBLIC_KEY_BYTES or len(keys.box) != PUBLIC_KEY_BYTES:
            raise ProtocolError("device has a key of a wrong length")
        if not keys.certificate:
            raise ProtocolError("device has no certificate")
        if len(keys.certificate) > limits.CERTIFICATE_BYTES_MAX:
            raise LimitExceededError("device certificate", limits.CERTIFICATE_BYTES_MAX)
        if len(keys.sealed_name) > limits.SEALED_NAME_BYTES_MAX:
            raise LimitExceededError("sealed name", limits.SEALED_NAME_BYTES_MAX)
        verify("device-keys", device_keys_proof_bytes(keys), proof, keys.sign)
        fresh = {keys.sign, keys.box, keys.certificate}
        if len(fresh) != 3 or fresh & self._keys:
            raise ProtocolError("device has a key that the account's chain has seen before")
        if len(self.active_devices) >= limits.ACCOUNT_DEVICES_MAX:
            raise LimitExceededError("devices of an account", limits.ACCOUNT_DEVICES_MAX)
        id = device_id(keys.sign)
        self._devices[id] = DeviceRecord(id, keys, self.seq, None)
        self._keys |= fresh

    def _revoke(self, link: AccountLink, op: RevokeDevice) -> None:
        record = self._devices.get(op.device)
        if record is None or record.revoked_seq is not None:
            raise ProtocolError("account link revokes a device that is not active")
        if link.signer == record.keys.sign:
            # It would draw the account's next key itself, and so keep it.
            raise AccessDeniedError("a device cannot revoke itself")
        if op.aek_generation != self.aek_generation + 1:
            raise ProtocolError("revocation does not renew the account's key")
        if not 0 < len(op.aek_back) <= limits.SEALED_KEY_BYTES_MAX:
            raise ProtocolError("revocation does not pass on the account's former key")
        if len(op.cut) > limits.REVOKE_CUTS_MAX:
            raise LimitExceededError("cuts of a revocation", limits.REVOKE_CUTS_MAX)
        slots = [(folder, number) for folder, number, _, _ in op.cut]
        if slots != sorted(set(slots)):
            raise ProtocolError("revocation holds an unsorted list")
        for folder, number, seq, entry in op.cut:
            if len(folder) != ID_BYTES or len(entry) != ID_BYTES or seq < 0:
                raise ProtocolError("revocation holds a bad cut")
            if not 1 <= number <= limits.DEVICE_NUMBER_MAX:
                raise ProtocolError("revocation holds a bad cut")
            # A cut, once made, is never moved: another link may only speak of other numbers.
            self._cuts.setdefault((folder, number), (seq, entry))
        self._devices[op.device] = DeviceRecord(record.id, record.keys, record.added_seq, self.seq)
        self._renew(op.aek_public, op.aek_wraps)
        self.aek_backs = (*self.aek_backs, op.aek_back)

    def _renew(self, public: bytes, wraps: tuple[tuple[bytes, bytes], ...]) -> None:
        if len(public) != PUBLIC_KEY_BYTES or public in self._keys:
            raise ProtocolError("account's new key is not new")
        if [recipient for recipient, _ in wraps] != sorted([ROOT_RECIPIENT, *self.active_devices]):
            raise ProtocolError("account's key is not sealed to exactly the root and the active devices")
        if any(len(wrap) != WRAP_BYTES for _, wrap in wraps):
            raise ProtocolError("account's key is sealed in a wrap of a wrong length")
        self.aek_publics = (*self.aek_publics, public)
        self._keys.add(public)
        self._wraps = dict(wraps)
