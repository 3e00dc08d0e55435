"""A disk that shows other Unicode forms: what is known keeps its name, and only what nobody knows is named as it is shown."""

from __future__ import annotations

import unicodedata

import pytest

from peer.core.observations import Fingerprint, Listing, Sighting
from peer.core.spellings import Spellings
from peer.core.tree import Content, Item, ItemId, MemoryTree
from protocol.entries import Kind
from protocol.ids import ROOT

NFC, NFD = "\N{LATIN SMALL LETTER U WITH DIAERESIS}", "u\N{COMBINING DIAERESIS}"


def decomposed(text):
    return unicodedata.normalize("NFD", text)


def item(number, name, parent=ROOT, kind=Kind.DIRECTORY):
    return Item(ItemId(bytes([number]) * 16), parent, name, Content(kind))


def tree(*items):
    return MemoryTree({each.id: each for each in items})


def listing(path, *names, inode=None):
    return Listing(path, tuple(Sighting(name, Kind.FILE, Fingerprint(1, 1, 0, 0, 0, 0)) for name in names), inode=inode)


def names_of(found):
    return [sighting.name for sighting in found.sightings]


def spellings(*trees, standing=None):
    return Spellings(trees, (standing or {}).get)


@pytest.mark.parametrize("known", [NFC, NFD])
def test_a_known_name_keeps_its_form(known):
    found = spellings(tree(item(1, known))).respelled(listing("", NFD, "plain"))
    assert (found.path, names_of(found)) == ("", ["plain", known])


def test_a_name_that_the_folder_wants_there_is_that_name():
    assert names_of(spellings(tree(), tree(item(1, NFC))).respelled(listing("", NFD))) == [NFC]


def test_a_name_that_nobody_knows_is_as_it_is_shown():
    other = item(1, "d")
    found = spellings(tree(other, item(2, NFC, other.id))).respelled(listing("", NFD))
    assert names_of(found) == [NFD]


def test_paths_below_are_known_paths():
    top = item(1, NFC)
    below = item(2, f"{NFC}{NFC}", top.id)
    trees = tree(top, below, item(3, NFC, below.id))
    reading = spellings(trees)
    shown = decomposed(f"{NFC}{NFC}")
    assert names_of(reading.respelled(listing("", NFD))) == [NFC]
    assert names_of(reading.respelled(listing(NFD, shown))) == [f"{NFC}{NFC}"]
    found = reading.respelled(listing(f"{NFD}/{shown}", NFD))
    assert (found.path, names_of(found)) == (f"{NFC}/{NFC}{NFC}", [NFC])
    alone = spellings(trees).respelled(listing(f"{NFD}/{shown}", NFD))  # without the listings above it
    assert alone == found


def test_names_in_a_directory_that_was_moved_are_known_by_the_directory():
    top = item(1, "old")
    reading = spellings(tree(top, item(2, NFC, top.id)), standing={(7, 8): top.id})
    assert names_of(reading.respelled(listing("new", NFD, inode=(7, 8)))) == [NFC]
    assert names_of(reading.respelled(listing("new", NFD))) == [NFD]


def test_what_is_plain_is_the_very_listing():
    plain = listing("d", "f")
    assert spellings(tree()).respelled(plain) is plain
