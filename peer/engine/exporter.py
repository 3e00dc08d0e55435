"""Bring an older state of a path to a place outside of its folder; the folder stays as it is.

Rule 1: what cannot be had whole is not brought at all.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from peer.core.tree import Content, Item
from peer.disk.exports import Export
from peer.disk.roots import RootMissing
from peer.disk.stages import Staged
from peer.disk.walk import join
from peer.engine.context import Context
from peer.engine.downloader import ToFetch
from peer.engine.folder import FolderEngine
from peer.engine.layout import Layout, find_content
from peer.engine.past import Moment, Past
from peer.engine.recorder import stored_of
from peer.engine.restorer import Outcome, Progress, Restorer, groups
from peer.store.trees import LocalTree
from protocol.entries import Kind
from protocol.errors import UserError
from protocol.ids import ROOT

WALK_ITEMS: Final = 512

Placed = tuple[str, Item]
"""A path from the top, "" for the top itself, and what shall stand there."""


class Exporter:
    """Takes what stood in one folder out of it."""

    def __init__(self, context: Context, engine: FolderEngine, restorer: Restorer) -> None:
        self._context = context
        self._engine = engine
        self._restorer = restorer

    async def export(self, moment: Moment, path: str, target: str, progress: Progress) -> Outcome:
        """Have what stood at ``path`` stand at an absolute path at which nothing stands.

        Raises:
            UserError: Nothing stood there, or something stands at ``target``.
            UnavailableError: Bytes cannot be fetched; nothing was brought.
        """
        run, outcome = self._context.processor.run, Outcome()
        export: Export = await run(Export, self._context.files, target, self._context.entropy(4).hex())
        try:
            past = await self._restorer.fold(moment, path)
            try:
                layout = Layout(
                    self._context,
                    self._engine.follower,
                    self._engine.hands.recorder,
                    past,
                    self._engine.observer.is_excluded,
                )
                top = await self._context.database.run(lambda db: layout.find_old(db, path))
                items = _walk(past, top or Item(ROOT, ROOT, "", Content(Kind.DIRECTORY)))
                while some := await self._context.database.run(lambda _: list(islice(items, WALK_ITEMS))):
                    await self._bring(past, export, some, outcome, progress)
            finally:
                past.close()
            await run(export.finish)
        finally:
            await run(export.close)
        return outcome

    async def _bring(
        self, past: Past, export: Export, some: Sequence[Placed], outcome: Outcome, progress: Progress
    ) -> None:
        plain = [placed for placed in some if placed[1].content.kind is not Kind.FILE]
        await self._context.processor.run(self._place, export, plain, {})
        paths = {item.id: path for path, item in some}
        files = await self._context.database.run(lambda db: self._to_fetch(db, past, some))
        for group in groups(files):
            staged = await self._restorer.fetch(group, lambda _: None)
            placed = [(paths[file.item.id], file.item) for file in group]
            await self._context.processor.run(self._place, export, placed, staged)
        outcome.files += sum(not item.is_directory for _, item in some)
        outcome.directories += sum(item.is_directory for _, item in some)
        progress(0, 0, outcome.files, 0)

    def _place(self, export: Export, some: Sequence[Placed], staged: Mapping[bytes, Staged]) -> None:
        root = self._engine.observer.open_root()
        if isinstance(root, RootMissing):
            raise UserError(root.text)
        with root:
            for path, item in some:
                export.add(path, item, root, staged.get(item.id))

    def _to_fetch(self, db: sqlite3.Connection, past: Past, some: Sequence[Placed]) -> list[ToFetch]:
        local = LocalTree(db, self._engine.record.key)
        found = []
        for _, item in some:
            if item.content.kind is Kind.FILE:
                member = item.members[0]
                version = find_content(db, past, self._engine.follower, member)
                if version is not None:
                    old = self._engine.hands.recorder.same_here(db, item, local) or ""
                    found.append(ToFetch(item, stored_of(version.value, version.segments), old))
        return found


def _walk(past: Past, top: Item) -> Iterator[Placed]:
    """Yield an old item and all under it, directories first."""
    yield "", top
    todo = [("", top.id)] if top.is_directory else []
    while todo:
        above, id = todo.pop()
        for child in past.state.tree.children(id):
            path = join(above, child.name)
            yield path, child
            if child.is_directory:
                todo.append((path, child.id))
