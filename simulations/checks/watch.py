"""Checks after each step: hung onto the devices' disks and the network, they see what is about to happen and what just did.

Rule 1: what they find ends the run at once, whatever the product would make of an error.
Rule 2: each costs little: most calls are not about what a person sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from protocol.entries import Kind
from simulations.checks.causality import Contents, Known
from simulations.checks.journal import Journals, is_forked
from simulations.checks.load import find_channels, find_handles
from simulations.checks.violation import (
    ATOMIC_VISIBILITY,
    CONFIDENTIALITY,
    DESTRUCTION,
    LOCAL_SAFETY,
    ROLLBACK_SAFETY,
    Invariant,
    Violation,
)
from simulations.devices import AWAY, CONTROL, ROOT, DeviceMachine
from simulations.disk_hooks import Call, joined
from simulations.history.contents import CANARY, about
from simulations.history.ledger import Ledger, look
from simulations.inodes import File, Inode
from simulations.situations.observer import HEARD
from simulations.trace import Trace
from simulations.world import World

_HIDDEN: Final = f"{ROOT}/{CONTROL}"
_BEGUN: Final = f"{_HIDDEN}/tmp/"  # noqa: S108 - of a simulated disk
"""Where files lie that a process has begun to write."""
_NEEDS_NO_ROOT: Final = frozenset({"sync", "sync_all"})
DEVICE: Final = "device-"
_HEAD: Final = "SELECT coalesce(max(position), 0) FROM log"
_TAKES: Final = frozenset({"unlink", "rename", "exchange", "truncate", "remove_directory"})
_CREATES: Final = "open_file"
"""A new file; what opens one that is there changes nothing."""
_CAPITAL: Final = CANARY.upper()


class Watch:
    """All checks of one history that look at each step.

    Args:
        world: Its devices' disks are watched from now on.
        ledger: What people wrote.
    """

    def __init__(self, world: World, ledger: Ledger) -> None:
        self.world = world
        self.ledger = ledger
        self.journals = Journals()
        self.contents = Contents()
        self.known = Known()
        self._seen: set[Inode] = set()
        """Files that stood under a user's name when a process did something to them; asked, never gone through."""
        self.guard_rollback = False
        """Whether no device may take anything from a user's sight that knows more of the log than the coordinator has."""
        for device in world.devices:
            hooks = device.disk.hooks
            hooks.before = joined(hooks.before, self._before(device))
            hooks.after = joined(hooks.after, self._after(device))

    def _before(self, device: DeviceMachine) -> Callable[[Call], None]:
        def check(call: Call) -> None:
            self._check_place(device, call)
            self._seen.update(one for one in (call.inode, call.other) if isinstance(one, File) and _is_shown(one))
            destroyed = call.destroyed()
            if destroyed is not None:
                self._check_destroyed(device, call)
            if self.guard_rollback:
                self._check_rollback(device, call)

        return check

    def _after(self, device: DeviceMachine) -> Callable[[Call], None]:
        def check(call: Call) -> None:
            self._check_shown(device, call)
            if (excess := find_handles(device)) is not None:
                self.world.loop.fail(excess)

        return check

    def is_forked(self) -> bool:
        """Tell whether the log has forked, and nobody could see it coming."""
        return self.journals.may_fork and is_forked(self.world)

    def fail(self, invariant: Invariant, text: str) -> None:
        """End the run: something does not hold."""
        self.world.loop.fail(Violation(invariant, text, *self.ledger.actions[-1:]))

    def _check_place(self, device: DeviceMachine, call: Call) -> None:
        """Invariant 27: a process changes nothing on the disk of the user's files but below the folder's root.

        What it changes is told by the directories that really hold it, so a link that leads out would show.
        """
        if call.call in _NEEDS_NO_ROOT or call.inode.disk is not device.disk:
            return
        for path in (call.path(), call.to_path()):
            if path and not any(path == root or path.startswith(root + "/") for root in (ROOT, AWAY)):
                self.fail(LOCAL_SAFETY, f"{device.name} changes {path} ({call.call}), which is outside the folder")

    def _check_destroyed(self, device: DeviceMachine, call: Call) -> None:
        """Invariant 6: bytes are destroyed only where this device knows them from the log, or who wrote them had them replaced.

        What is in the log lies on storage nodes (invariant 17). Else they must stand here once more, and are not destroyed there
        either before they are in the log. What another device shows does not count: it may be about to destroy it, too. A
        process's own file that no user ever saw, and a file that only a person's act put out of the way, may go.
        """
        assert isinstance(call.inode, File)
        content = call.inode.digest()
        ledger = self.ledger
        if content not in ledger.contents or content in ledger.replaced or content in ledger.excused:
            return
        if call.inode not in self._seen and call.path().startswith(_BEGUN):
            return
        if not self.known.holds(device, content) and not _stands(device, content, call.inode):
            text = f"{content.hex()[:6]} ({call.call} {call.path()}), which is not in the log as it knows it, nor here again"
            self.fail(DESTRUCTION, f"{device.name} destroys {text}")

    def _check_rollback(self, device: DeviceMachine, call: Call) -> None:
        """Invariant 13: while the coordinator has less of the log than a device, that takes nothing from its user's sight.

        Of two that are exchanged either may be the user's.
        """
        taken = [one for one in (call.inode, call.other) if one is not None and _is_shown(one)]
        if call.call in _TAKES and taken:
            (head,) = self.world.coordinator.rows(_HEAD)[0] if self.world.coordinator.is_running else (0,)
            if head < device.position:
                text = f"{device.name} takes {taken[0].path()} away ({call.call}) while the coordinator has only {head} items"
                self.fail(ROLLBACK_SAFETY, text)

    def _check_shown(self, device: DeviceMachine, call: Call) -> None:
        """Invariant 7: whatever a process lets stand under a user's name is a whole content that somebody wrote.

        No bytes at all are one where anybody emptied a file, or made an empty one; and even so no process begins a file there.
        """
        if call.call == _CREATES and _is_user_path(call.path()):
            self.fail(ATOMIC_VISIBILITY, f"{device.name} begins a file under a user's name, {call.path()}")
        for inode in (call.inode, call.other):
            if not (isinstance(inode, File) and _is_shown(inode)) or (not inode.size and self.ledger.has_empty):
                continue
            content = inode.digest()
            self.ledger.put[self.world.devices.index(device)][content] = self.world.loop.now_ns
            if content not in self.ledger.contents:
                text = f"{device.name} shows at {inode.path()} ({call.call}) what nobody wrote: {about(inode.data())}"
                self.fail(ATOMIC_VISIBILITY, text)

    def check_servers(self) -> None:
        """Invariant 15, of what the servers keep: no name and no content stands there in clear, nor the hash of a content.

        Who has a file could tell by that who else has it.
        """
        hashes = [form for content in self.ledger.contents for form in (content, content.hex().encode())]
        for where, data in self._kept():
            if _leaks(data):
                raise Violation(CONFIDENTIALITY, f"{where} holds a name or a content in clear")
            if any(one in data for one in hashes):
                raise Violation(CONFIDENTIALITY, f"{where} holds the hash of a content in clear")

    def _kept(self) -> Iterator[tuple[str, bytes]]:
        """Yield what servers keep, with where that is."""
        yield "the coordinator's database", self.world.coordinator.backup().database
        for node in self.world.nodes:
            for path, standing in node.disk.tree().items():
                if standing.kind is Kind.FILE:
                    yield f"{path} of {node.name}", standing.data


class WatchedTrace(Trace):
    """A trace that looks at all that leaves a machine.

    Invariant 15, of what is sent to a server: no name and no content stands in it in clear. What devices send each other on
    a LAN goes through TLS, which has no part in a simulated world.
    """

    world: World
    hear: Callable[[int, str, str], None] | None = None
    """Told of some of what happens, with its time: :data:`simulations.situations.observer.HEARD`."""

    def note(
        self, time_ns: int, host: str, what: str, text: str = "", data: bytes | bytearray | memoryview = b""
    ) -> None:
        """Take in one event."""
        if what == "send" and _leaks(bytes(data)) and not (host.startswith(DEVICE) and f">{DEVICE}" in text):
            self.world.loop.fail(Violation(CONFIDENTIALITY, f"{host} sends a name or a content in clear on {text}"))
        elif what == "accept" and f"<{DEVICE}" in text:
            excess = find_channels(self.world.network, text.partition("<")[2], len(self.world.nodes))
            if excess is not None:
                self.world.loop.fail(excess)
        if self.hear is not None and what in HEARD:
            self.hear(time_ns, what, text)
        super().note(time_ns, host, what, text, data)


def _leaks(data: bytes) -> bool:
    return CANARY in data or _CAPITAL in data


def _stands(device: DeviceMachine, content: bytes, but: Inode) -> bool:
    """Tell whether a device has a content under a user's name, in another file than one."""
    return any(
        seen.content == content and seen.inode is not but
        for root in (ROOT, AWAY)
        for seen in look(device, root).values()
    )


def _is_shown(inode: Inode) -> bool:
    """Tell whether something stands under a user's name."""
    return _is_user_path(inode.path())


def _is_user_path(path: str) -> bool:
    return path.startswith(f"{ROOT}/") and not path.startswith(f"{_HIDDEN}/")
