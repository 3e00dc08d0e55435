"""What authoring tried is what folding the signed entries would give, so it need not be done twice."""

from __future__ import annotations

import random
from dataclasses import fields

import pytest

from peer.core.fold import fold
from peer.core.fold_state import FoldState
from peer.core.memory_state import MemoryState, OverlayState
from tests.peer.core.devices import Device, Log, walk


def rows(state):
    """Return all that was written to an overlay, but marks of rows that are gone."""
    found = {}
    for field in fields(FoldState):
        table = getattr(state, field.name)
        written = table._items if field.name == "tree" else table._rows
        for key, row in written.items():
            inner = row.items() if isinstance(row, dict) else [(None, row)]
            found.update({(field.name, key, second): each for second, each in inner if each is not None})
    return found


def change(device, chance, log):
    files = [path for path, item in device.paths().items() if not item.is_directory]
    directories = [path for path, item in device.paths().items() if item.is_directory]
    above = chance.choice(["", *(f"{path}/" for path in directories)])
    match chance.choice(["create", "create", "mkdir", "edit", "move", "movedir", "remove", "invert"]):
        case "edit" if files:
            return device.edit(chance.choice(files), log.token())
        case "move" if files:
            return device.move(chance.choice(files), f"{above}m{log.token()}")
        case "movedir" if directories:
            path = chance.choice(directories)
            if not above.startswith(f"{path}/"):
                return device.move(path, f"{above}d{log.token()}")
        case "invert" if any("/" in path for path in directories):
            return device.invert(chance.choice([path for path in directories if "/" in path]))
        case "remove" if len(files) > 3:
            return device.remove(chance.choice([*files, *directories]))
        case "mkdir":
            return device.create(f"{above}d{log.token()}", "DIR")
    return device.create(f"{above}f{log.token()}", log.token())


@pytest.mark.parametrize("seed", range(25))
def test_a_trial_handed_down_is_the_fold_of_what_was_signed(seed):
    """Two devices write; one of them takes the other's entries in, so that there are copies and merged names."""
    chance, log = random.Random(seed), Log()
    one, other = Device(1, log), Device(2, log)
    for _ in range(6):
        change(one, chance, log)
        change(other, chance, log)
    log.order(chance, 12)
    one.pull(len(log.ordered))
    one.apply()
    assert not one.tail
    begin = set(log.entries)
    tried = 0
    for _ in range(12):
        tried += change(one, chance, log).trial is not None
    assert tried > 9
    anew = OverlayState(one.ordered_state)
    position = one.position + len(one.known) + 1
    for entry in [entry for hash, entry in log.entries.items() if hash not in begin]:
        fold(anew, [entry], position=position)
        position += 1
    assert list(walk(anew.tree)) == list(walk(one.state.tree))
    assert rows(anew) == rows(one.state)


def test_handing_down_leaves_what_the_overlay_showed():
    base = MemoryState()
    state = OverlayState(base)
    log = Log()
    device = Device(1, log)
    device.create("a", "t1")
    device.create("b", "t2")
    fold(state, list(log.entries.values()), position=1)
    before = list(walk(state.tree))
    state.hand_down()
    assert list(walk(base.tree)) == before
    assert base.entries.get((1, 1)) == state.entries.get((1, 1)) is not None
