"""What an upload costs in requests to storage nodes, and that nothing is lost where one fails."""

from __future__ import annotations

import pytest

from simulations.preparation import prepared
from simulations.trace import Trace
from simulations.world import World
from tests.simulations.test_world import assert_all_have, written


def exchanges(trace, since):
    """Return how many exchanges of the first device with storage nodes began."""
    events = list(trace.events)[since - trace.count :]
    return sum(event.what == "dial" and event.host == "device-0" and "http:" in event.text for event in events)


@pytest.mark.parametrize("size", [1, 5_000, 200_000])
def test_a_small_file_and_what_lists_its_pieces_take_one_put(size):
    trace = Trace(events_max=1_000_000)
    counts = []

    async def story(world):
        await world.settle()
        for name in ("one.bin", "copy.bin"):
            before = trace.count
            written(world, name, bytes(size))
            await world.settle()
            counts.append(exchanges(trace, before))
            assert_all_have(world, name, bytes(size))

    World(7, prepared(), trace=trace, lans=(0, 1, 2)).run(story)
    assert counts == [1, 0]  # the second is a copy, of which all is there


@pytest.mark.parametrize("cut_after", [1, 300, 700, 1_500])
def test_what_is_cut_off_amid_a_put_arrives_all_the_same(cut_after):
    async def story(world):
        await world.settle()
        for node in world.nodes:
            world.network.link("device-0", node.name).cut_after_bytes = cut_after
        written(world, "cut.bin", b"c" * 3_000)
        await world.settle()
        assert_all_have(world, "cut.bin", b"c" * 3_000)

    World(8, prepared()).run(story)


def test_what_no_node_takes_is_kept_with_its_segments_and_sent_later():
    async def story(world):
        await world.settle()
        for node in world.nodes:
            node.kill()
        written(world, "kept.bin", b"k" * 3_000)
        device = world.devices[0]
        await device.sync(5.0)
        assert device.rows("SELECT count(*) FROM spool")[0][0] == 2  # a piece and its segment
        await world.settle()
        assert device.rows("SELECT count(*) FROM spool")[0][0] == 0
        assert_all_have(world, "kept.bin", b"k" * 3_000)

    World(9, prepared()).run(story)
