"""Files on their way in: half received, resumed, refused, and never seen before they are whole."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess

import pytest
from blake3 import blake3

from peer.core.operations import Place, Replace
from peer.disk.applier import Applier
from peer.disk.outcomes import Done, Failed
from peer.disk.stages import Stage, clean_stages, mode_for, stage_bytes, stage_name
from peer.disk.walk import DiskError, DiskFullError
from protocol.errors import CorruptChunkError
from protocol.limits import MIB
from tests.peer.disk.kit import WHEN_NS, Folder, item_at

DATA = os.urandom(3 * MIB)


@pytest.fixture
def folder(tmp_path):
    return Folder(str(tmp_path / "f"))


def chunks(data, size=MIB):
    return [(at, data[at : at + size]) for at in range(0, len(data), size)]


def test_chunks_come_in_any_order(folder):
    item = item_at("f", DATA)
    with folder.open() as root, Stage(root, item) as stage:
        assert not stage.resumed
        for at, data in reversed(chunks(DATA)):
            stage.write(at, data)
        staged = stage.finish()
    assert folder.tree() == {}
    assert (staged.hash, staged.fingerprint.mtime_ns) == (item.content.hash, WHEN_NS)
    (outcome,) = folder.apply([Place(item)], [(item, DATA)])
    assert isinstance(outcome, Done)
    assert folder.tree() == {"f": DATA}


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, MIB])
def test_files_of_all_sizes(folder, size):
    data = DATA[:size]
    item = item_at("f", data)
    assert isinstance(folder.apply([Place(item)], [(item, data)])[0], Done)
    assert folder.tree() == {"f": data}


def test_a_half_received_file_is_resumed_by_what_it_really_holds(folder):
    """Architecture 4.6, and case 104: what a power cut took is fetched again, since ranges are read back."""
    item = item_at("f", DATA)
    with folder.open() as root, Stage(root, item) as stage:
        for at, data in chunks(DATA)[:2]:
            stage.write(at, data)
        assert not stage.holds(0, MIB, blake3(DATA[:MIB]).digest()), "nothing to resume in a new stage"
    with open(folder.at(f".kinfolder/tmp/{stage_name(item)}"), "r+b") as file:
        file.seek(MIB + 5)
        file.write(b"torn")
    with folder.open() as root, Stage(root, item) as stage:
        assert stage.resumed
        there = [stage.holds(at, len(data), blake3(data).digest()) for at, data in chunks(DATA)]
        assert there == [True, False, False]
        assert not stage.holds(2 * MIB, 2 * MIB, bytes(32))
        for (at, data), is_there in zip(chunks(DATA), there, strict=True):
            if not is_there:
                stage.write(at, data)
        assert stage.finish(verified=True).hash == item.content.hash
    assert folder.read(f".kinfolder/tmp/{stage_name(item)}") == DATA


@pytest.mark.parametrize("parts", [[DATA], [DATA[:MIB], DATA[MIB:]]])
def test_other_bytes_than_promised_are_refused_and_dropped(folder, parts):
    item = item_at("f", DATA[:-1] + bytes([DATA[-1] ^ 1]))
    with folder.open() as root, Stage(root, item) as stage:
        at = 0
        for part in parts:
            stage.write(at, part)
            at += len(part)
        with pytest.raises(CorruptChunkError):
            stage.finish()
        for bad in (-1, 3 * MIB - 1):
            with pytest.raises(CorruptChunkError):
                stage.write(bad, b"xx")
    with folder.open() as root, pytest.raises(CorruptChunkError):
        stage_bytes(root, item_at("g", b"abc"), b"ab")


def test_a_sparse_file_stays_sparse(folder):
    """Case 72: 1 GiB of zeros with a little data takes little room."""
    size = 1 << 30
    item = item_at("f", b"")
    content = type(item.content)(item.content.kind, b"h" * 32, size, WHEN_NS)
    item = type(item)(item.id, item.parent, item.name, content)
    zeros = bytes(4 * MIB)
    with folder.open() as root, Stage(root, item) as stage:
        for at in range(0, 64 * MIB, 4 * MIB):
            stage.write(at, zeros)
        stage.write(100 * MIB, zeros[: 2 * MIB] + b"data" + zeros[: 2 * MIB - 4])
        stage.finish(verified=True)
    found = os.stat(folder.at(f".kinfolder/tmp/{stage.name}"))
    assert found.st_size == size
    assert found.st_blocks * 512 < 2 * MIB
    with open(folder.at(f".kinfolder/tmp/{stage.name}"), "rb") as file:
        file.seek(102 * MIB)
        assert file.read(6) == b"data\0\0"


@pytest.mark.parametrize(
    ("old", "executable", "expected"),
    [
        (0o644, False, 0o644),
        (0o644, True, 0o755),
        (0o600, True, 0o700),
        (0o640, True, 0o750),
        (0o755, False, 0o644),
        (0o711, True, 0o711),
        (0o4755, True, 0o755),
        (0o6644, False, 0o644),
        (0o1777, False, 0o666),
        (0o444, True, 0o555),
        (0o000, True, 0o100),
    ],
)
def test_modes(old, executable, expected):
    assert mode_for(old, executable=executable) == expected


def test_stages_are_private_while_they_are_received(folder):
    item = item_at("f", b"secret")
    folder.stage([(item, b"secret")])
    assert stat.S_IMODE(os.stat(folder.at(".kinfolder")).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(folder.at(".kinfolder/tmp")).st_mode) == 0o700


def test_stages_that_nothing_waits_for_are_removed_once_they_are_old(folder):
    items = [item_at("a", b"1"), item_at("b", b"2")]
    folder.stage([(items[0], b"1"), (items[1], b"2")])
    with folder.open() as root:
        assert clean_stages(root, is_wanted=lambda name: False, kept_ms=range(1 << 60)) == 0
        assert clean_stages(root, is_wanted=lambda name: name == stage_name(items[0]), kept_ms=range(0)) == 1
    assert folder.hidden() == [f"tmp/{stage_name(items[0])}"]


def test_a_stage_of_a_time_that_is_far_off_is_old(folder):
    """It was written before the clock was put right, by years."""
    folder.stage([(item_at("a", b"1"), b"1")])
    with folder.open() as root:
        assert clean_stages(root, is_wanted=lambda name: False, kept_ms=range(1_000)) == 1


@pytest.fixture
def small(tmp_path):
    """A folder on a disk of one mebibyte."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root to mount a small tmpfs")
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine does not let us mount a tmpfs")
    yield Folder(str(path / "f"))
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_is_told_before_anything_is_written(small):
    """S54: the declared size is checked against the free disk."""
    item = item_at("f", DATA)
    with small.open() as root, pytest.raises(DiskFullError):
        Stage(root, item)
    with small.open() as root, pytest.raises(DiskError) as caught:
        Stage(root, type(item)(item.id, item.parent, "g", type(item.content)(item.content.kind, b"h" * 32, 1 << 62)))
    assert caught.value.code in {"disk_full", "error"}


def test_a_disk_that_fills_meanwhile_leaves_the_old_file_and_a_stage_to_resume(small):
    """Case 107."""
    small.write("f", b"old")
    seen = small.seen()
    data = DATA[: 900 * 1024]
    item = item_at("f", data)
    with small.open() as root:
        stage = Stage(root, item)
        small.write("other", DATA[: 600 * 1024])
        with pytest.raises(DiskFullError):
            for at, part in chunks(data, 100 * 1024):
                stage.write(at, part)
        stage.close()
    (outcome,) = small.apply([Replace(seen["f"], item)], seen=seen)
    assert isinstance(outcome, Failed)
    assert small.read("f") == b"old"
    with small.open() as root, pytest.raises(DiskFullError):
        Stage(root, item)  # what it lacks is a hole, and has no room yet: nothing needs to be fetched to know that
    os.unlink(small.at("other"))
    with small.open() as root, Stage(root, item) as stage:
        for at, part in chunks(data, 100 * 1024):
            if not stage.holds(at, len(part), blake3(part).digest()):
                stage.write(at, part)
        staged = stage.finish()
    with small.open() as root:
        applier = Applier(root, small.journal, small.clock, small.entropy, local=seen, staged={item.id: staged})
        ((outcome,),) = applier.apply([Replace(seen["f"], item)])
    assert isinstance(outcome, Done)
    assert small.read("f") == data
