"""What all devices show, compared: invariants 2 and 8."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

from protocol.entries import Kind
from simulations.checks.names import is_local, kept_for_local
from simulations.checks.violation import CONVERGENCE, TREE_VALIDITY, Violation
from simulations.history.ledger import Tree
from simulations.personalities import Personality
from simulations.world import World

Shown = dict[str, tuple[Kind | None, bytes, bool]]


def check_convergence(world: World, trees: list[Tree]) -> None:
    """Invariant 2: at rest, all devices have the same position of the log and show the same tree.

    Compared are paths, kinds, the bytes of files, targets of links and the executable bit, but for what stays on one device
    by its name, directories that hold nothing else, and on a disk that cannot hold every name, for what it cannot hold
    (:class:`_Whole`).
    """
    positions = [device.position for device in world.devices]
    if len(set(positions)) > 1:
        raise Violation(CONVERGENCE, f"the devices are at {positions}")
    shown = [_shown(tree, device.disk.personality) for tree, device in zip(trees, world.devices, strict=True)]
    plain = [number for number, device in enumerate(world.devices) if not device.disk.personality.changes_names]
    kept = [_kept(tree, device.disk.personality) for tree, device in zip(trees, world.devices, strict=True)]
    for one, other in pairwise(plain):
        _compare((one, shown[one], kept[one]), (other, shown[other], kept[other]))
    for number, device in enumerate(world.devices):
        if plain and number not in plain:
            whole = _Whole(trees[plain[0]], plain[0], device.disk.personality)
            whole.check_nothing_else(
                number, {path: one for path, one in shown[number].items() if path not in kept[number]}
            )
            whole.check_all(number, shown[number])


def _shown(tree: Tree, personality: Personality) -> Shown:
    return {_key(path, personality): seen[:3] for path, seen in tree.items() if not is_local(path)}


def _key(path: str, personality: Personality) -> str:
    return "/".join(map(personality.key, path.split("/"))) if personality.changes_names else path


def _kept(tree: Tree, personality: Personality) -> set[str]:
    directories = {path for path, seen in tree.items() if seen.kind is Kind.DIRECTORY}
    return {_key(path, personality) for path in kept_for_local(tree, directories)}


def _compare(one: tuple[int, Shown, set[str]], other: tuple[int, Shown, set[str]]) -> None:
    (number, here, kept_here), (other_number, there, kept_there) = one, other
    if here == there:
        return
    kept = {path for path in kept_here if path not in there} | {path for path in kept_there if path not in here}
    paths = [path for path in here.keys() | there.keys() if path not in kept and here.get(path) != there.get(path)]
    if not paths:
        return
    path = min(paths)
    raise Violation(
        CONVERGENCE,
        f"{path} is {_told(here.get(path))} on device-{number} and {_told(there.get(path))} on device-{other_number}",
    )


class _Whole:
    """What a device with a disk that can hold every name shows, as another disk would have to show it.

    What has no place there is homeless: whose name the disk refuses, or takes for another's, or so that of a directory above it.
    What was renamed to such a name keeps the one that it had, and so the place of what has that by now.
    """

    def __init__(self, tree: Tree, number: int, personality: Personality) -> None:
        self.number = number
        self._paths: dict[str, list[str]] = {}
        """By what counts as one path on the other disk, those that do."""
        for path in tree:
            if not is_local(path):
                self._paths.setdefault("/".join(map(personality.key, path.split("/"))), []).append(path)
        self._seen = {key: [tree[path][:3] for path in paths] for key, paths in self._paths.items()}
        self._kept = _kept(tree, personality)
        bad = {key for key, paths in self._paths.items() if len(paths) > 1 or _is_refused(paths[0], personality)}
        self._homeless = {key for key in self._paths if any(one in bad for one in _with_above(key))}
        self._strays = {seen for key in self._homeless for seen in self._seen[key] if seen[0] is not Kind.DIRECTORY}
        """What may stand under another name: a directory shows itself by what is in it."""

    def check_nothing_else(self, number: int, here: Shown) -> None:
        """Check that a device shows nothing that is not in the tree, but for what keeps a name, with the directories above it."""
        strays = [path for path, seen in here.items() if path not in self._seen and seen[0] is not Kind.DIRECTORY]
        above = {one for path in strays for one in _with_above(path)}
        empty = [path for path, seen in here.items() if path not in self._seen and path not in above]
        directories = sum(seen[0] is Kind.DIRECTORY for key in self._homeless for seen in self._seen[key])
        for path in [one for one in strays if here[one] not in self._strays] + empty[directories:]:
            raise Violation(CONVERGENCE, f"{path} is on device-{number} and not on device-{self.number}")

    def check_all(self, number: int, here: Shown) -> None:
        """Check that a device shows all that has a place on its disk, unless what keeps a name has that place."""
        taken = {key for key, seen in here.items() if seen in self._strays and seen not in self._seen.get(key, ())}
        for key, seen in self._seen.items():
            if key in self._homeless or any(one in taken for one in _with_above(key)):
                continue
            if here.get(key) not in seen and not (key in self._kept and key not in here):
                text = (
                    f"{key} is {_told(here.get(key))} on device-{number} and {_told(seen[0])} on device-{self.number}"
                )
                raise Violation(CONVERGENCE, text)


def _with_above(path: str) -> list[str]:
    """Return a path and those of the directories above it."""
    return [path, *(path[:end] for end, char in enumerate(path) if char == "/")]


def _is_refused(path: str, personality: Personality) -> bool:
    """Tell whether a disk has no place for the last part of a path, whatever else stands there."""
    name = path.rpartition("/")[2]
    try:
        personality.check(name)
    except OSError:
        return True
    return personality.is_too_long(name)


def _told(seen: tuple[Kind | None, bytes, bool] | None) -> str:
    if seen is None:
        return "missing"
    kind, content, executable = seen
    return f"{kind.name.lower() if kind else 'special'} {content.hex()[:8]}{' executable' if executable else ''}"


def check_validity(world: World, trees: list[Tree]) -> None:
    """Invariant 8: no two siblings are one name in NFC, or on a disk for which more names are one.

    That each has one parent and no cycle is what a disk is; of the fold's tree, :mod:`simulations.checks.rows` checks it.
    """
    for number, (tree, device) in enumerate(zip(trees, world.devices, strict=True)):
        taken: dict[str, str] = {}
        key = device.disk.personality.key
        for path in tree:
            above, _, name = path.rpartition("/")
            one = f"{above}/{key(unicodedata.normalize('NFC', name))}"
            if one in taken and not is_local(path):
                raise Violation(TREE_VALIDITY, f"device-{number} shows {path!a} and {taken[one]!a}, which are one name")
            taken[one] = path
