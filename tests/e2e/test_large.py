"""Large files and many small ones, between devices that are never on together, in bounded memory.

With KIN_TEST_FULL=1 the sizes are those of the promise (1.5 GiB, 10,000 files), else smaller ones of the same shape: the
bound on memory is the same, and so is what fills it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from protocol import limits
from simulations.processes import Cluster, Device

FULL = os.environ.get("KIN_TEST_FULL") == "1"
LARGE_BYTES = 1536 * limits.MIB if FULL else 96 * limits.MIB
BESIDE_BYTES = 512 * limits.MIB if FULL else 40 * limits.MIB
"""Of each of three more files, so that several are on the way together."""
MANY_FILES = 10_000 if FULL else 2_000
PEAK_BYTES_MAX = 300 * limits.MIB
HOME_SHARE_MAX = 0.03
FILE_BYTES_MEAN = 100_000
"""Of the files that people keep, roughly; the home's share is promised for this."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("large") / "cluster") as running:
        yield running


@pytest.fixture(scope="module")
def devices(cluster: Cluster) -> tuple[Device, Device]:
    one = cluster.first_device("laptop")
    return one, cluster.link_device(one, "desktop")


def digests(root: Path) -> dict[str, bytes]:
    """Return the hash of every file under a root but Kinfolder's own, read a piece at a time."""
    found: dict[str, bytes] = {}
    for path in root.rglob("*"):
        if path.is_file() and ".kinfolder" not in path.parts:
            found[str(path.relative_to(root))] = blake3(max_threads=1).update_mmap(path).digest()
    return found


def carry(cluster: Cluster, devices: tuple[Device, Device], name: str) -> None:
    """Send a folder from one device, fetch it on the other; check every process's peak and every byte."""
    a, b = devices
    peaks = {"sending": a.measure("sync"), "sending nothing more": a.measure("sync")}
    b.get(name, cluster.root / f"{name}-there")
    peaks |= {"fetching": b.measure("sync"), "fetching nothing more": b.measure("sync")}
    peaks["coordinator"] = cluster.coordinator.peak_memory_bytes()
    for number, node in enumerate(cluster.nodes):
        peaks[f"node {number}"] = node.peak_memory_bytes()
    print({who: f"{peak / limits.MIB:.0f} MiB" for who, peak in peaks.items()})
    assert max(peaks.values()) <= PEAK_BYTES_MAX, peaks
    assert digests(cluster.root / name) == digests(cluster.root / f"{name}-there")


def test_large_files_arrive_in_bounded_memory(cluster: Cluster, devices: tuple[Device, Device]) -> None:
    a, _ = devices
    a.add(cluster.root / "large", "large")
    chance = random.Random(5)
    for name, size in (("large", LARGE_BYTES), *((f"beside {number}", BESIDE_BYTES) for number in range(3))):
        with open(cluster.root / "large" / name, "wb") as file:
            file.writelines(chance.randbytes(limits.MIB) for _ in range(size // limits.MIB))
    carry(cluster, devices, "large")


def test_many_files_arrive_in_bounded_memory(cluster: Cluster, devices: tuple[Device, Device]) -> None:
    a, _ = devices
    a.add(cluster.root / "many", "many")
    chance = random.Random(6)
    for number in range(MANY_FILES):
        directory = cluster.root / "many" / f"{number % 7}" / f"{number % 91}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"file {number}.txt").write_bytes(chance.randbytes(int(chance.expovariate(1 / 3_000))))
    before = [home_bytes(device) for device in devices]
    carry(cluster, devices, "many")
    for device, empty in zip(devices, before, strict=True):
        each = (home_bytes(device) - empty) / MANY_FILES
        print(f"{device.name}: {each:.0f} bytes at home for each file")
        assert each <= HOME_SHARE_MAX * FILE_BYTES_MEAN


def home_bytes(device: Device) -> int:
    """Return what a device's state takes on the disk."""
    return sum(path.stat().st_size for path in device.home.rglob("*") if path.is_file())
