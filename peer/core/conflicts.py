"""How names are compared, and how what cannot have the name it wants is called (contract, "In a checkout" above).

Rule 1: the same on every device and in every version: one fixed Unicode table, and only what stands in the entries.
Rule 2: a suffixed name keeps the extension, so that the same program opens it, and fits 255 bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count, groupby
from typing import Final
from unicodedata import ucd_3_2_0

from blake3 import blake3

from protocol.ids import NodeId
from protocol.limits import NAME_BYTES_MAX

SHORT_DIGITS: Final = 8
"""Hex digits of the item's id in a suffix; all 32 where another item has or claims the short name."""
_LABEL_BYTES_MIN: Final = 24
"""A label is cut to this before the stem is."""
_LABEL_UNSAFE: Final = frozenset('/\\:*?"<>|')
_CATEGORIES_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_EXTENSION: Final = re.compile(r"(?:\.tar)?\.(?=[0-9]{0,9}[A-Za-z])[0-9A-Za-z]{1,10}", re.ASCII | re.IGNORECASE)
"""``.gz``, ``.tar.gz``, ``.7z``; not ``.5`` (a number) nor ``. Smith`` (a sentence)."""


def text_of(name: bytes) -> str:
    """Return a name as ``os.fsdecode`` gives it: bytes that are not UTF-8 are surrogates."""
    return name.decode("utf-8", "surrogateescape")


def bytes_of(name: str) -> bytes:
    """Return a name as ``os.fsencode`` gives it."""
    return name.encode("utf-8", "surrogateescape")


def name_key(name: bytes) -> bytes:
    """Return what two names of one directory share if they count as the same: their NFC form by Unicode 3.2.

    Characters that Unicode 3.2 does not have stay as they are: of these, each version of Python composes others. A name
    that is not UTF-8 has no Unicode form; it equals only itself.
    """
    if name.isascii():
        return name
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return name
    runs = groupby(text, lambda char: ucd_3_2_0.category(char) == "Cn")
    parts = ("".join(run) if unknown else ucd_3_2_0.normalize("NFC", "".join(run)) for unknown, run in runs)
    return "".join(parts).encode("utf-8")


def split_extension(name: str) -> tuple[str, str]:
    """Return stem and extension; the dots that begin a name belong to its stem."""
    hidden = len(name) - len(name.lstrip("."))
    dot = name.rfind(".", max(hidden, 1))
    if dot < 0:
        return name, ""
    before = name[:dot].lower()
    if before.endswith(".tar") and len(before) - 4 > hidden:
        dot -= 4
    if _EXTENSION.fullmatch(name, dot) is None:
        return name, ""
    return name[:dot], name[dot:]


def conflict_name(name: bytes, label: str, digits: str) -> bytes:
    """Return the name of a conflict copy, or of a second node that wants ``name``.

    Args:
        name: The name that it wants.
        label: The author's device name.
        digits: Hex digits of the item's id.
    """
    stem, extension = split_extension(text_of(name))
    label = _safe_label(label)
    room = NAME_BYTES_MAX - len(bytes_of(f" (conflict, , {digits}){extension}"))
    label_room = max(room - len(bytes_of(stem)), _LABEL_BYTES_MIN)
    label = _cut(label, label_room)
    stem = _cut(stem, room - len(bytes_of(label)))
    return bytes_of(f"{stem} (conflict, {label}, {digits}){extension}")


def conflict_names(name: bytes, label: str, item: NodeId) -> Iterator[bytes]:
    """Yield the names to try for an item, in this order, without end.

    The second holds the whole id, which no other item has; further ones are for names that somebody made up. Each of
    these is derived from the id alone, so no choice of ids makes two items run after one another for ever.
    """
    yield conflict_name(name, label, item.hex()[:SHORT_DIGITS])
    yield conflict_name(name, label, item.hex())
    for attempt in count(1):
        key = b"kinfolder/conflict-name/v1\x00" + item + attempt.to_bytes(4, "big")
        yield conflict_name(name, label, blake3(key).hexdigest(length=len(item)))


def _safe_label(label: str) -> str:
    safe = "".join(
        "_" if char in _LABEL_UNSAFE or ucd_3_2_0.category(char) in _CATEGORIES_UNSAFE else char for char in label
    )
    return safe.strip() or "device"


def _cut(text: str, bytes_max: int) -> str:
    """Return the longest beginning of ``text`` that fits; what was cut leaves no space at the end."""
    if len(bytes_of(text)) <= bytes_max:
        return text
    used = 0
    for length, char in enumerate(text):
        used += len(bytes_of(char))
        if used > bytes_max:
            return text[:length].rstrip()
    return text
