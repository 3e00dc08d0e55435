"""The brake on mass changes, with real processes: what waits, what passes, and that nothing is lost either way."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from simulations.processes import Cluster, Device, tree_of
from tests.e2e.kit import agents, ask, assert_no_tracebacks, folder_of, run, settle, start_agent, until

FILES = 12


class World(NamedTuple):
    cluster: Cluster
    a: Device
    b: Device
    one: Path
    two: Path

    def fill(self) -> dict[str, bytes]:
        """Bring the first device to the same few files again, its agent stopped, nothing held."""
        for device in (self.a, self.b):
            device.stop()
        files = {self.one / f"d{number % 3}" / f"f{number}": f"content {number}\n" for number in range(FILES)}
        wanted = {*files, *(path.parent for path in files)}
        for path in sorted(self.one.glob("[!.]*")) + sorted(self.one.glob("d[0-2]/*")):
            if path not in wanted:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path, text in files.items():
            path.parent.mkdir(exist_ok=True)
            if not path.exists() or path.read_text() != text:
                path.write_text(text)
        if run(self.a, "sync", "--timeout", "60").code:
            assert run(self.a, "approve", "work").code == 0
            self.sync(self.a)
        return dict(tree_of(self.one))

    def sync(self, *devices: Device) -> None:
        for device in devices:
            result = run(device, "sync", "--timeout", "60")
            assert result.code == 0, result

    def assert_same(self) -> dict[str, bytes]:
        one, two = dict(tree_of(self.one)), dict(tree_of(self.two))
        assert one == two
        return one

    def held(self, device: Device) -> dict[str, object] | None:
        folder = folder_of(device.json("status"), "work")
        assert (folder["state"] == "held") == (folder["held"] is not None)
        found: dict[str, object] | None = folder["held"]
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("brake") / "cluster"
    with Cluster(root, nodes=1, replicas=1, quorum=1) as cluster:
        a = cluster.first_device("laptop")
        a.add(root / "one", "work")
        b = cluster.link_device(a, "desktop")
        a.sync()
        b.get("work", root / "two")
        yield World(cluster, a, b, root / "one", root / "two")
    assert_no_tracebacks(cluster)


def empty(root: Path) -> None:
    for path in root.iterdir():
        if path.name != ".kinfolder":
            shutil.rmtree(path)


def test_a_removal_found_at_the_start_waits_and_passes_once_approved(world: World) -> None:
    before = world.fill()
    world.sync(world.b)
    empty(world.one)
    (world.one / "new").write_text("goes on")
    (world.two / "d1" / "f1").write_text("edited elsewhere")
    (world.two / "other").write_text("from elsewhere")
    world.sync(world.b)
    result = run(world.a, "sync", "--timeout", "60")
    assert result.code == 4, result
    assert "kin approve work" in result.err
    assert world.held(world.a) == {"kind": "deletions", "files": FILES}
    folder = folder_of(world.a.json("status", "--all"), "work")
    assert {row["path"] for row in folder["unsynced"] if row["reason"] == "held"} == {
        path for path, data in before.items() if data != b"<dir>"
    }
    # The rest went on, in both directions; what waits did not come back.
    assert (world.one / "other").read_text() == "from elsewhere"
    assert not (world.one / "d1").exists()
    world.sync(world.b)
    assert (world.two / "new").read_text() == "goes on"
    assert (world.two / "d0" / "f0").exists()
    result = run(world.a, "approve", "work")
    assert (result.code, "12 files" in result.out) == (0, True), result
    assert world.held(world.a) is None
    world.sync(world.a, world.b, world.a)
    # An edit that this device had not seen beats its removal.
    assert set(world.assert_same()) == {"new", "other", "d1", "d1/f1"}
    result = run(world.a, "approve", "work")
    assert (result.code, "no change of work waits" in result.err) == (1, True), result


def test_a_removal_that_waits_is_undone(world: World) -> None:
    before = world.fill()
    empty(world.one)
    start_agent(world.a, world.cluster.root)
    until(lambda: folder_of(ask(world.a), "work")["held"], "it waits")
    assert ask(world.a, "wait", timeout=60)["exit"] == 4
    result = run(world.a, "undo", "work")
    assert (result.code, "12 files came back" in result.out) == (0, True), result
    settle(world.a)
    assert dict(tree_of(world.one)) == before


def test_what_comes_back_by_itself_waits_no_more(world: World) -> None:
    before = world.fill()
    away = world.cluster.root / "away"
    for path in sorted(world.one.glob("d*")):
        away.mkdir(exist_ok=True)
        path.rename(away / path.name)
    assert run(world.a, "sync", "--timeout", "60").code == 4
    (away / "d0").rename(world.one / "d0")
    assert run(world.a, "sync", "--timeout", "60").code == 4
    assert world.held(world.a) == {"kind": "deletions", "files": FILES - 4}
    for path in sorted(away.iterdir()):
        path.rename(world.one / path.name)
    world.sync(world.a)
    assert world.held(world.a) is None
    assert dict(tree_of(world.one)) == before


def test_what_a_restore_brings_back_waits_no_more(world: World) -> None:
    """It is the file that it was: it does not go again, neither now nor with what is let pass later."""
    before = world.fill()
    world.sync(world.b)
    assert run(world.a, "snapshot", "create", "work", "then").code == 0
    empty(world.one)
    assert run(world.a, "sync", "--timeout", "60").code == 4
    result = run(world.a, "restore", str(world.one / "d1" / "f1"), "--snapshot", "then")
    assert (result.code, "1 file restored" in result.out) == (0, True), result
    assert run(world.a, "sync", "--timeout", "60").code == 4
    assert (world.one / "d1" / "f1").read_bytes() == before["d1/f1"]
    assert world.held(world.a) == {"kind": "deletions", "files": FILES - 1}
    result = run(world.a, "restore", str(world.one / "d2"), "--snapshot", "then")
    assert (result.code, "4 files restored" in result.out) == (0, True), result
    assert run(world.a, "approve", "work").code == 0
    world.sync(world.a, world.b, world.a)
    rest = {path: data for path, data in before.items() if path.startswith("d2") or path in {"d1", "d1/f1"}}
    assert world.assert_same() == rest


def test_a_removal_that_the_watcher_saw_passes_and_is_reverted(world: World) -> None:
    before = world.fill()
    with agents(world.cluster.root, world.a, world.b):
        settle(world.a, world.b)
        empty(world.one)
        settle(world.a, world.b)
        assert world.assert_same() == {}
        assert folder_of(ask(world.a), "work")["held"] is None
        (world.two / "d1").mkdir()
        (world.two / "d1" / "f1").write_text("somebody else's by now")
        settle(world.b, world.a)
        # The newest mass change, by whatever device, is reverted on any, and offered no more where it was made.
        assert "were removed at once" in folder_of(ask(world.a), "work")["text"]
        result = run(world.b, "undo", "work")
        assert (result.code, "files came back" in result.out) == (0, True), result
        settle(world.b, world.a)
        until(lambda: folder_of(ask(world.a), "work")["text"] == "", "the offer is gone")
        after = world.assert_same()  # with what the same device had removed shortly before
        assert after.pop("d1/f1") == b"somebody else's by now"
        (copy,) = [path for path in after if "conflict" in path]
        after["d1/f1"] = after.pop(copy)
        assert before.items() <= after.items()
        again = run(world.a, "undo", "work")
        assert (again.code, "no mass change" in again.err) == (1, True), again
        for path in world.one.glob("d*/*"):
            path.write_text("rewritten " + path.name)
        settle(world.a, world.b)
        rewritten = [data for path, data in world.assert_same().items() if "/" in path]
        assert all(data.startswith(b"rewritten") for data in rewritten)
        (world.two / "d0" / "f0").write_text("and written again")
        settle(world.b, world.a)
        result = run(world.a, "undo", "work")
        assert (result.code, "12 files came back" in result.out) == (0, True), result
        settle(world.a, world.b)
        after = world.assert_same()
        assert after.pop("d0/f0") == b"and written again"


def test_a_few_removals_pass_and_moves_are_none(world: World) -> None:
    world.fill()
    for number in range(FILES // 2):
        (world.one / f"d{number % 3}" / f"f{number}").unlink()
    (world.one / "d0").rename(world.one / "moved")
    for path in sorted((world.one / "d1").iterdir()):
        path.rename(world.one / path.name)
    world.sync(world.a, world.b)
    assert len([path for path, data in world.assert_same().items() if data != b"<dir>"]) == FILES // 2


def test_a_rewrite_of_everything_waits_and_is_undone(world: World) -> None:
    before = world.fill()
    world.sync(world.b)
    files = sorted(path for path in world.one.glob("d*/*"))
    for path in files:
        path.write_text("ransom " + path.name)
    result = run(world.a, "sync", "--timeout", "60")
    assert (result.code, "kin undo work" in result.err) == (4, True), result
    assert world.held(world.a) == {"kind": "rewrites", "files": FILES}
    world.sync(world.b)
    result = run(world.a, "undo", "work")
    assert (result.code, "12 files came back" in result.out) == (0, True), result
    assert dict(tree_of(world.one)) == before
    aside = Path(result.out.split(" lies in ")[1].split(";")[0])
    assert sorted(path.read_text() for path in aside.rglob("f*")) == sorted("ransom " + path.name for path in files)
    world.sync(world.a, world.b)
    assert world.assert_same() == before


def test_a_rewrite_that_was_meant_passes_once_approved(world: World) -> None:
    world.fill()
    for path in world.one.glob("d*/*"):
        path.write_text("meant " + path.name)
    assert run(world.a, "sync", "--timeout", "60").code == 4
    assert run(world.a, "approve", "work").code == 0
    world.sync(world.a, world.b)
    assert all(data.startswith(b"meant") for data in world.assert_same().values() if data != b"<dir>")
