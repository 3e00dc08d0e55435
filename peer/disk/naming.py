"""Names that this file system cannot hold, or would show otherwise than they were given.

Rule 1: no name is changed silently: what would show under another spelling is refused, so the folder keeps it as it is.
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
        self._kept: dict[str, bool] = {}

    def check(self, name: str) -> None:
        """Refuse a name that this disk would show otherwise.

        Raises:
            DiskError: ``name``: it would; or the hidden directory cannot be used.
        """
        if name.endswith((".", " ")) and not self._keeps(name[-1]):
            raise DiskError("name", _CANNOT_HOLD)
        if not name.isascii():
            for form in ("NFC", "NFD"):
                if unicodedata.normalize(form, name) != name and not self._keeps(_OTHER[form]):
                    raise DiskError("name", _CANNOT_HOLD)

    def _keeps(self, ending: str) -> bool:
        if ending not in self._kept:
            self._kept[ending] = self._try(ending)
        return self._kept[ending]

    def _try(self, ending: str) -> bool:
        """Make a file with this ending in the hidden directory, and see whether it is listed so."""
        fs, tmp = self._root.fs, self._root.hidden("tmp")
        name = self._entropy(16).hex() + ending
        try:
            fs.close(fs.open_file(tmp, name, Access.CREATE))
        except OSError as error:
            if error.errno == errno.EINVAL:
                return False
            raise
        try:
            return is_listed(fs, tmp, name)
        finally:
            with contextlib.suppress(OSError):
                fs.unlink(tmp, name)


_OTHER = {"NFC": "u\u0308", "NFD": "\u00fc"}
"""By form: a text that is not in it."""


def is_listed(fs: FileSystem, directory: Handle, name: str) -> bool:
    """Tell whether a directory shows exactly this name."""
    return any(each.name == name for each in fs.list(directory))


def refusal(fs: FileSystem, directory: Handle, name: str, error: OSError) -> OSError | DiskError:
    """Return what a failed attempt to make a name means: ``name`` if it is the name's fault, else the error itself."""
    if error.errno in {errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG}:
        return DiskError("name", _CANNOT_HOLD)
    if error.errno == errno.EEXIST and not is_listed(fs, directory, name):
        return DiskError("name", _ALIKE)
    return error
