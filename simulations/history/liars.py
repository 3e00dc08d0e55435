"""Machines that lie: something else goes out than what the product on them made.

A coordinator that lies to a device withholds, repeats, delays, reorders and garbles messages, and says again what was true
once. A storage node that lies serves other bytes than it was given. A device that lies sends its neighbours on the LAN what
no device sends. None of them can sign for somebody else.

Rule 1: while they lie, whoever hears them may stand still; nobody may lose, show or give away anything by it.
Rule 2: once they tell the truth again, everything comes to rest as if they always had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Final

import msgspec

from protocol import messages as m
from protocol.errors import ProtocolError
from simulations.exchanges import body_start
from simulations.history import mischief
from simulations.history.effects import Effects
from simulations.history.people import GivenUp
from simulations.history.troubles import Made

if TYPE_CHECKING:
    from simulations.history.course import Course
    from simulations.links import Link

_SHARES: Final = (0.05, 0.3, 1.0)
"""How much of what is sent is a lie."""
_LIES_S: Final = (5.0, 60.0, 300.0)
_OLD_MAX: Final = 16
_MAY_LOG: Final = ("stopped", "the account's chain")
"""Errors by which a device tells of lies."""

Alter = Callable[[bytes], Sequence[bytes]]


async def lie(course: Course, chance: Random) -> Made:
    """Have the coordinator lie to a device for a while."""
    device = chance.choice(course.world.devices)
    link = course.world.network.link(course.world.coordinator.name, device.name)
    for event in _MAY_LOG:
        course.world.may_log(event, device.name)
    return _begin(course, chance, [link], CoordinatorLies(chance, chance.choice(_SHARES)))


async def spoil(course: Course, chance: Random) -> Made:
    """Have one storage node serve other bytes than it holds for a while."""
    node = chance.choice(course.world.nodes)
    others = [one for one in (*course.world.devices, *course.world.nodes) if one is not node]
    links = [course.world.network.link(node.name, one.name) for one in others]
    return _begin(course, chance, links, NodeLies(chance, chance.choice(_SHARES)))


async def garble(course: Course, chance: Random) -> Made:
    """Have a device send garbage to another on its LAN for a while, while its user writes what the other is to have."""
    lans = course.options.lans
    numbers = range(len(course.world.devices))
    pairs = [(one, other) for one in numbers for other in numbers if one != other and lans[one] == lans[other]]
    if not pairs:
        raise GivenUp("each is on a LAN of its own")
    one, other = (course.person(number, chance) for number in chance.choice(pairs))
    link = course.world.network.link(one.device.name, other.device.name)
    mischief.edit(one, f"kiwi-near-{one.ledger.token()}")
    return _begin(course, chance, [link], LanLies(chance, chance.choice(_SHARES)))


def _begin(course: Course, chance: Random, links: Sequence[Link], alter: Alter) -> Made:
    links = [link for link in links if link.alter is None]
    if not links:
        raise GivenUp("it lies already")
    effects = Effects()

    def counted(data: bytes) -> Sequence[bytes]:
        said = alter(data)
        effects.add(int(list(said) != [data]))
        return said

    for link in links:
        link.alter = counted
    course.later(chance.random() * chance.choice(_LIES_S), lambda: _end(links))
    return Made(", ".join(link.name for link in links), (links[0].source,), effects=effects)


def _end(links: Sequence[Link]) -> None:
    for link in links:
        link.alter = None


def _flipped(chance: Random, data: bytes, begin: int = 0) -> bytes:
    """Return bytes of which one bit, from a place on, is another."""
    if len(data) <= begin:
        return data
    changed = bytearray(data)
    changed[chance.randrange(begin, len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


class CoordinatorLies:
    """What a coordinator says instead of the truth.

    Args:
        chance: Which lie it tells.
        share: How many messages are lies.
    """

    def __init__(self, chance: Random, share: float) -> None:
        self._chance = chance
        self._share = share
        self._old: dict[type, list[m.Message]] = {}
        """By kind, what it said before."""
        self._held: list[bytes] = []
        self._lies = (self._withhold, self._repeat, self._delay, self._garble, self._say_again, self._reorder)

    def __call__(self, data: bytes) -> Sequence[bytes]:
        """Return what goes out instead of a message."""
        try:
            frame = m.decode_frame(data)
        except ProtocolError:
            return [data]
        old = self._old.setdefault(type(frame.body), [])
        if self._chance.random() < self._share:
            out = self._chance.choice(self._lies)(data, frame)
        else:
            out, self._held = [data, *self._held], []
        if len(old) < _OLD_MAX:
            old.append(frame.body)
        return out

    def _withhold(self, _: bytes, __: m.Frame) -> list[bytes]:
        return []

    def _repeat(self, data: bytes, _: m.Frame) -> list[bytes]:
        return [data, data]

    def _delay(self, data: bytes, _: m.Frame) -> list[bytes]:
        self._held.append(data)
        return []

    def _garble(self, data: bytes, _: m.Frame) -> list[bytes]:
        return [_flipped(self._chance, data)]

    def _say_again(self, data: bytes, frame: m.Frame) -> list[bytes]:
        old = self._old[type(frame.body)]
        if not old:
            return [data, data]
        return [m.encode_frame(frame.id, self._chance.choice(old), reply=frame.reply)]

    def _reorder(self, data: bytes, frame: m.Frame) -> list[bytes]:
        """Leave something out of a list, say it twice, or say the list in another order."""
        body = frame.body
        lists = [name for name in body.__struct_fields__ if _is_list(getattr(body, name))]
        if not lists:
            return [data, data]
        name = self._chance.choice(lists)
        values = list(getattr(body, name))
        match self._chance.randrange(3):
            case 0:
                values.pop(self._chance.randrange(len(values)))
            case 1:
                values.append(self._chance.choice(values))
            case _:
                self._chance.shuffle(values)
        changed = msgspec.structs.replace(body, **{name: tuple(values)})
        return [m.encode_frame(frame.id, changed, reply=frame.reply)]


def _is_list(value: object) -> bool:
    return type(value) is tuple and len(value) > 0


class NodeLies:
    """What a storage node serves instead of what it holds.

    Args:
        chance: Which lie it tells.
        share: How many pieces are lies.
    """

    def __init__(self, chance: Random, share: float) -> None:
        self._chance = chance
        self._share = share
        self._old: list[bytes] = []

    def __call__(self, data: bytes) -> Sequence[bytes]:
        """Return what goes out instead of a piece of a reply."""
        start = body_start(data)
        head, body = data[:start], data[start:]
        if not body:
            return [data]
        out = body
        if self._chance.random() < self._share:
            out = self._lie(body)
        elif len(self._old) < _OLD_MAX:
            self._old.append(body)
        return [head + out]

    def _lie(self, body: bytes) -> bytes:
        match self._chance.randrange(4):
            case 0:
                return b""
            case 1:
                return body[: self._chance.randrange(len(body))]
            case 2 if self._old:
                return self._chance.choice(self._old)
            case _:
                return _flipped(self._chance, body)


class LanLies:
    """What a device sends on the LAN instead of frames and chunks.

    Args:
        chance: Which lie it tells.
        share: How many pieces are lies.
    """

    def __init__(self, chance: Random, share: float) -> None:
        self._chance = chance
        self._share = share

    def __call__(self, data: bytes) -> Sequence[bytes]:
        """Return what goes out instead of a piece of a stream."""
        if self._chance.random() >= self._share:
            return [data]
        match self._chance.randrange(4):
            case 0:
                return []
            case 1:
                return [data, data]
            case 2:
                return [self._chance.randbytes(len(data))]
            case _:
                return [_flipped(self._chance, data)]
