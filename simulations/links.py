"""The wires of the simulated network: one link for each direction between two machines, and what can be wrong with it.

Rule 1: what goes one way on one channel arrives in the order in which it was sent, or not at all.
Rule 2: a blocked link loses nothing at once, as TCP sends again; who waits too long for it gives up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import IntFlag
from random import Random
from typing import Any, Final

from protocol import limits
from simulations.delays import Delay
from simulations.loop import SECOND_NS, SimLoop

WINDOW_BYTES: Final = 512 * limits.KIB
"""What may be sent on one direction of a channel and not be read yet: both ends' socket buffers together."""
BYTES_PER_S: Final = 25_000_000


class Trouble(IntFlag):
    """Why nothing gets through a link."""

    NONE = 0
    CLOG = 1
    """It takes its time: nobody gives up because of it but by his own clock."""
    CUT = 2
    """Packets are lost."""
    DOWN = 4
    """The machine at its end is off."""
    OFFLINE = 8
    """The machine at one of its ends is on no network."""


class Link:
    """One direction between two machines.

    Made by :meth:`simulations.network.Network.link`; its delay, speed and window may be set at any time.
    """

    def __init__(self, loop: SimLoop, source: str, target: str, delay: Delay) -> None:
        self._loop = loop
        self._chance: Random = loop.chance(f"link/{source}/{target}")
        self.source = source
        self.target = target
        self.delay = delay
        self.bytes_per_s = BYTES_PER_S
        self.window_bytes = WINDOW_BYTES
        self.trouble = Trouble.NONE
        self.is_blocked = False
        self.loses = False
        """Whether packets are lost, so that whoever waits for an answer gives up some day."""
        self.cut_after_bytes: int | None = None
        """Break the channel whose bytes are these on their way; None: never."""
        self.repeats = 0
        """So many of the next messages come twice."""
        self.on_cut: Callable[[], None] | None = None
        """Called when that breaks one."""
        self.alter: Callable[[bytes], Sequence[bytes]] | None = None
        """Sees every message that is sent on it, and says which ones go instead."""
        self.carried_bytes = 0
        """What was sent on it so far, whether it arrived or not, but for resets: no process sends these."""
        self._free_ns = 0
        self._ways: dict[Way, None] = {}
        """Ways on which something is held back, in the order in which that began."""

    @property
    def name(self) -> str:
        """Both machines, for the trace."""
        return f"{self.source}>{self.target}"

    def arrival_ns(self, size: int, *, counts: bool = True) -> int:
        """Return when what is sent now arrives, if nothing is in its way; ``counts``: in :attr:`carried_bytes`."""
        now_ns = self._loop.now_ns
        self.carried_bytes += size if counts else 0
        self._free_ns = max(now_ns, self._free_ns) + size * SECOND_NS // self.bytes_per_s
        return self._free_ns + self.delay.draw(self._chance)

    def block(self, trouble: Trouble) -> None:
        """Let nothing through from now on."""
        self._loop.note(f"link {trouble.name}", self.name)
        self.set_trouble(self.trouble | trouble)

    def unblock(self, trouble: Trouble) -> None:
        """Take one trouble away; where it was the last, what was held back arrives after a delay."""
        if not self.trouble & trouble:
            return
        self._loop.note(f"link not {trouble.name}", self.name)
        self.set_trouble(self.trouble & ~trouble)
        if not self.is_blocked:
            ways, self._ways = self._ways, {}
            for way in ways:
                way.go_on(self._loop.now_ns + self.delay.draw(self._chance))

    def set_trouble(self, trouble: Trouble) -> None:
        """Have just these troubles; what is held back stays so."""
        self.trouble = trouble
        self.is_blocked = trouble != Trouble.NONE
        self.loses = trouble & ~Trouble.CLOG != Trouble.NONE

    def holds(self, way: Way) -> None:
        """Note that something is held back on this way."""
        self._ways[way] = None

    def forget_held(self) -> None:
        """Drop what is held back: who sent it is gone, and does not send it again."""
        for way in self._ways:
            way.drop()
        self._ways.clear()


class Way:
    """One direction of one connection: packets, in order.

    Args:
        loop: In which they go.
        link: On which.
        counts: Whether they count as what is sent on it; a machine's resets of connections that it does not know do not.
    """

    def __init__(self, loop: SimLoop, link: Link, *, counts: bool = True) -> None:
        self._loop = loop
        self.link = link
        self._counts = counts
        self._last_ns = 0
        self._under_way = 0
        self._held: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._is_dropped = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._under_way and not self._held

    @property
    def is_open(self) -> bool:
        """Whether what is sent now arrives, as far as can be told."""
        return not (self._held or self._is_dropped or self.link.is_blocked)

    def carry(self, size: int, arrive: Callable[..., object], *args: Any) -> None:
        """Send a packet; ``arrive`` is called where it arrives."""
        # Never at the same moment as the one before, which a shuffled schedule would not keep in order.
        self._last_ns = max(self._last_ns + 1, self.link.arrival_ns(size, counts=self._counts))
        self._under_way += 1
        self._loop.call_at_ns(self._last_ns, self._arrive, arrive, args, context=self._loop.world.context)

    def at_once(self, arrive: Callable[..., object], *args: Any) -> None:
        """Tell the other end something that takes no time unless the link is blocked."""
        if self._held or self.link.is_blocked:
            self._hold(arrive, args)
        elif not self._is_dropped:
            arrive(*args)

    def drop(self) -> None:
        """Let nothing more arrive of what is under way."""
        self._is_dropped = True
        self._held.clear()

    def go_on(self, when_ns: int) -> None:
        """Let what is held back arrive at this moment."""
        self._last_ns = when_ns = max(self._last_ns + 1, when_ns)
        self._loop.call_at_ns(when_ns, self._release, context=self._loop.world.context)

    def _arrive(self, arrive: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._under_way -= 1
        if self._held or self.link.is_blocked:
            self._hold(arrive, args)
        elif not self._is_dropped:
            arrive(*args)

    def _hold(self, arrive: Callable[..., object], args: tuple[Any, ...]) -> None:
        if not self._is_dropped:
            self._held.append((arrive, args))
            if self.link.is_blocked:
                self.link.holds(self)

    def _release(self) -> None:
        while self._held:
            if self.link.is_blocked:
                self.link.holds(self)
                return
            arrive, args = self._held.popleft()
            arrive(*args)
