"""What a source gave is not fetched again, whatever became of the rest."""

import os

from peer.engine.downloader import BATCH_BYTES
from protocol import limits
from tests.peer.engine.test_hostile_contents import World


def test_batches_that_came_are_kept_when_another_one_has_no_source(tmp_path):
    """The file waits; what is on its stage is asked for no more."""
    world = World(tmp_path / "f")
    raws = [os.urandom(limits.CHUNK_BYTES_MAX) for _ in range(6)]
    rows = [world.sealed(raw) for raw in raws]
    assert sum(row.length for row in rows) > 2 * BATCH_BYTES
    key = world.segment(*rows)
    file = world.file("large", b"".join(raws), (key, 0, len(rows)))
    first = world.nodes.pop(rows[0].id)
    assert world.fetch(file) == (set(), {"large": "no_source"})
    for row in rows[1:]:
        del world.nodes[row.id]
    world.nodes[rows[0].id] = first
    assert world.fetch(file) == ({"large"}, {})
