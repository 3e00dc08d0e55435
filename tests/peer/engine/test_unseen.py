"""What a user has moved away, and no scan has seen yet, keeps its identity when another item is to have its name."""

from __future__ import annotations

import asyncio
import os

import pytest

from peer.core.operations import Delete, Place
from peer.core.tree import Content, Item
from peer.store.trees import LocalTree
from protocol.entries import Kind
from protocol.ids import ROOT, NodeId
from tests.peer.engine.test_occupied import World

NEW = Item(NodeId(b"n" * 16), ROOT, "f", Content(Kind.LINK, b"h" * 32, 1, target=b"x"))


def rows(world: World) -> dict[str, NodeId]:
    return {item.name: item.id for item in world.database.call(lambda db: list(LocalTree(db, 1).children(ROOT)))}


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path / "root")
    os.rename(made.top / "D" / "f", made.top / "f")
    made.look()
    return made


def test_a_file_that_moved_away_is_found_where_it_is_before_another_has_its_name(world):
    f = rows(world)["f"]
    (world.top / "f").rename(world.top / "g")
    applied = asyncio.run(world.stepper.apply([Place(NEW)], {}))
    assert applied.missed == {NEW.id: "unseen"}
    assert applied.look_at == [""]
    world.look()
    assert rows(world)["g"] == f
    assert asyncio.run(world.stepper.apply([Place(NEW)], {})).done == {NEW.id}
    assert (rows(world)["f"], rows(world)["g"]) == (NEW.id, f)


def test_it_waits_for_a_look_too_where_the_old_one_was_to_go(world):
    """As where somebody else removed it, and made another one."""
    item = world.database.call(lambda db: LocalTree(db, 1).child(ROOT, "f"))
    (world.top / "f").rename(world.top / "g")
    applied = asyncio.run(world.stepper.apply([Delete(item), Place(NEW)], {}))
    assert applied.missed == {item.id: "missing", NEW.id: "unseen"}
    world.look()
    assert rows(world)["g"] == item.id


def test_what_was_taken_out_of_a_directory_is_found_before_that_goes(world):
    """Somebody else removed all of it: as in the history 5037060."""
    (world.top / "D" / "g").write_bytes(b"synced")
    world.look()
    g = world.database.call(lambda db: World.find(LocalTree(db, 1), ["D", "g"]))
    (world.top / "D" / "g").rename(world.top / "g")
    id, applied = world.remove("D")
    assert applied.missed == {id: "unseen"}
    assert applied.look_at == ["D"]
    world.look()
    assert rows(world)["g"] == g.id
    id, applied = world.remove("D")
    assert applied.done == {id}
