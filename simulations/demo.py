"""The main job, shown on this machine: two devices keep one folder the same and are never on together.

Real processes on loopback: a coordinator, three storage nodes, two devices; a real directory tree (the Python standard
library's sources) and a large file. Everything lives in a temporary directory that is gone at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final, TypeVar

from simulations.processes import Cluster, CommandError, Device, tree_of

T = TypeVar("T")

MIB: Final = 1024 * 1024
LARGE_MIB: Final = 256
NEAR_MIB: Final = 64
EXIT_INTERRUPTED: Final = 130
REMOVE_S: Final = 10.0
FIND_S: Final = 30.0
LOOK_S: Final = 0.005
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Each ends the demo as Ctrl-C does; further ones while it cleans up change nothing."""


class Show:
    """Prints what is done, and what it took."""

    def __init__(self) -> None:
        self.figures: list[tuple[str, str]] = []

    def step(self, text: str, work: Callable[[], T]) -> tuple[T, float]:
        """Say what is being done, do it, say how long it took."""
        print(f"  {text} ...", end="", flush=True)
        begin = time.monotonic()
        result = work()
        took = time.monotonic() - begin
        print(f" {took:.1f} s", flush=True)
        return result, took

    def title(self, text: str) -> None:
        """Begin a part."""
        print(f"\n{text}", flush=True)

    def figure(self, name: str, value: str) -> None:
        """Keep a number for the end."""
        self.figures.append((name, value))


def make_tree(root: Path) -> tuple[int, int]:
    """Copy the standard library's sources; return (files, bytes)."""
    source = Path(sysconfig.get_paths()["stdlib"])
    files = size = 0
    for path in sorted(source.rglob("*.py")):
        if "site-packages" in path.parts or not path.is_file():
            continue
        target = root / "library" / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        files += 1
        size += target.stat().st_size
    return files, size


def make_large(path: Path, mib: int, seed: int) -> None:
    """Write a file that does not compress."""
    chance = random.Random(seed)
    with open(path, "wb") as file:
        file.writelines(chance.randbytes(MIB) for _ in range(mib))


def same(one: Path, other: Path) -> int:
    """Compare two trees byte for byte; return how many entries they have.

    Raises:
        CommandError: They differ.
    """
    count = 0
    left, right = tree_of(one), tree_of(other)
    for a in left:
        b = next(right, None)
        if a != b:
            raise CommandError(["compare"], 1, f"{a[0]!r} differs from {b[0] if b else 'nothing'!r}")
        count += 1
    extra = next(right, None)
    if extra is not None:
        raise CommandError(["compare"], 1, f"{extra[0]!r} is on one side only")
    return count


def stored_bytes(cluster: Cluster) -> int:
    """Return how many bytes the storage nodes hold on their disks together."""
    return sum(
        path.stat().st_size
        for number in range(1, len(cluster.nodes) + 1)
        for path in (cluster.root / f"node{number}").rglob("*")
        if path.is_file()
    )


def show(cluster: Cluster, show: Show, large_mib: int) -> None:
    """Run the whole story."""
    root = cluster.root
    one, two = root / "laptop" / "Work", root / "desktop" / "Work"
    laptop, desktop = set_up(cluster, show, one)
    first_sync(cluster, show, laptop, desktop, (one, two), large_mib)
    laptop.start()
    desktop.start()
    conflict(show, laptop, desktop, (one, two))
    nearby(show, laptop, desktop, (one, two))
    laptop.stop()
    desktop.stop()
    way_back(show, laptop, (one, two))
    storage_lost(cluster, show, desktop, one, root / "desktop" / "Again")


def set_up(cluster: Cluster, show: Show, one: Path) -> tuple[Device, Device]:
    """Make the account and its two devices."""
    show.title("An account with two devices (a coordinator and three storage nodes are running)")
    laptop, _ = show.step("laptop: kin init", lambda: cluster.first_device("laptop"))
    show.step("laptop: kin add Work", lambda: laptop.add(one, "Work"))
    desktop, _ = show.step(
        "desktop: kin link, with the code that the laptop shows", lambda: cluster.link_device(laptop, "desktop")
    )
    return laptop, desktop


def first_sync(
    cluster: Cluster, show: Show, laptop: Device, desktop: Device, roots: tuple[Path, Path], large_mib: int
) -> None:
    """Send a tree and a large file from one device, fetch them on the other, never both on."""
    one, two = roots
    show.title("The laptop alone: a real tree and a large file")
    (files, size), _ = show.step("copying the Python standard library's sources", lambda: make_tree(one))
    show.step(f"writing a file of {large_mib} MiB", lambda: make_large(one / "large.bin", large_mib, 7))
    total = size + large_mib * MIB
    _, took = show.step(f"laptop: kin sync ({files} files, {total / 1e6:.0f} MB)", laptop.sync)
    show.figure(
        "sent until durable on two of three nodes",
        f"{files + 1} files, {total / 1e6:.0f} MB in {took:.1f} s, {total / took / 1e6:.0f} MB/s",
    )
    show.figure("on the three nodes together", f"{stored_bytes(cluster) / 1e6:.0f} MB")
    show.title("The laptop is off; the desktop alone")
    show.step("desktop: kin get Work", lambda: desktop.get("Work", two))
    _, took = show.step("desktop: kin sync", desktop.sync)
    show.figure("fetched", f"{files + 1} files, {total / 1e6:.0f} MB in {took:.1f} s, {total / took / 1e6:.0f} MB/s")
    count, _ = show.step("comparing both trees byte for byte", lambda: same(one, two))
    show.figure("compared", f"{count} files and directories, no difference")


def conflict(show: Show, laptop: Device, desktop: Device, roots: tuple[Path, Path]) -> None:
    """Edit on both devices while one is offline."""
    one, two = roots
    show.title("Both devices on; the desktop goes offline, and both edit")
    wait_for(laptop, desktop)
    desktop.kin("offline")
    (one / "library" / "this.py").write_text("print('the laptop was here')\n")
    (two / "library" / "this.py").write_text("print('the desktop was here')\n")
    (one / "library" / "json").rename(one / "library" / "json-moved")
    (two / "library" / "json" / "decoder.py").write_text("# edited on the desktop\n")
    show.step("laptop: kin wait", laptop.wait)
    desktop.kin("online")
    _, took = show.step("desktop: kin online, kin wait", desktop.wait)
    show.step("laptop: kin wait", laptop.wait)
    same(one, two)
    show.figure("merged after being offline", f"{took:.1f} s")
    copies = [row["copy"] for row in desktop.json("conflicts")["conflicts"]]
    print(f"  one file edited on both: both versions are kept, one as {copies[0] if copies else 'NO COPY'!r}")
    moved = (one / "library" / "json-moved" / "decoder.py").read_text()
    print(
        f"  a directory renamed on one and edited in on the other: no conflict, {moved.strip()!r} is in its new place"
    )
    if len(copies) != 1 or not (two / copies[0]).is_file() or "desktop" not in moved:
        raise CommandError(
            ["conflict"], 1, f"expected one conflict copy and a merged rename, found {copies}, {moved!r}"
        )
    begin = time.monotonic()
    (one / "hello.txt").write_text("hello")
    while not (two / "hello.txt").exists():
        if time.monotonic() - begin > 60:
            raise CommandError(["wait"], 1, "a small change did not arrive in a minute")
        time.sleep(LOOK_S)
    show.figure("a small change, saved here until it stands there", f"{time.monotonic() - begin:.2f} s")


def nearby(show: Show, laptop: Device, desktop: Device, roots: tuple[Path, Path]) -> None:
    """Give a new file from device to device, and count what storage nodes gave of it."""
    show.title("Both see each other on the local network")
    begin = time.monotonic()
    while not desktop.json("lan")["peers"]:
        if time.monotonic() - begin > FIND_S:
            print(
                f"  they did not find each other in {FIND_S:.0f} s: this machine lets nobody announce himself on loopback"
            )
            return
        time.sleep(LOOK_S)
    before = desktop.json("lan")
    make_large(roots[0] / "near.bin", NEAR_MIB, 8)
    _, took = show.step(f"laptop: a new file of {NEAR_MIB} MiB, kin wait on both", lambda: wait_for(laptop, desktop))
    same(*roots)
    after = desktop.json("lan")
    near = after["received_bytes"] - before["received_bytes"]
    far = after["storage"]["received_bytes"] - before["storage"]["received_bytes"]
    print(f"  the desktop received {near / 1e6:.1f} MB from the laptop and {far / 1e6:.1f} MB from storage nodes")
    show.figure("over the local network", f"{near / 1e6:.0f} MB from the laptop, {far:,} bytes from storage nodes")
    if near < NEAR_MIB * MIB or far:
        raise CommandError(["lan"], 1, "the file did not come from the laptop alone")
    show.figure(
        "from the laptop to the desktop, durable on storage too", f"{NEAR_MIB * MIB / 1e6:.0f} MB in {took:.1f} s"
    )


def wait_for(*devices: Device) -> None:
    """Wait until devices are in sync, one after the other."""
    for device in devices:
        device.wait()


def way_back(show: Show, laptop: Device, roots: tuple[Path, Path]) -> None:
    """Remove a directory, and bring it back from the history."""
    one, two = roots
    show.title("The laptop removes a directory with all that it holds, and takes that back")
    newest = laptop.json("history", str(one))["versions"][0]["id"]
    count = sum(1 for _ in (one / "library").rglob("*"))
    shutil.rmtree(one / "library")
    held, _ = show.step(
        "laptop: rm -r library, kin sync", lambda: laptop.kin("sync", "--timeout", "600", "--json", check=False)
    )
    if json.loads(held)["exit"] != 4:
        raise CommandError(["sync"], 0, "a mass removal that nobody saw passed without being asked about")
    print("  the brake holds it: nobody else is told until a person says so")
    show.step("laptop: kin approve Work", lambda: laptop.kin("approve", "Work"))
    show.step("laptop: kin sync", laptop.sync)
    _, took = show.step(
        f"laptop: kin restore library --version {newest}",
        lambda: laptop.kin("restore", str(one / "library"), "--version", newest),
    )
    show.figure("a removed directory brought back", f"{count} files and directories in {took:.1f} s")
    same(one, two)
    print("  all of it is there again, byte for byte")
    laptop.sync()


def storage_lost(cluster: Cluster, show: Show, desktop: Device, one: Path, again: Path) -> None:
    """Kill a storage node and read everything."""
    show.title("One storage node is killed; the desktop fetches everything anew")
    cluster.nodes[0].kill()
    desktop.kin("remove", "Work")
    desktop.get("Work", again)
    _, took = show.step("desktop: kin remove, kin get into an empty directory, kin sync", desktop.sync)
    show.figure("everything read with one node of three dead", f"{took:.1f} s")
    same(one, again)
    print("  both trees are the same, byte for byte")


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="kin demo", description="Show the main job with real processes on this machine."
    )
    parser.add_argument(
        "--large", type=int, default=LARGE_MIB, metavar="MIB", help="size of the large file (default %(default)s)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the temporary directory")
    options = parser.parse_args()
    _take_signals(_interrupted)
    try:
        _run(options.large, keep=options.keep)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\nkin demo: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except CommandError as error:
        print(f"\nkin demo: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1  # whoever read our output has gone
    except OSError as error:
        print(f"\nkin demo: {error.filename or 'standard output'}: {error.strerror}", file=sys.stderr)
        return 1
    finally:
        _take_signals(signal.SIG_IGN)
        with contextlib.suppress(OSError):
            _drop_output()
    return 0


def _run(large_mib: int, *, keep: bool) -> None:
    begin = time.monotonic()
    telling = Show()
    base = Path(tempfile.mkdtemp(prefix="kin-demo-"))
    try:
        print(f"Kinfolder: two devices, one folder, never on together. Everything happens in {base}.", flush=True)
        with Cluster(base / "demo", tether=True) as cluster:
            try:
                show(cluster, telling, large_mib)
            finally:
                _take_signals(signal.SIG_IGN)  # what was started is ended, however impatient somebody is
    finally:
        if not keep:
            _remove(base)
    print("\nMeasured")
    for name, value in telling.figures:
        print(f"  {name:<52} {value}")
    print(f"  {'all of it':<52} {time.monotonic() - begin:.0f} s")


def _remove(base: Path) -> None:
    """Remove the demo's directory, though a command that was interrupted may write its last into it meanwhile."""
    deadline_s = time.monotonic() + REMOVE_S
    while base.exists() and time.monotonic() < deadline_s:
        shutil.rmtree(base, ignore_errors=True)


def _take_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN or number == signal.SIGINT:  # nohup goes on to hold
            signal.signal(number, handler)


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    _take_signals(signal.SIG_IGN)
    raise KeyboardInterrupt


def _drop_output() -> None:
    """Send what standard output still holds nowhere, if nobody takes it."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
