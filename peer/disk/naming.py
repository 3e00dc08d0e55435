"""Names that this file system cannot hold, or would show otherwise than they were given.

Rule 1: no name is changed silently: what would show otherwise is refused, so the folder keeps it as it is. Another Unicode
    form of the same name is no change: the scanner's listings are read with that in mind (peer/core/spellings.py).
Rule 2: a file system is asked by trial, and only about names that some file system would change.
"""

from __future__ import annotations

import contextlib
import errno
import unicodedata

from peer.disk.roots import Root
from peer.disk.walk import DiskError
from protocol.effects import Access, Entropy, FileSystem, Handle

_CANNOT_HOLD = "this file system cannot hold a file of this name"
_ALIKE = "this file system takes its name for that of another file, which stands there"


class Spelling:
    """Whether one root shows names as they were given."""

    def __init__(self, root: Root, entropy: Entropy) -> None:
        self._root = root
        self._entropy = entropy
        self._tried: dict[str, str | None] = {}

    def check(self, name: str) -> None:
        """Refuse a name that this disk would change: but for its Unicode form, since it is found by either.

        Raises:
            DiskError: ``name``: it would; or the hidden directory cannot be used.
        """
        if name.endswith((".", " ")) and self._shown(name[-1]) != name[-1]:
            raise DiskError("name", _CANNOT_HOLD)
        if not name.isascii():
            for form in ("NFC", "NFD"):
                if unicodedata.normalize(form, name) != name and not _is_same(self._shown(_OTHER[form]), _OTHER[form]):
                    raise DiskError("name", _CANNOT_HOLD)

    @property
    def respells(self) -> bool:
        """Whether this disk shows names in another Unicode form than they were given."""
        return any(self._shown(text) != text and _is_same(self._shown(text), text) for text in _OTHER.values())

    def _shown(self, ending: str) -> str | None:
        if ending not in self._tried:
            self._tried[ending] = self._try(ending)
        return self._tried[ending]

    def _try(self, ending: str) -> str | None:
        """Make a file with this ending in the hidden directory, and return what is listed of the ending."""
        fs, tmp = self._root.fs, self._root.hidden("tmp")
        stem = self._entropy(16).hex()
        try:
            fs.close(fs.open_file(tmp, stem + ending, Access.CREATE))
        except OSError as error:
            if error.errno in {errno.EINVAL, errno.EILSEQ}:
                return None
            raise
        try:
            found = (each.name for each in fs.list(tmp) if each.name.startswith(stem))
            return next((name[len(stem) :] for name in found), None)
        finally:
            with contextlib.suppress(OSError):
                fs.unlink(tmp, stem + ending)


def _is_same(shown: str | None, given: str) -> bool:
    return shown is not None and unicodedata.normalize("NFC", shown) == unicodedata.normalize("NFC", given)


def respells(root: Root, entropy: Entropy) -> bool:
    """Tell whether a root shows names in another Unicode form than they were given; where it cannot be tried, it does not."""
    try:
        return Spelling(root, entropy).respells
    except (OSError, DiskError):
        return False


_OTHER = {"NFC": "u\u0308", "NFD": "\u00fc"}
"""By form: a text that is not in it."""


def is_listed(fs: FileSystem, directory: Handle, name: str) -> bool:
    """Tell whether a directory shows exactly this name."""
    return any(each.name == name for each in fs.list(directory))


def refusal(fs: FileSystem, directory: Handle, name: str, error: OSError, spelling: Spelling) -> OSError | DiskError:
    """Return what a failed attempt to make a name means: ``name`` if it is the name's fault, else the error itself."""
    if error.errno in {errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG}:
        return DiskError("name", _CANNOT_HOLD)
    if error.errno == errno.EEXIST and not is_listed(fs, directory, name):
        is_respelled = spelling.respells and any(_is_same(each.name, name) for each in fs.list(directory))
        return error if is_respelled else DiskError("name", _ALIKE)
    return error
