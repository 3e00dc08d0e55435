"""A world of two devices that several modules of tests look at."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from simulations.processes import Cluster, Device, tree_of
from tests.e2e.kit import settle


class World(NamedTuple):
    """A cluster, two devices, and where the folder is on each."""

    cluster: Cluster
    a: Device
    b: Device
    one: Path
    two: Path

    def assert_same(self) -> dict[str, bytes]:
        """Return what both directories hold once nothing is left to do."""
        settle(self.a, self.b)
        one, two = dict(tree_of(self.one)), dict(tree_of(self.two))
        assert one == two
        return one
