"""Errors of a disk, drawn from a seed or chosen by whoever asks: what :attr:`simulations.disk_hooks.Hooks.fault` takes.

Rule 1: an error that no disk gives at a call is not given there.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final

from simulations.disk_hooks import Call, Fault

Judge = Callable[[Call], Fault | None]

_LOOKING: Final = (errno.EIO, errno.EACCES, errno.ESTALE)
_NAMING: Final = (errno.EIO, errno.EACCES, errno.ENOSPC, errno.EBUSY, errno.ESTALE)
_GOING: Final = (errno.EIO, errno.EACCES, errno.EBUSY, errno.ESTALE)
ERRORS: Final[Mapping[str, Sequence[int]]] = {
    "open_root": _LOOKING,
    "open_directory": _LOOKING,
    "open_file": (*_NAMING, errno.EMFILE),
    "list": (errno.EIO, errno.ESTALE),
    "lstat": _LOOKING,
    "fstat": (errno.EIO, errno.ESTALE),
    "read": (errno.EIO, errno.ESTALE),
    "read_link": _LOOKING,
    "write": (errno.ENOSPC, errno.EIO, errno.EDQUOT),
    "truncate": (errno.ENOSPC, errno.EIO),
    "set_attributes": (errno.EIO, errno.EPERM),
    "sync": (errno.EIO, errno.ENOSPC),
    "sync_all": (errno.EIO, errno.ENOSPC),
    "make_directory": (*_NAMING, errno.ENAMETOOLONG),
    "make_link": (*_NAMING, errno.ENAMETOOLONG),
    "rename": (*_NAMING, errno.ENAMETOOLONG, errno.EXDEV),
    "exchange": (*_GOING, errno.EXDEV),
    "link": _NAMING,
    "unlink": _GOING,
    "remove_directory": _GOING,
}
"""By call, what it may fail with."""
ANSWERED_LATE: Final = frozenset({"rename", "exchange", "unlink", "make_directory", "make_link", "remove_directory"})
"""Calls that a network file system may have done though it says otherwise."""


class SeededFaults:
    """Lets some calls fail.

    Args:
        chance: Which, and how.
        share: How many of all calls fail, from 0 to 1.
        most: After so many it lets everything pass.
        calls: Which calls may fail; none given: all.
        under: Only what stands below this path fails.
        late_share: How many of the failures that can be are those of a call that was done.
    """

    def __init__(
        self,
        chance: Random,
        *,
        share: float,
        most: int = 1 << 30,
        calls: Sequence[str] = (),
        under: str = "/",
        late_share: float = 0.0,
    ) -> None:
        self.left = most
        self._draw = chance.random
        self._chance = chance
        self._share = share
        self._calls = frozenset(calls or ERRORS)
        self._under = under
        self._late_share = late_share

    def __call__(self, call: Call) -> Fault | None:
        """Return how a call fails, if it does."""
        if self.left <= 0 or call.call not in self._calls or self._draw() >= self._share:
            return None
        if self._under != "/" and not call.path().startswith(self._under):
            return None
        self.left -= 1
        code = self._chance.choice(ERRORS[call.call])
        is_late = call.call in ANSWERED_LATE and self._draw() < self._late_share
        return Fault(code, is_after=is_late, loses_bytes=call.call == "sync")


def failing(wanted: str, code: int, *, under: str = "/", turn: int = 1, times: int = 1) -> Judge:
    """Return what lets a call fail below a path: the n-th such call, and as many after it as are asked for."""
    seen = 0

    def judge(call: Call) -> Fault | None:
        nonlocal seen
        if call.call != wanted or not (under == "/" or call.path().startswith(under)):
            return None
        seen += 1
        return Fault(code, loses_bytes=wanted == "sync") if turn <= seen < turn + times else None

    return judge


def reading_short(bytes_max: int, *, under: str = "/") -> Judge:
    """Return what lets reads end early, which the door to a sound disk never does."""

    def judge(call: Call) -> Fault | None:
        is_meant = call.call == "read" and (under == "/" or call.path().startswith(under))
        return Fault(bytes_max=bytes_max) if is_meant else None

    return judge


def any_of(*judges: Judge) -> Judge:
    """Return what asks several, until one lets a call fail."""

    def judge(call: Call) -> Fault | None:
        for one in judges:
            fault = one(call)
            if fault is not None:
                return fault
        return None

    return judge
