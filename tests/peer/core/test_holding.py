"""Which steps are left undone by others: nothing of it is held against them."""

from __future__ import annotations

from peer.core.holding import hindered
from peer.core.operations import Delete, Place, Rename, Step
from peer.core.tree import Item
from protocol.ids import ROOT
from tests.peer.core.trees import DIRECTORY, file, node


def at(id, name, parent=None, content=None):
    return Item(node(id), ROOT if parent is None else node(parent), name, content or file(id))


def test_what_follows_a_step_that_failed_is_hindered_and_so_is_all_below():
    steps: list[Step] = [
        Rename(at("a", "a"), at("a", "b")),
        Delete(at("f", "f")),
        Place(at("D", "f", content=DIRECTORY)),
        Place(at("E", "E", "D", DIRECTORY)),
        Place(at("g", "g", "E")),
        Place(at("h", "h")),
        Place(at("i", "a")),
    ]
    assert hindered(steps, {node("f")}) == {node("D"), node("E"), node("g")}
    assert hindered(steps, {node("a")}) == {node("i")}
    assert hindered(steps, {node("h")}) == set()


def test_a_directory_that_does_not_come_to_be_hinders_what_goes_into_it():
    steps: list[Step] = [Place(at("D", "D", content=DIRECTORY)), Rename(at("f", "f"), at("f", "f", "D"))]
    assert hindered(steps, {node("D")}) == {node("f")}


def test_what_goes_aside_and_comes_back_does_not_hinder_itself():
    there, target = at("f", "f"), at("f", "f", "D")
    steps = [Rename(there, target, aside=True), Rename(there, target, from_aside=True)]
    assert hindered(steps, {node("f")}) == set()
