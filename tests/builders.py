"""Valid signed things for tests of the servers: entries with random payloads, storage nodes that sign receipts, logins.

Accounts, devices and folders come from :mod:`tests.protocol.chain_world`. What a payload holds is random: no server opens it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from blake3 import blake3

from protocol import messages as m
from protocol import signing, versions
from protocol.codec import encode
from protocol.entries import (
    Batch,
    Change,
    Entry,
    Expect,
    Header,
    Register,
    entry_hash,
    pack_entry,
    parse_entry,
)
from protocol.grants import ChunkRef, Receipt, ReceiptFor, batch_root, sign_body
from protocol.ids import ChunkId, DeviceId, Dot, EntryHash, FolderId, NodeId, Pseudonym, StorageNodeId, storage_node_id
from protocol.versions import Vector
from tests.protocol.chain_world import TestAccount, TestDevice, TestFolder, fixed


def node_id(name: str) -> NodeId:
    """Return the id of a file or directory of this name."""
    return NodeId(fixed("node/" + name, 16))


def chunk(name: str, length: int = 4096) -> ChunkRef:
    """Return a chunk of this name."""
    return ChunkRef(ChunkId(fixed("chunk/" + name)), length)


def segment(name: str, *chunks: ChunkRef) -> m.PinnedSegment:
    """Return a segment that lists these chunks."""
    return m.PinnedSegment(chunk("segment/" + name, 8192), tuple(chunks))


class Author:
    """One device number of a folder: signs entries one after the other."""

    def __init__(self, folder: TestFolder, device: TestDevice, number: int) -> None:
        self.folder = folder
        self.device = device
        self.number = number
        self.seq = 0
        self.previous = EntryHash(bytes(32))

    def change(self, node: str, base: Iterable[Dot] = (), vector: Vector = (), *, seq: int | None = None) -> Change:
        """Return a change of a node's content in the next entry."""
        seq = self.seq + 1 if seq is None else seq
        full = versions.bump(vector, self.number, seq)
        return Change(node_id(node), Register.CONTENT, tuple(sorted(base)), full)

    def entry(
        self,
        *nodes: str,
        changes: Sequence[Change] = (),
        needs: Iterable[EntryHash] = (),
        replaces: Iterable[EntryHash] = (),
        pins: Iterable[ChunkId] = (),
        expect: Sequence[Expect] = (),
        batch: Batch | None = None,
        epoch: int | None = None,
        payload: bytes | None = None,
        folder: FolderId | None = None,
        seed: bytes | None = None,
        previous: EntryHash | None = None,
        seq: int | None = None,
        keep: bool = True,
    ) -> bytes:
        """Sign the next entry; with ``keep=False`` the one after it takes the same sequence number."""
        seq = self.seq + 1 if seq is None else seq
        payload = fixed(f"payload/{self.number}/{seq}/{nodes}", 200) if payload is None else payload
        header = Header(
            version=1,
            folder=self.folder.id if folder is None else folder,
            epoch=self.folder.state.epoch.number if epoch is None else epoch,
            control_head=self.folder.state.head,
            device=self.number,
            seq=seq,
            previous=self.previous if previous is None else previous,
            needs=tuple(sorted(set(needs))),
            expect=tuple(expect),
            replaces=tuple(sorted(set(replaces))),
            batch=batch,
            changes=(*changes, *(self.change(node, seq=seq) for node in nodes)),
            pins=tuple(sorted(set(pins))),
            source=None,
            payload_hash=blake3(payload).digest(),
        )
        data = encode(header)
        signature = signing.sign("entry", data + payload, self.device.seed if seed is None else seed)
        if keep:
            self.seq = seq
            self.previous = entry_hash(data, payload)
        return pack_entry(data, payload, signature)


def hash_of(data: bytes) -> EntryHash:
    """Return the hash of a packed entry."""
    return parse_entry(data).hash


def parsed(data: bytes) -> Entry:
    """Return a packed entry, parsed."""
    return parse_entry(data)


class TestNode:
    """A storage node's keys: signs receipts and logins."""

    __test__ = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.seed = fixed("storage-node/" + name)
        self.sign = signing.public_key(self.seed)
        self.id: StorageNodeId = storage_node_id(self.sign)

    def receipt(self, pseudonym: Pseudonym, chunks: Sequence[ChunkRef], device: DeviceId | None = None) -> ReceiptFor:
        """Sign that these chunks are held."""
        body = Receipt(
            node=self.sign,
            pseudonym=pseudonym,
            device=DeviceId(bytes(32)) if device is None else device,
            root=batch_root(chunks),
            count=len(chunks),
            time_ms=1,
            hold_until_ms=0,
        )
        return ReceiptFor(sign_body(body, self.seed), tuple(chunks))

    def login(
        self,
        challenge: m.Challenge,
        origin: str,
        token: str = "",
        *,
        certificate: bytes = bytes(32),
        zone: str = "",
        url: str = "",
    ) -> m.NodeLogin:
        """Answer a challenge."""
        nonce = fixed("nonce/" + self.name)
        covered = m.login_bytes(challenge, origin, certificate, nonce, self.sign)
        return m.NodeLogin(
            token=token,
            sign=self.sign,
            url=url or f"http://127.0.0.1/{self.name}",
            certificate=b"",
            zone=zone,
            free_bytes=1 << 40,
            nonce=nonce,
            signature=signing.sign("login", covered, self.seed),
        )


def device_login(
    challenge: m.Challenge,
    origin: str,
    account: TestAccount,
    device: TestDevice | None = None,
    *,
    certificate: bytes = bytes(32),
    seed: bytes | None = None,
) -> m.Login:
    """Answer a challenge as a device."""
    device = device or account.device
    nonce = fixed("nonce")
    covered = m.login_bytes(challenge, origin, certificate, nonce, account.id + device.id)
    return m.Login(account.id, device.id, nonce, signing.sign("login", covered, seed or device.seed))
