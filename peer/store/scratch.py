"""A database for the time of one piece of work: in the home, readable by its owner alone, gone with its process."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

CACHE_KIB: Final = 32 * 1024
SCRATCH: Final = "past-"
"""How the name of such a file in the home begins."""

OpenScratch: TypeAlias = Callable[[Path, str], sqlite3.Connection]
"""Opens one, empty, by the home and the middle of its name."""


def open_scratch(home: Path, name: str) -> sqlite3.Connection:
    """Open an empty database whose file has no name any more while it is used.

    Raises:
        OSError, sqlite3.Error: The disk does not take it.
    """
    path = home / f"{SCRATCH}{name}.db"
    try:
        for left in home.glob(f"{SCRATCH}*.db"):  # by a process that was killed between these few lines
            left.unlink(missing_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", f"cache_size=-{CACHE_KIB}"):
            db.execute(f"PRAGMA {pragma}")
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    return db
