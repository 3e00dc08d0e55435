"""Identifiers, each a type of its own so that one is never passed for another.

All ids are raw bytes on the wire and lower-case hex where people read them.
"""

from __future__ import annotations

from typing import Final, NamedTuple, NewType

from blake3 import blake3

AccountId = NewType("AccountId", bytes)
"""32 bytes: BLAKE3 of the account chain's genesis link."""
DeviceId = NewType("DeviceId", bytes)
"""32 bytes: derived from the device's signing key by :func:`device_id`."""
FolderId = NewType("FolderId", bytes)
"""32 bytes: BLAKE3 of the folder's genesis link."""
Pseudonym = NewType("Pseudonym", bytes)
"""16 bytes: the name under which storage nodes know a folder; random, drawn by the coordinator."""
NodeId = NewType("NodeId", bytes)
"""16 bytes: a file, directory or symlink of a folder; random, or derived for a conflict copy."""
StorageNodeId = NewType("StorageNodeId", bytes)
"""32 bytes: derived from the storage node's signing key by :func:`storage_node_id`."""
ChunkId = NewType("ChunkId", bytes)
"""32 bytes: BLAKE3 of a sealed chunk's bytes."""
EntryHash = NewType("EntryHash", bytes)
"""32 bytes: BLAKE3 of an entry's header and payload, what its signature covers."""
LinkHash = NewType("LinkHash", bytes)
"""32 bytes: BLAKE3 of a signed chain link's body."""

ROOT: Final = NodeId(bytes(16))
"""The root directory of every folder: it has no registers and no name."""
ID_BYTES: Final = 32
NODE_ID_BYTES: Final = 16


class Dot(NamedTuple):
    """The identity of one register value: who wrote it, in which entry, as which change (architecture 2)."""

    device: int
    """Number that the folder's control log gave to a (device, incarnation); 1 to 65535."""
    seq: int
    """Sequence number of the entry among those of that device number; from 1."""
    index: int  # type: ignore[assignment]  # no dot is ever searched as a tuple
    """Index of the change in the entry; from 0."""


def _derived(label: bytes, key: bytes) -> bytes:
    return blake3(b"kinfolder/" + label + b"/v1\x00" + key).digest()


def device_id(sign_public: bytes) -> DeviceId:
    """Return the id of the device that signs with this Ed25519 key (32 bytes)."""
    return DeviceId(_derived(b"device-id", sign_public))


def storage_node_id(sign_public: bytes) -> StorageNodeId:
    """Return the id of the storage node that signs with this Ed25519 key (32 bytes)."""
    return StorageNodeId(_derived(b"storage-node-id", sign_public))


def copy_id(node: NodeId, dot: Dot) -> NodeId:
    """Return the id of the conflict copy that shows the value ``dot`` of ``node``.

    It is also the id of the node that this value becomes once it is detached, so a copy keeps its identity.
    """
    key = node + dot.device.to_bytes(2, "big") + dot.seq.to_bytes(8, "big") + dot.index.to_bytes(4, "big")
    return NodeId(_derived(b"copy-id", key)[:NODE_ID_BYTES])
