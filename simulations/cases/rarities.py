"""Keys of an expectation that few cases ask for: names that collide, times, versions of a file that was written slowly.

Rule 1: as in :mod:`simulations.cases.judgement`, what cannot be judged here skips the case.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from simulations.cases.grammar import Skipped, in_nfc
from simulations.cases.hands import NO_ACCOUNTS, Failed
from simulations.cases.reckoning import restored
from simulations.cases.trees import is_file, without
from simulations.cases.world import Peer, World

_SECOND_NS: Final = 10**9
_IDENTITY: Final = ("identity", "copied", "cloned", "another device", "same device")
MODEL: Final = "6.1"


# --- Names that collide


def lookup_without_case(world: World, name: str, wanted: Mapping[str, Any]) -> None:
    """Judge paths on a device that folds case: each is looked up without case, and stands there exactly once."""
    tree = world.tree(world.peers[name])
    found: dict[str, list[str]] = {}
    for path in tree:
        found.setdefault(path.casefold(), []).append(path)
    for paths in found.values():
        if len(paths) > 1:
            raise Failed(f"{name} has {' and '.join(paths)}, which are one name there")
    for key, value in wanted.items():
        match key:
            case "exists" | "tree_subset" | "tree":
                for path, what in value.items():
                    names = found.get(path.casefold(), [])
                    if not names or not _is(world, tree[names[0]], what):
                        raise Failed(f"{path} on {name} is not {what}")
                if key == "tree" and (more := sorted(set(found) - {path.casefold() for path in value})):
                    raise Failed(f"{name} also has {more[0]}")
            case "absent":
                for path in value:
                    if path.casefold() in found:
                        raise Failed(f"{name} has {path}")
            case _:
                raise Skipped(f"the runner cannot judge {key} without case")


def _is(world: World, kind: str, what: str) -> bool:
    if what == "<any>" or what.startswith("<"):
        return what in {"<any>", kind}
    return kind in world.contents.digests(what)


def on_ci(world: World, wanted: Mapping[str, Mapping[str, Any]], peers: Sequence[Peer]) -> None:  # noqa: ARG001 - a judge
    """Judge devices that fold case."""
    for name, expectation in wanted.items():
        lookup_without_case(world, name, expectation)


def case_sensitive_devices_exact(world: World, wanted: Mapping[str, str], peers: Sequence[Peer]) -> None:
    """Each device that tells names by case has exactly this tree."""
    for peer in peers:
        if peer.machine.folds_case:
            continue
        tree = without(world.tree(peer), peer.excluded)
        for path, what in wanted.items():
            if path not in tree or not _is(world, tree[path], what):
                raise Failed(f"{path} on {peer.name} is not {what}")
        if more := sorted(set(tree) - set(wanted)):
            raise Failed(f"{peer.name} also has {more[0]}")


def deterministic_choice_on(world: World, name: str, peers: Sequence[Peer]) -> None:  # noqa: ARG001 - a judge
    """After each fresh download the device shows the same of the names that collide, with the same content."""
    downloads = [*world.memory.get(f"downloads:{name}", ()), world.tree(world.peers[name])]
    if len(downloads) < 2:
        raise Skipped(f"{name} downloaded everything only once")
    shown = [
        {path: kind for path, kind in tree.items() if in_nfc(path.rpartition("/")[2]) in world.given}
        for tree in downloads
    ]
    for each in shown[1:]:
        if each != shown[0]:
            raise Failed(f"{name} showed {sorted(shown[0])} first, and then {sorted(each)}")


async def all_allowed_names_on(world: World, name: str, peers: Sequence[Peer]) -> None:  # noqa: ARG001 - a judge
    """Each name that steps made is on the device with its bytes, or its status lists it with a reason."""
    tree = world.tree(world.peers[name])
    told = {row["path"] for row in (await world.status(world.peers[name]))["unsynced"] if row["reason"]}
    for peer in world.peers.values():
        for path, kind in peer.made.items():
            if tree.get(path) != kind and path not in told:
                raise Failed(f"{name} neither has {path} nor says why not")


# --- Times


def mtime(world: World, wanted: Mapping[str, Any], peers: Sequence[Peer]) -> None:
    """A file's time is that of the device that wrote it last."""
    path = wanted["path"]
    writer = next((peer for peer in reversed(world.writers(path)) if peer.disk.exists(peer.at(path))), None)
    if writer is None:
        raise Skipped(f"no step wrote {path}")
    right_ns = writer.disk.stat(writer.at(path)).mtime_ns
    for peer in peers:
        off_ns = abs(peer.disk.stat(peer.at(path)).mtime_ns - right_ns)
        if off_ns > wanted["tolerance_s"] * _SECOND_NS:
            raise Failed(f"the time of {path} on {peer.name} is off by {off_ns / _SECOND_NS:g} s")


def source_mtime_untouched(world: World, name: str, peers: Sequence[Peer]) -> None:  # noqa: ARG001 - a judge
    """No pass changed the time of a file that steps last wrote on the device."""
    peer = world.peers[name]
    tree = world.tree(peer)
    for path, (kind, mtime_ns) in peer.left.items():
        if tree.get(path) == kind and peer.disk.stat(peer.at(path)).mtime_ns != mtime_ns:
            raise Failed(f"a pass changed the time of {path} on {name}")


# --- A file that was written slowly


async def published_versions_are_prefixes_or_full(world: World, path: str, peers: Sequence[Peer]) -> None:
    """Each version in the history, and each state seen on another device, is the content up to some block."""
    allowed = world.published.get(path)
    if allowed is None:
        raise Skipped(f"nothing was written slowly to {path}")
    async for version, digest in restored(world, peers[0], path):
        if digest not in allowed:
            raise Failed(f"version {version} of {path} is no beginning of what was written that ends with a block")
    for seen, device, digest in world.seen:
        if seen == path and digest not in allowed:
            raise Failed(f"{device} had a {path} that is no beginning of what was written that ends with a block")


# --- Folders, devices, models


def no_cross_folder_leak(world: World, value: bool, peers: Sequence[Peer]) -> None:  # noqa: ARG001, FBT001 - a judge
    """No content is in another folder than the one it was written to."""
    homes: dict[str, set[str]] = {}
    for token, origins in world.contents.origins.items():
        for digest in world.contents.digests(token):
            homes.setdefault(digest, set()).update(origin.path.partition("/")[0] for origin in origins)
    for peer in peers:
        for path, kind in world.tree(peer).items():
            if is_file(kind) and kind in homes and path.partition("/")[0] not in homes[kind]:
                raise Failed(f"{path} on {peer.name} holds what was written to {', '.join(sorted(homes[kind]))}")


async def duplicate_identity_detected(world: World, value: bool, peers: Sequence[Peer]) -> None:  # noqa: ARG001, FBT001 - a judge
    """The product says that two devices had one identity, or has given one of them a new one."""
    ids = []
    for peer in peers:
        told = await world.told(peer)
        ids.append(told["device"]["id"])
        texts = [*told.get("warnings", ()), *(folder["text"] for folder in told["folders"])]
        if any(word in text for text in texts for word in _IDENTITY):
            return
    if len(set(ids)) < len(ids):
        raise Failed("two devices have one identity, and neither says so")


def explainable_by(world: World, text: str, peers: Sequence[Peer]) -> None:  # noqa: ARG001 - a judge
    """All that a generator saw was explained by the model that is named: it fails by itself where it is not."""
    if MODEL not in text:
        raise Skipped(f"the runner does not know the model {text}")
    if not world.memory.get("explained"):
        raise Failed("no generator ran")


def simfs_equals_realfs(world: World, value: bool, peers: Sequence[Peer]) -> None:  # noqa: ARG001, FBT001 - a judge
    """Each rename came out the same on both disks."""
    found = world.memory.get("renames differ")
    if found is None:
        raise Skipped("nothing was renamed on two disks")
    if found:
        raise Failed("; ".join(found[:3]))


def location_of(world: World, wanted: Mapping[str, Sequence[str]], peers: Sequence[Peer]) -> None:  # noqa: ARG001 - a judge
    """Just these devices hold the bytes of a path, as every device sees it.

    Raises:
        Skipped: No command says it.
    """
    raise Skipped("no command says which devices hold the bytes of a file")


def no_merge_without_consent(world: World, value: bool, peers: Sequence[Peer]) -> None:  # noqa: ARG001, FBT001 - a judge
    """No directory holds both what was private and what was shared.

    Raises:
        Skipped: Nothing is shared with other accounts.
    """
    raise Skipped(NO_ACCOUNTS)


KEYS: Final[Mapping[str, Callable[[World, Any, Sequence[Peer]], Awaitable[None] | None]]] = {
    each.__name__: each
    for each in (
        on_ci, case_sensitive_devices_exact, deterministic_choice_on, all_allowed_names_on, mtime,
        source_mtime_untouched, published_versions_are_prefixes_or_full, no_cross_folder_leak,
        duplicate_identity_detected, explainable_by, simfs_equals_realfs, location_of, no_merge_without_consent,
    )
}  # fmt: skip
