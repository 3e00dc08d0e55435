"""What one pass must do: acts of the user to record as entries, and changes of the disk to make.

Rule 1: an operation carries what it expects to find; whoever carries it out looks again first.
Rule 2: operations are values, sorted, and the same on every device for the same trees.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from peer.core.tree import Content, Item, ItemId

# --- Acts: local differs from synced. They become entries.


class Create(msgspec.Struct, frozen=True):
    """The user made ``item``; its id becomes the node's id."""

    item: Item


class Edit(msgspec.Struct, frozen=True):
    """The user wrote other bytes, or another kind, at an item that was synced."""

    base: Item
    """As synced, with the dots to build on."""
    content: Content


class Touch(msgspec.Struct, frozen=True):
    """Only attributes changed: modification time or executable bit."""

    base: Item
    content: Content


class Move(msgspec.Struct, frozen=True):
    """The user moved or renamed an item."""

    base: Item
    parent: ItemId
    name: str


class Remove(msgspec.Struct, frozen=True):
    """The user removed an item and all that was synced under it."""

    base: Item
    subtree: tuple[Item, ...]
    """Every synced item that went with it, parents before children, ``base`` first."""


Act: TypeAlias = Create | Edit | Touch | Move | Remove


# --- Steps: remote differs from synced. They change the disk.


class Expected(msgspec.Struct, frozen=True):
    """What the disk must hold at the place that a step changes, else the step is dropped and all is observed anew."""

    parent: ItemId
    name: str
    content: Content | None
    """None: nothing may stand there."""


class Place(msgspec.Struct, frozen=True):
    """Make a new item appear: a directory, a link, or a file whose bytes are fetched first."""

    item: Item


class Replace(msgspec.Struct, frozen=True):
    """Put other bytes (or another kind) where an item stands; what is displaced is checked after the swap."""

    expected: Item
    item: Item


class SetAttributes(msgspec.Struct, frozen=True):
    """Give a file another modification time or executable bit."""

    expected: Item
    item: Item


class Rename(msgspec.Struct, frozen=True):
    """Move an item that is on this disk to another place. Through ``aside`` first where its new place is still taken."""

    expected: Item
    item: Item
    aside: bool = False
    """Move it into the folder's hidden directory only; a second Rename, with ``from_aside``, brings it out."""
    from_aside: bool = False


class Delete(msgspec.Struct, frozen=True):
    """Take an item off this disk, into the trash first; a directory only once it is empty."""

    expected: Item


class Adopt(msgspec.Struct, frozen=True):
    """The disk holds already what remote says: only record it as synced."""

    item: Item


class Forget(msgspec.Struct, frozen=True):
    """Neither the disk nor the log holds it any more: only drop it from synced."""

    base: Item


class Rekey(msgspec.Struct, frozen=True):
    """One thing has two ids: give the rows with id ``old``, in local and in synced, the id ``new``.

    Rows whose parent is ``old`` follow. Nothing on the disk changes, and nothing else in a row: its members stay those
    of the values that this disk holds. It happens where nodes of one name became one item with another first member,
    and where a device joins with files that are there already. A plan that has any of these has nothing else.
    """

    old: ItemId
    new: ItemId


Step: TypeAlias = Place | Replace | SetAttributes | Rename | Delete | Adopt | Forget | Rekey


class Plan(msgspec.Struct, frozen=True):
    """The outcome of one planning: acts to record first, then steps for what the acts do not touch."""

    acts: tuple[Act, ...]
    steps: tuple[Step, ...]
