"""What the user of a device does to files, by hand and at once.

Rule 1: an operation changes the disk and nothing else; what Kinfolder makes of it, the next pass shows.
"""

from __future__ import annotations

import os
import random
import string
from collections.abc import Callable, Mapping
from typing import Any, Final

from simulations.cases.contents import DEFAULT_BYTES, Origin, content, digest_of, drawn_size, write_to
from simulations.cases.grammar import Skipped, in_nfc, offset_s
from simulations.cases.hands import Failed
from simulations.cases.world import Peer, World

Step = Mapping[str, Any]
INODE_TRIES: Final = 3000
_SECOND_NS: Final = 10**9
SHORT_PATH_CHARS: Final = 260
"""What ``path_max`` is: the limit of a device with short paths."""
PART_CHARS: Final = 200
_UNICODE: Final = range(0x80, 0x1001)
SPARSE_BYTES: Final = 4096
"""Of a content within a hole."""
_FORBIDDEN: Final = '\\:?*"><|'
"""What Windows lets no name hold."""
_SIGNS: Final = (*(sign for sign in string.punctuation if sign not in "/."), " ", "\u00e9")


def _with_parents(peer: Peer, path: str) -> str:
    target = peer.at(path)
    peer.disk.make_directories(target.rpartition("/")[0])
    return target


def remember(peer: Peer, path: str) -> None:
    """Keep what a file looks like before a step changes it."""
    try:
        found = peer.disk.stat(peer.at(path))
    except (FileNotFoundError, NotADirectoryError):
        return
    peer.last[path] = (found.size, found.inode, found.mtime_ns)


def _set_mtime(peer: Peer, path: str, value: object) -> None:
    if isinstance(value, int | float):
        mtime_ns = int(value * _SECOND_NS)
    else:
        mtime_ns = peer.disk.now_ns() + int(offset_s(str(value)) * _SECOND_NS)
    peer.disk.set_mtime(peer.at(path), mtime_ns)


def write(world: World, peer: Peer, step: Step) -> None:
    """Truncate and write a file in place, or create it."""
    path, token = step["path"], str(step["token"])
    target = _with_parents(peer, path)
    size = world.size(step.get("size", DEFAULT_BYTES))
    if step.get("same_size"):
        size = peer.disk.stat(target).size if peer.disk.exists(target) else peer.last.get(path, (size, 0, 0))[0]
    remember(peer, path)
    if step.get("force_same_inode") or "force_same_inode_as" in step:
        _make_with_inode(peer, target, peer.last[step.get("force_same_inode_as", path)][1])
    write_in_place(world, peer, path, token, size)
    if step.get("force_same_mtime"):
        peer.disk.set_mtime(target, peer.last[path][2])
    if "mtime" in step:
        _set_mtime(peer, path, step["mtime"])


def write_in_place(world: World, peer: Peer, path: str, token: str, size: int) -> None:
    """Write the content of a token into a file, emptied first."""
    with peer.disk.open(peer.at(path)) as file:
        file.truncate(0)
        digest = write_to(file, token, size)
    world.contents.note(token, digest, Origin(peer.name, path), size)


def _make_with_inode(peer: Peer, target: str, inode: int) -> None:
    """Make an empty file with that inode number: make files until it comes.

    Raises:
        Skipped: It does not come.
    """
    disk = peer.disk
    if disk.exists(target) and disk.stat(target).inode == inode:
        return
    made: list[str] = []
    try:
        for number in range(INODE_TRIES):
            candidate = f"{target.rpartition('/')[0]}/.inode-{number}"
            disk.write(candidate, b"")
            if disk.stat(candidate).inode == inode:
                disk.rename(candidate, target)
                return
            made.append(candidate)
    finally:
        for each in made:
            disk.remove(each)
    raise Skipped("this file system does not give the inode number again")


def append(world: World, peer: Peer, step: Step) -> None:
    """Add the block of a token at a file's end."""
    append_block(world, peer, step["path"], str(step["token"]))


def append_block(world: World, peer: Peer, path: str, token: str) -> None:
    """Add the block of a token at a file's end, in place."""
    target = _with_parents(peer, path)
    remember(peer, path)
    peer.disk.append(target, content(token))
    world.contents.blocks[path].append(token)
    world.contents.note(token, peer.disk.digest(target), Origin(peer.name, path))


def mkdir(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - the signature of an operation
    """Make a directory and its parents."""
    peer.disk.make_directories(peer.at(step["path"]))


def mkdir_raw(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see mkdir
    """Make a directory whose name is these bytes."""
    peer.disk.make_directory(peer.at(os.fsdecode(bytes.fromhex(step["path_hex"]))))


def mkdir_chain(world: World, peer: Peer, step: Step) -> None:
    """Make directories one in the other, with files in the last."""
    names = [f"chain{number:02d}" for number in range(step["depth"])]
    world.variables["chain_root"] = names[0]
    leaf = "/".join(names)
    peer.disk.make_directories(peer.at(leaf))
    _many(world, peer, leaf, [f"leaf{number:04d}" for number in range(step["leaf_files"])], DEFAULT_BYTES)


def delete(world: World, peer: Peer, step: Step) -> None:
    """Remove a file, a link, or a directory with all below."""
    path = step["path"]
    remember(peer, path)
    try:
        peer.disk.remove_tree(peer.at(path))
    except (FileNotFoundError, NotADirectoryError):
        if not world.is_excluded(peer, path):
            raise Failed(f"{peer.name} has no {path} to delete") from None


def rename(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see mkdir
    """Move an entry, as the system call of that name does."""
    try:
        peer.disk.rename(peer.at(step["src"]), peer.at(step["dst"]))
    except OSError as error:
        raise Failed(f"{peer.name} cannot rename {step['src']} to {step['dst']}: {error.strerror}") from error


def rename_many(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see mkdir
    """Move each entry of a directory into another."""
    source, target = peer.at(step["src_dir"]), peer.at(step["dst_dir"])
    for name in peer.disk.list(source):
        peer.disk.rename(f"{source}/{name}", f"{target}/{name}")


def copy(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see mkdir
    """Copy a file, or a directory with all below."""
    try:
        peer.disk.copy(peer.at(step["src"]), peer.at(step["dst"]))
    except OSError as error:
        if not step.get("expect_error"):
            raise Failed(f"{peer.name} cannot copy {step['src']}: {error.strerror}") from error
        return
    if step.get("expect_error"):
        raise Failed(f"{peer.name} could copy {step['src']} to {step['dst']}")


def symlink(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see mkdir
    """Make a symbolic link with exactly this text; ``/outside`` is beside the root."""
    text = step["target"]
    target = peer.at(text) if text.startswith("/outside") else text
    peer.disk.make_link(_with_parents(peer, step["path"]), target)


def touch(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see mkdir
    """Set the modification time alone."""
    _set_mtime(peer, step["path"], step["mtime"])


def touch_all(world: World, peer: Peer, step: Step) -> None:
    """Move the modification time of every file."""
    for path, kind in world.tree(peer).items():
        if not kind.startswith("<"):
            found = peer.disk.stat(peer.at(path)).mtime_ns
            peer.disk.set_mtime(peer.at(path), found + int(step["offset_s"] * _SECOND_NS))


def restore_mtime(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see mkdir
    """Set the modification time that the file had before its last change."""
    peer.disk.set_mtime(peer.at(step["path"]), peer.last[step["path"]][2])


def write_keep_stat(world: World, peer: Peer, step: Step) -> None:
    """Write other bytes in place; size and modification time stay."""
    target = peer.at(step["path"])
    before = peer.disk.stat(target)
    write_in_place(world, peer, step["path"], str(step["token"]), before.size)
    peer.disk.set_mtime(target, before.mtime_ns)


def replace_atomic(world: World, peer: Peer, step: Step) -> None:
    """Write beside, and rename over."""
    write_in_place(world, peer, step["path"] + "~new", str(step["token"]), DEFAULT_BYTES)
    peer.disk.rename(peer.at(step["path"] + "~new"), peer.at(step["path"]))


def chmod(world: World, peer: Peer, step: Step) -> None:
    """Change permissions; they come back after the case.

    Raises:
        Skipped: The product could read it all the same.
    """
    if peer.machine.may_read_all():
        raise Skipped("commands run with the rights of root, which no permission stops")
    target = peer.at(step["path"])
    world.put_back.append((peer, target, peer.disk.stat(target).mode & 0o7777))
    peer.disk.set_mode(target, int(step["mode"], 8))


def write_many(world: World, peer: Peer, step: Step) -> None:
    """Write files directly in a directory, each with its own token."""
    prefix = step.get("prefix", f"m{peer.name}-")
    names = [f"{prefix}{number:04d}" for number in range(step["count"])]
    peer.disk.make_directories(peer.at(step["dir"]))
    _many(world, peer, step["dir"], names, step.get("size", DEFAULT_BYTES))


def _many(world: World, peer: Peer, directory: str, names: list[str], size: object) -> None:
    rnd = random.Random(f"{world.seed}:{directory}")
    for name in names:
        path = name if directory == "." else f"{directory}/{name}"
        write_in_place(world, peer, path, f"{peer.name}:{path}", drawn_size(size, rnd, world.size))


def write_long_path(world: World, peer: Peer, step: Step) -> None:
    """Write a file whose path has so many characters, each part 200 at most."""
    chars = step["chars"]
    if isinstance(chars, str):
        base, _, more = chars.partition("+")
        chars = (SHORT_PATH_CHARS if base == "path_max" else int(base)) + int(more or 0)
    parts: list[str] = []
    while chars > 0:
        length = min(PART_CHARS, chars)
        if chars - length == 1:
            length -= 1  # or nothing would be left for the part behind the last separator
        parts.append("p" * length)
        chars -= length + 1
    path = "/".join(parts)
    peer.disk.make_directories(peer.at(path).rpartition("/")[0])
    write_in_place(world, peer, path, str(step["token"]), DEFAULT_BYTES)


def write_sparse(world: World, peer: Peer, step: Step) -> None:
    """Write a file that is all hole, but for a content at some offsets, cut at the end."""
    path, token = step["path"], str(step["token"])
    target, size = _with_parents(peer, path), world.size(step["size"])
    offsets = step["data_at"] if isinstance(step["data_at"], list) else [step["data_at"]]
    remember(peer, path)
    with peer.disk.open(target) as file:
        file.truncate(0)
        file.truncate(size)
        for offset in map(world.size, offsets):
            if data := content(token, SPARSE_BYTES)[: max(0, size - offset)]:
                file.write(data, offset)
    world.contents.note(token, peer.disk.digest(target), Origin(peer.name, path))


def write_name_matrix(world: World, peer: Peer, step: Step) -> None:
    """Write files, each with a content of its own, whose names hold signs that some system does not like.

    Raises:
        Skipped: There is no such set.
    """
    match step["set"]:
        case "ascii_punct_positions":
            names = [name for sign in _SIGNS for name in (f"{sign}word", f"wo{sign}rd", f"word{sign}")]
        case "windows_forbidden":
            names = [f"wo{sign}rd" for sign in _FORBIDDEN]
        case other:
            raise Skipped(f"write_name_matrix: unknown set {other}")
    for name in names:
        write_in_place(world, peer, name, f"{peer.name}:{name}", DEFAULT_BYTES)


def write_conflict_copy_of(world: World, peer: Peer, step: Step) -> None:
    """Write into the one conflict copy that lies beside a path."""
    directory = step["path"].rpartition("/")[0]
    copies = [path for path in world.copies(peer) if path.rpartition("/")[0] == directory]
    if len(copies) != 1:
        raise Failed(f"{peer.name} has {len(copies)} conflict copies beside {step['path']}, not one")
    target = peer.at(copies[0])
    world.contents.written_over.add(peer.disk.digest(target))
    write_in_place(world, peer, copies[0], str(step["token"]), peer.disk.stat(target).size)


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
        peer.disk.write(peer.at(name), name.encode())
        world.contents.note(name, digest_of(name.encode()), Origin(peer.name, name))


def plant_outside(world: World, peer: Peer, step: Step) -> None:
    """Write a file outside the root, which nobody may touch."""
    target = _with_parents(peer, step["path"])
    data = content(str(step["token"]))
    peer.disk.write(target, data)
    world.planted.append((peer, target, data, peer.disk.stat(target).mtime_ns))


def remove_root(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see mkdir
    """Move the folder's root away."""
    peer.disk.rename(peer.root, peer.moved_root)


def random_tree(world: World, peer: Peer, step: Step) -> None:
    """Make a seeded tree."""
    rnd = random.Random(world.seed)
    directories = ["."]
    for number in range(step["files"]):
        parent = rnd.choice(directories)
        if rnd.random() < 0.2:
            parent = f"dir{number}" if parent == "." else f"{parent}/dir{number}"
            peer.disk.make_directories(peer.at(parent))
            directories.append(parent)
        _many(world, peer, parent, [f"random{number}"], rnd.randint(1, 5000))


def alter(world: World, peer: Peer, rnd: random.Random, kept: set[str], number: int) -> None:
    """Do seeded changes to a tenth of a tree, and leave the paths that are kept."""
    paths = [path for path in world.tree(peer) if not any(f"{each}/".startswith(f"{path}/") for each in kept)]
    for path in rnd.sample(paths, k=max(1, len(paths) // 10)):
        if peer.disk.exists(peer.at(path)):
            _alter_one(world, peer, path, rnd, number)


def _alter_one(world: World, peer: Peer, path: str, rnd: random.Random, number: int) -> None:
    disk, target = peer.disk, peer.at(path)
    is_directory = disk.is_directory(target)
    token = f"altered:{number}:{path}"
    match rnd.choice(("write", "append", "truncate", "rename", "move", "delete", "type")):
        case "write" if not is_directory:
            write_in_place(world, peer, path, token, rnd.randint(100, 5000))
        case "append" if not is_directory:
            append_block(world, peer, path, token)
        case "truncate" if not is_directory:
            disk.truncate(target, disk.stat(target).size // 2)
        case "rename":
            disk.rename(target, f"{target}-{number}")
        case "move":
            disk.rename(target, peer.at(f"moved{number}-{target.rpartition('/')[2]}"))
        case "delete" if not is_directory:
            disk.remove(target)
        case "type" if not is_directory:
            disk.remove(target)
            disk.make_directory(target)
        case _:
            write_in_place(world, peer, f"new{number}-{rnd.randrange(10**6)}", token, 1000)


OPERATIONS: Final[Mapping[str, Callable[[World, Peer, Step], None]]] = {
    each.__name__: each
    for each in (
        write, append, mkdir, mkdir_raw, mkdir_chain, delete, rename, rename_many, copy, symlink, touch, touch_all,
        restore_mtime, write_keep_stat, replace_atomic, chmod, write_many, write_long_path, write_sparse,
        write_name_matrix, write_conflict_copy_of, write_random_unicode, plant_outside, remove_root, random_tree,
    )
}  # fmt: skip
