"""One file on several devices, as black boxes: what a tester sees must be explained by syncs that he does not see.

The model is that of Hughes, Pierce, Arts and Norell, "Mysteries of Dropbox" (ICST 2016): a server's value, a multiset of conflicts, and for
each node its value, whether it has the server's newest one (fresh), and whether its own was sent (clean).

One rule is added to its first version, whose rules for deletion its authors refined: what was written against a value that was
deleted meanwhile takes its place instead of becoming a conflict (docs/decisions/a-write-beats-a-removal.md).

Rule 1: a run is right if hidden uploads and downloads can be put between what was seen so that all of it could be.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from simulations.cases.contents import DEFAULT_BYTES
from simulations.cases.files import write_in_place
from simulations.cases.hands import Failed
from simulations.cases.trees import is_file
from simulations.cases.world import Peer, World

MISSING: Final = "$"
SEQUENCES: Final = 4
"""In one run of a case; a seed has its own."""
SHRINKS_MAX: Final = 40


class State(NamedTuple):
    """One state that the whole may be in."""

    server: str
    conflicts: frozenset[str]
    local: tuple[str, ...]
    fresh: tuple[bool, ...]
    clean: tuple[bool, ...]


class Deed(NamedTuple):
    """What a tester does."""

    kind: Literal["read", "write", "delete", "sync"]
    nodes: tuple[int, ...]
    value: str = ""


class Seen(NamedTuple):
    """What he sees of it."""

    kind: Literal["read", "write", "stable"]
    node: int
    value: str
    """Read or written; of all, at the end."""
    old: str = ""
    """What a write replaced."""
    conflicts: frozenset[str] = frozenset()

    def __str__(self) -> str:
        """Return it for a person."""
        match self.kind:
            case "read":
                return f"READ_{self.node} -> {self.value}"
            case "write":
                return f"WRITE_{self.node}({self.value}) -> {self.old}"
            case _:
                return f"STABILIZE -> ({self.value}, {sorted(self.conflicts)})"


# --- The model


def beginning(nodes: int) -> set[State]:
    """Return the one state in which nothing was written yet."""
    return {State(MISSING, frozenset(), (MISSING,) * nodes, (True,) * nodes, (True,) * nodes)}


def closed(states: Iterable[State]) -> set[State]:
    """Return all states that hidden uploads and downloads may have led to."""
    found, left = set(states), list(states)
    while left:
        for state in _hidden(left.pop()):
            if state not in found:
                found.add(state)
                left.append(state)
    return found


def _hidden(state: State) -> Iterator[State]:
    for node in range(len(state.local)):
        if not state.clean[node]:
            yield _up(state, node)
        elif not state.fresh[node]:
            yield state._replace(
                local=_put(state.local, node, state.server),
                fresh=_put(state.fresh, node, True),
            )


def _up(state: State, node: int) -> State:
    value = state.local[node]
    sent = state._replace(clean=_put(state.clean, node, True))
    if value == state.server:
        return sent
    if state.fresh[node] or state.server == MISSING:
        return _put_server(sent, node)
    return sent if value == MISSING else sent._replace(conflicts=sent.conflicts | {value})


def _put_server(state: State, node: int) -> State:
    fresh = tuple(other == node for other in range(len(state.fresh)))
    return state._replace(server=state.local[node], fresh=fresh)


def _put(values: tuple[Any, ...], node: int, value: Any) -> tuple[Any, ...]:
    return (*values[:node], value, *values[node + 1 :])


def after(states: Iterable[State], seen: Seen) -> set[State]:
    """Return the states in which this can be seen, as they are after it."""
    match seen.kind:
        case "read":
            return {state for state in states if state.local[seen.node] == seen.value}
        case "write":
            return {
                state._replace(
                    local=_put(state.local, seen.node, seen.value),
                    clean=_put(state.clean, seen.node, False),
                )
                for state in states
                if state.local[seen.node] == seen.old
            }
        case _:
            wanted = (seen.value, seen.conflicts)
            return {
                state
                for state in states
                if all(state.fresh) and all(state.clean) and (state.server, state.conflicts) == wanted
            }


def unexplained(nodes: int, history: Sequence[Seen]) -> int | None:
    """Return the number of the first thing seen that nothing explains; None if all of it is explained."""
    states = beginning(nodes)
    for number, seen in enumerate(history):
        states = after(closed(states), seen)
        if not states:
            return number
    return None


# --- Sequences


def drawn(rnd: random.Random, nodes: int, length: int, number: int) -> list[Deed]:
    """Return a random sequence, all values of which are different."""
    deeds: list[Deed] = []
    for turn in range(length):
        node = rnd.randrange(nodes)
        match rnd.choice(("read", "write", "write", "write", "delete", "sync", "sync", "sync")):
            case "read":
                deeds.append(Deed("read", (node,)))
            case "delete":
                deeds.append(Deed("delete", (node,), MISSING))
            case "write":
                deeds.append(Deed("write", (node,), f"value-{number}-{turn}"))
            case _:
                deeds.append(Deed("sync", tuple(rnd.sample(range(nodes), rnd.randint(1, nodes)))))
    return deeds


async def perform(world: World, peers: Sequence[Peer], path: str, deeds: Sequence[Deed]) -> list[Seen]:
    """Do a sequence on one file, bring all to rest, and return what was seen."""
    history = []
    for deed in deeds:
        if deed.kind == "sync":
            for begun in [world.begin_pass(peers[node]) for node in deed.nodes]:
                await begun.finish()
            continue
        (node,) = deed.nodes
        value = _value(world, peers[node], path)
        if deed.kind == "read":
            history.append(Seen("read", node, value))
            continue
        before = world.tree(peers[node])
        if deed.kind == "delete":
            if value == MISSING:
                continue
            peers[node].disk.remove(peers[node].at(path))
        else:
            write_in_place(world, peers[node], path, deed.value, DEFAULT_BYTES)
        world.note_hand(peers[node], before)
        history.append(Seen("write", node, deed.value, value))
    await world.settle()
    return [*history, *(_stable(world, peer, path) for peer in peers)]


def _stable(world: World, peer: Peer, path: str) -> Seen:
    tree, names = world.tree(peer), _names(world)
    beside = [kind for other, kind in tree.items() if other != path and other.startswith(f"{path} (conflict, ")]
    return Seen("stable", 0, _value(world, peer, path), conflicts=frozenset(names.get(kind, kind) for kind in beside))


def _value(world: World, peer: Peer, path: str) -> str:
    kind = world.tree(peer).get(path, MISSING)
    return _names(world).get(kind, kind) if is_file(kind) else kind


def _names(world: World) -> Mapping[str, str]:
    names: dict[str, str] = world.memory.setdefault("names", {MISSING: MISSING})
    for token in list(world.contents.origins)[len(names) - 1 :]:
        (digest,) = world.contents.digests(token)
        names[digest] = token
    return names


# --- The operation


async def generate(world: World, peers: Sequence[Peer], step: Mapping[str, Any]) -> None:
    """Do random sequences, each on a file of its own.

    Raises:
        Failed: One is not explained; the text holds the shortest one that was found.
    """
    rnd = random.Random(world.seed)
    peers = peers[: step["nodes"]]
    low, _, high = str(step["length"]).partition("..")
    for number in range(SEQUENCES):
        deeds = drawn(rnd, len(peers), rnd.randint(int(low), int(high or low)), number)
        path = f"mystery-{number}"
        history = await perform(world, peers, path, deeds)
        if unexplained(len(peers), history) is not None:
            if step.get("shrink"):
                history = await _shrunk(world, peers, path, deeds, history)
            raise Failed(f"nothing explains: {'; '.join(map(str, history))}")
    world.memory["explained"] = True


async def _shrunk(
    world: World, peers: Sequence[Peer], path: str, deeds: Sequence[Deed], history: list[Seen]
) -> list[Seen]:
    """Return what is seen of the shortest sequence found that is still not explained; deeds are left out one by one."""
    tries, at = 0, 0
    while at < len(deeds) and tries < SHRINKS_MAX:
        fewer = [*deeds[:at], *deeds[at + 1 :]]
        tries += 1
        seen = await perform(world, peers, f"{path}-{tries}", fewer)
        if unexplained(len(peers), seen) is None:
            at += 1
        else:
            deeds, history = fewer, seen
    return history
