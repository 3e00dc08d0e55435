"""Judges what came of a case: each key of an expectation, on every device that is there at the end.

Rule 1: a key that nobody here can judge skips the case; it never passes it.
Rule 2: judging changes nothing on a device, except that old versions are restored beside the files and removed again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from simulations.cases import rarities, reckoning, state
from simulations.cases.contents import content
from simulations.cases.grammar import Skipped, in_nfc
from simulations.cases.hands import Failed
from simulations.cases.trees import DIRECTORY, difference, is_below, is_file, without
from simulations.cases.world import Peer, World

AT_ONCE: Final = frozenset({"guard", "remote_unchanged", "db_unchanged"})
"""Judged right after the last step."""
_BY_RUNNER: Final = frozenset({"converged", "converged_members_only", "stable"})
"""All devices are of one user here, so all are members."""
_HISTORY: Final = ("history", "published_versions")
"""What keys have in their names that ask for old versions."""


def _asks_for_old(expectation: Mapping[str, Any]) -> bool:
    text = json.dumps(expectation)
    return any(part in text for part in _HISTORY)


class _Marks(NamedTuple):
    """What was so at the end of the setup."""

    trees: Mapping[str, Mapping[str, str]]
    head: int
    passes: int
    stored: int
    received: int


def _ask(
    find: Callable[[World, Any, Sequence[Peer]], Awaitable[None] | None],
) -> Callable[[Judge, Any, Sequence[Peer]], Awaitable[None] | None]:
    """Return the judge of a key that needs only the world."""

    def judge(self: Judge, value: Any, peers: Sequence[Peer]) -> Awaitable[None] | None:
        return find(self.world, value, peers)

    return judge


class Judge:
    """Judges one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._marks = _Marks({}, 0, 0, 0, 0)
        self._database = ""
        self.stored = 0
        """Bytes that storage nodes took since the setup, as :meth:`note_transfers` saw it."""
        self.received = 0

    # --- Moments

    def note_setup(self) -> None:
        """Remember the world as the setup left it."""
        world = self.world
        self._marks = _Marks(
            {name: world.tree(peer) for name, peer in world.peers.items()},
            world.head,
            len(world.passes),
            reckoning.stored_bytes(world),
            reckoning.received_bytes(world),
        )

    def note_before_last(self) -> None:
        """Remember what the last step must not change."""
        device = self.world.case.expectation.get("db_unchanged")
        if device is not None:
            self._database = self._rows(device)

    def _rows(self, device: str) -> str:
        with self.world.peers[device].machine.database() as database:
            return state.rows_digest(database)

    def note_transfers(self) -> None:
        """Count what was sent and received since the setup, before a fresh device joins."""
        self.stored = reckoning.stored_bytes(self.world) - self._marks.stored
        self.received = reckoning.received_bytes(self.world) - self._marks.received

    # --- What is expected

    async def check(self, expectation: Mapping[str, Any], peers: Sequence[Peer]) -> None:
        """Judge keys on these devices.

        Raises:
            Failed: Something is otherwise; the text names all that is.
            Skipped: A key cannot be judged here, and no other failed.
        """
        failures: list[str] = []
        skipped: Skipped | None = None
        for key, value in expectation.items():
            if key in _BY_RUNNER:
                continue
            try:
                await self._judge(key, value, peers)
            except Failed as failure:
                failures.append(f"{key}: {failure}")
            except Skipped as reason:
                skipped = reason
        if failures:
            raise Failed("; ".join(failures))
        if skipped is not None:
            raise skipped

    async def _judge(self, key: str, value: Any, peers: Sequence[Peer]) -> None:
        judge = self.keys.get(key)
        if judge is None:
            raise Skipped(f"the runner cannot judge {key}")
        judging = judge(self, value, peers)
        if judging is not None:
            await judging

    def split(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Return the keys judged at once, those judged at the end, and of these the ones that ask for old versions."""
        at_once: dict[str, Any] = {}
        plain: dict[str, Any] = {}
        old: dict[str, Any] = {}
        for key, value in self.world.case.expectation.items():
            which = at_once if key in AT_ONCE else old if _asks_for_old({key: value}) else plain
            which[key] = value
        if gone := self.written_over():
            plain["survive"] = [token for token in plain["survive"] if token not in gone]
            old["history_has"] = [*old.get("history_has", ()), *gone]
        return at_once, plain, old

    def written_over(self) -> list[str]:
        """Return the tokens that must survive and that a step itself wrote over, where they lay in a conflict copy.

        The order of the devices decides which content becomes the copy. What its user then replaces there can be
        nowhere but in the history, whatever the case names (docs/decisions/written-over-in-a-copy.md).
        """
        contents = self.world.contents
        tokens = self.world.case.expectation.get("survive", ())
        return (
            [token for token in tokens if contents.written_over & contents.digests(token)]
            if contents.written_over
            else []
        )

    # --- Trees

    async def converged(self) -> None:
        """All devices hold the same tree, names compared as their disks compare them.

        What a device's disk cannot hold by its name, and its status lists as such, is left out on both.

        Raises:
            Failed: Two differ.
        """
        trees = [
            (peer, self.world.shared_tree(peer), await self._unplaceable(peer)) for peer in self.world.peers.values()
        ]
        first, *others = trees
        for other in others:
            left_out = first[2] | other[2]
            one, two = (
                {other[0].key(first[0].key(path)): kind for path, kind in without(tree, left_out).items()}
                for _, tree, _ in (first, other)
            )
            if found := difference(one, two):
                raise Failed(f"converged: {first[0].name} / {other[0].name}: {found}")

    async def _unplaceable(self, peer: Peer) -> set[str]:
        """Return the paths that a disk of a special kind cannot hold, as the product says."""
        if not peer.machine.is_special:
            return set()
        return {row["path"] for row in (await self.world.status(peer))["unsynced"] if row["reason"] == "name"}

    def _exists(self, wanted: Mapping[str, str], peers: Sequence[Peer]) -> None:
        for peer in peers:
            tree = self.world.tree(peer)
            for path, what in wanted.items():
                if self.world.is_excluded(peer, path):
                    continue
                kind = tree.get(peer.shown(path))
                if kind is None:
                    raise Failed(f"{peer.name} has no {path}")
                if not self._is(kind, what):
                    raise Failed(f"{path} on {peer.name} is not {what}")

    def _is(self, kind: str, what: str) -> bool:
        if what == "<any>":
            return True
        if what.startswith("<"):
            return kind == what
        return kind in self.world.contents.digests(what)

    def _tree(self, wanted: Mapping[str, str], peers: Sequence[Peer]) -> None:
        self._exists(wanted, peers)
        for peer in peers:
            more = sorted(set(without(self.world.tree(peer), peer.excluded)) - {peer.shown(path) for path in wanted})
            if more:
                raise Failed(f"{peer.name} also has {more[0]}")

    def _absent(self, paths: Sequence[str], peers: Sequence[Peer]) -> None:
        for peer in peers:
            for path in paths:
                named = path.replace("$chain_root", self.world.variables.get("chain_root", ""))
                if peer.disk.exists(peer.at(named)):
                    raise Failed(f"{peer.name} has {named}")

    def _absent_on(self, wanted: Mapping[str, Sequence[str]], peers: Sequence[Peer]) -> None:  # noqa: ARG002 - a judge
        for name, paths in wanted.items():
            self._absent(paths, [self.world.peers[name]])

    def _empty_dirs(self, paths: Sequence[str], peers: Sequence[Peer]) -> None:
        for peer in peers:
            tree = self.world.tree(peer)
            for path in map(peer.shown, paths):
                if tree.get(path) != DIRECTORY or any(is_below(each, path) and each != path for each in tree):
                    raise Failed(f"{path} on {peer.name} is no empty directory")

    def _many(self, wanted: Mapping[str, Any], peers: Sequence[Peer]) -> None:
        directory, count = wanted["dir"], str(wanted["count"])
        for peer in peers:
            files = [
                kind
                for path, kind in self.world.tree(peer).items()
                if is_file(kind) and path.rpartition("/")[0] == ("" if directory == "." else directory)
            ]
            enough = len(files) >= int(count[2:]) if count.startswith(">=") else len(files) == int(count)
            if not enough:
                raise Failed(f"{peer.name} has {len(files)} files in {directory}, not {count}")
            if wanted.get("all_hash_ok") and not set(files) <= self.world.contents.whole:
                raise Failed(f"{peer.name} has a file in {directory} that no step wrote")

    # --- Contents

    def _live(self, peer: Peer, token: str) -> int:
        """Return how many files of a device hold a token's content."""
        digests = self.world.contents.digests(token)
        return sum(kind in digests for kind in self.world.tree(peer).values())

    def _survive(self, tokens: Sequence[str], peers: Sequence[Peer]) -> None:
        for token in tokens:
            digests = self.world.contents.digests(token)
            anywhere = any(self._live(peer, token) for peer in self.world.peers.values())
            for peer in peers:
                if anywhere and self._is_excluded_content(peer, digests):
                    continue
                if not self._live(peer, token):
                    raise Failed(f"{peer.name} has no file with {token}")

    def _is_excluded_content(self, peer: Peer, digests: set[str]) -> bool:
        return any(
            kind in digests and self.world.is_excluded(peer, path)
            for each in self.world.peers.values()
            for path, kind in self.world.tree(each).items()
        )

    def _survive_if(self, wanted: Mapping[str, Sequence[str]], peers: Sequence[Peer]) -> None:
        for condition, tokens in wanted.items():
            if condition != "scope_has_files":
                raise Skipped(f"the runner does not know the condition {condition}")
            if self.world.case.values["scope"] in {"files+db", "files_only"}:
                self._survive(tokens, peers)

    def _survive_substring(self, tokens: Sequence[str], peers: Sequence[Peer]) -> None:
        for peer in peers:
            held = [data for _, data in self._files(peer)]
            for token in tokens:
                if not any(content(token) in data for data in held):
                    raise Failed(f"{peer.name} has no file with the block {token}")

    def _files(self, peer: Peer) -> list[tuple[str, bytes]]:
        return [(path, peer.disk.read(peer.at(path))) for path, kind in self.world.tree(peer).items() if is_file(kind)]

    def _no_duplicates(self, tokens: Sequence[str], peers: Sequence[Peer]) -> None:
        for peer in peers:
            for token in tokens:
                if (count := self._live(peer, token)) != 1:
                    raise Failed(f"{peer.name} has {token} {count} times")

    def _content_in(self, wanted: Mapping[str, Sequence[str]], peers: Sequence[Peer]) -> None:
        for peer in peers:
            for path, tokens in wanted.items():
                allowed = set().union(*(self.world.contents.digests(token) for token in tokens))
                if self.world.tree(peer).get(peer.shown(path)) not in allowed:
                    raise Failed(f"{path} on {peer.name} holds none of {', '.join(tokens)}")

    def _no_foreign_content(self, value: bool, peers: Sequence[Peer]) -> None:  # noqa: ARG002, FBT001 - a judge
        for peer in peers:
            for path, kind in self.world.tree(peer).items():
                if is_file(kind) and kind not in self.world.contents.whole:
                    raise Failed(f"{path} on {peer.name} is no whole content that a step wrote")

    def _local_preserved(self, wanted: Mapping[str, Sequence[str]], peers: Sequence[Peer]) -> None:  # noqa: ARG002 - a judge
        for name, tokens in wanted.items():
            for token in tokens:
                if not self._live(self.world.peers[name], token):
                    raise Failed(f"{name} has no file with {token}")

    def _invisible(self, wanted: Mapping[str, Sequence[str]], peers: Sequence[Peer]) -> None:  # noqa: ARG002 - a judge
        for name, tokens in wanted.items():
            for token in tokens:
                if self._live(self.world.peers[name], token):
                    raise Failed(f"{name} has a file with {token}")

    def _no_local_loss(self, name: str, peers: Sequence[Peer]) -> None:  # noqa: ARG002 - a judge
        tree = self.world.tree(self.world.peers[name])
        for path, kind in self.world.peers[name].made.items():
            if tree.get(path) != kind:
                raise Failed(f"{path} on {name} is not what was written there")

    # --- Conflict copies and alternatives

    def _conflicts(self, wanted: Mapping[str, Any], peers: Sequence[Peer]) -> None:
        for peer in peers:
            copies = self.world.copies(peer)
            count = len(copies)
            low = wanted.get("total", wanted.get("min", 0))
            high = wanted.get("total", wanted.get("max", count))
            if not low <= count <= high:
                raise Failed(f"{peer.name} has {count} conflict copies: {', '.join(copies[:4]) or 'none'}")
            for path, expected in wanted.get("of", {}).items():
                found = [copy for copy in copies if is_copy_of(copy, path)]
                if len(found) != expected:
                    raise Failed(f"{peer.name} has {len(found)} conflict copies of {path}, not {expected}")

    async def _one_of(self, alternatives: Sequence[Mapping[str, Any]], peers: Sequence[Peer]) -> None:
        failures: list[str] = []
        skipped: Skipped | None = None
        for each in alternatives:
            try:
                await self.check(each, peers)
            except Failed as failure:
                failures.append(str(failure))
            except Skipped as reason:
                skipped = reason
            else:
                return
        if skipped is not None:
            raise skipped
        raise Failed(f"none holds: {' | '.join(failures)}")

    async def _on(self, wanted: Mapping[str, Mapping[str, Any]], peers: Sequence[Peer]) -> None:  # noqa: ARG002 - a judge
        for name, expectation in wanted.items():
            await self.check(expectation, [self.world.peers[name]])

    # --- Names

    def _no_duplicate_by_normalisation(self, value: bool, peers: Sequence[Peer]) -> None:  # noqa: ARG002, FBT001 - a judge
        for peer in peers:
            seen: dict[tuple[str, str], str] = {}
            for path in self.world.tree(peer):
                directory, _, name = path.rpartition("/")
                other = seen.setdefault((directory, in_nfc(name)), path)
                if other != path:
                    raise Failed(f"{peer.name} has two names that are equal in NFC: {other!a} and {path!a}")

    def _name_bytes_equal_content_on(self, name: str, peers: Sequence[Peer]) -> None:  # noqa: ARG002 - a judge
        files = self._files(self.world.peers[name])
        if not files:
            raise Failed(f"{name} has no file")
        for path, data in files:
            if data != os.fsencode(path.rpartition("/")[2]):
                raise Failed(f"{path!a} on {name} does not hold its name")

    # --- What changed in between

    async def _guard(self, wanted: Mapping[str, Any], peers: Sequence[Peer]) -> None:  # noqa: ARG002 - a judge
        await reckoning.judge_guard(self.world, wanted, self._marks.trees)

    def _remote_unchanged(self, value: bool, peers: Sequence[Peer]) -> None:  # noqa: ARG002, FBT001 - a judge
        world = self.world
        if world.head != self._marks.head:
            raise Failed(f"the log grew from {self._marks.head} to {world.head}")
        acted = {origin.device for origins in world.contents.origins.values() for origin in origins}
        for name, tree in self._marks.trees.items():
            if name not in acted and (found := difference(tree, world.tree(world.peers[name]))):
                raise Failed(f"{name} changed: {found}")

    def _db_unchanged(self, name: str, peers: Sequence[Peer]) -> None:  # noqa: ARG002 - a judge
        if self._rows(name) != self._database:
            raise Failed(f"the state of {name} changed")

    def _no_remote_deletes(self, value: bool, peers: Sequence[Peer]) -> None:  # noqa: ARG002, FBT001 - a judge
        world = self.world
        for made in world.passes[self._marks.passes :]:
            for path in sorted(made.lost):
                asked = any(is_below(path, top) for top in world.removed)
                if not asked and not world.is_excluded(world.peers[made.device], path):
                    raise Failed(f"a pass of {made.device} removed {path}")

    def _no_deletes_on(self, names: Sequence[str], peers: Sequence[Peer]) -> None:  # noqa: ARG002 - a judge
        for name in names:
            now = set(self.world.tree(self.world.peers[name]).values())
            for path, kind in self.world.memory["before fault"][name].items():
                if is_file(kind) and kind not in now:
                    raise Failed(f"{name} has lost {path}")

    def _quiesce(self, count: int, peers: Sequence[Peer]) -> None:  # noqa: ARG002 - a judge
        for first, end in self.world.sync_steps[count:]:
            for made in self.world.passes[first:end]:
                if made.ordered or made.changed:
                    raise Failed(f"{made.device} still changed something after {count} syncs")

    def _transfers(self, wanted: Mapping[str, Any], peers: Sequence[Peer]) -> None:  # noqa: ARG002 - a judge
        for key, value in wanted.items():
            limit = self.world.size(value)
            if key == "uploaded_bytes" and limit == 0 and self.stored:
                raise Failed(f"a storage node took {self.stored} bytes")
            if key == "uploaded_bytes" and limit:
                raise Skipped("the runner counts sealed bytes, not bytes of content")
            if key == "uploaded_bytes_max" and self.stored > limit:
                raise Failed(f"a storage node took {self.stored} bytes, more than {limit}")
            if key == "downloaded_bytes_max" and self.received > limit:
                raise Failed(f"{self.received} bytes came from storage nodes, more than {limit}")

    def _no_content_transfer(self, value: bool, peers: Sequence[Peer]) -> None:  # noqa: ARG002, FBT001 - a judge
        self._transfers({"uploaded_bytes": 0}, peers)

    # --- What other modules find out

    def _equals_model(self, value: bool, peers: Sequence[Peer]) -> None:  # noqa: ARG002, FBT001 - a judge
        self.world.check_model()

    def _no_cycle(self, value: bool, peers: Sequence[Peer]) -> None:  # noqa: ARG002, FBT001 - a judge
        for peer in peers:
            missing = [
                path for path in peer.made if path in self.world.tree(peer) and not peer.disk.exists(peer.at(path))
            ]
            if missing:
                raise Failed(f"{peer.name} does not reach {missing[0]}")

    keys: ClassVar[Mapping[str, Callable[..., Awaitable[None] | None]]] = {
        "exists": _exists,
        "tree_subset": _exists,
        "tree": _tree,
        "absent": _absent,
        "absent_on": _absent_on,
        "empty_dirs": _empty_dirs,
        "many": _many,
        "survive": _survive,
        "survive_if": _survive_if,
        "survive_substring": _survive_substring,
        "no_duplicates": _no_duplicates,
        "content_in": _content_in,
        "no_foreign_content": _no_foreign_content,
        "local_preserved": _local_preserved,
        "visible": _local_preserved,
        "invisible": _invisible,
        "no_local_loss": _no_local_loss,
        "conflicts": _conflicts,
        "one_of": _one_of,
        "on": _on,
        "no_duplicate_by_normalisation": _no_duplicate_by_normalisation,
        "name_bytes_equal_content_on": _name_bytes_equal_content_on,
        "guard": _guard,
        "remote_unchanged": _remote_unchanged,
        "db_unchanged": _db_unchanged,
        "no_remote_deletes": _no_remote_deletes,
        "no_mass_delete": _no_remote_deletes,
        "no_deletes_on": _no_deletes_on,
        "quiesce_within_syncs": _quiesce,
        "transfers": _transfers,
        "no_content_transfer": _no_content_transfer,
        "equals_model": _equals_model,
        "no_cycle": _no_cycle,
        **{key: _ask(find) for key, find in {**reckoning.KEYS, **rarities.KEYS}.items()},
    }
    """Who judges which key."""


def is_copy_of(copy: str, path: str) -> bool:
    """Whether a conflict copy stands beside a path and is named after it."""
    directory, _, name = path.rpartition("/")
    stem = name.partition(".")[0] if not name.startswith(".") else name
    beside, _, copied = copy.rpartition("/")
    return beside == directory and copied.startswith(f"{stem} (conflict, ")


KNOWN: Final = frozenset(Judge.keys) | _BY_RUNNER
