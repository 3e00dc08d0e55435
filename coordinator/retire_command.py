"""``kin-coordinator retire``: write down that a node is to go, and show how far the server is with it.

Rule 1: whether the others can do without the node is decided in the transaction that writes the wish down.
Rule 2: the command changes nothing after that; it may end at any moment.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from coordinator.core import retirement as core
from coordinator.core.retirement import Member
from coordinator.directory import DataDirectory
from coordinator.registry import GONE_AFTER_S
from coordinator.standing import Standing, size_text, standings, what_is_left
from coordinator.store.repository import Repository
from protocol.errors import EXIT_TIMEOUT, EXIT_USAGE, UserError

LOOK_S: Final = 0.5
LINE_S: Final = 2.0
"""Between two lines of progress."""
RATE_S: Final = 30.0
"""The rate is that of the last so many seconds."""
PREFIX_MIN: Final = 4
"""Digits of an id that must be given."""
FOLDERS_NAMED_MAX: Final = 10


def retire_node(
    directory: DataDirectory, word: str, *, timeout_s: float | None, show: Callable[[str], None]
) -> Standing:
    """Have a node taken out of service, wait until it is, and return how it stands.

    Args:
        directory: The coordinator's.
        word: The beginning of the node's id, or its URL.
        timeout_s: How long to wait; None: for as long as it takes.
        show: Shows a line of progress.

    Raises:
        UserError: There is no such node, the others cannot do without it, or the time is over.
    """
    directory.prepare()
    watch = _Watch(directory, _begin(directory, word), show)
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        watch.look()
        if watch.standing.state == "retired":
            return watch.standing
        if deadline_s is not None and time.monotonic() >= deadline_s:
            raise UserError(f"time is over: {watch.line}", exit_code=EXIT_TIMEOUT, code="timeout")
        time.sleep(LOOK_S)


def _begin(directory: DataDirectory, word: str) -> Standing:
    is_served = directory.is_served()
    now_ms = directory.now_ms()
    with directory.open() as repository:
        standing = _choose(standings(repository), word)
        if standing.retirement is None:
            _check(repository, standing, now_ms, is_served=is_served)
            repository.retirements.begin(standing.node.node, now_ms)
        return standing


def _choose(known: list[Standing], word: str) -> Standing:
    """Return the node that is meant.

    Raises:
        UserError: None or several are; the text lists those that there are.
    """
    begins = word.lower()
    found = [
        one
        for one in known
        if one.node.url == word or (len(begins) >= PREFIX_MIN and one.node.node.hex().startswith(begins))
    ]
    if len(found) == 1:
        return found[0]
    there = ", ".join(f"{one.name} ({one.node.url})" for one in found or known)
    if found:
        text = f"{word} may be any of these storage nodes: {there}"
    elif known:
        text = f"there is no storage node {word}; there are {there}"
    else:
        text = f"there is no storage node {word}, nor any other"
    raise UserError(text, exit_code=EXIT_USAGE)


def _others(known: list[Standing], leaving: Standing, now_ms: int, *, is_served: bool) -> list[Member]:
    """Return the nodes that are to hold what the one that leaves holds."""
    members = [
        Member(
            one.node.number,
            one.node.online and is_served,
            (now_ms - one.node.last_seen_ms) / 1000,
            one.node.free_bytes,
        )
        for one in known
        if one.state == "in_service" and one.node.node != leaving.node.node
    ]
    return core.staying(members, is_served=is_served, gone_after_s=GONE_AFTER_S)


def _check(repository: Repository, leaving: Standing, now_ms: int, *, is_served: bool) -> None:
    """Refuse to let a node go without which the others cannot hold all copies.

    Raises:
        UserError: They cannot; the text says how many nodes, or how much room, it takes.
    """
    copies = repository.settings.copies()
    others = _others(standings(repository), leaving, now_ms, is_served=is_served)
    replicas = 1 if copies is None else copies[0]
    short = core.shortage(repository.chunks.holdings(), leaving.node.number, others, replicas)
    if short is not None:
        raise UserError(f"{leaving.name} cannot go: {_why(short)}", code="nodes")


def _why(short: core.Shortage) -> str:
    if short.what == "bytes":
        return (
            f"what it holds needs {size_text(short.needed)} on the other storage nodes, which have"
            f" {size_text(short.there)} free: add a storage node, or room, first"
        )
    lower = " (or fewer copies: kin-coordinator copies)" if short.needed > 1 and short.there else ""
    return (
        f"{short.needed} {'copy takes' if short.needed == 1 else 'copies take'} {short.needed} other storage"
        f" node{'' if short.needed == 1 else 's'}, and there {'is' if short.there == 1 else 'are'} {short.there}:"
        f" add {short.needed - short.there} first{lower}"
    )


def _line(standing: Standing, hindrance: str, rate: str = "") -> str:
    left = "" if standing.retirement is None else f": {what_is_left(standing.retirement)}"
    return f"retiring {standing.name}{left}{rate}" + (f"; {hindrance}" if hindrance else "")


class _Watch:
    """How a node stands, what keeps it from going on, and lines about it when something is new and not too often."""

    def __init__(self, directory: DataDirectory, leaving: Standing, show: Callable[[str], None]) -> None:
        self._directory = directory
        self._show = show
        self._shown = ""
        self._shown_s = float("-inf")
        self._seen: deque[tuple[float, int]] = deque()
        self._alone: tuple[int, str] = (0, "")
        """How many chunks no node can give, and which: that is looked up once for each number."""
        self.standing = leaving
        self._hindrance = ""

    @property
    def line(self) -> str:
        """What is left, and what keeps it from going on if something does."""
        return _line(self.standing, self._hindrance)

    def look(self) -> None:
        """See how the node stands, and show it if it is time to."""
        is_served = self._directory.is_served()
        with self._directory.open() as repository:
            known = standings(repository)
            self.standing = next(one for one in known if one.node.node == self.standing.node.node)
            self._hindrance = self._find_hindrance(repository, known, is_served=is_served)
        now_s = time.monotonic()
        retirement = self.standing.retirement
        if retirement is not None and retirement.counted_ms:
            self._seen.append((now_s, retirement.bytes_left))
        while self._seen and now_s - self._seen[0][0] > RATE_S:
            self._seen.popleft()
        if self.standing.state != "retired" and self.line != self._shown and now_s - self._shown_s >= LINE_S:
            self._shown, self._shown_s = self.line, now_s
            self._show(_line(self.standing, self._hindrance, _rate(self._seen)))

    def _find_hindrance(self, repository: Repository, known: list[Standing], *, is_served: bool) -> str:
        if not is_served:
            return "no coordinator runs on this directory: it goes on when one does"
        copies = repository.settings.copies()
        retirement = self.standing.retirement
        if copies is None or retirement is None or not retirement.chunks_left:
            return ""
        others = _others(known, self.standing, self._directory.now_ms(), is_served=is_served)
        online = [one for one in others if one.online]
        if len(online) < copies[0]:
            there = f"{len(online)} {'is' if len(online) == 1 else 'are'} online"
            return f"it waits: the copies take {copies[0]} other storage nodes, and {there}"
        free = sum(one.free_bytes for one in online)
        if free < retirement.bytes_left:
            return f"it waits: the other storage nodes have {size_text(free)} free"
        alone = retirement.chunks_alone
        if alone and alone != self._alone[0]:
            self._alone = (alone, _name_alone(repository, known, self.standing))
        return self._alone[1] if alone else ""


def _name_alone(repository: Repository, known: list[Standing], standing: Standing) -> str:
    """Say which folders have chunks that no node which is up can give."""
    online = {one.node.number for one in known if one.node.online}
    number = standing.node.number
    nodes = [
        one.nodes for one in repository.chunks.holdings() if number in one.nodes and core.is_alone(one.nodes, online)
    ]
    folders = repository.chunks.by_folder(nodes, FOLDERS_NAMED_MAX + 1)
    named = [f"{count:,} chunks of folder {folder.hex()[:16]}" for folder, count in folders[:FOLDERS_NAMED_MAX]]
    more = [] if len(folders) <= FOLDERS_NAMED_MAX else ["and of others"]
    return f"it waits: no node that is online has {', '.join(named + more)}; start {standing.name} again"


def _rate(seen: Sequence[tuple[float, int]]) -> str:
    """Return the rate and the time that is left at it, nothing while there is none."""
    if len(seen) < 2 or seen[-1][1] >= seen[0][1] or seen[-1][0] <= seen[0][0]:
        return ""
    rate = (seen[0][1] - seen[-1][1]) / (seen[-1][0] - seen[0][0])
    return f", {size_text(rate)}/s, about {seen[-1][1] / rate:,.0f} s more"
