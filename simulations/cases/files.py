"""What the user of a device does to files, by hand and at once.

Rule 1: an operation changes the disk and nothing else; what Kinfolder makes of it, the next pass shows.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from simulations.cases.contents import DEFAULT_BYTES, Origin, content, digest_of, drawn_size, write_to
from simulations.cases.grammar import Skipped, in_nfc, offset_s, size_of
from simulations.cases.world import Failed, Peer, World

Step = Mapping[str, Any]
INODE_TRIES: Final = 3000
_UNICODE: Final = range(0x80, 0x1001)


def place(peer: Peer, path: str) -> Path:
    """Return where a path of a case is on a device: in its root, or beside it below ``/outside``."""
    if path == "/outside" or path.startswith("/outside/"):
        return peer.outside / path[len("/outside") :].lstrip("/")
    return peer.root if path == "." else peer.root / path


def _with_parents(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _remember(peer: Peer, path: str) -> None:
    """Keep what a file looks like before a step changes it."""
    try:
        found = os.lstat(place(peer, path))
    except (FileNotFoundError, NotADirectoryError):
        return
    peer.last[path] = (found.st_size, found.st_ino, found.st_mtime_ns)


def _set_mtime(path: Path, value: object) -> None:
    seconds = float(value) if isinstance(value, int | float) else time.time() + offset_s(str(value))
    os.utime(path, ns=(int(seconds * 10**9),) * 2, follow_symlinks=False)


def write(world: World, peer: Peer, step: Step) -> None:
    """Truncate and write a file in place, or create it."""
    path, token = step["path"], str(step["token"])
    target = _with_parents(place(peer, path))
    size = size_of(step.get("size", DEFAULT_BYTES))
    if step.get("same_size"):
        size = peer.last.get(path, (size, 0, 0))[0] if not target.exists() else target.stat().st_size
    _remember(peer, path)
    if step.get("force_same_inode") or "force_same_inode_as" in step:
        _make_with_inode(target, peer.last[step.get("force_same_inode_as", path)][1])
    _write_in_place(world, peer, path, token, size)
    if step.get("force_same_mtime"):
        os.utime(target, ns=(peer.last[path][2],) * 2)
    if "mtime" in step:
        _set_mtime(target, step["mtime"])


def _write_in_place(world: World, peer: Peer, path: str, token: str, size: int) -> None:
    handle = os.open(place(peer, path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        digest = write_to(handle, token, size)
    finally:
        os.close(handle)
    world.contents.note(token, digest, Origin(peer.name, path), size)


def _make_with_inode(target: Path, inode: int) -> None:
    """Make an empty file with that inode number: make files until it comes.

    Raises:
        Skipped: It does not come.
    """
    if target.exists() and target.stat().st_ino == inode:
        return
    made: list[Path] = []
    try:
        for number in range(INODE_TRIES):
            candidate = target.with_name(f".inode-{number}")
            candidate.touch()
            if candidate.stat().st_ino == inode:
                candidate.rename(target)
                return
            made.append(candidate)
    finally:
        for each in made:
            each.unlink()
    raise Skipped("this file system does not give the inode number again")


def append(world: World, peer: Peer, step: Step) -> None:
    """Add the block of a token at a file's end."""
    append_block(world, peer, step["path"], str(step["token"]))


def append_block(world: World, peer: Peer, path: str, token: str) -> None:
    """Add the block of a token at a file's end, in place."""
    target = _with_parents(place(peer, path))
    _remember(peer, path)
    with open(target, "ab", buffering=0) as file:
        file.write(content(token))
    world.contents.blocks[path].append(token)
    world.contents.note(token, digest_of(target.read_bytes()), Origin(peer.name, path))


def mkdir(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - the signature of an operation
    """Make a directory and its parents."""
    place(peer, step["path"]).mkdir(parents=True, exist_ok=True)


def mkdir_raw(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see mkdir
    """Make a directory whose name is these bytes."""
    os.mkdir(os.path.join(os.fsencode(peer.root), bytes.fromhex(step["path_hex"])))


def mkdir_chain(world: World, peer: Peer, step: Step) -> None:
    """Make directories one in the other, with files in the last."""
    names = [f"chain{number:02d}" for number in range(step["depth"])]
    world.variables["chain_root"] = names[0]
    leaf = "/".join(names)
    place(peer, leaf).mkdir(parents=True)
    _many(world, peer, leaf, [f"leaf{number:04d}" for number in range(step["leaf_files"])], DEFAULT_BYTES)


def delete(world: World, peer: Peer, step: Step) -> None:
    """Remove a file, a link, or a directory with all below."""
    path = step["path"]
    target = place(peer, path)
    _remember(peer, path)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
        return
    try:
        target.unlink()
    except FileNotFoundError:
        if not world.is_excluded(peer, path):
            raise Failed(f"{peer.name} has no {path} to delete") from None


def rename(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see mkdir
    """Move an entry, as the system call of that name does."""
    try:
        os.rename(place(peer, step["src"]), place(peer, step["dst"]))
    except OSError as error:
        raise Failed(f"{peer.name} cannot rename {step['src']} to {step['dst']}: {error.strerror}") from error


def rename_many(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see mkdir
    """Move each entry of a directory into another."""
    source, target = place(peer, step["src_dir"]), place(peer, step["dst_dir"])
    for name in sorted(os.listdir(source)):
        os.rename(source / name, target / name)


def copy(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see mkdir
    """Copy a file, or a directory with all below."""
    source, target = place(peer, step["src"]), place(peer, step["dst"])
    try:
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True)
        else:
            shutil.copy2(source, target, follow_symlinks=False)
    except OSError as error:
        if not step.get("expect_error"):
            raise Failed(f"{peer.name} cannot copy {step['src']}: {error.strerror}") from error
        return
    if step.get("expect_error"):
        raise Failed(f"{peer.name} could copy {step['src']} to {step['dst']}")


def symlink(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see mkdir
    """Make a symbolic link with exactly this text; ``/outside`` is beside the root."""
    text = step["target"]
    os.symlink(
        str(place(peer, text)) if text.startswith("/outside") else text, _with_parents(place(peer, step["path"]))
    )


def touch(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see mkdir
    """Set the modification time alone."""
    _set_mtime(place(peer, step["path"]), step["mtime"])


def touch_all(world: World, peer: Peer, step: Step) -> None:
    """Move the modification time of every file."""
    for path, kind in world.tree(peer).items():
        if not kind.startswith("<"):
            found = os.stat(peer.root / path).st_mtime_ns + int(step["offset_s"] * 10**9)
            os.utime(peer.root / path, ns=(found, found))


def restore_mtime(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see mkdir
    """Set the modification time that the file had before its last change."""
    os.utime(place(peer, step["path"]), ns=(peer.last[step["path"]][2],) * 2)


def write_keep_stat(world: World, peer: Peer, step: Step) -> None:
    """Write other bytes in place; size and modification time stay."""
    target = place(peer, step["path"])
    before = target.stat()
    _write_in_place(world, peer, step["path"], str(step["token"]), before.st_size)
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_atomic(world: World, peer: Peer, step: Step) -> None:
    """Write beside, and rename over."""
    _write_in_place(world, peer, step["path"] + "~new", str(step["token"]), DEFAULT_BYTES)
    os.rename(place(peer, step["path"] + "~new"), place(peer, step["path"]))


def chmod(world: World, peer: Peer, step: Step) -> None:
    """Change permissions; they come back after the case.

    Raises:
        Skipped: The product could read it all the same.
    """
    from simulations.launcher import without_root_rights

    if without_root_rights() is None:
        raise Skipped("commands run with the rights of root, which no permission stops")
    target = place(peer, step["path"])
    world.put_back.append((target, os.stat(target).st_mode & 0o7777))
    os.chmod(target, int(step["mode"], 8))


def write_many(world: World, peer: Peer, step: Step) -> None:
    """Write files directly in a directory, each with its own token."""
    prefix = step.get("prefix", f"m{peer.name}-")
    names = [f"{prefix}{number:04d}" for number in range(step["count"])]
    place(peer, step["dir"]).mkdir(parents=True, exist_ok=True)
    _many(world, peer, step["dir"], names, step.get("size", DEFAULT_BYTES))


def _many(world: World, peer: Peer, directory: str, names: list[str], size: object) -> None:
    rnd = random.Random(f"{world.seed}:{directory}")
    for name in names:
        path = name if directory == "." else f"{directory}/{name}"
        _write_in_place(world, peer, path, f"{peer.name}:{path}", drawn_size(size, rnd))


def write_conflict_copy_of(world: World, peer: Peer, step: Step) -> None:
    """Write into the one conflict copy that lies beside a path."""
    directory = step["path"].rpartition("/")[0]
    copies = [path for path in world.copies(peer) if path.rpartition("/")[0] == directory]
    if len(copies) != 1:
        raise Failed(f"{peer.name} has {len(copies)} conflict copies beside {step['path']}, not one")
    target = place(peer, copies[0])
    world.contents.written_over.add(digest_of(target.read_bytes()))
    _write_in_place(world, peer, copies[0], str(step["token"]), target.stat().st_size)


def write_random_unicode(world: World, peer: Peer, step: Step) -> None:
    """Write files whose names are assigned code points; each one's content is the bytes of its name."""
    import unicodedata

    rnd = random.Random(world.seed)
    points = [chr(point) for point in _UNICODE if unicodedata.category(chr(point))[0] != "C"]
    names: set[str] = set()
    while len(names) < step["count"]:
        name = in_nfc("".join(rnd.choices(points, k=rnd.randint(1, 50))))
        while len(name.encode()) > 255:
            name = in_nfc(name[:-1])
        names.add(name)
    for name in sorted(names):
        place(peer, name).write_bytes(name.encode())
        world.contents.note(name, digest_of(name.encode()), Origin(peer.name, name))


def plant_outside(world: World, peer: Peer, step: Step) -> None:
    """Write a file outside the root, which nobody may touch."""
    target = _with_parents(place(peer, step["path"]))
    target.write_bytes(content(str(step["token"])))
    world.planted.append((target, target.read_bytes(), target.stat().st_mtime_ns))


def remove_root(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see mkdir
    """Move the folder's root away."""
    os.rename(peer.root, peer.root.with_name("moved-away"))


def random_tree(world: World, peer: Peer, step: Step) -> None:
    """Make a seeded tree."""
    rnd = random.Random(world.seed)
    directories = ["."]
    for number in range(step["files"]):
        parent = rnd.choice(directories)
        if rnd.random() < 0.2:
            parent = f"dir{number}" if parent == "." else f"{parent}/dir{number}"
            place(peer, parent).mkdir(parents=True, exist_ok=True)
            directories.append(parent)
        _many(world, peer, parent, [f"random{number}"], rnd.randint(1, 5000))


def alter(world: World, peer: Peer, rnd: random.Random, kept: set[str], number: int) -> None:
    """Do seeded changes to a tenth of a tree, and leave the paths that are kept."""
    paths = [path for path in world.tree(peer) if not any(f"{each}/".startswith(f"{path}/") for each in kept)]
    for path in rnd.sample(paths, k=max(1, len(paths) // 10)):
        target = place(peer, path)
        if os.path.lexists(target):
            _alter_one(world, peer, path, rnd, number)


def _alter_one(world: World, peer: Peer, path: str, rnd: random.Random, number: int) -> None:
    target = place(peer, path)
    is_directory = target.is_dir()
    token = f"altered:{number}:{path}"
    match rnd.choice(("write", "append", "truncate", "rename", "move", "delete", "type")):
        case "write" if not is_directory:
            _write_in_place(world, peer, path, token, rnd.randint(100, 5000))
        case "append" if not is_directory:
            append_block(world, peer, path, token)
        case "truncate" if not is_directory:
            os.truncate(target, target.stat().st_size // 2)
        case "rename":
            os.rename(target, target.with_name(f"{target.name}-{number}"))
        case "move":
            os.rename(target, peer.root / f"moved{number}-{target.name}")
        case "delete" if not is_directory:
            target.unlink()
        case "type" if not is_directory:
            target.unlink()
            target.mkdir()
        case _:
            _write_in_place(world, peer, f"new{number}-{rnd.randrange(10**6)}", token, 1000)


OPERATIONS: Final[Mapping[str, Callable[[World, Peer, Step], None]]] = {
    each.__name__: each
    for each in (
        write, append, mkdir, mkdir_raw, mkdir_chain, delete, rename, rename_many, copy, symlink, touch, touch_all,
        restore_mtime, write_keep_stat, replace_atomic, chmod, write_many, write_conflict_copy_of,
        write_random_unicode, plant_outside, remove_root, random_tree,
    )
}  # fmt: skip
