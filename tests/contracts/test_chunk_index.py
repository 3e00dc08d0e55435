"""The database under a storage node's index: one suite for the file on disk and for the simulated one."""

from __future__ import annotations

from functools import partial

import pytest

from protocol.ids import ChunkId, Pseudonym
from simulations.databases import SimIndexFile
from storage_node.chunks.index import Index, Place
from storage_node.chunks.records import Kind, Record
from storage_node.doors import open_database

READER, OTHER = Pseudonym(b"r" * 16), Pseudonym(b"o" * 16)


def chunk(number):
    return ChunkId(bytes([number]) * 32)


def record(number, offset, reader=READER, kind=Kind.CHUNK):
    return Record(kind=kind, id=chunk(number), pseudonym=reader, offset=offset, length=100)


class OnDisk:
    """A file."""

    def __init__(self, directory):
        self._path = directory / "index.db"

    def open(self):
        return Index(partial(open_database, self._path))

    def damage(self):
        self._path.write_bytes(b"this is no database" * 1000)


class Simulated:
    """An image, as a killed process leaves it."""

    def __init__(self, _):
        self._file = SimIndexFile()

    def open(self):
        self._file = SimIndexFile(self._file.after_kill())
        return Index(self._file.open)

    def damage(self):
        self._file = SimIndexFile(b"this is no database" * 1000)


@pytest.fixture(params=[OnDisk, Simulated])
def file(request, tmp_path):
    return request.param(tmp_path)


def test_an_index_is_new_once_and_holds_what_was_added_when_it_is_opened_again(file):
    first = file.open()
    assert first.is_new
    first.add(1, [record(1, 0), record(2, 100), record(1, 200, OTHER, Kind.READER)], 300)
    first.add(2, [record(3, 0)], 100)
    again = file.open()
    assert not again.is_new
    assert again.find(chunk(1)) == Place(1, 0, 100)
    assert again.find_for(OTHER, [chunk(1), chunk(2)]) == [Place(1, 0, 100), None]
    assert again.indexed_bytes() == {1: 300, 2: 100}
    again.close()


def test_what_was_rolled_back_is_not_there_when_it_is_opened_again(file):
    def broken():
        yield record(5, 0)
        raise LookupError

    index = file.open()
    index.add(1, [record(1, 0)], 100)
    with pytest.raises(LookupError):
        index.add(1, broken(), 200)
    index.add(1, [record(6, 100)], 200)
    again = file.open()
    assert [again.find(chunk(n)) is not None for n in (1, 5, 6)] == [True, False, True]
    again.close()


def test_a_damaged_index_is_made_anew(file):
    index = file.open()
    index.add(1, [record(1, 0)], 100)
    index.close()
    file.damage()
    again = file.open()
    assert again.is_new
    assert again.indexed_bytes() == {}
    again.close()
