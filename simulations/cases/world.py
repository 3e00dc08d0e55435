"""The world of one run of a case, as its steps and its judge see it: devices of one account with one folder.

Rule 1: a device changes only by commands of the contract; no agent runs but where a step asks for one.
Rule 2: what each pass changed is noted, since much of what is judged is what did not change.
Rule 3: whether there are processes or virtual time behind it, only its hands know.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from simulations.cases import state
from simulations.cases.contents import Contents
from simulations.cases.grammar import MIB, Case, in_nfc, size_of
from simulations.cases.hands import NEEDS_PERSON, Failed, Hands, Json, Machine, Told, must
from simulations.cases.trees import CONTROL, DIRECTORY, difference, is_below, is_file, without

PASS_S: Final = 150.0
FAULT_PASS_S: Final = 10.0
"""How long a pass may try, once something was broken on purpose."""
ROUNDS_MAX: Final = 10
FRESH: Final = "fresh"
_COPY: Final = re.compile(r" \(conflict, .*, [0-9a-f]{8}\)")


class Peer:
    """A device as a case sees it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.name = machine.name
        self.disk = machine.disk
        self.root = machine.root
        self.is_offline = False
        self.is_stopped = False
        self.is_deaf = False
        """Whether an agent runs here that hears of nothing."""
        self.applies_unseen = False
        """Whether that agent is to apply what is remote before the next pass scans."""
        self.excluded: set[str] = set()
        """Paths that stay off this device."""
        self.made: dict[str, str] = {}
        """What steps made here and none took away since: path to what a tree says of it."""
        self.left: dict[str, tuple[str, int]] = {}
        """Of files that steps last wrote here: what a tree says, and the mtime."""
        self.touches = 0
        """How often its user did something."""
        self.folders: dict[str, None] = {}
        """Its folders, where each top-level directory is one."""
        self.last: dict[str, tuple[int, int, int]] = {}
        """Size, inode and mtime of the last file at a path, before a step changed it."""

    @property
    def is_active(self) -> bool:
        """Whether it takes part in ``*``."""
        return not self.is_offline and not self.is_stopped

    def at(self, path: str) -> str:
        """Return where a path of a case is on the disk: in the root, or beside it below ``/outside``."""
        if path == "/outside" or path.startswith("/outside/"):
            return self.machine.outside + path[len("/outside") :]
        return self.root if path == "." else f"{self.root}/{path}"

    @property
    def moved_root(self) -> str:
        """Where a root lies that was moved away."""
        return f"{self.root.rpartition('/')[0]}/moved-away"

    def shown(self, path: str) -> str:
        """Return how a path that a case names shows on this disk."""
        return unicodedata.normalize("NFD", path) if self.machine.decomposes else path

    def key(self, path: str) -> str:
        """Return what spellings of a path have in common on this disk."""
        path = in_nfc(path) if self.machine.decomposes else path
        return path.casefold() if self.machine.folds_case else path

    def tree(self) -> dict[str, str]:
        """Return what stands there now."""
        tree = self.disk.tree(self.root)
        return without(tree, {f"{name}/{CONTROL}" for name in self.folders}) if self.folders else tree


class Pass(NamedTuple):
    """One ``kin sync`` of one device."""

    device: str
    told: Told
    ordered: bool
    """Whether the log grew beyond what any device had."""
    changed: bool
    """Whether the device's tree changed."""
    lost: frozenset[str]
    """Paths that were there before it, and not after."""


class World:
    """One run of one case."""

    def __init__(self, hands: Hands, case: Case, order: Sequence[str], seed: str) -> None:
        """Make one without devices (:meth:`begin`)."""
        self.hands = hands
        self.case = case
        self.order = tuple(order)
        self.seed = seed
        self.folder = hands.folder
        self.contents = Contents()
        self.peers: dict[str, Peer] = {}
        self.given: set[str] = set()
        """Every name that a step gave to an entry, wherever, in the form in which names are compared."""
        self.removed: set[str] = set()
        """Every path that a step deleted or moved away, on any device."""
        self.passes: list[Pass] = []
        self.sync_steps: list[tuple[int, int]] = []
        """Which passes each ``sync`` step made since a user last did something."""
        self.model_of = ""
        """The device whose tree is what all others must come to hold."""
        self.due: set[str] = set()
        """Devices on which something happened, or for which an entry was ordered, since their last pass."""
        self.head = 0
        self.has_fault = False
        self.variables: dict[str, str] = {}
        """What steps set, such as ``chain_root``."""
        self.put_back: list[tuple[Peer, str, int]] = []
        """Permissions to restore after the case."""
        self.planted: list[tuple[Peer, str, bytes, int]] = []
        """Files outside the roots: device, path on its disk, bytes, mtime."""
        self.memory: dict[str, Any] = {}
        """What operations keep for one another."""
        self.folders: dict[str, None] = {}
        """The names of the account's folders, where each top-level directory is one."""
        self.is_parted = "multi_folder" in case.needs
        """Whether it is."""
        self.slow: dict[str, str] = {}
        """Paths that a program writes block by block just now, and on which device."""
        self.published: dict[str, set[str]] = {}
        """Of such a path: what may be seen of it elsewhere, as a tree says it."""
        self.seen: list[tuple[str, str, str]] = []
        """What was: path, device and what its tree said after a pass."""
        self._times: dict[tuple[str, str], tuple[str, int]] = {}
        self.crash_effect = 0
        """Before which effect the command crashes that is to crash at every step; 0: none."""
        self.effects = 0
        """How many effects that command had."""

    # --- Devices

    async def begin(self) -> None:
        """Have the devices of the case, but for those that a step copies from others; nothing is on their disks yet."""
        copies = {step["name"] for step in self.case.steps if step["op"] == "clone_as"}
        for machine in await self.hands.devices([name for name in self.case.devices if name not in copies]):
            self.take(machine)

    def take(self, machine: Machine) -> Peer:
        """Have one more device take part."""
        self.peers[machine.name] = peer = Peer(machine)
        self.due.add(peer.name)
        return peer

    async def join(self, name: str) -> Peer:
        """Return a new device of that name with an empty root, which then has the folder."""
        peer = self.take(await self.hands.join(name))
        await self.get(peer)
        return peer

    async def clone(self, peer: Peer, name: str) -> None:
        """Have a second device take part, with copies of a device's home and files."""
        await self.stop_agent(peer)
        copy = self.take(await self.hands.clone(peer.machine, name))
        copy.excluded, copy.folders = set(peer.excluded), dict(peer.folders)
        copy.made, copy.last = dict(peer.made), dict(peer.last)

    def size(self, value: Any) -> int:
        """Return a size in bytes as it is here: large ones may be smaller, if links are slower."""
        count = size_of(value)
        is_in_chunks = isinstance(value, str) and "chunk" in value
        return count if is_in_chunks or count <= MIB else max(MIB, count // self.hands.scale)

    def tree(self, peer: Peer) -> dict[str, str]:
        """Return what stands on a device now."""
        return peer.tree()

    # --- Commands

    async def kin(self, peer: Peer, method: str, **params: Any) -> Told:
        """Run a command on a device."""
        return await peer.machine.kin(method, **params)

    async def status(self, peer: Peer) -> Json:
        """Return what the device says of the folder; of several: of the first that is held or missing, and all items."""
        folders = (await self.told(peer))["folders"]
        names = self.folders if self.is_parted else (self.folder,)
        found = [folder for folder in folders if folder["name"] in names]
        if not found:
            raise Failed(f"kin status of {peer.name} names no folder")
        row: Json = next((each for each in found if each["held"] or each["state"] == "missing"), found[0])
        if self.is_parted:
            items = [{**item, "path": f"{each['name']}/{item['path']}"} for each in found for item in each["unsynced"]]
            row = {**row, "unsynced": items}
        return row

    async def told(self, peer: Peer) -> Json:
        """Return all that the device says of itself."""
        return must(await self.kin(peer, "status", all=True), "kin status").result

    async def add(self, peer: Peer) -> None:
        """Make the device's root the case's folder, or each directory in it one."""
        if self.is_parted:
            await self._part(peer)
            return
        must(await self.kin(peer, "add", path=peer.root, name=self.folder), "kin add")
        peer.machine.has_folder = True

    async def _part(self, peer: Peer) -> None:
        """Make each directory in the device's root a folder, and bring all others that there are."""
        tops = [path for path, kind in self.tree(peer).items() if "/" not in path and kind == DIRECTORY]
        for name in [*tops, *self.folders]:
            if name in peer.folders:
                continue
            if name in self.folders:
                must(await self.kin(peer, "get", folder=name, path=peer.at(name)), "kin get")
            else:
                must(await self.kin(peer, "add", path=peer.at(name), name=name), "kin add")
                self.folders[name] = None
                self.due |= set(self.peers)
            peer.folders[name] = None

    async def get(self, peer: Peer) -> None:
        """Bring the folder to the device's root, whatever lies there."""
        if self.is_parted:
            await self._part(peer)
            return
        must(await self.kin(peer, "get", folder=self.folder, path=peer.root), "kin get")
        peer.machine.has_folder = True

    async def remove(self, peer: Peer) -> None:
        """Have the device forget the folder."""
        for name in peer.folders:
            must(await self.kin(peer, "remove", folder=name, everywhere=False), "kin remove")
        if self.is_parted:
            peer.folders.clear()
            return
        must(await self.kin(peer, "remove", folder=self.folder, everywhere=False), "kin remove")
        peer.machine.has_folder = False

    async def approve(self, peer: Peer) -> None:
        """Let a mass change pass that is held."""
        for folder in (await self.told(peer))["folders"] if self.is_parted else ({"name": self.folder, "held": True},):
            if folder["held"]:
                must(await self.kin(peer, "approve", folder=folder["name"]), "kin approve")

    async def exclude(self, peer: Peer, path: str, *, remove: bool = False) -> None:
        """Keep a path off the device, or have it come back."""
        must(await self.kin(peer, "exclude", path=peer.at(path), remove=remove, free=False), "kin exclude")

    # --- Agents

    async def start_agent(self, peer: Peer) -> None:
        """Have the device's agent run."""
        if not peer.machine.has_agent:
            await peer.machine.start()

    async def stop_agents(self) -> None:
        """End every agent."""
        for peer in self.peers.values():
            if not peer.is_deaf:
                await self.stop_agent(peer)

    async def deafen(self, peer: Peer, *, applies: bool) -> None:
        """Have an agent run that hears of nothing; at the next pass it applies what is remote, if it is to, and ends."""
        peer.applies_unseen |= applies
        if not peer.is_deaf:
            await self.stop_agent(peer)
            peer.is_deaf = True
            await self.hands.tricks.deafen(peer.machine)

    async def _end_deafness(self, peer: Peer) -> None:
        if peer.is_deaf:
            if peer.applies_unseen:
                await self.hands.tricks.apply_unseen(peer.machine)
            await self.hands.tricks.end_deafness(peer.machine)
            peer.is_deaf = peer.applies_unseen = False

    async def stop_agent(self, peer: Peer) -> None:
        """End a device's agent, if it runs."""
        if peer.machine.has_agent:
            await peer.machine.stop()
            self.due |= set(self.peers)

    # --- Passes

    async def sync(self, peer: Peer) -> Pass:
        """Do one pass of a device.

        Raises:
            Failed: It ended as no pass may.
        """
        before = self.tree(peer)
        await self._end_deafness(peer)
        if self.is_parted:
            await self._part(peer)
        touches = peer.touches
        made = self._judged(self._note(peer, before, await self._run_pass(peer)))
        if peer.touches != touches:
            self.due.add(peer.name)
        if self.memory.pop(f"reordered:{peer.name}", None):
            self.due.add(peer.name)
        return made

    def begin_pass(self, peer: Peer) -> Begun:
        """Begin a pass in the background."""
        return Begun(self, peer)

    def finish_pass(self, peer: Peer, before: dict[str, str], told: Told) -> Pass:
        """Note a pass that has ended in the background."""
        return self._judged(self._note(peer, before, told))

    async def _run_pass(self, peer: Peer) -> Told:
        """Do a pass; where it needs a person, do what that person would, and repeat it."""
        told = await self.bare_pass(peer)
        if told.code != NEEDS_PERSON or "guard" in self.case.expectation:
            return told
        status = await self.status(peer)
        if status["held"]:  # deletions by steps are meant
            await self.approve(peer)
        elif status["state"] == "missing":  # another directory stands there: bring the folder to it
            await self.remove(peer)
            await self.get(peer)
        else:
            return told
        return await self.bare_pass(peer)

    async def bare_pass(self, peer: Peer) -> Told:
        """Run ``kin sync`` on a device, whatever comes of it."""
        return await self.kin(peer, "sync", timeout=FAULT_PASS_S if self.is_obstructed else PASS_S)

    @property
    def is_obstructed(self) -> bool:
        """Whether a fault, or a file that a program holds open, may keep a pass from its end."""
        return (
            self.has_fault
            or bool(self.slow)
            or any(key.startswith(("transaction:", "locked:", "reordered:")) for key in self.memory)
        )

    def _note(self, peer: Peer, before: dict[str, str], told: Told) -> Pass:
        with peer.machine.database() as database:
            after, head = self.tree(peer), state.head(database)
        self.seen += [
            (path, peer.name, after[path]) for path in self.published if after.get(path, DIRECTORY) != DIRECTORY
        ]
        is_clean = told.code == 0 or before == after
        self.due -= {peer.name} if is_clean else set()
        if head > self.head:
            self.due |= {name for name in self.peers if name != peer.name}
        lost = frozenset(path for path in before if path not in after)
        made = Pass(peer.name, told, head > self.head, before != after, lost)
        self.head = max(self.head, head)
        self.passes.append(made)
        return made

    def _judged(self, made: Pass) -> Pass:
        if made.told.code in {0, NEEDS_PERSON} or self.is_obstructed:
            return made
        raise Failed(f"sync of {made.device} ended with {made.told.code}: {made.told.text.strip()[-300:]}")

    def active(self, names: Iterable[str] | None = None) -> list[Peer]:
        """Return the devices that are neither offline nor stopped, in the order of ``*``."""
        chosen = self.order if names is None else tuple(names)
        rest = [name for name in self.peers if name not in chosen] if names is None else []
        return [self.peers[name] for name in (*chosen, *rest) if name in self.peers and self.peers[name].is_active]

    async def settle(self) -> None:
        """Bring all to rest: passes of those devices on which, or for which, something happened, in turn.

        A pass of a device for which nothing happened since its last one is left for the end, where all make one.

        Raises:
            Failed: They do not come to rest.
        """
        await self.stop_agents()
        for _ in range(ROUNDS_MAX):
            for peer in self.active():
                if peer.name in self.due:
                    await self.sync(peer)
            if not any(peer.name in self.due for peer in self.active()):
                return
        raise Failed(f"no rest after {ROUNDS_MAX} rounds")

    async def is_at_rest(self) -> str:
        """Do one more pass of each device; return what it changed, nothing if all stayed as it was."""
        trees = {peer.name: self.tree(peer) for peer in self.active()}
        passes = [await self.sync(peer) for peer in self.active()]
        found = [f"{made.device} ordered entries" for made in passes if made.ordered]
        for peer in self.active():
            if changed := difference(trees[peer.name], self.tree(peer)):
                found.append(f"{peer.name} changed: {changed}")
        return "; ".join(found)

    # --- What a user did

    def note_hand(self, peer: Peer, before: dict[str, str]) -> None:
        """Remember what a step of the user changed on a device."""
        after = self.tree(peer)
        self.due.add(peer.name)
        peer.touches += 1
        for path in before:
            if path not in after:
                self.removed.add(path)
                peer.made.pop(path, None)
        for path, kind in after.items():
            if before.get(path) != kind:
                peer.made[path] = kind
            if is_file(kind):
                self._note_time(peer, path, kind)
            name = path.rpartition("/")[2]
            if path not in before and not _COPY.search(name):  # a pass in the background may have made it meanwhile
                self.given.add(in_nfc(name))

    def _note_time(self, peer: Peer, path: str, kind: str) -> None:
        mtime_ns = peer.disk.stat(peer.at(path)).mtime_ns
        if self._times.get((peer.name, path)) != (kind, mtime_ns):
            self._times[peer.name, path] = peer.left[path] = (kind, mtime_ns)

    def writers(self, path: str) -> list[Peer]:
        """Return the devices on which steps wrote a content that ended at a path, in the order of writing."""
        return [
            self.peers[origin.device]
            for origins in self.contents.origins.values()
            for origin in origins
            if origin.path == path and origin.device in self.peers
        ]

    def shared_tree(self, peer: Peer) -> dict[str, str]:
        """Return a device's tree without what is excluded on any device."""
        excluded = set().union(*(each.excluded for each in self.peers.values()))
        return without(self.tree(peer), excluded)

    def is_excluded(self, peer: Peer, path: str) -> bool:
        """Whether a path stays off a device."""
        return any(is_below(path, top) for top in peer.excluded)

    def named_paths(self) -> set[str]:
        """Return the paths that steps name, which random changes leave alone."""
        return {str(step["path"]) for step in (*self.case.setup, *self.case.steps) if "path" in step}

    def check_model(self) -> None:
        """Compare every device with the one that random changes were made on.

        Raises:
            Failed: One differs.
        """
        model = self.tree(self.peers[self.model_of])
        for peer in self.peers.values():
            if found := difference(model, self.tree(peer)):
                raise Failed(f"{peer.name} is not what the model is: {found}")

    def copies(self, peer: Peer) -> list[str]:
        """Return the conflict copies on a device: entries with names that no step gave, the topmost only."""
        found: list[str] = []
        for path in self.tree(peer):
            if in_nfc(path.rpartition("/")[2]) not in self.given and not any(is_below(path, top) for top in found):
                found.append(path)
        return found

    def close(self) -> None:
        """Put back the permissions that steps took away."""
        for peer, path, mode in reversed(self.put_back):
            with contextlib.suppress(OSError):
                peer.disk.set_mode(path, mode)


class Begun:
    """A pass that runs in the background."""

    def __init__(self, world: World, peer: Peer) -> None:
        self.peer = peer
        self._world = world
        self.before = world.tree(peer)
        """The device's tree when it began."""
        self._task = asyncio.create_task(world.bare_pass(peer))

    async def comes_to(self, moment: asyncio.Event) -> bool:
        """Wait until something happens in it; tell whether it did before the end."""
        waiting = asyncio.create_task(moment.wait())
        self._task.add_done_callback(lambda _: waiting.cancel())
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        return moment.is_set()

    async def finish(self) -> Pass:
        """Wait for its end; what another device did meanwhile may have come too late for it."""
        told = await self._task
        self._world.due |= set(self._world.peers)
        made = self._world.finish_pass(self.peer, self.before, told)
        self._world.due.add(self.peer.name)
        return made
