"""What one person alone did to some names since all were at rest stands as he left it: invariants 1 and 3.

Rule 1: this holds of everything: links, directories, empty files and modes too, which prove nothing by their bytes.
Rule 2: a name is one thing wherever it stands, and whoever touched two has to do with both: so what was moved, put into
    something or exchanged belongs to all who did anything to one of its names, or to those of what it was in.
Rule 3: who takes bytes away and puts the same ones somewhere has moved a file, as far as anybody can tell.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Final

from protocol.entries import Kind
from simulations.checks.names import is_local, wanted
from simulations.checks.violation import NO_LOST_UPDATE, NO_RESURRECTION, Violation
from simulations.history.ledger import EMPTY, Action, Ledger, Seen, Tree
from simulations.situations.operations import RULES

_NAMING: Final = frozenset({"resolve", "restore", "exclude"})
"""Commands that change what has a name, perhaps long after they were given."""
_ALL: Final = frozenset({"undo", "approve"})
"""Commands that may change everything."""


def check_turns(ledger: Ledger, number: int, tree: Tree, plain: Iterable[int]) -> None:
    """Check what a device shows against the actions since all were at rest, once they are again.

    Args:
        ledger: Of all that was done.
        number: Of the device, on which every name can stand.
        tree: What it shows.
        plain: All devices on which every name can stand.

    Raises:
        Violation: Something is not as the one who alone touched it left it.
    """
    acts = [action for action in ledger.actions if action.epoch == ledger.epoch - 1]
    if _is_unclear(ledger, acts):
        return
    asked = {_one(part) for each in _asked(ledger) for part in each.split("/")}
    for group in _groups(acts):
        who = {action.device for action in group.actions}
        if len(who) > 1 or not who <= set(plain) or any(action.number in ledger.by_command for action in group.actions):
            continue
        if not group.names.isdisjoint(asked) or not all(map(str.isascii, group.names)):
            continue
        for path, (seen, action) in _left(group.actions).items():
            if not is_local(path):
                _check(number, path, tree.get(path), seen, action)


def _is_unclear(ledger: Ledger, acts: list[Action]) -> bool:
    """Tell whether something was done that reaches further than the names that it is about."""
    epoch = ledger.epoch - 1
    return (
        any(back is not None and back.epoch == epoch for back in ledger.backs)
        or any(each.method in _ALL and each.epoch == epoch for each in ledger.asked)
        or any(RULES in action.touched for action in acts)
        or "" in _asked(ledger)
    )


def _asked(ledger: Ledger) -> list[str]:
    """Return the paths of commands since all were at rest; "" for the whole folder."""
    return [each.path for each in ledger.asked if each.method in _NAMING and each.epoch == ledger.epoch - 1]


class _Group:
    """Actions that have to do with each other, or each with a third."""

    def __init__(self, action: Action) -> None:
        self.actions = [action]
        files = {seen.inode for path in action.left for seen in (action.before.get(path), action.left[path]) if seen}
        also = [path for path, seen in action.before.items() if seen.inode in files]
        self.changed = {_one(path.rpartition("/")[2]) for path in (*action.left, *also)}
        """Names of what is not what it was, with the other names of a file that has several."""
        self.names = {_one(name) for name in action.touched}
        """These, and those of all directories above: two who put something into one have nothing to do with each other."""
        ends = [seen for path in action.left for seen in (action.before.get(path), action.left[path]) if seen]
        self.bytes = {
            (action.device, seen.content) for seen in ends if seen.kind is Kind.FILE and seen.content != EMPTY
        }
        """What was taken away or put somewhere, with the device."""

    def meets(self, other: _Group) -> bool:
        """Tell whether one did something to, above or below what the other did something to, or to anything of such a name."""
        apart = self.changed.isdisjoint(other.names) and self.names.isdisjoint(other.changed)
        return not (apart and self.bytes.isdisjoint(other.bytes))

    def take(self, other: _Group) -> None:
        """Take in what another one has."""
        self.actions += other.actions
        self.changed |= other.changed
        self.names |= other.names
        self.bytes |= other.bytes


def _groups(acts: list[Action]) -> list[_Group]:
    """Return the actions that have to do with each other, earlier ones first in each group."""
    groups: list[_Group] = []
    for action in acts:
        made = _Group(action)
        while joined := [one for one in groups if made.meets(one)]:
            for one in joined:
                groups.remove(one)
                made.take(one)
        made.actions.sort(key=lambda each: each.number)
        groups.append(made)
    return groups


def _left(group: list[Action]) -> dict[str, tuple[Seen | None, Action]]:
    """Return what the last action at each path left there."""
    return {path: (seen, action) for action in group for path, seen in action.left.items()}


def _check(number: int, path: str, found: Seen | None, left: Seen | None, action: Action) -> None:
    if (found is None and left is None) or (found is not None and left is not None and found[:3] == left[:3]):
        return
    if left is not None and left.kind is None:
        return  # a FIFO stays on its device
    invariant = NO_RESURRECTION if left is None else NO_LOST_UPDATE
    is_what = "is gone" if found is None else "is there again" if left is None else "is another"
    raise Violation(invariant, f"{path} {is_what} on device-{number}, though nobody else touched it", action)


def _one(name: str) -> str:
    """Return what all spellings of a name have in common, and the names that the product makes of it."""
    return unicodedata.normalize("NFC", wanted(name)).casefold()
