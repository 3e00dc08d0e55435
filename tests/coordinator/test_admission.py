"""What may be registered: one row for each way in which an entry can be wrong, in the order of the checks."""

from __future__ import annotations

import contextlib

import pytest

from coordinator.core.admission import FIRST, refusal
from coordinator.core.authority import Authority
from protocol.chains import EnrolDevice, Role
from protocol.entries import Batch, parse_entry
from protocol.errors import LimitExceededError, ProtocolError
from protocol.ids import EntryHash
from tests.builders import Author, hash_of
from tests.coordinator.bench import authors, enrolled_folder
from tests.protocol.chain_world import TestAccount, TestFolder, fixed

ALICE, BOB, CAROL = TestAccount("alice"), TestAccount("bob"), TestAccount("carol")


def shared() -> TestFolder:
    folder = enrolled_folder(ALICE, BOB)
    folder.share(CAROL, Role.READER)
    folder.append(EnrolDevice(CAROL.device.id, 1, 3), by=CAROL)
    return folder


FOLDER = shared()


def code(data: bytes, newest=FIRST, folder: TestFolder = FOLDER) -> str:
    authority = Authority(folder.state, folder.accounts)
    hashes = {link.hash for link in folder.links}
    return refusal(parse_entry(data), authority, newest, hashes.__contains__)


def writer(number: int = 2) -> Author:
    return authors(FOLDER)[number - 1]


CASES = {
    "a first entry is registered": (lambda: writer().entry("x"), ""),
    "a device number that was never given": (
        lambda: Author(FOLDER, BOB.device, 9).entry("x"),
        "access_denied",
    ),
    "signed by another member's device": (lambda: writer().entry("x", seed=ALICE.device.seed), "bad_signature"),
    "signed by a stranger": (lambda: writer().entry("x", seed=fixed("stranger")), "bad_signature"),
    "a reader's entry": (lambda: writer(3).entry("x"), "access_denied"),
    "a sequence number too high": (lambda: writer().entry("x", seq=2), "gap"),
    "another previous entry": (lambda: writer().entry("x", previous=EntryHash(fixed("other"))), "chain"),
    "an epoch that is not there yet": (lambda: writer().entry("x", epoch=99), "epoch"),
    "epoch 0": (lambda: writer().entry("x", epoch=0), "epoch"),
    "part of a batch": (lambda: writer().entry("x", batch=Batch(bytes(16), 0, 2)), ""),
}


@pytest.mark.parametrize("name", CASES)
def test_each_defect_has_its_answer(name):
    make, expected = CASES[name]
    assert code(make()) == expected


def test_the_control_head_must_stand_in_the_control_log():
    folder = shared()
    author = authors(folder)[1]
    folder.append(folder.epoch_op())
    entry = author.entry("x")
    old = FOLDER.links  # the same folder, without the newest link
    assert [link.hash for link in folder.links[:-1]] == [link.hash for link in old]
    assert code(entry, folder=folder) == ""
    assert code(author.entry("y", epoch=1, keep=False), newest=(1, hash_of(entry)), folder=FOLDER) == "control"


def test_the_same_sequence_number_twice_is_a_broken_chain():
    author = writer()
    first = author.entry("x")
    assert code(first, newest=(1, EntryHash(fixed("another")))) == "chain"


@pytest.mark.parametrize("at", [0, 1, 50, -70, -1])
def test_a_flipped_byte_is_never_registered(at):
    """Wherever it stands: header, payload or signature."""
    data = bytearray(writer().entry("x"))
    data[at] ^= 0x55
    with contextlib.suppress(ProtocolError, LimitExceededError):
        assert code(bytes(data)) == "bad_signature"


def test_an_entry_of_one_folder_means_nothing_in_another():
    """Replayed under another folder's authority, where the device has the same number (S23)."""
    other = TestFolder(ALICE, name="other")
    entry = authors(FOLDER)[0].entry("x")
    assert parse_entry(entry).header.folder != other.id
    assert code(entry, folder=other) in ("control", "epoch")
