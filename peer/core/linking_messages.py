"""What two devices say to each other while one is linked to the other's account (:mod:`peer.core.linking`)."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from protocol.chains import DeviceKeys, SignedLink
from protocol.history import SignedCheckpoint
from protocol.ids import AccountId, LinkHash


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of what the two devices say."""


class Hello(_Message, frozen=True, tag=1):
    """The new device's first word."""

    version: int
    spake: bytes
    commitment: bytes
    """BLAKE3 of its ephemeral public key."""


class Answer(_Message, frozen=True, tag=2):
    """The existing device's answer."""

    spake: bytes
    ephemeral: bytes


class Reveal(_Message, frozen=True, tag=3):
    """What the new device committed to."""

    ephemeral: bytes
    proof: bytes


class Confirm(_Message, frozen=True, tag=4):
    """The existing device holds the same key."""

    proof: bytes


class Sealed(_Message, frozen=True, tag=5):
    """One of the messages below, under the common key."""

    data: bytes


class Introduction(_Message, frozen=True, tag=6):
    """Who wants to be let in."""

    name: str
    platform: str


class Welcome(_Message, frozen=True, tag=7):
    """What the new device needs to seal its name for the account."""

    root_sign: bytes
    generation: int
    name_key: bytes


class NewKeys(_Message, frozen=True, tag=8):
    """The new device's public face."""

    device: DeviceKeys
    proof: bytes


class Admission(_Message, frozen=True, tag=9):
    """The new device is in. All else comes from the coordinator and must reach at least this far."""

    link: SignedLink
    account: AccountId
    user: str
    seq: int
    head: LinkHash
    """Of the account's chain, with this link."""
    log_key: bytes
    token_key: bytes
    """Of the coordinator, as the existing device knows them."""
    checkpoints: tuple[SignedCheckpoint, ...]
    """The newest of each folder."""
    contacts: tuple[tuple[AccountId, int, LinkHash], ...]
    """(account, seq, head) of every account that a folder is shared with."""


Outer: TypeAlias = Hello | Answer | Reveal | Confirm | Sealed
Inner: TypeAlias = Introduction | Welcome | NewKeys | Admission
