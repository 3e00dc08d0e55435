"""The scrub reaches every chunk, round after round, and never faster than it may."""

import pytest

from protocol.grants import ChunkRef
from protocol.ids import ChunkId
from storage_node.core.scrub import FIRST_S, PASS_S_MIN, SCRUB_BYTES_PER_S, SCRUB_CHUNKS_PER_S, STEP_CHUNKS_MAX, Scrub


def run_pass(scrub, ids, length):
    """Play the store: return what one pass looked at and when it ended."""
    seen, passes, now = [], scrub.passes, scrub.next_deadline()
    while scrub.passes == passes:
        now = max(now, scrub.next_deadline())
        look = scrub.due(now)
        found = [id for id in ids if look.after is None or id > look.after][: look.chunks_max]
        seen += found
        scrub.looked([ChunkRef(id, length) for id in found], now)
    return seen, now


@pytest.mark.parametrize("count", [0, 1, STEP_CHUNKS_MAX, STEP_CHUNKS_MAX * 2, 200])
@pytest.mark.parametrize("start", [bytes(32), b"\x55" * 32, b"\xff" * 32])
def test_a_pass_looks_at_every_chunk(count, start):
    ids = sorted(bytes([i]) * 32 for i in range(count))
    scrub = Scrub(start, 0.0)
    for _ in range(2):
        seen, _ = run_pass(scrub, ids, 1000)
        assert sorted(set(seen)) == ids
        assert len(seen) <= len(ids) + STEP_CHUNKS_MAX


@pytest.mark.parametrize("length", [0, 8_000, 4_000_000])
def test_it_reads_no_faster_than_it_may(length):
    ids = sorted(bytes([i]) * 32 for i in range(200))
    scrub = Scrub(ChunkId(b"\x55" * 32), 0.0)
    began = scrub.next_deadline()
    assert began == FIRST_S
    seen, ended = run_pass(scrub, ids, length)
    spent = ended - began
    slack = STEP_CHUNKS_MAX
    assert (len(seen) - slack) * length <= spent * SCRUB_BYTES_PER_S
    assert len(seen) - slack <= spent * SCRUB_CHUNKS_PER_S + 1e-6
    assert scrub.next_deadline() >= began + PASS_S_MIN
    assert scrub.due(ended) is None
