"""Carry out the steps of a plan on one folder: look, act, verify; durable in groups.

Rule 1: a step looks at what it changes first, and at what it displaced afterwards (:mod:`peer.disk.swaps`).
Rule 2: a user's name never shows a file that is not complete and durable, and no name is ever written over.
Rule 3: what is done is reported only once a power cut cannot undo it.
Rule 4: one bad step spoils no other.
Rule 5: what a program has open for writing keeps its name until it is closed: what is written later would go to a file that
    nobody finds (situation 96). Who opens it in between writes to the trash, which waits for him.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Concatenate, Final, NamedTuple, ParamSpec, TypeVar

import msgspec

from peer.core.observations import Fingerprint
from peer.core.operations import Delete, Place, Rename, Replace, SetAttributes, Step
from peer.core.tree import Item, ItemId
from peer.disk.attributes import set_attributes
from peer.disk.groups import flush_names, flush_stages, groups
from peer.disk.intents import Intentions
from peer.disk.journal import Intent, Journal, Swap, SwapKind
from peer.disk.naming import Spelling, is_listed, refusal
from peer.disk.outcomes import Done, Failed, Mismatch, Outcome, StopStep
from peer.disk.places import Local, Places
from peer.disk.recovery import aside_path, record, settle
from peer.disk.roots import Root
from peer.disk.stages import Staged, mode_for
from peer.disk.swaps import Swaps, has_writer, is_expected, is_ours, look
from peer.disk.walk import (
    CONTROL,
    DiskError,
    fingerprint,
    is_gone,
    join,
    kind_of,
    opened,
    reason_of,
    same_but_ctime,
    same_node,
    split,
    text_of,
)
from protocol import limits
from protocol.effects import Access, Clock, Entropy, Handle, Stat
from protocol.entries import Kind, is_reserved
from protocol.ids import ROOT

P = ParamSpec("P")
T = TypeVar("T")

_FOUND: Final = {
    errno.ENOENT: "missing",
    errno.EEXIST: "taken",
    errno.ENOTDIR: "parent",
    errno.ELOOP: "parent",
    errno.EISDIR: "changed",
    errno.ENOTEMPTY: "not_empty",
}


class _Ready(msgspec.Struct):
    """What was made ready for a step before its group is flushed."""

    stage: str = ""
    """Name in ``.kinfolder/tmp`` of the new thing."""
    new: Stat | None = None
    swap: Swap | None = None


class _Aside(NamedTuple):
    """An item between two renames."""

    swap: Swap
    is_known: bool
    """Whether it looked as the local tree says before it was moved."""
    item: Item
    """As it is to stand in the end."""


class Applier:
    """Changes one root. Make a new one for each run of steps; it keeps nothing but the open root."""

    def __init__(
        self,
        root: Root,
        journal: Journal,
        clock: Clock,
        entropy: Entropy,
        *,
        local: Local,
        staged: Mapping[ItemId, Staged],
        outside_links: bool = False,
    ) -> None:
        """Work on an open root.

        Args:
            root: Its marker was checked just now; the caller closes it.
            journal: Where swaps are written down before they are made.
            clock: Dates swaps, so that the trash knows their age.
            entropy: Names swaps.
            local: The local tree as the last scan left it; outcomes need not be recorded in it before the end.
            staged: The finished stages of all files to be placed, by item.
            outside_links: Whether links that lead out of the folder are made; not by default (security test S47).
        """
        self._root = root
        self._fs = root.fs
        self._journal = journal
        self._clock = clock
        self._entropy = entropy
        self._local = local
        self._staged = staged
        self._outside_links = outside_links
        self._places = Places(local)
        self._swaps = Swaps(root)
        self._spelling = Spelling(root, entropy)
        self._asides: dict[ItemId, _Aside] = {}
        self._touched: set[str] = set()
        self._checked: list[Swap] = []
        self._over: list[bytes] = []

    def apply(self, steps: Iterable[Step]) -> Generator[tuple[Outcome, ...], None, None]:
        """Carry out steps in order, and yield their outcomes in order, group by group.

        Each group is durable when it is yielded. A step whose forerunner failed finds a mismatch and does nothing. Done
        for a Rename with ``aside`` says only that its counterpart may follow; what is still aside at the end, or when the
        generator is closed, goes back.

        Raises:
            DiskError: ``.kinfolder`` cannot be used; what was done of this group, the next scan will show.
        """
        try:
            for group in groups(steps):
                yield tuple(self._run(group))
        finally:
            self._bring_back()

    # ------------------------------------------------------------------------------------------------- a group

    def _run(self, group: list[Step]) -> list[Outcome]:
        self._touched.clear()
        self._checked.clear()
        self._over.clear()
        readied = [self._guarded(self._make_ready, step) for step in group]
        ready = [one for one in readied if isinstance(one, _Ready)]
        try:
            flush_stages(self._root, [(one.stage, one.new.size) for one in ready if one.new is not None])
        except OSError as error:
            return [Failed(step, reason_of(error, writing=True), text_of(error)) for step in group]
        swaps = [one.swap for one in ready if one.swap is not None]
        intents = self._intents(group, readied)
        if swaps or intents:
            self._journal.begin(swaps, intents)
        outcomes = [
            self._guarded(self._carry_out, step, one) if isinstance(one, _Ready) else one
            for step, one in zip(group, readied, strict=True)
        ]
        try:
            flush_names(self._root, self._touched, swapped=bool(swaps))
        except OSError as error:
            return [
                Failed(one.step, reason_of(error, writing=True), text_of(error)) if isinstance(one, Done) else one
                for one in outcomes
            ]
        if self._checked:
            self._journal.put(self._checked)
        waiting = {swap.id for swap in self._checked} | {aside.swap.id for aside in self._asides.values()}
        for swap in swaps:
            if swap.id not in waiting and swap.id not in self._over:
                self._settle(swap)
        if self._over:
            self._journal.done(self._over)
        return outcomes

    def _intents(self, group: list[Step], readied: list[_Ready | Mismatch | Failed]) -> list[Intent]:
        intentions = Intentions(self._places, self._as_user_knows)
        for step, one in zip(group, readied, strict=True):
            if isinstance(one, _Ready):
                mark = self._known(step.expected) if isinstance(step, Rename) else None
                aside = aside_path(one.swap) if isinstance(step, Rename) and one.swap is not None else ""
                intentions.add(step, mark if one.new is None else fingerprint(one.new), aside)
        return intentions.intents

    def _guarded(
        self, function: Callable[Concatenate[Step, P], T], step: Step, *args: P.args, **kwargs: P.kwargs
    ) -> T | Mismatch | Failed:
        try:
            return function(step, *args, **kwargs)
        except StopStep as stop:
            return Mismatch(step, stop.found, stop.kept)
        except DiskError as error:
            return Failed(step, error.code, str(error))
        except OSError as error:
            found = _FOUND.get(error.errno or 0)
            if found is not None:
                return Mismatch(step, found)
            return Failed(step, reason_of(error, writing=True), text_of(error))

    def _settle(self, swap: Swap) -> None:
        try:
            settled = settle(self._swaps, swap)
        except OSError:
            return  # its row stays, and the next start tries again
        if settled.row is None and not settled.back and not settled.kept:
            self._over.append(swap.id)
        else:
            record(self._root, self._journal, swap, settled)

    def _bring_back(self) -> None:
        for id, aside in list(self._asides.items()):
            try:
                settled = settle(self._swaps, aside.swap, self._onward(aside.item))
                record(self._root, self._journal, aside.swap, settled)
            except (OSError, DiskError):
                continue  # as above
            self._places.back(id)
            del self._asides[id]

    def _onward(self, item: Item) -> str:
        try:
            return join(self._new_path(item), item.name)
        except (StopStep, DiskError):
            return ""

    @contextmanager
    def _directory(self, path: str) -> Iterator[Handle]:
        with ExitStack() as stack:
            try:
                handle = stack.enter_context(opened(self._fs, self._root.handle, path))
            except OSError as error:
                if is_gone(error):
                    raise StopStep("parent") from None
                raise
            yield handle

    # ------------------------------------------------------------------------------------------- making ready

    def _make_ready(self, step: Step) -> _Ready:
        match step:
            case Place(item):
                self._check_place(item)
                if item.content.kind is Kind.FILE:
                    stage, new = self._stage_of(item)
                    return _Ready(stage, new)
            case Replace(expected, item) if not (expected.is_directory and item.is_directory):
                self._check_place(item)
                stage, new = self._make_new(expected, item)
                return _Ready(stage, new, self._swap(SwapKind.REPLACE, expected, new))
            case Delete(expected) if not expected.is_directory:
                return _Ready(swap=self._swap(SwapKind.DELETE, expected))
            case Rename(expected, item, aside, _):
                if not aside:
                    self._check_place(item)
                    return _Ready()
                return _Ready(swap=self._swap(SwapKind.ASIDE, expected))
            case _:
                pass
        return _Ready()

    def _swap(self, kind: SwapKind, expected: Item, new: Stat | None = None) -> Swap:
        mark = None if new is None else fingerprint(new)
        path = self._as_user_knows(self._places.path(expected))
        return Swap(self._entropy(16), kind, path, expected.content, self._clock.now_ms(), mark)

    def _as_user_knows(self, path: str) -> str:
        """Return the path under which a user knows what stands at a path, also while a directory above it is aside."""
        for aside in self._asides.values():
            hidden = aside_path(aside.swap) + "/"
            if path.startswith(hidden):
                return join(aside.swap.path, path[len(hidden) :])
        return path

    def _check_place(self, item: Item) -> None:
        try:
            raw = os.fsencode(item.name)
        except UnicodeEncodeError:
            raw = b""
        if not raw or raw in {b".", b".."} or b"/" in raw or b"\0" in raw or len(raw) > limits.NAME_BYTES_MAX:
            raise DiskError("name", "no file can have this name here")
        if item.parent == ROOT and is_reserved(raw):
            raise DiskError("name", f"{CONTROL} belongs to Kinfolder itself")
        self._spelling.check(item.name)

    def _stage_of(self, item: Item) -> tuple[str, Stat]:
        staged = self._staged.get(item.id)
        if staged is None or staged.hash != item.content.hash:
            raise DiskError("error", "its bytes are not here yet")
        try:
            found = self._fs.lstat(self._root.hidden("tmp"), staged.name)
        except FileNotFoundError:
            raise DiskError("error", "its bytes are not here any more") from None
        if not is_ours(found, staged.fingerprint):
            raise DiskError("error", "its bytes were changed before they had a name")
        return staged.name, found

    def _make_new(self, expected: Item, item: Item) -> tuple[str, Stat]:
        """Make ready what takes an item's place, with the permissions of the file that it replaces."""
        fs, tmp = self._fs, self._root.hidden("tmp")
        name = self._entropy(16).hex()
        if item.content.kind is Kind.DIRECTORY:
            fs.make_directory(tmp, name, 0o777)
            return name, fs.lstat(tmp, name)
        if item.content.kind is Kind.LINK:
            self._check_link(split(self._places.path(expected))[0], item)
            fs.make_link(tmp, name, item.content.target)
            return name, fs.lstat(tmp, name)
        name, new = self._stage_of(item)
        directory, old_name = self._places.where(expected)
        with self._directory(directory) as parent:
            old = fs.lstat(parent, old_name)
        if kind_of(old.mode) is not Kind.FILE:
            return name, new
        mode = mode_for(old.mode & 0o777, executable=item.content.executable)
        if mode == new.mode & 0o7777:
            return name, new
        handle = fs.open_file(tmp, name, Access.WRITE)
        try:
            fs.set_attributes(handle, mode=mode)
            return name, fs.fstat(handle)
        finally:
            fs.close(handle)

    def _check_link(self, directory: str, item: Item) -> None:
        if not self._outside_links and _leads_out(directory, item.content.target):
            raise DiskError("name", "a link that leads out of the folder is not made here")

    # ------------------------------------------------------------------------------------------- carrying out

    def _carry_out(self, step: Step, ready: _Ready) -> Outcome:
        match step:
            case Place(item):
                return Done(step, self._place(item, ready))
            case Replace(expected, item):
                return Done(step, self._replace(expected, item, ready))
            case SetAttributes(expected, item):
                directory, name = self._places.where(expected)
                known = self._known(expected)
                with self._directory(directory) as parent:
                    found = set_attributes(self._fs, parent, name, expected.content, item.content, known)
                self._touched.add(directory)
                return Done(step, found)
            case Rename(expected, item, aside, _):
                if not aside:
                    return Done(step, self._rename(expected, item))
                self._put_aside(expected, item, ready)
                return Done(step)
            case Delete(expected):
                self._delete(expected, ready)
                return Done(step)
            case _:
                return Done(step)

    def _place(self, item: Item, ready: _Ready) -> Fingerprint | None:
        fs = self._fs
        directory = self._new_path(item)
        with self._directory(directory) as parent:
            self._check_unclaimed(parent, item)
            try:
                if item.content.kind is Kind.FILE:
                    fs.rename(self._root.hidden("tmp"), ready.stage, parent, item.name)
                elif item.content.kind is Kind.DIRECTORY:
                    fs.make_directory(parent, item.name, 0o777)
                else:
                    self._check_link(directory, item)
                    fs.make_link(parent, item.name, item.content.target)
            except OSError as error:
                raise refusal(fs, parent, item.name, error, self._spelling) from None
            self._touched.add(directory)
            self._places.move(item)
            return self._now(parent, item.name, ready.new)

    def _check_unclaimed(self, parent: Handle, item: Item) -> None:
        if self._places.is_claimed(item):
            raise StopStep("unseen" if look(self._fs, parent, item.name) is None else "taken")

    def _new_path(self, item: Item) -> str:
        directory = self._places.directory(item.parent)
        if len(os.fsencode(join(directory, item.name))) > limits.PATH_BYTES_MAX:
            raise DiskError("name", "its path is too long")
        return directory

    def _now(self, parent: Handle, name: str, as_made: Stat | None) -> Fingerprint | None:
        """Return how a thing looks under its name, unless a user has touched it since it was made."""
        try:
            found = self._fs.lstat(parent, name)
        except OSError:
            return None
        return fingerprint(found) if as_made is None or same_but_ctime(found, as_made) else None

    def _known(self, expected: Item) -> Fingerprint | None:
        """Return how the expected content looked when it was hashed.

        A row that was written since the step was planned describes what a user saved meanwhile, not what the step expects:
        its fingerprint proves nothing then, and the bytes themselves are looked at.
        """
        row = self._local.item(expected.id)
        if row is None or not row.content.same(expected.content):
            return None
        return self._local.fingerprint(expected.id)

    def _look(self, parent: Handle, name: str, expected: Item) -> Stat:
        found = self._fs.lstat(parent, name)
        known = self._known(expected)
        if not is_expected(self._fs, parent, name, found, expected.content, known):
            raise StopStep("changed")
        if expected.content.kind is Kind.FILE and has_writer(self._fs, parent, name):
            raise DiskError("locked", "a program has it open for writing")
        return found

    def _replace(self, expected: Item, item: Item, ready: _Ready) -> Fingerprint | None:
        directory, name = self._places.where(expected)
        with self._directory(directory) as parent:
            found = self._look(parent, name, expected)
            if ready.swap is None or ready.new is None:
                return fingerprint(found)  # a directory stays what it is
            if expected.is_directory:
                if not self._swaps.is_empty(parent, name):
                    raise StopStep("not_empty")
                self._check_left(parent, name, expected)
            self._touched.add(directory)
            checked = self._swaps.replace(ready.swap, parent, name, ready.stage, found, ready.new)
            self._checked.append(msgspec.structs.replace(ready.swap, checked=checked))
            at = look(self._fs, parent, name)
            if at is None or not same_node(at, ready.new):
                # Whoever saved or removed within these few calls had the old one before him, and has not seen the new one.
                raise StopStep("missing" if at is None else "changed")
            if item.id != expected.id:
                self._places.move(item, expected.id)
            return self._now(parent, name, ready.new)

    def _check_left(self, parent: Handle, name: str, expected: Item) -> None:
        if self._places.is_occupied(expected) and self._swaps.is_empty(parent, name):
            raise StopStep("unseen")

    def _delete(self, expected: Item, ready: _Ready) -> None:
        directory, name = self._places.where(expected)
        with self._directory(directory) as parent:
            found = self._look(parent, name, expected)
            self._touched.add(directory)
            if ready.swap is None:
                self._check_left(parent, name, expected)
                self._remove_directory(parent, name, expected)
            else:
                checked = self._swaps.delete(ready.swap, parent, name, found)
                self._checked.append(msgspec.structs.replace(ready.swap, checked=checked))
        self._places.drop(expected.id)

    def _remove_directory(self, parent: Handle, name: str, expected: Item) -> None:
        try:
            self._fs.remove_directory(parent, name)
        except OSError as error:
            if error.errno == errno.ENOTEMPTY and self._places.is_occupied(expected):
                raise StopStep("occupied") from None
            raise

    def _rename(self, expected: Item, item: Item) -> Fingerprint | None:
        directory, name = self._places.where(expected)
        new_directory = self._new_path(item)
        known = self._known(expected)
        with self._directory(directory) as parent, self._directory(new_directory) as new_parent:
            before = self._identify(parent, name, expected, known)
            self._check_unclaimed(new_parent, item)
            try:
                self._fs.rename(parent, name, new_parent, item.name)
            except OSError as error:
                if self._is_respelled(parent, new_parent, item.name, before):
                    return self._respell(expected, item)
                raise refusal(self._fs, new_parent, item.name, error, self._spelling) from None
            self._touched |= {directory, new_directory}
            after = self._fs.lstat(new_parent, item.name)
            if not same_node(before, after):
                self._fs.rename(new_parent, item.name, parent, name)
                raise StopStep("changed")
        self._places.move(item, expected.id)
        is_known = known == fingerprint(before)
        aside = self._asides.pop(expected.id, None)
        if aside is not None:
            self._over.append(aside.swap.id)
            is_known = aside.is_known
        return fingerprint(after) if is_known and known is not None and same_but_ctime(known, after) else None

    def _is_respelled(self, parent: Handle, new_parent: Handle, name: str, before: Stat) -> bool:
        """Tell whether a new name leads to the very file that is to be renamed, where only its spelling differs."""
        try:
            found = self._fs.lstat(new_parent, name)
        except OSError:
            return False
        is_here = self._fs.fstat(parent)[:2] == self._fs.fstat(new_parent)[:2]
        is_it = is_here and same_node(found, before)
        return is_it and (not is_listed(self._fs, new_parent, name) or self._spelling.respells)

    def _respell(self, expected: Item, item: Item) -> Fingerprint | None:
        """Give a file another spelling of its name, by way of a hidden one; a crash in between brings it back."""
        ready = _Ready(swap=self._swap(SwapKind.ASIDE, expected))
        assert ready.swap is not None
        self._journal.put([ready.swap])
        self._put_aside(expected, item, ready)
        return self._rename(expected, item)

    def _put_aside(self, expected: Item, item: Item, ready: _Ready) -> None:
        directory, name = self._places.where(expected)
        known = self._known(expected)
        assert ready.swap is not None
        with self._directory(directory) as parent:
            before = self._identify(parent, name, expected, known)
            aside = self._root.hidden("aside")
            self._fs.rename(parent, name, aside, ready.swap.name)
            self._touched.add(directory)
            if not same_node(before, self._fs.lstat(aside, ready.swap.name)):
                raise StopStep("changed")  # settled with its group: it goes back
        self._asides[expected.id] = _Aside(ready.swap, known == fingerprint(before), item)
        self._places.put_aside(expected.id, aside_path(ready.swap))

    def _identify(self, parent: Handle, name: str, expected: Item, known: Fingerprint | None) -> Stat:
        """Look whether a name still leads to the node that is to be moved; an edit of it does not matter."""
        found = self._fs.lstat(parent, name)
        if kind_of(found.mode) is not expected.content.kind:
            raise StopStep("changed")
        if known is None or same_node(found, known):
            return found
        if not expected.is_directory and is_expected(self._fs, parent, name, found, expected.content, None):
            return found
        raise StopStep("changed")


def _leads_out(directory: str, target: bytes) -> bool:
    """Tell whether a link's target is absolute or climbs above the root, by its text alone."""
    if target.startswith(b"/"):
        return True
    depth = len(directory.split("/")) if directory else 0
    for part in target.split(b"/"):
        if part == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in {b"", b"."}:
            depth += 1
    return False
