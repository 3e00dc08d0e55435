"""What a hostile member writes about contents harms his own files alone, and is believed only once it was opened here."""

import asyncio
import os
from types import SimpleNamespace

import msgspec
import pytest
from blake3 import blake3

from peer.core.chunk_sealing import Row, seal_chunk
from peer.core.chunking import FixedChunker
from peer.core.segments import seal_segment
from peer.core.tree import Content, Item, Member
from peer.disk.files import LinuxFileSystem
from peer.disk.roots import RootGuard
from peer.engine.downloader import BATCH_BYTES, SEGMENTS_TOGETHER, Downloader, Piece, ToFetch, _batches, _windows
from peer.engine.uploader import Stored, _seal_again
from peer.store.database import InlineDatabase
from peer.store.places import listed_rows, received_rows
from peer.store.schema import SCHEMA
from peer.store.stored import known_rows, note_rows
from protocol import limits
from protocol.entries import Kind, SegmentKey
from protocol.errors import NoSourceError
from protocol.ids import ROOT, ChunkId, Dot, FolderId, NodeId

KEY = bytes(32)
FOLDER = FolderId(b"f" * 32)


class Here:
    async def run(self, function, /, *args):
        return function(*args)


class Nodes(dict):
    async def get(self, folder, ids):  # type: ignore[override]  # a node, that happens to be kept in a dict
        for id in ids:
            if id in self:
                yield id, bytes(self[id])
        if not all(id in self for id in ids):
            raise NoSourceError("gone")


class Near(dict):
    """Bytes that are on this disk or the LAN, by their hash."""

    async def chunks(self, wanted):
        for one in wanted:
            if one.hash in self:
                yield one, self[one.hash]

    async def segments(self, ids):
        for id in ids:
            if id in self:
                yield id, self[id]


class World:
    def __init__(self, top) -> None:
        top.mkdir()
        self.top, self.nodes, self.database = top, Nodes(), InlineDatabase(":memory:", SCHEMA)
        guard = RootGuard(LinuxFileSystem(), str(top), FOLDER, (b"d" * 32).hex())
        guard.mark()
        keys = SimpleNamespace(chunker=FixedChunker(), chunk_key=KEY)
        context = SimpleNamespace(
            database=self.database, processor=Here(), chunks=self.nodes, folder_keys=lambda key: keys
        )
        record = SimpleNamespace(id=FOLDER, key=1)
        self.near = Near()
        self.downloader = Downloader(context, lambda: record, guard, self.near)  # type: ignore[arg-type, return-value]

    def sealed(self, raw: bytes, **more) -> Row:
        chunk = seal_chunk(raw, KEY, **more)
        self.nodes[chunk.id] = chunk.data
        return chunk.row

    def segment(self, *rows: Row) -> SegmentKey:
        segment = seal_segment(rows, KEY)
        self.nodes[segment.key.id] = segment.data
        return segment.key

    def file(self, name: str, raw: bytes, *spans, old: str = "") -> ToFetch:
        id = NodeId(os.urandom(16))
        member = Member(id, None, (Dot(7, 1, 0),), ())
        content = Content(Kind.FILE, blake3(raw).digest(), len(raw))
        return ToFetch(Item(id, ROOT, name, content, (member,)), Stored(spans), old)

    def fetch(self, *files: ToFetch):
        staged, problems = asyncio.run(self.downloader.fetch(files, lambda count: None))
        names = {file.item.id: file.item.name for file in files}
        return {names[id] for id in staged}, {names[id]: reason for id, reason in problems.items()}

    def row(self, raw: bytes) -> Row | None:
        hash = blake3(raw).digest()
        return self.database.call(lambda db: known_rows(db, 1, [hash])).get(hash)

    def is_known(self, raw: bytes) -> bool:
        hash = blake3(raw).digest()
        return bool(
            self.database.call(lambda db: db.execute("SELECT 1 FROM known_content WHERE hash = ?", (hash,)).fetchall())
        )


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "f")


def test_a_row_that_nobody_opened_is_not_believed(world):
    """A segment's second row says of garbage that it is somebody's plain text."""
    good, precious = world.sealed(b"harmless"), b"precious" * 40
    lie = msgspec.structs.replace(good, raw_hash=blake3(precious).digest(), raw_length=len(precious))
    key = world.segment(good, lie)
    assert world.fetch(world.file("a", b"harmless", (key, 0, 1))) == ({"a"}, {})
    assert world.row(b"harmless") == good
    assert world.is_known(b"harmless")
    staged, problems = world.fetch(world.file("b", precious, (key, 1, 1)), world.file("c", b"harmless", (key, 0, 1)))
    assert staged == {"c"}
    assert set(problems) == {"b"}
    assert world.row(precious) is None
    assert not world.is_known(precious)


def test_a_row_whose_bytes_came_over_the_lan_is_kept_apart_and_not_believed(world):
    """The bytes are right, and the row is a lie: nobody could fetch them by it, so sending them must not be skipped."""
    good, precious = world.sealed(b"harmless"), b"precious" * 40
    hash = blake3(precious).digest()
    lie = msgspec.structs.replace(good, raw_hash=hash, raw_length=len(precious))
    world.near[hash] = precious
    assert world.fetch(world.file("a", precious, (world.segment(lie), 0, 1))) == ({"a"}, {})
    assert world.row(precious) is None
    assert not world.is_known(precious)
    claimed = world.database.call(lambda db: received_rows(db, 1, [hash]))
    assert claimed == {hash: lie}
    assert _seal_again([(precious, lie)], [KEY]) == []
    true = seal_chunk(precious, KEY).row
    assert _seal_again([(precious, true)], [bytes(32), KEY]) == [true]


def test_what_is_near_is_not_asked_of_nodes_and_what_is_proven_stays_so(world):
    row = world.sealed(b"twice")
    key = world.segment(row)
    assert world.fetch(world.file("a", b"twice", (key, 0, 1))) == ({"a"}, {})
    world.near[key.id], world.near[blake3(b"twice").digest()] = bytes(world.nodes[key.id]), b"twice"
    world.nodes.clear()
    assert world.fetch(world.file("b", b"twice", (key, 0, 1))) == ({"b"}, {})
    assert world.row(b"twice") == row
    assert world.database.call(lambda db: listed_rows(db, 1, key.id)) == (row,)
    assert world.is_known(b"twice")


def test_a_row_of_this_device_is_never_replaced(world):
    own, other = (
        world.sealed(b"mine"),
        msgspec.structs.replace(world.sealed(b"other"), raw_hash=blake3(b"mine").digest()),
    )
    world.database.call(lambda db: note_rows(db, 1, [own]))
    world.database.call(lambda db: note_rows(db, 1, [other]))
    assert world.row(b"mine") == own


def test_a_content_made_of_bytes_that_were_here_is_no_proof(world):
    """The stage is right since the old file has the bytes; the chunks that the rows name are garbage."""
    raw = os.urandom(2 * limits.MIB + 1)
    (world.top / "old").write_bytes(raw)
    pieces = [raw[at : at + limits.MIB] for at in range(0, len(raw), limits.MIB)]
    honest = [world.sealed(piece) for piece in pieces]
    garbage = world.sealed(b"garbage")
    lies = [msgspec.structs.replace(garbage, raw_hash=r.raw_hash, raw_length=r.raw_length) for r in honest]
    assert world.fetch(world.file("x", raw, (world.segment(*lies), 0, len(lies)), old="old")) == ({"x"}, {})
    assert not world.is_known(raw)
    assert all(world.row(piece) is None for piece in pieces)
    key = world.segment(*honest)
    assert world.fetch(world.file("y", raw, (key, 0, len(honest)))) == ({"y"}, {})
    assert world.is_known(raw)


def test_false_keys_rows_and_bases_block_their_own_files_alone(world):
    lost = os.urandom(50_000)
    honest, gone = world.sealed(b"honest" * 99), seal_chunk(lost, KEY).row
    key = world.segment(honest)
    patch = world.sealed(lost + b"!", base=(gone, lost))
    assert patch.base == gone
    wrong = msgspec.structs.replace(honest, opener=b"x" * 32)
    raw = b"honest" * 99
    staged, problems = world.fetch(
        world.file("opener", raw, (msgspec.structs.replace(key, opener=b"x" * 32), 0, 1)),
        world.file("rows", raw, (msgspec.structs.replace(key, rows=2), 0, 1)),
        world.file("row", raw, (world.segment(wrong), 0, 1)),
        world.file("base", lost + b"!", (world.segment(patch), 0, 1)),
        world.file("absent", raw, (SegmentKey(ChunkId(b"a" * 32), b"o" * 32, 1), 0, 1)),
        world.file("fine", raw, (key, 0, 1)),
    )
    assert staged == {"fine"}
    assert problems == {
        "opener": "error", "rows": "error", "row": "no_source", "base": "no_source", "absent": "no_source"
    }  # fmt: skip


def test_bases_and_repeated_spans_count_as_memory():
    size = limits.CHUNK_BYTES_MAX
    base = Row(ChunkId(b"b" * 32), b"", size, size, b"", 1, 1, None)
    rows = [Row(ChunkId(os.urandom(32)), b"", 4096, size, b"", 1, 1, base) for _ in range(9)]
    for batch in _batches([Piece(0, 0, row) for row in rows]):
        assert len(batch) == 1 or len(batch) * (2 * size + 4096) <= BATCH_BYTES
    key = SegmentKey(ChunkId(b"s" * 32), b"", 512)
    item = Item(NodeId(b"n" * 16), ROOT, "f", Content(Kind.FILE))
    windows = list(_windows([ToFetch(item, Stored(((key, 0, 512),) * 100), "")]))
    assert sum(len(window) for window in windows) == 100
    assert all(sum(span.count for span in window) <= SEGMENTS_TOGETHER * 512 for window in windows)
