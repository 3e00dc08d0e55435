"""The power of a storage node fails at every effect: what was acknowledged is there, and nothing else is wrong."""

import asyncio
import itertools
import random

import pytest

from simulations.disk import SimDisk
from simulations.disk_door import SimFiles
from simulations.disk_hooks import Crashed
from simulations.personalities import PERSONALITIES, PLAIN, SECOND_NS
from simulations.power import cut_power
from tests.storage_node.conftest import FOLDER, chunks_of
from tests.storage_node.test_chunk_store import open_simulated

BATCHES = [chunks_of(3, 3_000), chunks_of(1, 100_000), chunks_of(4, 700, b"other"), chunks_of(2, 40_000, b"last")]
CUTS = 5
PACK_BYTES_MAX = 60_000


class Node:
    """A node whose process can be stopped at an effect, and whose power can be cut."""

    def __init__(self, personality):
        ticks = itertools.count(1_800_000_000 * SECOND_NS, 1_000)
        self.disk = SimDisk(random.Random(0), lambda: next(ticks), personality=personality)
        self.databases = []
        self.acknowledged = []

    def run(self, effect):
        """Put the batches one after the other; tell whether all were put before the process ended."""
        fs = SimFiles(self.disk, new_file=0o600)

        def before(_):
            if self.disk.hooks.effects > effect:
                fs.kill()

        self.disk.hooks.before = before
        try:
            asyncio.run(self._put(fs))
        except Crashed:
            return False
        finally:
            fs.kill()
            self.disk.hooks.before = None
        return True

    async def _put(self, fs):
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # nobody asks what became of a killed task
        store = open_simulated(self.disk, fs, self.databases, pack_bytes_max=PACK_BYTES_MAX)
        for batch in BATCHES:
            await store.put(FOLDER, batch)
            self.acknowledged += batch

    def found(self):
        """Return what another process finds, and whether it can go on."""

        async def main():
            store = open_simulated(self.disk, SimFiles(self.disk, new_file=0o600), self.databases)
            found = await store.get(FOLDER, [id for id, _ in self.acknowledged])
            damaged = await store.verify([ref.id for ref in await store.iterate(None, 100)])
            await store.put(FOLDER, BATCHES[0])
            await store.close()
            return [bytes(data) for data in found if data is not None], damaged

        return asyncio.run(main())


@pytest.mark.parametrize("personality", [PLAIN, PERSONALITIES["weak"]], ids=["ordered", "weak"])
def test_what_was_acknowledged_is_there(personality):
    for effect in itertools.count():
        ended = True
        for seed in range(CUTS):
            node = Node(personality)
            ended = node.run(effect)
            cut_power(node.disk, random.Random(seed))
            found, damaged = node.found()
            assert found == [body for _, body in node.acknowledged], (effect, seed)
            assert damaged == (), (effect, seed)
            for database in node.databases:
                database.close()
        if ended:
            assert effect > 10
            return
