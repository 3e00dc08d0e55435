"""Every operation on files and every command that changes some, while agents and servers are killed at random instants.

Afterwards both devices hold what the operation's author would expect, no more and no less: see docs/acid.md, whose table
names each operation of :data:`OPERATIONS` and :data:`COMMANDS`. ``KIN_ACID_SEEDS=1..20`` runs more seeds, with all
commands; each run adds one that nobody chose, and pytest prints it as the test's parameter.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import signal
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from simulations.processes import Cluster, Device, command, environment
from tests.e2e import kit
from tests.e2e.test_past import state_of

OLD_NS = 1_600_000_000_123_456_789
PADDING = 60
"""Files that nobody touches, so that what is done to the others is no mass change."""
KILLS = 4
TRIES = 6
SETTLE_S = 90.0


FRESH_SEED = zlib.crc32(os.environ.get("PYTEST_XDIST_TESTRUNUID", secrets.token_hex()).encode())
"""Another one in each run, but the same in all processes that share it: they must collect the same tests."""


def seeds() -> list[int]:
    first, _, last = os.environ.get("KIN_ACID_SEEDS", "1").partition("..")
    return [*range(int(first), int(last or first) + 1), FRESH_SEED]


class World:
    """Two devices with agents and their servers, any of which may die and come back."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.a = cluster.first_device("laptop")
        self.b = cluster.link_device(self.a, "desktop")
        self.roots = {self.a: cluster.root / "one", self.b: cluster.root / "two"}
        self.desk = cluster.root / "desk"
        self.desk.mkdir()
        self.a.add(self.roots[self.a], "work")
        for number in range(PADDING):
            (self.roots[self.a] / f"padding {number}").write_bytes(b"%d" % number)
        self.a.sync()
        self.b.get("work", self.roots[self.b])
        for device in self.roots:
            kit.start_agent(device, cluster.root)
        self.settle()

    def settle(self) -> None:
        kit.settle(self.a, self.b, timeout_s=SETTLE_S)

    def kill_one(self, chance: random.Random, *, after_s: float, away_s: float) -> str:
        """Kill somebody at a random instant, and bring it back after a while; return who it was."""
        victims: dict[str, Any] = {"coordinator": self.cluster.coordinator, "node": chance.choice(self.cluster.nodes)}
        victims |= {device.name: device for device in self.roots}
        name = chance.choice([*victims, self.a.name, self.b.name])
        time.sleep(chance.random() * after_s)
        victim = victims[name]
        victim.kill()
        time.sleep(chance.random() * away_s)
        if isinstance(victim, Device):
            kit.start_agent(victim, self.cluster.root)
        else:
            victim.start()
        return name

    def at_both(self, name: str = "") -> dict[str, tuple[Any, ...]]:
        """Return what both hold, once it is the same."""
        one, two = (state_of(root / name) for root in self.roots.values())
        assert one == two, sorted(path for path in {*one, *two} if one.get(path) != two.get(path))
        return one

    def put(self, path: Path, data: bytes) -> None:
        """Have a whole file stand at a path, in one call, as most programs save."""
        draft = self.desk / secrets.token_hex(8)
        draft.write_bytes(data)
        draft.rename(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Cluster(tmp_path_factory.mktemp("acid") / "cluster") as cluster:
        made: World | None = None
        try:
            yield (made := World(cluster))
        finally:
            for device in made.roots if made is not None else ():
                device.stop()
        kit.assert_no_tracebacks(cluster)


# --- Operations on files


def bytes_of(name: str, size: int) -> bytes:
    return random.Random(name).randbytes(size)


def create(w: World, top: Path) -> None:
    w.put(top / "created", bytes_of("created", 30_000))
    w.put(top / "created large", bytes_of("created large", 2_500_000))


def edit(w: World, top: Path) -> None:
    w.put(top / "edited", bytes_of("edited", 31_000))
    w.put(top / "edited large", bytes_of("edited large", 2_600_000))


def move(_: World, top: Path) -> None:
    (top / "to rename").rename(top / "renamed")
    (top / "to move").rename(top / "d" / "moved")


def remove(_: World, top: Path) -> None:
    (top / "to remove").unlink()


def make_directory(_: World, top: Path) -> None:
    (top / "new" / "below").mkdir(parents=True)


def remove_directory(_: World, top: Path) -> None:
    for name in ("1", "2"):
        (top / "going" / name).unlink()
    (top / "going").rmdir()


def rename_directory(_: World, top: Path) -> None:
    (top / "tree").rename(top / "d" / "tree moved")


def attributes(_: World, top: Path) -> None:
    os.utime(top / "touched", ns=(OLD_NS, OLD_NS))
    (top / "touched").chmod(0o755)


def symlink(_: World, top: Path) -> None:
    (top / "link").symlink_to("edited")


def copy(w: World, top: Path) -> None:
    w.put(top / "copied", (top / "to copy").read_bytes())


def swap(w: World, top: Path) -> None:
    """Two files change names with each other, as three renames."""
    (top / "left").rename(top / "between")
    (top / "right").rename(top / "left")
    (top / "between").rename(top / "right")


OPERATIONS: dict[str, Callable[[World, Path], None]] = {
    "create": create,
    "edit": edit,
    "rename, move": move,
    "remove": remove,
    "directory: create": make_directory,
    "directory: remove": remove_directory,
    "directory: rename": rename_directory,
    "attributes": attributes,
    "symbolic link": symlink,
    "copy": copy,
    "exchange of names": swap,
}
BEFORE = {
    "edited": 30_000,
    "edited large": 2_500_000,
    "to rename": 20_000,
    "to move": 20_001,
    "to remove": 20_002,
    "going/1": 1_000,
    "going/2": 1_001,
    "tree/deep/1": 1_002,
    "tree/2": 1_003,
    "touched": 5_000,
    "to copy": 70_000,
    "left": 3_000,
    "right": 3_001,
    "d/stays": 10,
}


class Watch(threading.Thread):
    """Reads all files of one directory again and again: each is one that a user saved, whole."""

    def __init__(self, top: Path, whole: set[bytes]) -> None:
        super().__init__(daemon=True)
        self._top = top
        self._whole = whole
        self._over = threading.Event()
        self.torn: list[str] = []

    def run(self) -> None:
        while not self._over.wait(0.01):
            for directory, _, names in os.walk(self._top):
                for name in names:
                    with contextlib.suppress(OSError):
                        data = Path(directory, name).read_bytes()
                        if data not in self._whole:
                            self.torn.append(f"{name}: {len(data)} bytes")

    def finish(self) -> None:
        self._over.set()
        self.join()
        assert not self.torn, self.torn


@pytest.mark.parametrize("seed", seeds())
def test_an_operation_is_whole_whoever_is_killed(world: World, seed: int) -> None:
    """In random order, by a random author, under random kills: both trees end as the author left the own one."""
    chance = random.Random(seed)
    author, receiver = chance.sample(list(world.roots), 2)
    top, there = (world.roots[device] / f"round {seed}" for device in (author, receiver))
    draft = world.desk / f"round {seed}"
    for name, size in BEFORE.items():
        (draft / name).parent.mkdir(parents=True, exist_ok=True)
        (draft / name).write_bytes(bytes_of(f"before {name}", size))
    draft.rename(top)
    world.settle()
    whole = {bytes_of(f"before {name}", size) for name, size in BEFORE.items()}
    whole |= {bytes_of("created", 30_000), bytes_of("created large", 2_500_000)}
    whole |= {bytes_of("edited", 31_000), bytes_of("edited large", 2_600_000)}
    watch = Watch(there, whole)
    watch.start()
    order = chance.sample(list(OPERATIONS), len(OPERATIONS))

    def work(chance: random.Random) -> None:
        for name in order:
            OPERATIONS[name](world, top)
            time.sleep(chance.random() * 0.3)

    user = threading.Thread(target=work, args=(random.Random(seed + 1),))
    user.start()
    killed = [world.kill_one(chance, after_s=0.6, away_s=0.2) for _ in range(KILLS)]
    user.join()
    print(f"by {author.name}: {order}; killed: {killed}")
    wanted = state_of(top)
    world.settle()
    watch.finish()
    assert world.at_both(f"round {seed}") == wanted
    assert not author.json("conflicts")["conflicts"]


# --- Commands


def insisted(
    w: World, chance: random.Random, device: Device, args: tuple[str, ...], is_done: Callable[[], bool]
) -> None:
    """Run a device's command while somebody is killed, and again until it has done what it should."""
    insisted_on(w, chance, command("peer.cli", "--home", str(device.home), *args), is_done)


def insisted_on(w: World, chance: random.Random, args: list[str], is_done: Callable[[], bool]) -> None:
    """Run any command of ours so."""
    said = w.cluster.root / "commands.log"
    with open(said, "ab") as log:
        for turn in range(TRIES):
            child = subprocess.Popen(
                args,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
            )
            if turn < 2:
                time.sleep(0.25)  # a command needs that long to begin
                w.kill_one(chance, after_s=0.4, away_s=0.1)
            child.wait(SETTLE_S)
            if is_done():
                return
    raise AssertionError(f"{args} did not come to its end: {said.read_text()[-2000:]}")


def snapshots(w: World, chance: random.Random, name: str) -> None:
    """A snapshot is there once, or not yet, and holds what was there."""

    def found() -> list[str]:
        return [row["name"] for row in w.a.json("snapshot", "list", "work")["snapshots"]]

    insisted(w, chance, w.a, ("snapshot", "create", "work", name), lambda: name in found())
    w.settle()
    assert found().count(name) == 1


def restores(w: World, chance: random.Random, name: str) -> None:
    """Each file is as it was or as it is, and after the command all are as they were."""
    top = w.roots[w.a] / name
    then = {path.name: path.read_bytes() for path in top.iterdir()}
    now = {path: data[::-1] for path, data in then.items()}
    for path, data in list(now.items())[::2]:
        w.put(top / path, data)
    for path in list(now)[1::2]:
        (top / path).unlink()
    w.settle()

    def is_done() -> bool:
        here = {path.name: path.read_bytes() for path in top.iterdir()}
        assert all(data in (then[path], now[path]) for path, data in here.items())
        return here == then

    insisted(w, chance, w.a, ("restore", str(top), "--snapshot", name), is_done)
    w.settle()
    w.at_both(name)
    assert is_done()


def conflicts(w: World, chance: random.Random, name: str) -> None:
    """A decision is made as a whole or not at all: the name holds the one content or the other, and the copy is gone."""
    for verb in ("keep", "drop"):
        path = f"{name}/{verb} it"
        w.put(w.roots[w.a] / path, b"base")
        w.settle()
        for device in w.roots:
            device.stop()
        for device, root in w.roots.items():
            w.put(root / path, device.name.encode())
        for device in w.roots:
            kit.start_agent(device, w.cluster.root)
        w.settle()
        (row,) = [row for row in w.a.json("conflicts")["conflicts"] if row["path"] == path]
        at = w.roots[w.a] / row["path"]
        copy = w.roots[w.a] / row["copy"]
        stood, beside = at.read_bytes(), copy.read_bytes()

        def is_done(copy: str = row["copy"]) -> bool:
            return all(row["copy"] != copy for row in w.a.json("conflicts")["conflicts"])

        insisted(w, chance, w.a, ("conflicts", f"--{verb}", str(copy)), is_done)
        w.settle()
        w.at_both(name)
        assert at.read_bytes() == (beside if verb == "keep" else stood)
        assert not copy.exists()


def has_folder(w: World, name: str) -> bool:
    return any(row["name"] == f"of {name}" and row["path"] for row in w.b.json("folders")["folders"])


def gets(w: World, chance: random.Random, name: str) -> None:
    """A folder comes whole, under its name on the device once."""
    one, two = (w.cluster.root / f"{device.name}'s {name}" for device in (w.a, w.b))
    one.mkdir()
    for number in range(40):
        (one / f"{number}").write_bytes(bytes_of(f"{name} of {number}", 5_000))
    w.a.add(one, f"of {name}")
    kit.settle(w.a)
    insisted(w, chance, w.b, ("get", f"of {name}", str(two)), lambda: has_folder(w, name))
    w.settle()
    assert state_of(two) == state_of(one)


def undoes(w: World, chance: random.Random, name: str) -> None:
    """A mass removal that went through everywhere comes back, all of it."""
    one, two = (w.cluster.root / f"{device.name}'s {name}" for device in (w.a, w.b))
    then = state_of(one)
    for number in range(30):
        (one / f"{number}").unlink()
    kit.until(lambda: len(os.listdir(two)) == len(os.listdir(one)), "the removal arrives")
    w.settle()
    insisted(w, chance, w.a, ("undo", f"of {name}"), lambda: state_of(one) == then)
    w.settle()
    assert state_of(two) == state_of(one) == then


def removes(w: World, chance: random.Random, name: str) -> None:
    """A folder is forgotten as a whole: all its files stay, here and elsewhere."""
    one, two = (w.cluster.root / f"{device.name}'s {name}" for device in (w.a, w.b))
    then = state_of(one)
    insisted(w, chance, w.b, ("remove", f"of {name}"), lambda: not has_folder(w, name))
    w.settle()
    assert state_of(two) == state_of(one) == then
    assert not (two / ".kinfolder" / "folder").exists()


def own_folder(w: World, name: str) -> tuple[Path, Path]:
    """Make a folder of 40 files that both have."""
    one, two = (w.cluster.root / f"{device.name}'s {name}" for device in (w.a, w.b))
    one.mkdir()
    for number in range(40):
        (one / f"{number}").write_bytes(bytes_of(f"{name} of {number}", 5_000))
    w.a.add(one, name)
    kit.settle(w.a)
    w.b.get(name, two)
    w.settle()
    return one, two


def approves(w: World, chance: random.Random, name: str) -> None:
    """What waits is dropped and all comes back, or passes and all goes, on both."""
    folder = f"held {name}"
    one, two = own_folder(w, folder)
    then = state_of(one)

    def is_held() -> bool:
        return kit.folder_of(w.a.json("status"), folder)["held"] is not None

    for verb in ("undo", "approve"):
        w.a.stop()
        for number in range(30):
            (one / f"{number}").unlink()
        kit.start_agent(w.a, w.cluster.root)
        kit.until(is_held, "the removal waits")
        insisted(w, chance, w.a, (verb, folder), lambda: not is_held())
        w.settle()
        assert state_of(one) == state_of(two)
        assert len(state_of(one)) == len(then) - (30 if verb == "approve" else 0)
    assert state_of(one).items() < then.items()


def frees(w: World, chance: random.Random, name: str) -> None:
    """What is freed stays elsewhere, whole, and comes back whole."""
    there, here = (w.roots[device] / name for device in (w.a, w.b))
    w.settle()
    then = state_of(there)

    def is_excluded() -> bool:
        return name in {row["path"] for row in w.b.json("exclude")["exclusions"]}

    insisted(w, chance, w.b, ("exclude", str(here), "--free"), lambda: is_excluded() and not here.exists())
    kit.settle(w.a)
    assert state_of(there) == then
    insisted(w, chance, w.b, ("exclude", str(here), "--remove"), lambda: not is_excluded())
    w.settle()
    assert w.at_both(name) == then


def removes_unsent(w: World, chance: random.Random, name: str) -> None:
    """What a folder that is forgotten had not sent yet stays on the disk, and goes out once it is got again."""
    folder = f"unsent {name}"
    one, two = own_folder(w, folder)
    for node in w.cluster.nodes:
        node.kill()
    for number in range(5):
        (two / f"late {number}").write_bytes(bytes_of(f"{name} late {number}", 200_000))
    kit.until(lambda: "late 4" in kit.reasons(w.b, folder), "it is seen")
    then = state_of(two)
    insisted(
        w,
        chance,
        w.b,
        ("remove", folder),
        lambda: all(row["name"] != folder or not row["path"] for row in w.b.json("folders")["folders"]),
    )
    assert state_of(two) == then
    for node in w.cluster.nodes:
        if not node.pid:
            node.start()
    insisted(
        w,
        chance,
        w.b,
        ("get", folder, str(two)),
        lambda: any(row["name"] == folder and row["path"] for row in w.b.json("folders")["folders"]),
    )
    w.settle()
    assert state_of(two) == state_of(one) == then


def revokes(w: World, chance: random.Random, name: str) -> None:
    """A device is out or not yet; then it reads nothing more, and the others go on."""
    lost = w.cluster.link_device(w.a, f"lost {name}")
    root = w.cluster.root / lost.name
    lost.get("work", root)
    lost.sync()

    def is_out() -> bool:
        return any(row["name"] == lost.name and row["revoked"] for row in w.a.json("devices")["devices"])

    insisted(w, chance, w.a, ("revoke", lost.name), is_out)
    w.put(w.roots[w.a] / name / "after", b"after")
    w.settle()
    assert (w.roots[w.b] / name / "after").read_bytes() == b"after"
    result = kit.run(lost, "sync", "--timeout", "20")
    assert (result.code, len(result.err.strip().splitlines())) == (1, 1), result
    assert not (root / name / "after").exists()


def retires(w: World, chance: random.Random, name: str) -> None:
    """A node goes once others hold all that it held, whoever dies meanwhile."""
    w.settle()
    going = w.cluster.nodes[0]
    w.cluster.add_node()
    coordinator = ("--data", str(w.cluster.root / "coordinator"))

    def rows() -> Any:
        return json.loads(w.cluster.run(command("coordinator.cli", "nodes", *coordinator, "--json")))["nodes"]

    node = str(next(row["id"] for row in rows() if row["url"] == going.url))
    insisted_on(
        w,
        chance,
        command("coordinator.cli", "retire", *coordinator, node, "--timeout", "60"),
        lambda: any(row["id"] == node and row["state"] == "retired" for row in rows()),
    )
    w.cluster.nodes.remove(going)
    going.stop()
    fresh = w.cluster.link_device(w.a, f"fresh {name}")
    fresh.get("work", w.cluster.root / fresh.name)
    fresh.sync()
    assert state_of(w.cluster.root / fresh.name) == state_of(w.roots[w.a])


COMMANDS: dict[str, Callable[[World, random.Random, str], None]] = {
    "snapshot": snapshots,
    "restore": restores,
    "conflict: keep, drop": conflicts,
    "folder: get": gets,
    "undo": undoes,
    "folder: remove": removes,
    "approve, undo of what waits": approves,
    "exclude with --free, and --remove": frees,
    "folder: remove, with what was not sent": removes_unsent,
    "device: revoke": revokes,
    "storage node: retire": retires,
}


TOGETHER = [
    ["snapshot", "restore"],
    ["conflict: keep, drop"],
    ["folder: get", "undo", "folder: remove"],
    *([name] for name in list(COMMANDS)[6:]),
]
"""What the seed that nobody chose takes one of."""
QUICK = list(COMMANDS)[:6]
"""What the first seed takes where no seeds are asked for."""


@pytest.mark.parametrize("seed", seeds())
def test_a_command_is_whole_whoever_is_killed(world: World, seed: int) -> None:
    """Each command is cut off by a kill of its agent or of a server, asked for again, and comes to its one end."""
    chance = random.Random(seed)
    name = f"commands {seed}"
    top = world.roots[world.a] / name
    draft = world.desk / name
    draft.mkdir()
    for number in range(30):
        (draft / f"{number}").write_bytes(bytes_of(f"{name} {number}", 4_000))
    draft.rename(top)
    world.settle()
    chosen = list(COMMANDS) if "KIN_ACID_SEEDS" in os.environ else QUICK
    if seed == FRESH_SEED:
        chosen = chance.choice(TOGETHER)
    for command_name in chosen:
        COMMANDS[command_name](world, chance, name)


@pytest.mark.parametrize("seed", seeds() if "KIN_ACID_SEEDS" in os.environ else [FRESH_SEED])
def test_a_transfer_on_the_lan_is_whole_whoever_is_killed(world: World, seed: int) -> None:
    """The device that gives or the one that gets dies in the middle, and comes back."""
    chance = random.Random(seed)
    giver, getter = chance.sample(list(world.roots), 2)
    name = f"lan {seed}"
    top = world.roots[giver] / name
    kit.until(lambda: all(kit.ask(device)["lan"]["peers"] == 1 for device in world.roots), "they find each other")
    assert getter.agent is not None
    os.kill(getter.agent.pid, signal.SIGSTOP)
    try:
        draft = world.desk / name
        draft.mkdir()
        for number in range(25):
            (draft / f"{number}").write_bytes(chance.randbytes(chance.choice([10, 3_000, 400_000, 3_000_000])))
        draft.rename(top)
        wanted = state_of(top)
        kit.settle(giver)
    finally:
        os.kill(getter.agent.pid, signal.SIGCONT)
    time.sleep(chance.random() * 0.8)
    victim = chance.choice([giver, getter])
    victim.kill()
    time.sleep(chance.random() * 0.3)
    kit.start_agent(victim, world.cluster.root)
    print(f"from {giver.name} to {getter.name}; killed: {victim.name}")
    world.settle()
    assert world.at_both(name) == wanted
    assert not giver.json("conflicts")["conflicts"]
