"""All that stands on a simulated disk, to be put back later or elsewhere: a backup, a snapshot, a machine that was cloned.

Rule 1: an image never changes, and shares its bytes with the disk; taking one costs a walk.
Rule 2: what is put back is durable, with the numbers and times that it had.
"""

from __future__ import annotations

import stat
from typing import NamedTuple

from simulations.disk import SimDisk
from simulations.inodes import Directory, Entry, File, Inode, Link


class Node(NamedTuple):
    """One inode of an image."""

    number: int
    mode: int
    owner: int
    mtime_ns: int
    ctime_ns: int
    size: int
    blocks: dict[int, bytes]
    """Of a file."""
    target: bytes
    """Of a link."""
    names: tuple[tuple[str, int], ...]
    """Of a directory: name, and the number of what stands there."""


class Image(NamedTuple):
    """A whole disk; one that is mounted there is not part of it."""

    root: int
    nodes: dict[int, Node]


def take_image(disk: SimDisk) -> Image:
    """Return all that stands on a disk now, whether it is durable or not."""
    nodes: dict[int, Node] = {}
    left: list[Inode] = [disk.root]
    while left:
        inode = left.pop()
        if inode.number in nodes:
            continue  # another name of a file
        names: tuple[tuple[str, int], ...] = ()
        if isinstance(inode, Directory):
            names = tuple((name, below.number) for name, below in inode.entries.values())
            left += [below for _, below in inode.entries.values()]
        nodes[inode.number] = Node(
            inode.number,
            inode.mode,
            inode.owner,
            inode.mtime_ns,
            inode.ctime_ns,
            inode.size,
            inode.blocks() if isinstance(inode, File) else {},
            inode.target if isinstance(inode, Link) else b"",
            names,
        )
    return Image(disk.root.number, nodes)


def put_back(disk: SimDisk, image: Image) -> None:
    """Let a disk hold what an image holds, and nothing else; no process has anything open there, nothing is mounted."""
    inodes = {number: _made(disk, node) for number, node in image.nodes.items()}
    root = inodes[image.root]
    assert isinstance(root, Directory)
    for number, node in image.nodes.items():
        directory = inodes[number]
        for name, below in node.names:
            assert isinstance(directory, Directory)
            inode = inodes[below]
            directory.entries[disk.personality.key(name)] = Entry(name, inode)
            inode.parent, inode.name = directory, name
            inode.links += 1
    root.links = 1
    disk.begin_with(root, max(image.nodes), sum(one.allocated for one in inodes.values() if isinstance(one, File)))


def _made(disk: SimDisk, node: Node) -> Inode:
    inode: Inode
    if stat.S_ISREG(node.mode):
        inode = File(disk, node.number, 0, node.owner, 0)
        inode.fill(node.blocks, node.size)
    elif stat.S_ISDIR(node.mode):
        inode = Directory(disk, node.number, 0, node.owner, 0)
    elif stat.S_ISLNK(node.mode):
        inode = Link(disk, node.number, node.owner, 0, node.target)
    else:
        inode = Inode(disk, node.number, node.mode, node.owner, 0)
    inode.mode, inode.mtime_ns, inode.ctime_ns = node.mode, node.mtime_ns, node.ctime_ns
    return inode
