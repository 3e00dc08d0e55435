"""A running coordinator with three storage nodes for each test that asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from simulations.launcher import Launcher
from simulations.processes import Cluster, Device


@pytest.fixture(scope="session", autouse=True)
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have what prepares a test start quickly; servers, agents and what tests look at start as a person starts them."""
    with Launcher(tmp_path_factory.mktemp("launcher")) as running:
        Cluster.launcher = running
        yield
        Cluster.launcher = None


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
