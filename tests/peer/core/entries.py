"""Entries written by hand, for what no honest author writes and for what has one exact form."""

from __future__ import annotations

from collections.abc import Iterable

from blake3 import blake3
from msgspec.structs import replace

from peer.core.conflicts import bytes_of
from peer.core.drafts import DraftEntry, as_admitted
from peer.core.fold_state import FoldState
from peer.core.tree import Item, path_of
from protocol import versions
from protocol.entries import (
    AdmittedEntry,
    Batch,
    Change,
    ContentValue,
    DetachValue,
    Header,
    Kind,
    Payload,
    PlaceValue,
    Register,
    RemovalValue,
    Seen,
    SegmentKey,
    Value,
)
from protocol.ids import ROOT, DeviceId, Dot, EntryHash, FolderId, LinkHash, NodeId
from tests.peer.core.devices import walk

NOTHING = bytes(32)
Written = tuple[NodeId, Register, tuple[Dot, ...], Value]


def node(name: str) -> NodeId:
    """Return an id that can be read in a failed test."""
    return NodeId(name.encode().ljust(16, b"."))


def entry_hash(device: int, seq: int) -> EntryHash:
    return EntryHash(blake3(f"{device} {seq}".encode()).digest())


def entry(
    device: int,
    seq: int,
    *written: Written,
    needs: Iterable[tuple[int, int]] = (),
    batch: Batch | None = None,
    label: str = "",
    segments: tuple[SegmentKey, ...] = (),
) -> AdmittedEntry:
    header = Header(
        version=1,
        folder=FolderId(NOTHING),
        epoch=0,
        control_head=LinkHash(NOTHING),
        device=device,
        seq=seq,
        previous=EntryHash(NOTHING),
        needs=tuple(sorted(entry_hash(*need) for need in needs)),
        expect=(),
        replaces=(),
        batch=batch,
        changes=tuple(
            Change(each[0], each[1], tuple(sorted(each[2])), versions.bump((), device, seq)) for each in written
        ),
        pins=tuple(sorted({segment.id for segment in segments})),
        source=None,
        payload_hash=NOTHING,
    )
    values = tuple(each[3] for each in written)
    payload = Payload(Seen(0, 0, NOTHING, ()), (), label or f"D{device}", 1000 * seq, "", segments, values)
    return AdmittedEntry(entry_hash(device, seq), DeviceId(NOTHING), header, payload)


def batch_entry(draft: DraftEntry, device: int) -> AdmittedEntry:
    """Return a draft's entry as it is after signing: with needs, and a hash by its number."""
    made = as_admitted(draft, device=device, label=f"D{device}")
    needs = tuple(sorted({entry_hash(dot.device, dot.seq) for dot in draft.needs}))
    payload_hash = blake3(b"").digest()
    header = replace(made.header, needs=needs, payload_hash=payload_hash)
    return replace(made, hash=entry_hash(device, draft.seq), header=header)


def place(id: NodeId, parent: NodeId, name: str | bytes, *base: Dot, weak: bool = False) -> Written:
    raw = name if isinstance(name, bytes) else bytes_of(name)
    return id, Register.PLACE, base, PlaceValue(parent, raw, weak)


def content(id: NodeId, token: str, *base: Dot, body: Dot | None = None, mtime_ns: int = 0) -> Written:
    value = ContentValue(Kind.FILE, body, token.encode().ljust(32, b"\0"), 0, mtime_ns, False, b"", "", ())
    return id, Register.CONTENT, base, value


def directory(id: NodeId, *base: Dot) -> Written:
    return id, Register.CONTENT, base, ContentValue(Kind.DIRECTORY, None, b"", 0, 0, False, b"", "", ())


def link(id: NodeId, target: bytes, *base: Dot) -> Written:
    value = ContentValue(Kind.LINK, None, blake3(target).digest(), 0, 0, False, target, "", ())
    return id, Register.CONTENT, base, value


def removal(
    id: NodeId, parent: NodeId, name: str, bodies: Iterable[Dot], *base: Dot, act: bytes = b"r" * 16
) -> Written:
    return id, Register.PLACE, base, RemovalValue(tuple(sorted(bodies)), parent, bytes_of(name), act)


def detached(id: NodeId, dot: Dot, *held: Dot) -> Written:
    return id, Register.DETACH, held, DetachValue(dot)


def create(device: int, seq: int, id: NodeId, name: str | bytes, token: str, parent: NodeId = ROOT) -> AdmittedEntry:
    """Return the entry that makes a file, or with the token DIR a directory: its place has index 0, its content 1."""
    made = directory(id) if token == "DIR" else content(id, token)
    return entry(device, seq, place(id, parent, name), made)


def shown(state: FoldState) -> dict[str, str]:
    """Return tokens (DIR for a directory, the target for a link) by path."""

    def token(item: Item) -> str:
        if item.is_directory:
            return "DIR"
        return item.content.target.decode() or item.content.hash.rstrip(b"\0").decode()

    return {path_of(state.tree, item.id) or "": token(item) for item in walk(state.tree)}
