"""Back to any version, with real processes: files, directories, whole folders; by version, time and snapshot.

With KIN_TEST_FULL=1: 200 versions of a file, each restored, and a folder of 2,000 files.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import UserError
from simulations.processes import Cluster, CommandError, Device
from tests.e2e import kit

FULL = bool(os.environ.get("KIN_TEST_FULL"))
VERSIONS = 200 if FULL else 10
FILES = 2_000 if FULL else 300


def state_of(root: Path) -> dict[str, tuple[Any, ...]]:
    """Return all that a restore must bring back: types, bytes, times, executable bits, targets."""
    found: dict[str, tuple[Any, ...]] = {}
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if name != ".kinfolder"]
        for name in (*names, *files):
            path = Path(directory, name)
            about = path.lstat()
            key = path.relative_to(root).as_posix()
            if stat.S_ISLNK(about.st_mode):
                found[key] = ("link", os.readlink(path))
            elif stat.S_ISDIR(about.st_mode):
                found[key] = ("dir",)
            else:
                found[key] = ("file", path.read_bytes(), about.st_mtime_ns, bool(about.st_mode & 0o100))
    return found


def restore(device: Device, path: Path, **wanted: Any) -> Any:
    """Ask a running agent for a restore."""
    nothing = {"version": None, "at_ms": None, "ago_ms": None, "snapshot": None, "to": None}
    return kit.ask(device, "restore", path=str(path), **{**nothing, **wanted})


def history(device: Device, path: Path) -> list[Any]:
    """Return the versions of a path, the newest first."""
    rows: list[Any] = kit.ask(device, "history", path=str(path))["versions"]
    return rows


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("past") / "cluster", nodes=2, replicas=2, quorum=2, metered=True) as running:
        yield running


@pytest.fixture(scope="module")
def laptop(servers: Cluster) -> Iterator[Device]:
    """One device with an agent."""
    device = servers.first_device("laptop")
    with kit.agents(servers.root, device):
        yield device
    kit.assert_no_tracebacks(servers)


@pytest.fixture
def alone(servers: Cluster, laptop: Device, request: pytest.FixtureRequest) -> tuple[Device, Path]:
    """That device, with a folder that no other test has."""
    root = servers.root / f"folder-{request.node.name}"
    kit.ask(laptop, "add", path=str(root), name=request.node.name)
    kit.settle(laptop)
    return laptop, root


def test_any_version_of_a_file_comes_back(alone: tuple[Device, Path]) -> None:
    device, root = alone
    file = root / "notes.txt"
    texts = [f"version {number}\n".encode() * (1 + number % 7) for number in range(VERSIONS)]
    for number, text in enumerate(texts):
        file.write_bytes(text)
        kit.until(partial(has_versions, device, file, number + 1), "the edit is recorded")
    ids = [row["id"] for row in reversed(history(device, file))]
    chance = random.Random(3)
    for number in range(VERSIONS) if FULL else [0, VERSIONS - 2, *chance.sample(range(VERSIONS), 4)]:
        restore(device, file, version=ids[number])
        assert file.read_bytes() == texts[number]
    rows = history(device, file)
    assert rows[0]["change"] == "restored"
    assert [row["current"] for row in rows] == [True] + [False] * (len(rows) - 1)


def test_a_restore_says_how_to_take_it_back(alone: tuple[Device, Path]) -> None:
    device, root = alone
    file = root / "notes.txt"
    file.write_text("one")
    kit.settle(device)
    first = str(history(device, file)[0]["id"])
    file.write_text("two")
    kit.settle(device)
    said = kit.run(device, "restore", str(file), "--version", first)
    assert (said.code, file.read_text()) == (0, "one"), said
    before = said.out.split("What was there before is version ")[1].partition(":")[0]
    assert kit.run(device, "restore", str(file), "--version", before).code == 0
    assert file.read_text() == "two"
    file.unlink()
    kit.settle(device)
    said = kit.run(device, "restore", str(file), "--version", first)
    assert (said.code, file.read_text()) == (0, "one"), said
    assert "Nothing stood there before." in said.out
    assert "What was there before" not in said.out


def has_versions(device: Device, file: Path, count: int) -> bool:
    try:
        rows = history(device, file)
    except UserError:
        return False  # it has none yet
    return len(rows) == count and rows[0]["ordered"]


def test_a_folder_of_random_files_comes_back_as_it_was(alone: tuple[Device, Path]) -> None:
    device, root = alone
    chance = random.Random(7)
    grow(root, chance)
    kit.settle(device)
    for _ in range(2):
        change(root, chance)
        kit.settle(device)
    then, at_ms = state_of(root), time.time_ns() // 1_000_000
    time_passes(at_ms)
    for _ in range(3):
        change(root, chance)
        kit.settle(device)
    change(root, chance)  # and what is not recorded yet
    last = state_of(root)
    told = restore(device, root, at_ms=at_ms)
    assert state_of(root) == then
    assert not told["left_total"]
    kit.settle(device)
    assert state_of(root) == then
    restore(device, root, version=told["replaced"])
    assert state_of(root) == last


def time_passes(since_ms: int) -> None:
    """The coordinator's time stamps are in milliseconds."""
    kit.until(lambda: time.time_ns() // 1_000_000 > since_ms + 1, "a millisecond passes")


def grow(root: Path, chance: random.Random) -> None:
    """Make files, directories, links and empty directories."""
    folders = [root]
    for number in range(FILES // 20):
        folder = chance.choice(folders) / f"d{number}"
        folder.mkdir()
        folders.append(folder)
    for number in range(FILES):
        path = chance.choice(folders) / f"f{number}"
        path.write_bytes(chance.randbytes(chance.choice([0, 30, 700, 4_000])))
        os.utime(path, ns=(number, 1_500_000_000_000_000_000 + number))
        path.chmod(0o755 if number % 9 == 0 else 0o644)
    for number in range(FILES // 30):
        (chance.choice(folders) / f"l{number}").symlink_to(f"f{number}")


def change(root: Path, chance: random.Random) -> None:
    """Edit, rename, move, remove, touch, make, and turn files into directories and back."""
    for _ in range(FILES // 80):
        paths = [root / path for path in sorted(names_of(root))]
        files = [path for path in paths if path.is_file() and not path.is_symlink()]
        folders = [root, *(path for path in paths if path.is_dir() and not path.is_symlink())]
        for _ in range(10):
            with contextlib.suppress(OSError):  # what an act before this one has taken away
                act(root, chance, files, folders)


def act(root: Path, chance: random.Random, files: list[Path], folders: list[Path]) -> None:
    file, folder, fresh = chance.choice(files), chance.choice(folders), str(chance.randrange(10**9))
    match chance.choice(["edit", "edit", "new", "remove", "move", "mode", "movedir", "removedir", "kind", "swap"]):
        case "edit":
            file.write_bytes(chance.randbytes(900))
        case "new":
            (folder / f"n{fresh}").write_bytes(chance.randbytes(500))
        case "remove":
            file.unlink()
        case "move":
            file.rename(folder / f"m{fresh}")
        case "mode":
            file.chmod(chance.choice([0o755, 0o644]))
        case "movedir" if len(folders) > 3:
            source = chance.choice(folders[1:])
            if folder != source and source not in folder.parents:
                source.rename(folder / f"e{fresh}")
        case "removedir" if len(folders) > 12:
            if len(names_of(folders[-1])) < FILES // 20:
                shutil.rmtree(folders[-1])
        case "kind":
            file.unlink()
            file.mkdir()
            (file / "inner").write_bytes(chance.randbytes(50))
        case "swap":
            other, aside = chance.choice(files), root / f"aside{fresh}"
            file.rename(aside)
            other.rename(file)
            aside.rename(other)
        case _:
            pass


def test_removed_things_come_back_by_version_and_by_snapshot_in_place_and_elsewhere(servers: Cluster) -> None:
    a = servers.first_device("first", "anna")
    one, two = servers.root / "one", servers.root / "two"
    a.add(one, "work")
    b = servers.link_device(a, "second")
    b.get("work", two)
    (one / "plans" / "old").mkdir(parents=True)
    (one / "plans" / "empty").mkdir()
    (one / "plans" / "a.txt").write_text("plan a")
    (one / "plans" / "old" / "b.sh").write_text("plan b")
    (one / "plans" / "old" / "b.sh").chmod(0o755)
    (one / "plans" / "link").symlink_to("a.txt")
    (one / "single").write_text("alone")
    a.sync()
    assert "snapshot before the move" in a.kin("snapshot", "create", "work", "before the move")
    then = state_of(one)
    shutil.rmtree(one / "plans")
    (one / "single").unlink()
    (one / "since").write_text("made since")
    a.sync()
    b.sync()
    removed = b.json("history", str(two / "single"))["versions"]
    assert [(row["change"], row["size"], row["current"]) for row in removed] == [
        ("removed", None, True),
        ("created", 5, False),
    ]
    assert removed[1]["device"] == "first"
    assert removed[1]["user"] == "anna"
    assert removed[1]["copies"] == 2
    # On the other device, which never had them on its disk.
    out = b.kin("restore", str(two / "single"), "--version", removed[1]["id"])
    assert "1 file restored" in out
    assert (two / "single").read_text() == "alone"
    rows = b.json("history", str(two / "single"))["versions"]
    assert [row["change"] for row in rows] == ["restored", "removed", "created"]
    b.kin("restore", str(two / "plans"), "--snapshot", "before the move")
    assert state_of(two / "plans") == state_from(then, "plans")
    assert (two / "since").read_text() == "made since"
    assert [one["name"] for one in b.json("snapshot", "list", "work")["snapshots"]] == ["before the move"]
    b.sync()
    a.sync()
    assert state_of(one) == state_of(two)
    assert state_of(one / "plans") == state_from(then, "plans")


def test_a_snapshot_is_what_its_device_held(servers: Cluster, alone: tuple[Device, Path]) -> None:
    """Also where others changed something that it had not seen when it made the snapshot."""
    device, root = alone
    name = root.name.removeprefix("folder-")
    (root / "shared").write_text("first")
    (root / "mine").write_text("mine")
    kit.settle(device)
    other = servers.link_device(device, "other")
    other.get(name, servers.root / "other")
    other.sync()
    kit.ask(device, "offline")
    (root / "mine").rename(root / "moved offline")
    made = kit.ask(device, "snapshot", folder=name, name="off")
    told = made["snapshot"]
    assert (told["id"][0], told["ordered"], made["left_out"]) == ("~", False, 0)
    then = state_of(root)
    (root / "moved offline").rename(root / "after the snapshot")
    (servers.root / "other" / "shared").write_text("by the other, unseen")
    other.sync()
    kit.ask(device, "online")
    kit.settle(device)
    other.sync()
    assert (root / "shared").read_text() == "by the other, unseen"
    other.kin("restore", str(servers.root / "other"), "--snapshot", "off", "--to", str(servers.root / "off"))
    assert state_of(servers.root / "off") == then
    assert kit.ask(device, "snapshots", folder=name)["snapshots"][0]["ordered"]
    restore(device, root, version=told["id"])  # what named it before it was ordered still does
    assert {path.name for path in root.iterdir()} == {".kinfolder", "shared", "moved offline"}


def test_it_comes_to_another_place(servers: Cluster, alone: tuple[Device, Path]) -> None:
    device, root = alone
    (root / "plans" / "empty").mkdir(parents=True)
    (root / "plans" / "a.sh").write_text("plan a")
    (root / "plans" / "a.sh").chmod(0o755)
    (root / "plans" / "link").symlink_to("a.sh")
    (root / "single").write_text("alone")
    kit.settle(device)
    then, version = state_of(root), history(device, root)[0]["id"]
    shutil.rmtree(root / "plans")
    (root / "single").write_text("edited")
    kit.settle(device)
    now, outside = state_of(root), servers.root / "outside"
    restore(device, root, version=version, to=str(outside))
    assert state_of(outside) == then
    restore(device, root / "single", version=version, to=str(servers.root / "one file"))
    assert (servers.root / "one file").read_text() == "alone"
    assert state_of(root) == now
    failed = kit.run(device, "restore", str(root), "--version", version, "--to", str(outside))
    assert (failed.code, "is there already" in failed.err) == (1, True), failed
    inside = root / "copies" / "of plans"
    restore(device, root / "plans", version=version, to=str(inside))
    assert state_of(inside) == state_from(then, "plans")
    assert not (root / "plans").exists()


def state_from(state: dict[str, tuple[Any, ...]], directory: str) -> dict[str, tuple[Any, ...]]:
    return {path[len(directory) + 1 :]: what for path, what in state.items() if path.startswith(directory + "/")}


def test_history_goes_through_renames_and_unsynced_changes_become_a_version(alone: tuple[Device, Path]) -> None:
    device, root = alone
    (root / "a").mkdir()
    file = root / "a" / "first.txt"
    file.write_text("one")
    kit.settle(device)
    file.rename(root / "a" / "second.txt")
    kit.settle(device)
    (root / "a").rename(root / "b")
    kit.settle(device)
    file = root / "b" / "second.txt"
    os.utime(file, ns=(5, 5_000_000_000))
    kit.settle(device)
    rows = history(device, file)
    assert [(row["change"], row["path"]) for row in rows] == [
        ("attributes", "b/second.txt"),
        ("renamed", "b/second.txt"),
        ("renamed", "a/second.txt"),
        ("created", "a/first.txt"),
    ]
    # The old name leads to the same versions.
    assert {row["id"] for row in history(device, root / "a" / "first.txt")} <= {row["id"] for row in rows}
    kit.ask(device, "offline")
    file.write_text("not synced")
    kit.until(lambda: kit.reasons(device, root.name.removeprefix("folder-")), "the change is seen")
    kit.ask(device, "online")
    file.write_text("nor this")
    restore(device, file, version=rows[0]["id"])
    assert file.read_text() == "one"
    assert file.stat().st_mtime_ns == 5_000_000_000
    sizes = [(row["change"], row["size"]) for row in history(device, file)]
    assert sizes[0] == ("restored", 3), sizes
    assert ("edited", len("nor this")) in sizes


def test_what_storage_does_not_take_now_becomes_a_version_all_the_same(
    servers: Cluster, alone: tuple[Device, Path]
) -> None:
    device, root = alone
    file = root / "report.txt"
    file.write_text("old")
    kit.settle(device)
    old = history(device, file)[0]["id"]
    servers.nodes[1].stop()
    file.write_text("written while storage was away")
    assert not restore(device, file, version=old)["kept"]
    assert file.read_text() == "old"
    kit.restart(servers.nodes[1])
    kit.settle(device)
    assert [each["size"] for each in history(device, file)] == [3, len("written while storage was away"), 3]


def test_what_cannot_be_recorded_now_stands_beside(servers: Cluster, alone: tuple[Device, Path]) -> None:
    device, root = alone
    device.stop()
    (device.home / "settings.toml").write_text("spool_bytes = 0\n")
    kit.start_agent(device, servers.root)
    file = root / "report.txt"
    file.write_text("old")
    kit.settle(device)
    old = history(device, file)[0]["id"]
    file.write_text("newer")
    kit.settle(device)
    servers.nodes[1].stop()  # one is left to read from, too few to write to
    file.write_text("written while storage was away")
    told = restore(device, file, version=old)
    assert file.read_text() == "old"
    assert len(told["kept"]) == 1
    assert (root / told["kept"][0]).read_text() == "written while storage was away"
    kit.restart(servers.nodes[1])
    kit.settle(device)
    assert history(device, root / told["kept"][0])[0]["size"] == len("written while storage was away")


def test_nothing_is_changed_where_bytes_cannot_be_had_and_nothing_is_sent_again(
    servers: Cluster, alone: tuple[Device, Path]
) -> None:
    device, root = alone
    for number in range(4):
        (root / f"f{number}").write_bytes(random.Random(number).randbytes(100_000))
    kit.settle(device)
    then = history(device, root)[0]["id"]
    for number in range(4):
        (root / f"f{number}").write_text(f"edited {number}")
    (root / "f4").write_text("made since")
    kit.settle(device)
    before = state_of(root)
    for node in servers.nodes:
        node.stop()
    failed = kit.run(device, "restore", str(root), "--version", then)
    assert (failed.code, "nothing was changed" in failed.err) == (1, True), failed
    assert state_of(root) == before
    for node in servers.nodes:
        kit.restart(node)
    kit.settle(device)
    sent = sum(meter.to_server for meter in servers.meters)
    restore(device, root, version=then)
    assert {path: len(what[1]) for path, what in state_of(root).items()} == {f"f{n}": 100_000 for n in range(4)}
    kit.settle(device)
    assert sum(meter.to_server for meter in servers.meters) - sent < 50_000, "bytes were sent again"


def test_a_restore_that_is_killed_loses_nothing_and_can_be_run_again(servers: Cluster) -> None:
    device = servers.first_device("killed", "kim")
    root = servers.root / "killed"
    device.add(root, "work")
    chance = random.Random(5)
    grow(root, chance)
    device.sync()
    then = device.json("history", str(root))["versions"][0]["id"]
    old = state_of(root)
    change(root, chance)
    for file in sorted(root.glob("d*/**/f*"))[:: max(1, FILES // 60)]:
        if file.is_file() and not file.is_symlink():
            file.write_bytes(chance.randbytes(2_000))
    device.sync()
    new = state_of(root)
    newest = device.json("history", str(root))["versions"][0]["id"]
    names = set(new)
    staging = root / ".kinfolder" / "tmp"
    moments: list[Callable[[], bool]] = [
        lambda: any(staging.iterdir()),
        lambda: names_of(root) != names,
        lambda: len(names_of(root) ^ names) > FILES // 20,
    ]
    for moment in moments:
        started = device.spawn("restore", str(root), "--version", then)
        kit.until(lambda moment=moment, started=started: moment() or started.poll() is not None, "it is at work")  # type: ignore[misc]
        started.kill()
        started.wait()
    device.sync()
    device.kin("restore", str(root), "--version", then)
    assert state_of(root) == old
    device.kin("restore", str(root), "--version", newest)
    assert state_of(root) == new


def names_of(root: Path) -> set[str]:
    """Return all paths of a tree, quickly."""
    found: set[str] = set()
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if name != ".kinfolder"]
        found.update(Path(directory, name).relative_to(root).as_posix() for name in (*names, *files))
    return found


def test_errors_are_one_clear_line(alone: tuple[Device, Path]) -> None:
    device, root = alone
    (root / "a").write_text("a")
    kit.settle(device)
    failures: list[tuple[tuple[str, ...], str]] = [
        (("history", str(root / "never")), "was never there"),
        (("history", "/nowhere/at/all"), "in no folder"),
        (("restore", str(root / "never"), "--version", "2"), "was not there then"),
        (("restore", str(root), "--version", "999999"), "no version 999999"),
        (("restore", str(root), "--version", "0"), "no version 0"),
        (("restore", str(root), "--version", "1"), "no version 1"),
        (("restore", str(root), "--version", "~0123456789ab"), "no version"),
        (("restore", str(root), "--at", "9w"), "before the first version"),
        (("restore", str(root), "--snapshot", "none"), "no snapshot none"),
    ]
    for args, words in failures:
        result = kit.run(device, *args)
        assert (result.code, words in result.err, result.err.count("\n")) == (1, True, 1), result
    # Moments are local and to the minute, as everywhere, unless that tells them not apart.
    early = kit.run(device, "restore", str(root), "--at", "2020-02-03 04:05").err
    assert early.startswith("kin: 2020-02-03 04:05 is before the first version of "), early
    assert re.search(r": that was at \d{4}-\d\d-\d\d \d\d:\d\d$", early.strip()), early
    then = time.mktime(time.strptime(early.strip()[-16:], "%Y-%m-%d %H:%M"))
    assert 0 <= time.time() - then < 3_600, early
    usages: list[tuple[str, ...]] = [
        ("restore", str(root)),
        ("restore", str(root), "--at", "yesterday"),
        ("restore", str(root), "--at", "1d", "--version", "2"),
        ("snapshot", "drop", "anything"),
    ]
    for usage in usages:
        assert kit.run(device, *usage).code == 2
    failed = json.loads(kit.run(device, "history", str(root / "never"), "--json").out)
    assert failed["error"]["code"] == "no_history"
    with pytest.raises(CommandError):
        device.kin("snapshot", "create", "nothing")
