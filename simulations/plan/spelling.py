"""Spell operations and trees so that a person can read a trace."""

from __future__ import annotations

from collections.abc import Iterator

from peer.core.operations import (
    Act,
    Adopt,
    Create,
    Delete,
    Edit,
    Forget,
    Move,
    Place,
    Rekey,
    Remove,
    Rename,
    Replace,
    SetAttributes,
    Step,
    Touch,
)
from peer.core.tree import Content, Item, ItemId, MemoryTree, path_of
from protocol.entries import Kind
from simulations.plan.disk import text_of_hash


def spell_id(id: ItemId) -> str:
    """Return the beginning of an id, or a letter for one that a triple was drawn with."""
    return chr(id[0]) if id == bytes([id[0]]) * 16 and id[0] else id.hex()[:6]


def spell_content(content: Content) -> str:
    """Return what something holds."""
    if content.kind is Kind.DIRECTORY:
        return "/"
    return ("->" if content.kind is Kind.LINK else "=") + text_of_hash(content.hash)


def spell_item(item: Item) -> str:
    """Return an item as ``name=text[id]``."""
    return f"{item.name}{spell_content(item.content)}[{spell_id(item.id)}]"


def spell_tree(tree: MemoryTree) -> Iterator[str]:
    """Yield what a tree holds."""
    for item in tree.items():
        yield f"{path_of(tree, item.id)}{spell_content(item.content)}[{spell_id(item.id)}]"


def spell(operation: Act | Step) -> str:
    """Return an operation as ``Move f -> g``."""
    name = type(operation).__name__
    match operation:
        case Create(item) | Place(item) | Adopt(item):
            return f"{name} {spell_item(item)}"
        case Edit(base, content) | Touch(base, content):
            return f"{name} {spell_item(base)} to {spell_content(content)}"
        case Forget(base):
            return f"{name} {spell_item(base)}"
        case Move(base, parent, new):
            return f"{name} {spell_item(base)} -> {new} in {spell_id(parent)}"
        case Remove(base, subtree):
            below = [spell_item(item) for item in subtree[1:]]
            return f"{name} {spell_item(base)}" + (f" with {' '.join(below)}" if below else "")
        case Replace(expected, item) | SetAttributes(expected, item):
            return f"{name} {spell_item(expected)} by {spell_item(item)}"
        case Rename(expected, item, aside, from_aside):
            way = " (aside)" if aside else " (from aside)" if from_aside else ""
            return f"{name} {spell_item(expected)} -> {item.name} in {spell_id(item.parent)}{way}"
        case Delete(expected):
            return f"{name} {spell_item(expected)}"
        case Rekey(old, new):
            return f"{name} {spell_id(old)} to {spell_id(new)}"
