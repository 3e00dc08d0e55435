"""A running coordinator with three storage nodes for each test that asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from simulations.processes import Cluster, Device


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "cluster") as running:
        yield running


@pytest.fixture
def pair(cluster: Cluster) -> tuple[Device, Device]:
    """Two devices of one account with one folder, ``work``, on both."""
    one = cluster.first_device("laptop")
    one.add(cluster.root / "one", "work")
    two = cluster.link_device(one, "desktop")
    one.sync()
    two.get("work", cluster.root / "two")
    two.sync()
    return one, two
