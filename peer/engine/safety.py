"""What a person may say about a folder's mass changes, and ask before anything changes.

Rule 1: what is decided is durable before anything on the disk follows it, so a restart goes on with it.
Rule 2: the disk is changed under the lock that the folder's loop changes it under.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import msgspec

from peer.core.operations import Place, Replace
from peer.core.tree import ItemId
from peer.disk.stages import Staged
from peer.engine.context import Context
from peer.engine.downloader import Downloader
from peer.engine.grouping import groups
from peer.engine.observer import Observer
from peer.engine.previewer import Preview, Previewer
from peer.engine.reverter import Reverter
from peer.engine.stepper import Stepper


class TakenBack(msgspec.Struct, frozen=True):
    """What became of a change that waited and was dropped."""

    removed: int
    """Files that come back."""
    rewritten: int
    """Files whose old bytes come back."""
    place: str
    """Where the rewritten ones lie now, from the root; empty if there were none."""


class Reverted(msgspec.Struct):
    """What became of reverting a change."""

    time_ms: int
    """When the change was made."""
    files: int = 0
    """Files that are as they were."""
    failed: int = 0
    """Files that could not be fetched or put in place; another try brings them."""
    is_full: bool = False
    """Whether some of those found no room on this disk."""


class Safety:
    """One folder's safety nets, as commands use them."""

    def __init__(
        self,
        context: Context,
        observer: Observer,
        stepper: Stepper,
        downloader: Downloader,
        reverter: Reverter,
        previewer: Previewer,
    ) -> None:
        self._context = context
        self._observer = observer
        self._brake = observer.brake
        self._stepper = stepper
        self._downloader = downloader
        self._reverter = reverter
        self._previewer = previewer
        self.disk = asyncio.Lock()
        """Held by whoever looks at the disk and records it, or changes it and records that."""
        self.changed: Callable[[], None] = lambda: None
        """Tells the folder's loop that there is something to plan."""

    async def preview(self) -> Preview:
        """Return what planning would find on the trees as they are."""
        return await self._previewer.preview()

    async def approve(self) -> int:
        """Let the change that waits pass; return how many files it is about."""
        files = await self._context.database.run(self._brake.approve)
        self.changed()
        return files

    async def take_back(self) -> TakenBack:
        """Drop the change that waits: what it removed comes back, what it rewrote lies aside.

        Raises:
            UnavailableError: The root is away; it is done as soon as it is there.
        """
        removed, rewritten = await self._context.database.run(self._brake.take_back)
        self.changed()
        async with self.disk:
            place = await self._stepper.put_aside(self._brake)
        return TakenBack(removed, rewritten, place)

    async def revert(self) -> Reverted | None:
        """Revert the newest mass change that the log holds; None if there is none to revert.

        Raises:
            UnavailableError: The root, the coordinator or storage is away.
        """
        found = await self._context.database.run(self._reverter.newest)
        if found is None or found.directories or any(isinstance(step, Place) for step in found.files):
            await self._context.database.run(self._reverter.offer_no_more)
        if found is None:
            return None
        reverted = Reverted(found.time_ms)
        await self._apply_as_user(found.directories, {}, reverted)
        plain = [step for step in found.files if step.item.id not in found.sources]
        await self._apply_as_user(plain, {}, reverted)
        pairs = [(step, found.sources[step.item.id]) for step in found.files if step.item.id in found.sources]
        for group in groups(pairs, lambda pair: pair[1].item.content.size):
            staged, problems = await self._downloader.fetch([file for _, file in group], lambda _: None)
            reverted.failed += len(problems)
            reverted.is_full |= "disk_full" in problems.values()
            ready = [step for step, _ in group if step.item.id in staged]
            await self._apply_as_user(ready, staged, reverted)
        return reverted

    async def look_at_offer(self) -> None:
        """Offer to undo a removal no longer once what it took came back, by whomever."""
        if self._reverter.is_offered:
            await self._context.database.run(self._reverter.look_at_offer)

    async def _apply_as_user(
        self, steps: Sequence[Place | Replace], staged: Mapping[ItemId, Staged], reverted: Reverted
    ) -> None:
        async with self.disk:
            try:
                applied = await self._stepper.apply(steps, staged, as_user=True)
            finally:
                self._observer.expect_trash()
        files = [step.item for step in steps if not step.item.is_directory]
        reverted.files += sum(item.id in applied.done for item in files)
        reverted.failed += sum(item.id not in applied.done for item in files)
        reverted.is_full |= "disk_full" in applied.blocked.values()
        self.changed()
