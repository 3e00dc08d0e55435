"""What one folder holds on this disk, by hash: raw chunks read back from plain files, and segments sealed again.

The downloader looks here first, and devices on the LAN are served from here, so nothing is kept twice. What its user
has overwritten meanwhile, and no storage node holds yet, comes from the spool.

Rule 1: bytes leave here only if their BLAKE3 is the one that was asked for; else they are not here.
Rule 2: files are opened below the root's descriptor, through no link, and only items that the local tree knows.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from typing import Final, NamedTuple

from blake3 import blake3

from peer.core.chunk_sealing import Row
from peer.core.segments import seal_segment
from peer.core.tree import ItemId, path_of
from peer.disk.roots import Root, RootGuard, RootMissing
from peer.disk.walk import Cursor, split
from peer.engine.context import Context
from peer.engine.spool import Spool, remade
from peer.store.places import listed_rows, places
from peer.store.spool import Spooled
from peer.store.trees import LocalTree
from protocol import limits
from protocol.effects import Access, Handle
from protocol.entries import Kind
from protocol.errors import KinfolderError, LocalProtocolError
from protocol.ids import ChunkId
from protocol.lan import Wanted

READ_BYTES: Final = limits.MIB
"""As much is read at once, and at least one chunk."""


class _Spot(NamedTuple):
    path: str
    offset: int
    wanted: Wanted


class Holdings:
    """One folder's."""

    def __init__(self, context: Context, folder: int, guard: RootGuard, spool: Spool | None = None) -> None:
        self._context = context
        self._folder = folder
        self._guard = guard
        self._spool = spool

    async def chunks(self, wanted: Sequence[Wanted]) -> AsyncGenerator[list[tuple[Wanted, bytes]], None]:
        """Yield those chunks that are here, a few at a time, in the order of the files that hold them."""
        missing = dict.fromkeys(wanted)
        async with contextlib.aclosing(self._from_files(wanted)) as groups:
            async for group in groups:
                for one, _ in group:
                    missing.pop(one, None)
                yield group
        for one in missing if self._spool is not None else ():
            data = await self._spool.piece(one) if self._spool is not None else None
            if data is not None:
                yield [(one, data)]

    async def _from_files(self, wanted: Sequence[Wanted]) -> AsyncGenerator[list[tuple[Wanted, bytes]], None]:
        spots = await self._context.database.run(lambda db: self._find(db, wanted))
        part: list[_Spot] = []
        size = 0
        for spot in sorted(spots, key=lambda spot: (spot.path, spot.offset)):
            if part and size + spot.wanted.length > READ_BYTES:
                yield await self._context.processor.run(self._read, part)
                part, size = [], 0
            part.append(spot)
            size += spot.wanted.length
        if part:
            yield await self._context.processor.run(self._read, part)

    async def segments(self, ids: Sequence[ChunkId]) -> AsyncGenerator[tuple[ChunkId, bytes], None]:
        """Yield those segments, sealed, that this device can make again."""
        for id in ids:
            data = await self._segment(id)
            if data is None and self._spool is not None:
                data = await self._spool.sealed(id)
            if data is not None:
                yield id, data

    async def _segment(self, id: ChunkId) -> bytes | None:
        """Seal again what a segment lists."""
        rows = await self._context.database.run(lambda db: listed_rows(db, self._folder, id))
        keys = self._context.folder_keys(self._folder).epochs
        for epoch in sorted(keys, reverse=True) if rows is not None else ():
            try:
                sealed = await self._context.processor.run(seal_segment, rows or (), keys[epoch].chunk)
            except LocalProtocolError:
                break
            if sealed.key.id == id:
                return bytes(sealed.data)
        return None

    async def remake(self, one: Spooled) -> bytes | None:
        """Make again what is damaged in the spool, from files and lists; None if that cannot be done."""
        row = one.what
        if not isinstance(row, Row):
            return await self._segment(one.id)
        epochs = self._context.folder_keys(self._folder).epochs
        keys = [epochs[number].chunk for number in sorted(epochs, reverse=True)]
        async with contextlib.aclosing(self._from_files([Wanted(row.raw_hash, row.raw_length)])) as groups:
            async for group in groups:
                for _, raw in group:
                    return await self._context.processor.run(remade, raw, row, keys)
        return None

    def _find(self, db: sqlite3.Connection, wanted: Sequence[Wanted]) -> list[_Spot]:
        tree = LocalTree(db, self._folder)
        found = places(db, self._folder, [one.hash for one in wanted])
        paths: dict[ItemId, str | None] = {}
        spots = []
        for one in wanted:
            place = found.get(one.hash)
            if place is None:
                continue
            if place.item not in paths:
                item = tree.item(place.item)
                is_file = item is not None and item.content.kind is Kind.FILE
                paths[place.item] = path_of(tree, place.item) if is_file else None
            path = paths[place.item]
            if path is not None:
                spots.append(_Spot(path, place.offset, one))
        return spots

    def _read(self, spots: Sequence[_Spot]) -> list[tuple[Wanted, bytes]]:
        """Read and check; runs in the pool."""
        found: list[tuple[Wanted, bytes]] = []
        try:
            root = self._guard.open()
        except KinfolderError:
            return found
        if isinstance(root, RootMissing):
            return found
        with root, Cursor(root.fs, root.handle) as cursor:
            opened: tuple[str, Handle] | None = None
            try:
                for spot in spots:
                    try:
                        if opened is None or opened[0] != spot.path:
                            if opened is not None:
                                root.fs.close(opened[1])
                                opened = None
                            directory, name = split(spot.path)
                            opened = spot.path, root.fs.open_file(cursor.go(directory), name, Access.READ)
                        data = _read_at(root, opened[1], spot.offset, spot.wanted.length)
                    except OSError:
                        continue
                    if data is not None and blake3(data).digest() == spot.wanted.hash:
                        found.append((spot.wanted, data))
            finally:
                if opened is not None:
                    root.fs.close(opened[1])
        return found


def _read_at(root: Root, handle: Handle, offset: int, length: int) -> bytes | None:
    buffer = bytearray(length)
    view = memoryview(buffer)
    done = 0
    while done < length:
        count = root.fs.read(handle, view[done:], offset + done)
        if not count:
            return None
        done += count
    return bytes(buffer)
