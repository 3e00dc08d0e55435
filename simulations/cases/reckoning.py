"""What is asked of the product itself, or read from what it stores: old versions, reasons, rows, databases, counted bytes."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from simulations.cases import state
from simulations.cases.contents import content
from simulations.cases.grammar import Skipped
from simulations.cases.hands import Failed
from simulations.cases.trees import CONTROL, difference, is_file
from simulations.cases.world import Peer, World

_REASONS: Final[Mapping[str, str]] = {
    "permission": "unreadable",
    "invalid_name": "name",
    "path_too_long": "name",
    "case_collision": "name",
    "quota": "quota",
}
_HELD: Final[Mapping[str, str]] = {"mass_delete": "deletions"}
_BACK: Final = ("set back", "went back", "older", "restored", "frozen")


# --- Old versions


async def history_has(world: World, tokens: Sequence[str], peers: Sequence[Peer]) -> None:
    """Each token is live, or the product lists and gives back exactly its bytes.

    Raises:
        Failed: One is not.
        Skipped: The product has no history.
    """
    for token in tokens:
        if not _is_live(world, token, peers) and not await _is_restorable(world, token, peers[0]):
            raise Failed(f"no version has {token}")


async def survive_or_history(world: World, tokens: Sequence[str], peers: Sequence[Peer]) -> None:
    """As :func:`history_has`: what is live is there in either."""
    await history_has(world, tokens, peers)


async def history_or_trash_has(world: World, tokens: Sequence[str], peers: Sequence[Peer]) -> None:
    """Each token is live, in the history, or in the trash of the device that wrote it."""
    for token in tokens:
        writers = {origin.device for origin in world.contents.origins[token]}
        if not any(_is_in_trash(world, token, world.peers[name]) for name in writers):
            await history_has(world, [token], peers)


def _is_live(world: World, token: str, peers: Sequence[Peer]) -> bool:
    digests = world.contents.digests(token)
    return any(kind in digests for peer in peers for kind in world.tree(peer).values())


def _is_in_trash(world: World, token: str, peer: Peer) -> bool:
    digests = world.contents.digests(token)
    return any(kind in digests for kind in peer.disk.tree(peer.at(f"{CONTROL}/trash")).values())


async def restored(world: World, peer: Peer, path: str) -> AsyncIterator[tuple[str, str]]:
    """Yield (version, digest of what is restored) for each version of a file that the product lists."""
    told = await world.kin(peer, "history", path=peer.at(path))
    for each in told.result["versions"] if told.code == 0 else ():
        if each["kind"] == "file":
            digest = await _given_back(world, peer, path, each["id"])
            if digest:
                yield each["id"], digest


async def _is_restorable(world: World, token: str, peer: Peer) -> bool:
    digests = world.contents.digests(token)
    paths = {origin.path: None for origin in world.contents.origins[token]} | dict.fromkeys(world.copies(peer))
    for path in paths:
        async for _, digest in restored(world, peer, path):
            if digest in digests:
                return True
    return False


async def _given_back(world: World, peer: Peer, path: str, version: str) -> str:
    """Restore a version beside the files, return what it is compared by, and remove it again; nothing if it cannot be had."""
    target = peer.at(".restored-by-the-runner")
    which = {"version": version, "at_ms": None, "ago_ms": None, "snapshot": None}
    try:
        told = await world.kin(peer, "restore", path=peer.at(path), to=target, **which)
        return peer.disk.digest(target) if told.code == 0 and peer.disk.exists(target) else ""
    finally:
        if peer.disk.exists(target):
            peer.disk.remove_tree(target)


# --- What status says


async def errors(world: World, wanted: Sequence[Mapping[str, Any]], peers: Sequence[Peer]) -> None:  # noqa: ARG001 - a judge
    """The device's status lists items for these reasons.

    A name that is no text is either listed or makes the round trip; this is for whoever cannot do the latter.
    """
    for each in wanted:
        reason = _reason(each["kind"])
        if each["kind"] == "invalid_name" and _makes_round_trip(world, world.peers[each["device"]]):
            continue
        rows = (await world.status(world.peers[each["device"]]))["unsynced"]
        found = [row for row in rows if row["reason"] == reason and row["path"] == each.get("path", row["path"])]
        if len(found) < each.get("min", 1):
            listed = ", ".join(f"{row['path']}: {row['reason']}" for row in rows) or "nothing"
            raise Failed(f"status of {each['device']} does not list {each.get('path', '')} as {reason}, but {listed}")


def _makes_round_trip(world: World, peer: Peer) -> bool:
    """Whether each name that is no UTF-8 stands on every device as it was made on this one."""
    odd = {path: kind for path, kind in peer.made.items() if not _is_text(path)}
    trees = [world.tree(each) for each in world.peers.values()]
    return bool(odd) and all(tree.get(path) == kind for tree in trees for path, kind in odd.items())


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


async def errors_allowed(world: World, kinds: Sequence[str], peers: Sequence[Peer]) -> None:
    """No status lists items for other reasons than these."""
    allowed = {_reason(kind) for kind in kinds}
    for peer in peers:
        for row in (await world.status(peer))["unsynced"]:
            if row["reason"] not in allowed:
                raise Failed(f"status of {peer.name} lists {row['path']} as {row['reason']}")


def _reason(kind: str) -> str:
    if kind not in _REASONS:
        raise Skipped(f"the runner does not know errors of kind {kind}")
    return _REASONS[kind]


async def halted_or_warned(world: World, value: bool, peers: Sequence[Peer]) -> None:  # noqa: ARG001, FBT001 - a judge
    """At least one device's status says that the coordinator went back."""
    for peer in peers:
        told = await world.told(peer)
        texts = [*told.get("warnings", ()), *(f"{each['state']} {each['text']}" for each in told["folders"])]
        if any(word in text for text in texts for word in _BACK):
            return
    raise Failed("no status says that the coordinator went back")


async def judge_guard(world: World, wanted: Mapping[str, Any], before: Mapping[str, Mapping[str, str]]) -> None:
    """The device's status names what is held, and nobody else has it; then the person lets it pass.

    Raises:
        Failed: Nothing is held, or another device changed.
    """
    device, kind = world.peers[wanted["device"]], wanted["kind"]
    told = await world.status(device)
    world.due.add(device.name)
    for name, tree in before.items():
        if name != device.name and (found := difference(tree, world.tree(world.peers[name]))):
            raise Failed(f"{name} changed: {found}")
    if kind in {"root_missing", "root_marker"}:
        if told["state"] != "missing":
            raise Failed(f"status of {device.name} says {told['state']}, not missing")
        device.disk.rename(device.moved_root, device.root)
        return
    held = told["held"]
    if held is None or held["kind"] != _HELD.get(kind, kind):
        raise Failed(f"status of {device.name} names no hold, but {held}")
    total = sum(is_file(each) for each in before[device.name].values())
    if held["files"] <= wanted.get("threshold", 0) * total:
        raise Failed(f"{held['files']} files are held, of {total}")
    await world.approve(device)


# --- Rows


def no_stale_db_rows(world: World, value: bool, peers: Sequence[Peer]) -> None:  # noqa: ARG001, FBT001 - a judge
    """No device's state has a row of what does not stand on its disk."""
    for peer in peers:
        with peer.machine.database() as database:
            stale = state.stale_paths(database, lambda path, peer=peer: peer.disk.exists(peer.at(path)))  # type: ignore[misc]  # a peer of its own for each
        if stale:
            raise Failed(f"the state of {peer.name} has a row of {stale[0]}")


def no_reused_versions(world: World, name: str, peers: Sequence[Peer]) -> None:  # noqa: ARG001 - a judge
    """No two devices know different entries under one number and counter."""
    known: dict[tuple[int, int], bytes] = {}
    for peer in peers:
        with peer.machine.database() as database:
            versions = state.versions(database)
        for version, hash in versions.items():
            if known.setdefault(version, hash) != hash:
                raise Failed(f"two entries have the version {version}")


def no_temp_leak(world: World, value: bool, peers: Sequence[Peer]) -> None:  # noqa: ARG001, FBT001 - a judge
    """No temp file of the product, or of a save, is left."""
    for peer in peers:
        for name in ("tmp", "aside"):
            place = peer.at(f"{CONTROL}/{name}")
            left = peer.disk.list(place) if peer.disk.exists(place) else []
            if left:
                raise Failed(f"{peer.name} has {left[0]} in its directory {name}")
        saves = set(world.memory.get("saves", ()))
        for path in world.tree(peer):
            if path.rpartition("/")[2] in saves:
                raise Failed(f"{peer.name} has {path}")


def outside_untouched(world: World, value: bool, peers: Sequence[Peer]) -> None:  # noqa: ARG001, FBT001 - a judge
    """Planted files are as they were, and nothing lies beside them."""
    expected = {(peer.name, path) for peer, path, _, _ in world.planted}
    for peer, path, data, mtime_ns in world.planted:
        disk, (above, _, name) = peer.disk, path.rpartition("/")
        if not disk.exists(path) or disk.read(path) != data or disk.stat(path).mtime_ns != mtime_ns:
            raise Failed(f"{name} outside the root was touched")
        for beside in disk.list(above):
            if (peer.name, f"{above}/{beside}") not in expected:
                raise Failed(f"{beside} lies outside the root")


# --- Appended blocks


def last_append_present(world: World, path: str, peers: Sequence[Peer]) -> None:
    """The last appended block is in the file."""
    token = world.contents.blocks[path][-1]
    for peer in peers:
        if content(token) not in peer.disk.read(peer.at(path)):
            raise Failed(f"{path} on {peer.name} lacks {token}")


def no_append_lost(world: World, path: str, peers: Sequence[Peer]) -> None:
    """Each appended block is in the file, or in one of its conflict copies."""
    for peer in peers:
        texts = [peer.disk.read(peer.at(each)) for each in (path, *world.copies(peer))]
        for token in world.contents.blocks[path]:
            if not any(content(token) in text for text in texts):
                raise Failed(f"{peer.name} has lost {token}")


# --- Databases


def sqlite_ok(world: World, path: str, peers: Sequence[Peer]) -> None:
    """Each copy of the database is sound."""
    for peer in peers:
        for each in _databases(world, peer, path):
            found = _ask_database(peer, each, "PRAGMA integrity_check")
            if found != [("ok",)]:
                raise Failed(f"{each} on {peer.name}: {found}")


def survive_rows(world: World, wanted: Mapping[str, int], peers: Sequence[Peer]) -> None:
    """The rows that each device committed are in the database, or in one of its conflict copies."""
    path = next(step["path"] for step in world.case.setup if step["op"] == "sqlite_db")
    for peer in peers:
        for device, count in wanted.items():
            statement = f"SELECT count(*) FROM rows WHERE device = '{device}'"  # noqa: S608 - a device's name
            counts = [_ask_database(peer, each, statement) for each in _databases(world, peer, path)]
            if [(count,)] not in counts:
                raise Failed(f"{peer.name} has no database with the {count} rows of {device}: {counts}")


def _databases(world: World, peer: Peer, path: str) -> list[str]:
    suffix = os.path.splitext(path)[1]
    return [path, *(copy for copy in world.copies(peer) if copy.endswith(suffix))]


def _ask_database(peer: Peer, path: str, statement: str) -> list[tuple[Any, ...]]:
    """Return the rows of a statement, asked of a copy with its log: asking the database itself would change it."""
    with tempfile.TemporaryDirectory() as scratch:
        for suffix in ("", "-wal"):
            if peer.disk.exists(peer.at(path + suffix)):
                with open(os.path.join(scratch, f"database{suffix}"), "wb") as file:
                    file.write(peer.disk.read(peer.at(path + suffix)))
        with contextlib.closing(sqlite3.connect(os.path.join(scratch, "database"))) as database:
            try:
                return database.execute(statement).fetchall()
            except sqlite3.DatabaseError as error:
                return [(str(error),)]


# --- Counted bytes


def stored_bytes(world: World) -> int:
    """Return how many bytes of chunks the storage nodes hold."""
    return sum(disk.stat(f"{path}/{name}").size for disk, path in world.hands.packs() for name in disk.list(path))


def received_bytes(world: World) -> int:
    """Return how many bytes came from storage nodes, where these are metered."""
    return world.hands.received_bytes()


KEYS: Final[Mapping[str, Callable[[World, Any, Sequence[Peer]], Awaitable[None] | None]]] = {
    "history_has": history_has,
    "survive_or_history": survive_or_history,
    "history_or_trash_has": history_or_trash_has,
    "errors": errors,
    "errors_allowed": errors_allowed,
    "halted_or_warned": halted_or_warned,
    "no_stale_db_rows": no_stale_db_rows,
    "no_reused_versions": no_reused_versions,
    "no_temp_leak": no_temp_leak,
    "outside_untouched": outside_untouched,
    "last_append_present": last_append_present,
    "no_append_lost_without_conflict": no_append_lost,
    "sqlite_ok": sqlite_ok,
    "survive_rows": survive_rows,
}
