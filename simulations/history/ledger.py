"""What the people of a world really did: each action with its device, its time, what it saw, and what it made and destroyed.

Rule 1: the ledger knows the disks alone; what the product thinks of them is not asked.
Rule 2: an action is what its user's disk shows after it and did not before it, whatever calls made it up.
Rule 3: who has seen what is what stood on whose disk; what nobody looked at counts as not seen.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final, NamedTuple

from blake3 import blake3

from protocol.entries import Kind
from simulations.checks.names import is_copy, is_local
from simulations.devices import CONTROL, ROOT, DeviceMachine
from simulations.inodes import Directory, File, Inode, Link

SHOWN: Final = 8
EMPTY: Final = blake3().digest()
"""The hash of no bytes, which everybody writes who empties a file: nobody's content."""


class Seen(NamedTuple):
    """What stands at one path, as far as it matters to people."""

    kind: Kind | None
    content: bytes
    """The hash of a file's bytes, the target of a link."""
    executable: bool
    inode: Inode


Tree = dict[str, Seen]
"""By path from the folder's root."""


def look(device: DeviceMachine, root: str = ROOT) -> Tree:
    """Return what a device's user sees in the folder, or where that is while it is away."""
    found: Tree = {}
    top = device.disk.at(root)
    if isinstance(top, Directory):
        _collect(top, "", found)
    return found


def _collect(directory: Directory, prefix: str, found: Tree) -> None:
    for name, inode in directory.entries.values():
        if not prefix and name == CONTROL:
            continue
        path = prefix + name
        if isinstance(inode, File):
            found[path] = Seen(Kind.FILE, inode.digest(), bool(inode.mode & stat.S_IXUSR), inode)
        elif isinstance(inode, Directory):
            found[path] = Seen(Kind.DIRECTORY, b"", False, inode)
            _collect(inode, path + "/", found)
        else:
            target = inode.target if isinstance(inode, Link) else b""
            found[path] = Seen(inode.kind, target, False, inode)


def held(tree: Tree) -> Counter[bytes]:
    """Return how often each content of a file stands in a tree."""
    return Counter(seen.content for seen in tree.values() if seen.kind is Kind.FILE and seen.content != EMPTY)


def _shared(tree: Tree) -> Counter[bytes]:
    """Return how often each content stands at a path which does not stay on its device by its name."""
    return held({path: seen for path, seen in tree.items() if not is_local(path)})


class Action(NamedTuple):
    """One thing that somebody did."""

    number: int
    time_ns: int
    epoch: int
    """How often all devices had come to rest before it; whatever is of an earlier one, everybody has seen."""
    device: int
    what: str
    before: Mapping[str, Seen]
    """All that stood there."""
    came: Mapping[str, bytes]
    """The contents of files that stand at a path at which they did not."""
    made: Counter[bytes]
    """How often more a content stands there, or stands in the place of another: who moves one file over another makes of it
    a version of that one."""
    added: Counter[bytes]
    """Of ``made``: how often more a content stands there, and no more than that."""
    gone: frozenset[bytes]
    """Contents that stand there no more."""
    touched: frozenset[str]
    """All parts of paths at which something else stands than before, or nothing any more: who puts something into a directory
    is a rival of who puts a file in its place."""
    left: Mapping[str, Seen | None] = MappingProxyType({})
    """What stands at each path at which something else stands than before, None for nothing."""
    moved: tuple[tuple[str, str], ...] = ()
    """Directories that stand elsewhere: where they stood, and where they stand."""
    is_unseen: bool = False
    """Whether the device's process had been killed and did not run: what it had placed last, it may not know."""

    def __str__(self) -> str:
        came = ", ".join(f"{path}={content.hex()[:6]}" for path, content in list(self.came.items())[:SHOWN])
        gone = ", ".join(sorted(content.hex()[:6] for content in self.gone)[:SHOWN])
        return (
            f"#{self.number} {self.time_ns / 1e9:.3f} s device-{self.device} {self.what}"
            + (f"; came: {came}" if came else "")
            + (f"; gone: {gone}" if gone else "")
        )


class Asked(NamedTuple):
    """A command that somebody gave."""

    time_ns: int
    device: int
    method: str
    path: str
    """From the folder's root; "" for none."""
    epoch: int
    """How often all devices had come to rest before it."""

    def __str__(self) -> str:
        return f"{self.method} {self.path} at {self.time_ns / 1e9:.3f} s"


class Opened(NamedTuple):
    """A file that a program read, and of which it saves later what it makes of that."""

    time_ns: int
    device: int
    path: str
    content: bytes

    def __str__(self) -> str:
        return f"device-{self.device} opens {self.path} at {self.time_ns / 1e9:.3f} s"


def _stamp(seen: Seen) -> tuple[bytes, int]:
    return seen.content, seen.inode.mtime_ns


def _is_new(action: Action, content: bytes) -> bool:
    """Tell whether a content stood nowhere on the disk of who brought it to a path."""
    return all(seen.content != content for seen in action.before.values())


def _copies(tree: Tree, content: bytes, makers: list[Action]) -> int:
    """Return how often a content stands under a conflict's name that nobody gave it: the product shows it once more."""
    paths = (path for path, seen in tree.items() if seen.content == content and is_copy(path.rpartition("/")[2]))
    return sum(not any(maker.came.get(path) == content for maker in makers) for path in paths)


class Back(NamedTuple):
    """That a device was put back."""

    time_ns: int
    stood: Tree
    """What stood there until then."""
    forgets: bool
    """Whether it knows nothing any more of what its user did since its backup."""
    hides_since_ns: int | None = None
    """When the backup was made, where its user sees nothing any more of what came since."""
    epoch: int = 0
    """How often all devices had come to rest before it was put back."""


class Forgotten(NamedTuple):
    """That a device knew a content less well than before, since it was put back."""

    number: int
    """Of the device."""
    epoch: int
    """In which it was put back."""
    is_known: bool
    """Whether it knew all the same that others have it, and where: what others do to it, it can tell."""
    since: int = 0
    """The epoch of the backup: of names that others took away and gave since then, it knows nothing."""

    def could_tell(self, action: Action) -> bool:
        """Tell whether an action cannot have to do with that."""
        if self.is_known and action.device != self.number:
            return True
        return action.epoch > self.epoch or (self.is_known and action.epoch < self.epoch)


class Restore(NamedTuple):
    """A command that brings back what was."""

    action: Action
    contents: frozenset[bytes]
    """What anybody's disk had ever shown there until then: nothing else can it bring back."""


class Decision(NamedTuple):
    """What somebody decided that no disk shows yet."""

    came: dict[str, bytes]
    """Contents that are to stand at a path."""
    gone: frozenset[bytes]
    """Contents that are to be gone."""


class Ledger:
    """All actions of a history.

    Args:
        devices: How many there are.
    """

    def __init__(self, devices: int) -> None:
        self.actions: list[Action] = []
        self.epoch = 0
        self.contents: dict[bytes, int] = {}
        """The action that first wrote each."""
        self.has_empty = False
        """Whether anybody's folder ever showed an empty file."""
        self.makers: dict[bytes, list[Action]] = {}
        """Actions that brought a content to some path."""
        self.enders: dict[bytes, list[Action]] = {}
        """Actions after which a content that stood there stood nowhere on their device."""
        self.replaced: dict[bytes, list[Action]] = {}
        """Contents that somebody who had them removed or replaced, wherever else the product showed them, too, and who did:
        until somebody who knew of all these puts such a content there again."""
        self._again: dict[bytes, int] = {}
        """Of contents that were put there again after all that: the action that did so."""
        self.ended: dict[bytes, dict[str, set[int]]] = {}
        """Paths at which somebody removed or replaced a content that stood at several, with the devices on which that was."""
        self.returned: Counter[bytes] = Counter()
        """How often a content was put where it had stood until that instant: whoever looks sees that nothing was done."""
        self.rest: list[dict[str, tuple[bytes, int]]] = [{} for _ in range(devices)]
        """By device: which files stood there when all were at rest last, with their content and time."""
        self.forgotten: dict[tuple[int, bytes], Forgotten] = {}
        """By device and content: until all are at rest again, it takes others' for another file, or at least what its own
        user makes of it."""
        self.backs: list[Back | None] = [None] * devices
        """By device: when it was last put back."""
        self.by_command: set[int] = set()
        """Actions that a command did, with whatever came and went meanwhile."""
        self.restores: list[Restore] = []
        """Commands that bring back what was, perhaps long after they were given."""
        self.names: set[str] = set()
        """All names that anybody gave."""
        self.acknowledged: dict[bytes, int] = {}
        """Contents that a device said were safe, with the time."""
        self.excused: dict[bytes, str] = {}
        """Contents that may be lost, with the reason."""
        self.sights: list[dict[tuple[str, bytes], list[int]]] = [{} for _ in range(devices)]
        """By device: when a content came to be seen at a path, each time that it had not been seen there before."""
        self._shown: list[set[tuple[str, bytes]]] = [set() for _ in range(devices)]
        """By device: what its user saw when he looked last."""
        self.directories: dict[Inode, int] = {}
        """After how many actions a directory was first seen, on whichever disk it is; asked, never gone through."""
        self.shared: set[bytes] = set()
        """Contents that somebody wrote into a file of which another name lies where a step took it from its user's sight."""
        self.ignored: list[set[str]] = [set() for _ in range(devices)]
        """By device: paths that rules leave out now; that they vanish is nobody's removal, also once the rules are gone."""
        self.put: list[dict[bytes, int]] = [{} for _ in range(devices)]
        """By device: when a process of it last let a content stand where its user sees it."""
        self.snapshots: list[str] = []
        """The names of those that people made."""
        self.asked: list[Asked] = []
        self.opened: list[Opened] = []
        self.on_look: Callable[[DeviceMachine, int], None] = lambda _, __: None
        """Told of each look that a device's user takes."""
        self.on_action: Callable[[Action], None] = lambda _: None
        """Told of each action."""
        self._tokens = 0

    def token(self) -> int:
        """Return a number for a content that is new."""
        self._tokens += 1
        return self._tokens

    @contextmanager
    def acting(self, device: DeviceMachine, number: int, what: str) -> Iterator[Tree]:
        """Note all that is done on a device's disk meanwhile as one action; yields what its user sees before it.

        Args:
            device: Where.
            number: Of the device.
            what: In words.
        """
        before = self.see(device, number)
        try:
            yield before
        finally:
            self.note(device, number, what, before)

    def see(self, device: DeviceMachine, number: int) -> Tree:
        """Let a device's user look at the folder."""
        tree = look(device)
        sights, now_ns = self.sights[number], device.loop.now_ns
        shown: set[tuple[str, bytes]] = set()
        for path, seen in tree.items():
            if seen.kind is Kind.FILE:
                shown.add((path, seen.content))
                if (path, seen.content) not in self._shown[number]:
                    sights.setdefault((path, seen.content), []).append(now_ns)
                self.has_empty = self.has_empty or seen.content == EMPTY
            elif seen.kind is Kind.DIRECTORY:
                self.directories.setdefault(seen.inode, len(self.actions))
        self._shown[number] = shown
        self.on_look(device, number)
        return tree

    def note(self, device: DeviceMachine, number: int, what: str, before: Tree, after: Tree | None = None) -> Action:
        """Note an action by what stood there before it and what stands there now, or stood after it."""
        after = look(device) if after is None else after
        came = {
            path: seen.content
            for path, seen in after.items()
            if seen.kind is Kind.FILE
            and seen.content != EMPTY
            and ((old := before.get(path)) is None or old.content != seen.content or old.kind is not Kind.FILE)
        }
        had, has = held(before), held(after)
        gone = frozenset(content for content in had if content not in has)
        added = has - had
        made = added.copy()
        for path, content in came.items():
            if path in before and before[path].kind is Kind.FILE and not made[content]:
                made[content] = 1
        left = {path: after.get(path) for path in [*before, *after] if before.get(path) != after.get(path)}
        touched = frozenset(part for path in left for part in path.split("/"))
        stood = {seen.inode: path for path, seen in before.items() if seen.kind is Kind.DIRECTORY}
        moved = tuple(
            (stood[seen.inode], path)
            for path, seen in after.items()
            if seen.inode in stood and stood[seen.inode] != path
        )
        action = Action(
            len(self.actions),
            device.loop.now_ns,
            self.epoch,
            number,
            what,
            before,
            came,
            made,
            added,
            gone,
            touched,
            left,
            moved,
            device.is_cut_off,
        )
        self.actions.append(action)
        names = Counter(seen.inode for seen in after.values())
        self.shared.update(
            content for path, content in came.items() if after[path].inode.links > names[after[path].inode]
        )
        self.has_empty = self.has_empty or any(seen.content == EMPTY for seen in after.values())
        for content in came.values():
            self.contents.setdefault(content, action.number)
        for content in dict.fromkeys(came.values()):
            self.makers.setdefault(content, []).append(action)
        self._take_back(action)
        self._note_ends(action, before, after)
        for content in gone - self._ignored(number, before):
            self.enders.setdefault(content, []).append(action)
        for path in after:
            if path not in before:
                self.names.update(path.split("/"))
        device.loop.note("action", f"{action}")
        self.on_action(action)
        return action

    def _note_ends(self, action: Action, before: Tree, after: Tree) -> None:
        """Note which contents an action removed or replaced, and which it put there again of those that were."""
        had, has = held(before), held(after)
        shared_before, shared = _shared(before), _shared(after)
        for content in shared - shared_before:
            ends = self.replaced.get(content)
            if ends is not None and all(self.had_seen(action, end, content) for end in ends):
                del self.replaced[content]
                self.ended.pop(content, None)
                del self.returned[content]
                self._again[content] = action.number
        for content, count in had.items():
            makers = self.putters(content)
            shown_twice = max(0, count - sum(maker.made[content] for maker in makers), _copies(before, content, makers))
            if has[content] < count and (
                has[content] <= shown_twice
                or self._is_ended(action.device, content, count - has[content], before, after)
            ):
                self._replace(content, action)
        # Under a name that stays on its device it is gone for all others.
        for content in shared_before.keys() - shared.keys():
            self._replace(content, action)

    def _replace(self, content: bytes, action: Action) -> None:
        ends = self.replaced.setdefault(content, [])
        if not any(end.number == action.number for end in ends):
            ends.append(action)

    def putters(self, content: bytes) -> list[Action]:
        """Return the actions that brought a content to some path since it was last put there again, or ever."""
        since = self._again.get(content, 0)
        return [maker for maker in self.makers.get(content, ()) if maker.number >= since]

    def _ignored(self, number: int, before: Tree) -> set[bytes]:
        """Return of what stood on a device what rules leave out now."""
        return {seen.content for path, seen in before.items() if path in self.ignored[number]}

    def _is_ended(self, number: int, content: bytes, count: int, before: Tree, after: Tree) -> bool:
        """Tell whether a content that stood at several paths was removed or replaced at as many, each by whomever."""
        paths = [
            path
            for path, seen in before.items()
            if seen.content == content and (path not in after or after[path].content != content)
        ]
        if len(paths) == count:  # else some of it was moved, too
            for path in paths:
                self.ended.setdefault(content, {}).setdefault(path, set()).add(number)
        places = sum(maker.added[content] for maker in self.putters(content)) - self.returned[content]
        return sum(map(bool, self.ended.get(content, {}).values())) >= max(places, 1)

    def _take_back(self, action: Action) -> None:
        """Note what an action puts where its device's user took it away at this very instant: neither was anything."""
        for earlier in reversed(self.actions[: action.number]):
            if earlier.time_ns != action.time_ns:
                break
            if earlier.device != action.device:
                continue
            for path, content in action.came.items():
                was, became = earlier.before.get(path), earlier.came.get(path)
                if was is not None and was.content == content and became not in (None, content):
                    self.ended.get(content, {}).get(path, set()).discard(action.device)
                    self.returned[content] += bool(action.added[content])

    def note_by_command(
        self,
        device: DeviceMachine,
        number: int,
        what: str,
        before: Tree,
        meant: Decision | None = None,
        *,
        since_ns: int,
        inside: str = "",
    ) -> Action:
        """Note what a command changed since a look, and what it is to change though its disk does not show it yet.

        What came from elsewhere meanwhile counts as the command's: it can only excuse what it had no part in, and what went
        from another place than the one it was about (``inside``), or by what its user did meanwhile, it did not end. What is still
        to go may be there for good: the device had not looked at it yet, and takes it for a change that came after. Where
        the device was put back meanwhile, the command did what stood there until then: a backup is nobody's decision.
        """
        back = self._back(number, since_ns)
        action = self.note(device, number, what, before, None if back is None else back.stood)
        self.by_command.add(action.number)
        inner = {seen.content for path, seen in before.items() if f"{path}/".startswith(f"{inside}/")}
        others = action.gone - inner if inside else frozenset[bytes]()
        for other in reversed(self.actions[: action.number]):
            if other.time_ns <= since_ns:
                break
            if other.device == number:
                others |= action.gone & other.gone
        for content in others:
            self.enders[content] = [ender for ender in self.enders[content] if ender.number != action.number]
        if meant is not None:
            came = {**action.came, **meant.came}
            ended = sorted(action.gone.difference(meant.came.values(), others, self._ignored(number, before)))
            made = action.made | Counter(set(meant.came.values()))  # a version of what stands there
            action = action._replace(came=came, made=made, gone=meant.gone.union(ended, others))
            self.actions[-1] = action
            for content in dict.fromkeys(came.values()):
                makers = self.makers.setdefault(content, [])
                makers[:] = [maker for maker in makers if maker.number != action.number] + [action]
            for content in meant.came.values():
                enders = self.enders.get(content, [])
                enders[:] = [ender for ender in enders if ender.number != action.number]
            for content in ended:
                enders = self.enders.setdefault(content, [])
                enders[:] = [ender for ender in enders if ender.number != action.number] + [action]
            for content in action.gone:
                self._replace(content, action)
        if back is not None and back.forgets:
            for content in action.gone:
                enders = self.enders.get(content, [])
                enders[:] = [ender for ender in enders if ender.number != action.number]
        return action

    def _back(self, number: int, since_ns: int) -> Back | None:
        """Return how a device was put back since a time, None if it was not."""
        back = self.backs[number]
        return back if back is not None and back.time_ns >= since_ns else None

    def passed(self, device: DeviceMachine, number: int, since_ns: int) -> frozenset[bytes]:
        """Return the contents that came to a device's disk since a time, whoever put them, and that stand there no more."""
        back = self._back(number, since_ns)
        here = held(look(device) if back is None else back.stood)
        put = [
            content for content, put_ns in self.put[number].items() if put_ns >= since_ns and content in self.contents
        ]
        acts = [one for one in self.actions if one.device == number and one.time_ns >= since_ns]
        return frozenset([*put, *(content for act in acts for content in act.came.values())]).difference(here)

    def wrote(self, content: bytes) -> None:
        """Note what the last action wrote into an open file, also where no name leads to that any more.

        Such a file may come back under a name of its own, or be gone with whatever the program wrote.
        """
        if content not in self.contents and content != EMPTY:
            action = self.actions[-1]
            self.contents[content] = action.number
            self.makers[content] = [action]
            self.excused[content] = f"device-{action.device} wrote into a file that another had taken the place of"

    def forget_removals(self, number: int, since_ns: int, others: Collection[bytes]) -> None:
        """Note that a device was put back: whatever it removed or replaced since, nobody may ever hear of, but at rest all had.

        Nor of what it removed just before its backup, if nobody had heard of it when it was put back: it cannot tell which of
        both is newer, what stands on its disk or what others have, and removes and replaces nothing then.

        Args:
            number: Of the device.
            since_ns: When the backup was made.
            others: Contents that stand on other devices.
        """
        for content, enders in self.enders.items():
            self.enders[content] = [
                one
                for one in enders
                if one.device != number or one.epoch < self.epoch or (one.time_ns < since_ns and content not in others)
            ]

    def known(self, number: int, here: Tree) -> Tree:
        """Return the files on a device that nobody has touched there since all were at rest: it knows that others have them."""
        rest = self.rest[number]
        return {path: seen for path, seen in here.items() if rest.get(path) == _stamp(seen)}

    def forget(self, device: DeviceMachine, number: int, known: Tree, since: int = 0) -> None:
        """Note that a device was put back to when it knew this of what stands on its disk, and nothing for sure of the rest.

        Args:
            device: Where.
            number: Of the device.
            known: What it knew.
            since: The epoch of the backup.
        """
        for path, seen in self.see(device, number).items():
            if seen.kind is Kind.FILE and seen.content != EMPTY:
                is_known = path in known and known[path].content == seen.content
                before = self.forgotten.get((number, seen.content))
                if before is not None and before.epoch == self.epoch:
                    is_known = is_known and before.is_known
                self.forgotten[number, seen.content] = Forgotten(number, self.epoch, is_known, since)

    def when_forgotten(self, content: bytes) -> list[Forgotten]:
        """Return when devices forgot that they had a content from others, or they from them."""
        found = (self.forgotten.get((number, content)) for number in range(len(self.sights)))
        return [one for one in found if one is not None]

    def forgot_between(self, earlier: Action, later: Action) -> bool:
        """Tell whether a device was put back between two of its user's actions, and knew nothing of the earlier one any more."""
        back = self.backs[earlier.device]
        return back is not None and back.forgets and earlier.time_ns <= back.time_ns <= later.time_ns

    def stood_at_a_backup(self, action: Action, path: str) -> bool:
        """Tell whether a directory or a link stood at a path before an action, on a device that forgets what its user does to it.

        Its directories and links are as those that it knew at the backup, or were not; of the latter nobody can say more.
        """
        back, seen = self.backs[action.device], action.before.get(path)
        return (
            back is not None
            and back.forgets
            and back.epoch == action.epoch
            and back.time_ns <= action.time_ns
            and seen is not None
            and seen.kind in (Kind.DIRECTORY, Kind.LINK)
            and path in back.stood
        )

    def is_hidden(self, earlier: Action, later: Action) -> bool:
        """Tell whether a device was put back to before what another did, and had not seen that again when its user did something."""
        back = self.backs[later.device]
        return (
            back is not None
            and back.hides_since_ns is not None
            and back.epoch == later.epoch
            and back.time_ns <= later.time_ns
            and back.hides_since_ns <= earlier.time_ns <= back.time_ns
            and not held(dict(later.before)).keys() & set(earlier.came.values())
        )

    def could_tell(self, ender: Action, content: bytes) -> bool:
        """Tell whether all who had what somebody removed or replaced knew that it is what others have.

        Who forgot it cannot say that he replaces it, and brings back what another removed while it stood there, or before
        a backup put it there again. Of what he had at rest before the backup he knows what others do to it; yet what his own
        user does to it stands beside that until all are at rest again.
        """
        return all(one.could_tell(ender) for one in self.when_forgotten(content))

    def restore(self, action: Action, inside: str) -> None:
        """Note that a command brings back what was at a path and below it; "" for the whole folder."""
        shown = [(path, content) for sights in self.sights for path, content in sights]
        shown += [(path, content) for each in self.actions for path, content in each.came.items()]
        found = frozenset(content for path, content in shown if not inside or f"{path}/".startswith(f"{inside}/"))
        self.restores.append(Restore(action, found))

    def restores_of(self, content: bytes) -> list[Action]:
        """Return the commands that may have brought a content back."""
        return [restore.action for restore in self.restores if content in restore.contents]

    def is_alone(self, number: int, content: bytes) -> bool:
        """Tell whether a content that somebody put on a device may have been nowhere else since then.

        It was elsewhere where all were at rest, where the device said that it is safe, and where another showed it.
        """
        putters = self.putters(content)
        since_ns = putters[0].time_ns if putters else 0
        others = [sights for other, sights in enumerate(self.sights) if other != number]
        return (
            content not in self.acknowledged
            and all(putter.epoch == self.epoch for putter in putters)
            and not any(
                seen == content and came_ns[0] >= since_ns for sights in others for (_, seen), came_ns in sights.items()
            )
            and not any(put.get(content, -1) >= since_ns for other, put in enumerate(self.put) if other != number)
        )

    def acknowledge(self, tree: Tree, now_ns: int) -> None:
        """Note that a device said that all of this is safe."""
        for content in held(tree):
            self.acknowledged.setdefault(content, now_ns)

    def ask(self, device: DeviceMachine, number: int, method: str, path: str = "") -> None:
        """Note that somebody gives a command."""
        self.asked.append(Asked(device.loop.now_ns, number, method, path, self.epoch))

    def open(self, device: DeviceMachine, number: int, path: str, content: bytes) -> None:
        """Note that a program reads a file, to save it later."""
        self.opened.append(Opened(device.loop.now_ns, number, path, content))

    def asked_meanwhile(self, action: Action, methods: Collection[str]) -> Iterator[str]:
        """Yield the paths of commands that others gave since all were at rest last before an action; "" for the whole folder.

        A command may be carried out where nobody heard of that any more. What is restored of the whole folder is told by what
        came of it.
        """
        for asked in self.asked:
            is_told = asked.method == "restore" and not asked.path
            if (
                asked.device != action.device
                and asked.epoch == action.epoch
                and asked.method in methods
                and not is_told
            ):
                yield asked.path

    def rested(self, devices: list[DeviceMachine]) -> None:
        """Note that all devices came to rest: everybody has seen everything."""
        self.epoch += 1
        for number, device in enumerate(devices):
            tree = self.see(device, number)
            self.rest[number] = {path: _stamp(seen) for path, seen in tree.items() if seen.kind is Kind.FILE}

    def had_directory(self, mover: Action, path: str, earlier: Action) -> bool:
        """Tell whether a directory that somebody moved stood on his disk before an earlier action."""
        seen = mover.before.get(path)
        return seen is not None and self.directories[seen.inode] <= earlier.number

    def had_seen(self, later: Action, earlier: Action, content: bytes) -> bool:
        """Tell whether who did the later action surely had seen what the earlier one did to a content."""
        if earlier.device == later.device:
            return earlier.number < later.number
        if earlier.epoch < later.epoch:
            return True
        if earlier.number > later.number:
            return False  # what stood at the same path before was another's
        sights = self.sights[later.device]
        makers = self.makers.get(content, ())
        own = {path for maker in makers if maker.device == later.device for path in maker.came}
        # Others who wrote the same, or moved it there as well, may not have known of it, nor who saw theirs.
        alike = (
            maker
            for maker in makers
            if maker.device != earlier.device and _is_new(maker, content) == _is_new(earlier, content)
        )
        own |= {path for maker in alike for path, came in maker.came.items() if came == content}
        places = [path for path, came in earlier.came.items() if came == content and path not in own]
        # What stood there before, and came back, is no sight of what the earlier one did.
        return any(
            earlier.time_ns <= time_ns <= later.time_ns
            for path in places
            for time_ns in sights.get((path, content), ())
        )
