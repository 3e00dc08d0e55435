"""The signed chains: one per account (who its devices are), one per folder (who may do what) (security 3.2, 3.5).

A link on the wire is its exact body bytes and a signature over them; a link's hash is the BLAKE3 of its body.
:mod:`protocol.membership` replays chains and refuses every link that its signer had no right to add.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, TypeAlias

import msgspec
from blake3 import blake3

from protocol import limits
from protocol.codec import decode, encode
from protocol.ids import AccountId, DeviceId, FolderId, LinkHash

LINK_VERSION: Final = 1
SUITE: Final = 1
NO_LINK: Final = LinkHash(bytes(32))
"""What stands for "the link before the first"."""
ROOT_RECIPIENT: Final = bytes(32)
"""What stands for the account's root among the recipients of an account key."""
CHUNKERS: Final = ("fastcdc-seeded/1", "fixed-1MiB/1")
PADDINGS: Final = ("padme/1",)
DEDUP_SCOPES: Final = ("folder", "file")
FOLD_VERSIONS: Final = (1,)


class Role(IntEnum):
    """What a member of a folder may do; a higher role includes the lower ones."""

    READER = 1
    WRITER = 2
    ADMIN = 3


# --- The account chain


class DeviceKeys(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The public face of one device."""

    sign: bytes
    """Ed25519 public key, 32 bytes; the device's id is derived from it."""
    box: bytes
    """X25519 public key, 32 bytes."""
    certificate: bytes
    """DER of the self-signed certificate for the LAN, over a separate Ed25519 key."""
    sealed_name: bytes
    """The device's name, sealed for the account."""


class AccountGenesis(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """Makes the account; signed by the root key. The account's id is the hash of this link."""

    root_sign: bytes
    root_box: bytes
    device: DeviceKeys
    device_proof: bytes
    """The device's signature over its keys (kind ``device-keys``)."""
    aek_public: bytes
    """X25519 public key of the account's encryption key, generation 1."""
    aek_wraps: tuple[tuple[bytes, bytes], ...]
    """(device id, or 32 zero bytes for the root; HPKE of the secret), sorted."""


class AddDevice(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """Enrols a device; signed by an active one, and the new one proves that it holds its keys."""

    device: DeviceKeys
    device_proof: bytes
    aek_generation: int
    aek_wrap: bytes
    """HPKE of the account's newest secret to the new device."""


class RevokeDevice(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3):
    """Ends a device for good and renews the account's key in the same link."""

    device: DeviceId
    cut: tuple[tuple[FolderId, int, int, bytes], ...]
    """(folder, device number, last seq that counts, its entry's hash), sorted."""
    aek_generation: int
    aek_public: bytes
    aek_wraps: tuple[tuple[bytes, bytes], ...]
    aek_back: bytes
    """The former secret sealed under the new one."""


AccountOp: TypeAlias = AccountGenesis | AddDevice | RevokeDevice


class AccountLink(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of one link of an account chain."""

    version: int
    suite: int
    account: bytes
    """The account's id; empty in the genesis."""
    seq: int
    previous: LinkHash
    time_ms: int
    signer: bytes
    """The Ed25519 public key that signs: the root's, or an active device's."""
    op: AccountOp


# --- A folder's control log


class FolderGenesis(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """Makes the folder; its owner is its first admin. The folder's id is the hash of this link."""

    owner: AccountId
    chunker: str
    chunk_bytes_min: int
    chunk_bytes_mean: int
    chunk_bytes_max: int
    padding: str
    fold_version: int
    salt: bytes
    """32 random bytes: no two folders share an id."""


class EnrolDevice(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """Gives one incarnation of a member's device its number in this folder; signed by that device itself."""

    device: DeviceId
    incarnation: int
    number: int


class AddMember(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3):
    """Admits an account."""

    account: AccountId
    role: Role


class RemoveMember(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=4):
    """Ends an account's access; an epoch op stands in the same link."""

    account: AccountId


class SetRole(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=5):
    """Changes a member's role."""

    account: AccountId
    role: Role


class EpochWrap(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An epoch's key for one member account."""

    account: AccountId
    aek_generation: int
    sealed: bytes


class Epoch(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=6):
    """Begins a new key epoch."""

    number: int
    commit: bytes
    wraps: tuple[EpochWrap, ...]
    back: bytes
    """The key of the epoch before, sealed under this one; empty in the first."""
    cdc: bytes
    """SEAL of id (16 bytes) and K_cdc (32 bytes) under this epoch's key."""
    dedup_scope: str
    """``folder`` or ``file``."""


class SetName(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=7):
    """Names the folder; sealed under an epoch's key."""

    epoch: int
    sealed: bytes


ControlOp: TypeAlias = FolderGenesis | EnrolDevice | AddMember | RemoveMember | SetRole | Epoch | SetName


class ControlLink(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of one link of a folder's control log; several ops are admitted together or not at all."""

    version: int
    suite: int
    folder: bytes
    """The folder's id; empty in the genesis."""
    seq: int
    previous: LinkHash
    time_ms: int
    account: AccountId
    account_head: LinkHash
    """The newest link of the signer's account chain that it knew."""
    signer: DeviceId
    ops: tuple[ControlOp, ...]


class SignedLink(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A link as it travels: the exact body and the signature (kind ``account-link`` or ``control-link``)."""

    body: bytes
    signature: bytes

    @property
    def hash(self) -> LinkHash:
        """What names the link."""
        return LinkHash(blake3(self.body).digest())


def parse_account_link(link: SignedLink) -> AccountLink:
    """Return the body of an account link, strictly parsed; nothing about its signature is checked here."""
    body: AccountLink = decode(link.body, AccountLink, bytes_max=limits.CONTROL_LINK_BYTES_MAX, what="account link")
    return body


def parse_control_link(link: SignedLink) -> ControlLink:
    """Return the body of a control link, strictly parsed; nothing about its signature is checked here."""
    body: ControlLink = decode(link.body, ControlLink, bytes_max=limits.CONTROL_LINK_BYTES_MAX, what="control link")
    return body


def device_keys_proof_bytes(keys: DeviceKeys) -> bytes:
    """Return the bytes that a device signs (kind ``device-keys``) to prove that it holds its keys."""
    return encode(keys)


def folder_context(genesis: FolderGenesis) -> bytes:
    """Return the 32 bytes that bind a folder's sealed keys and names to it.

    The folder's id cannot: it is the hash of the link that already holds the first sealed key. The genesis op stands in
    that link, is signed by the owner that it names, and holds 32 random bytes, so no other folder has this context.
    """
    return blake3(b"kinfolder/folder-context/v1\x00" + encode(genesis)).digest()
