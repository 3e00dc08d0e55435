"""Give a file another modification time or executable bit, without hiding an edit made at the same moment."""

from __future__ import annotations

from typing import Final

from peer.core.observations import Fingerprint
from peer.core.tree import Content
from peer.disk.outcomes import StopStep
from peer.disk.stages import mode_for
from peer.disk.swaps import is_expected
from peer.disk.walk import hash_open, kind_of
from protocol import limits
from protocol.effects import Access, FileSystem, Handle
from protocol.entries import Kind

_READ_AGAIN_BYTES_MAX: Final = 8 * limits.MIB
_MODE_EXECUTABLE: Final = 0o100


def set_attributes(
    fs: FileSystem, parent: Handle, name: str, expected: Content, wanted: Content, known: Fingerprint | None
) -> Fingerprint | None:
    """Set time and mode of a file through its descriptor.

    A write between our look and our change would be hidden by it, since both set the same time stamps. So the content is
    read again afterwards; for a large file that is left to the next scan. What is as it shall be is looked at alone.

    Returns:
        How the file looks with exactly the expected content, or None where it must be hashed again.

    Raises:
        StopStep: Another content, or no file.
        OSError: The disk refuses.
    """
    found = fs.lstat(parent, name)
    if kind_of(found.mode) is not Kind.FILE or not is_expected(fs, parent, name, found, expected, known):
        raise StopStep("changed")
    if found.mtime_ns == wanted.mtime_ns and bool(found.mode & _MODE_EXECUTABLE) == wanted.executable:
        return Fingerprint(*found)
    handle = fs.open_file(parent, name, Access.READ)
    try:
        before = fs.fstat(handle)
        if before != found:
            raise StopStep("changed")
        mode = mode_for(before.mode & 0o777, executable=wanted.executable)
        fs.set_attributes(handle, mtime_ns=wanted.mtime_ns, mode=mode if mode != before.mode & 0o7777 else None)
        after = fs.fstat(handle)
        if after.size > _READ_AGAIN_BYTES_MAX:
            return None
        if hash_open(fs, handle, after.size) != expected.hash:
            raise StopStep("changed")
        return Fingerprint(*after) if fs.fstat(handle) == after else None
    finally:
        fs.close(handle)
