"""What a simulated file system is like: which names it takes for one, how exact its times are, what it cannot do."""

from __future__ import annotations

import errno
import os
import unicodedata
from enum import Enum
from typing import Final, NamedTuple

SECOND_NS: Final = 1_000_000_000
NAME_BYTES_MAX: Final = 255


class Order(Enum):
    """Which changes of names a power cut leaves, of those that nobody made durable."""

    ORDERED = "ordered"
    """The oldest ones, as a file system with a journal does."""
    WEAK = "weak"
    """Any of them, as long as each found what it changed."""


class Personality(NamedTuple):
    """One kind of file system; as made without arguments, a Linux disk of today."""

    order: Order = Order.ORDERED
    folds_case: bool = False
    """Whether names that differ in case alone are one; they show as they were first given."""
    folds_forms: bool = False
    """Whether the composed and the decomposed spelling of a name are one."""
    stores_nfd: bool = False
    """Whether names show decomposed, however they were given."""
    strips_endings: bool = False
    """Whether dots and spaces at the end of a name are lost."""
    utf8_only: bool = False
    forbidden: frozenset[str] = frozenset()
    """Characters that no name may have: EINVAL."""
    name_bytes_max: int = NAME_BYTES_MAX
    path_chars_max: int = 0
    """The most characters from the top of this file system; 0: any number."""
    mtime_step_ns: int = 1
    ctime_step_ns: int = 1
    reuses_inodes: bool = True
    """Whether the number of a removed file is that of the next new one."""
    has_links: bool = True
    can_exchange: bool = True
    renames_by_link: bool = False
    """Whether a file gets its new name first and loses its old one after that, as where renameat2 has no flags."""
    tells_writers: bool = True

    @property
    def changes_names(self) -> bool:
        """Whether two spellings may be one name here."""
        return self.folds_case or self.folds_forms or self.stores_nfd or self.strips_endings

    def stored(self, name: str) -> str:
        """Return how a name shows that is given to something new."""
        if self.strips_endings:
            name = name.rstrip(". ")
        return unicodedata.normalize("NFD", name) if self.stores_nfd else name

    def key(self, name: str) -> str:
        """Return what two spellings of one name have in common here."""
        name = self.stored(name)
        if self.folds_forms or self.stores_nfd:
            name = unicodedata.normalize("NFD", name)
        return name.casefold() if self.folds_case else name

    def check(self, name: str) -> None:
        """Refuse what can be no name here, however short.

        Raises:
            OSError: EINVAL or EILSEQ.
        """
        if not name or "/" in name or "\0" in name or name in {".", ".."} or not self.forbidden.isdisjoint(name):
            raise OSError(errno.EINVAL, "not a name", name)
        try:
            name.encode() if self.utf8_only else os.fsencode(name)
        except UnicodeEncodeError as error:
            raise OSError(errno.EILSEQ, os.strerror(errno.EILSEQ), name) from error
        if not self.stored(name):
            raise OSError(errno.EINVAL, "not a name", name)

    def is_too_long(self, name: str) -> bool:
        """Tell whether this disk has no room for a name."""
        return len(os.fsencode(self.stored(name))) > self.name_bytes_max


PLAIN: Final = Personality()
PERSONALITIES: Final = {
    "plain": PLAIN,
    "weak": Personality(order=Order.WEAK),
    "old-kernel": Personality(mtime_step_ns=4_000_000, ctime_step_ns=4_000_000),
    "no-exchange": Personality(can_exchange=False, reuses_inodes=False),
    "by-link": Personality(can_exchange=False, renames_by_link=True),
    "mac": Personality(folds_case=True, folds_forms=True, utf8_only=True, reuses_inodes=False),
    "old-mac": Personality(
        folds_case=True, stores_nfd=True, utf8_only=True, mtime_step_ns=SECOND_NS, ctime_step_ns=SECOND_NS
    ),
    "stick": Personality(
        order=Order.WEAK,
        folds_case=True,
        strips_endings=True,
        utf8_only=True,
        forbidden=frozenset('\\:*?"<>|'),
        path_chars_max=260,
        mtime_step_ns=2 * SECOND_NS,
        ctime_step_ns=2 * SECOND_NS,
        has_links=False,
        can_exchange=False,
        tells_writers=False,
    ),
    "network": Personality(
        mtime_step_ns=SECOND_NS, can_exchange=False, renames_by_link=True, tells_writers=False, reuses_inodes=False
    ),
}
"""By name: those that a seed may draw (:mod:`simulations.history.options`), and those that only worlds and cases ask for."""
