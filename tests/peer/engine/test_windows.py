"""Large files pass through uploader and downloader in parts, and the parts make the same whole."""

from __future__ import annotations

import random

from peer.core.chunk_sealing import Row
from peer.core.segments import cut_segments
from peer.core.tree import Content, Item
from peer.engine.downloader import SEGMENTS_TOGETHER, ToFetch, _windows
from peer.engine.uploader import ROWS_PENDING_MAX, Stored, _complete_segments
from protocol.entries import Kind, SegmentKey
from protocol.ids import ROOT, ChunkId, NodeId


def rows(chance, count):
    return [Row(ChunkId(chance.randbytes(32)), b"", 1, 1, b"", 0, 0, None) for _ in range(count)]


def test_segments_cut_while_a_file_is_read_are_those_of_the_whole_file():
    """At any time few rows wait, and a change in one place changes the segments around it alone."""
    for seed in range(20):
        chance = random.Random(seed)
        whole = rows(chance, chance.randint(600, 5_000))
        pending: list[Row] = []
        cut: list[tuple[Row, ...]] = []
        for row in whole:
            pending.append(row)
            if len(pending) >= ROWS_PENDING_MAX:
                complete, pending = _complete_segments(pending)
                cut += complete
                assert len(pending) < ROWS_PENDING_MAX
        assert (*cut, *cut_segments(pending)) == cut_segments(whole)


def test_windows_hold_few_segments_and_every_span_in_order():
    chance = random.Random(1)
    keys = [SegmentKey(ChunkId(chance.randbytes(32)), b"", 512) for _ in range(40)]
    large = tuple((key, 0, 512) for key in keys)
    small = [((keys[number // 9], number % 9, 1),) for number in range(90)]
    item = Item(NodeId(b"n" * 16), ROOT, "f", Content(Kind.FILE))
    for spans in ([large], small, [(), large, small[0], (), *small]):
        files = [ToFetch(item, Stored(each), "") for each in spans]
        windows = list(_windows(files))
        found = [(span.file, (span.key, span.first, span.count)) for window in windows for span in window]
        assert found == [(index, span) for index, each in enumerate(spans) for span in each]
        assert all(len({span.key.id for span in window}) <= SEGMENTS_TOGETHER for window in windows)
    assert list(_windows([])) == []
