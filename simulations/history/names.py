"""The few names that people give, so that they meet often, in all the spellings that trouble file systems.

Rule 1: each holds the mark by which a leak is found (:data:`simulations.history.contents.CANARY`), but for what editors append.
"""

from __future__ import annotations

from random import Random
from typing import Final

FILES: Final = ("kiwi-a.txt", "kiwi-b.txt", "kiwi-c", "kiwi-d.tar.gz", "kiwi-e.odt")
FRESH: Final = ("kiwi-g.txt", "kiwi-h", "kiwi-i.tar.gz", "kiwi-j.md")
"""Names for what is new."""
REPOSITORY: Final = "kiwi-r.git"
DIRECTORIES: Final = ("kiwi-D", "kiwi-E", "kiwi-F")
NFC: Final = "kiwi-\u00e9.txt"
NFD: Final = "kiwi-e\u0301.txt"
ODD: Final = (
    NFC,
    NFD,
    "kiwi-A.TXT",
    "KIWI-B.txt",
    "kiwi- x",
    "kiwi-\u4e2d\U0001f95d.md",
    "kiwi-" + "n" * 240 + ".txt",
    ".kiwi-hidden",
    "kiwi-a:b?.txt",
    "kiwi-\udcff.bin",
    "kiwi-\n.txt",
    "kiwi-end ",
    "kiwi-dot.",
    "kiwi-a (conflict, device-0, 0123abcd).txt",
    ".~lock.kiwi-e.odt#",
)
DEPTH_MAX: Final = 4


def file_name(chance: Random, *, odd: bool = False) -> str:
    """Return a name for a file."""
    return chance.choice(ODD if odd else FILES)


def directory_name(chance: Random) -> str:
    """Return a name for a directory."""
    return chance.choice(DIRECTORIES)


def respelled(name: str) -> str:
    """Return a name in other letters: the same one to some file systems."""
    other = name.replace("\u00e9", "e\u0301") if "\u00e9" in name else name.replace("e\u0301", "\u00e9")
    return other if other != name else name.swapcase()
