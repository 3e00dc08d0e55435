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
    by its name, directories that hold nothing else, and on a disk that cannot hold every name, for what it cannot hold.
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
            personality = device.disk.personality
            whole, homeless = _shown(trees[plain[0]], personality), _homeless(trees[plain[0]], personality)
            here = {path: seen for path, seen in shown[number].items() if path not in kept[number]}
            _check_part(number, here, whole, homeless, plain[0])


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


def _homeless(tree: Tree, personality: Personality) -> set[tuple[Kind | None, bytes, bool]]:
    """Return what has no place on a disk for which its name is another's, or that of a directory above it."""
    by_key: dict[str, list[str]] = {}
    for path in tree:
        by_key.setdefault("/".join(personality.key(part) for part in path.split("/")), []).append(path)
    taken = [path for paths in by_key.values() if len(paths) > 1 for path in paths]
    return {seen[:3] for path, seen in tree.items() if any(f"{path}/".startswith(f"{one}/") for one in taken)}


def _check_part(
    number: int, here: Shown, whole: Shown, homeless: set[tuple[Kind | None, bytes, bool]], other: int
) -> None:
    """Check that a device with a disk that folds names shows nothing that others do not show.

    What was renamed to what counts as another's name here keeps the name that it had, with the directories above it.
    """
    strays = [path for path, seen in here.items() if path not in whole and seen[0] is not Kind.DIRECTORY]
    above = {path[:end] for path in strays for end, char in enumerate(path) if char == "/"}
    for path, seen in here.items():
        if path not in whole and path not in above and seen not in homeless:
            raise Violation(CONVERGENCE, f"{path} is on device-{number} and not on device-{other}")


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
