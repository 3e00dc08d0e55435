"""Small disks that are full when a test wants it: each is a tmpfs, so these need root."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Final, Self

MIB: Final = 1 << 20
NAMES: Final = 50_000
"""How many files and directories a disk takes."""


class Disk:
    """A small file system of its own, mounted at a directory; ``ballast`` fills it."""

    def __init__(self, path: Path, mib: int) -> None:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = path
        self._mount("-t", "tmpfs", "-o", f"size={mib}m,nr_inodes={NAMES},mode=700", "tmpfs")

    def _mount(self, *args: str) -> None:
        subprocess.run(["mount", *args, str(self.path)], check=True, capture_output=True)

    def grow(self, mib: int) -> None:
        """Make the disk larger."""
        self._mount("-o", f"remount,size={mib}m")

    def free(self) -> int:
        """Return what may still be written, in bytes."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self, left: int = 0) -> None:
        """Leave only so many bytes."""
        with open(self.path / "ballast", "ab", buffering=0) as ballast, contextlib.suppress(OSError):
            while (room := self.free() - left) > 0:
                ballast.write(bytes(min(room, MIB)))

    def fill_names(self) -> None:
        """Let nothing new be named, though there is room for bytes."""
        found = os.statvfs(self.path)
        self._mount("-o", f"remount,nr_inodes={found.f_files - found.f_ffree}")

    def relieve_names(self) -> None:
        """Let new things be named again."""
        self._mount("-o", f"remount,nr_inodes={NAMES}")

    def relieve(self) -> None:
        """Give all the room back."""
        (self.path / "ballast").unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=False, capture_output=True)
