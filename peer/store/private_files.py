"""Directories and files that are nobody else's business: made so, and refused where they are not."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from protocol.errors import UserError


@contextlib.contextmanager
def private_directory(home: Path) -> Iterator[int]:
    """Open a directory that belongs to us alone, for the time of a with statement.

    Raises:
        UserError: It is none, or others can look into it.
    """
    try:
        directory = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(f"{home} cannot be used as a home: {error.strerror}") from error
    try:
        check_private(directory, str(home))
        yield directory
    finally:
        os.close(directory)


def check_private(handle: int, what: str) -> None:
    """Refuse what is open if it belongs to somebody else, or gives others any right.

    Raises:
        UserError: So it is.
    """
    found = os.fstat(handle)
    if found.st_uid != os.geteuid():
        raise UserError(f"{what} belongs to another user")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise UserError(f"{what} is open to other users: take their rights away (chmod go= {what})")


def write_new(name: str | Path, data: bytes, *, directory: int | None = None) -> None:
    """Write a file of mode 0600 that must not be there yet, and make its bytes durable."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(name, flags, 0o600, dir_fd=directory)
    with open(handle, "wb") as stream:
        os.fchmod(handle, 0o600)
        stream.write(data)
        stream.flush()
        os.fsync(handle)
