"""Become another program that dies with the process that started it: ``tether PARENT MODULE ARGS``.

The kernel's parent-death signal is set here and outlasts the exec, so the parent needs no code between fork and exec.
Elsewhere than on Linux there is no such signal, and a killed parent leaves its children.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    """Bind this process to its parent and replace it by ``python -P -m MODULE ARGS``."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(1)  # it died before the signal was set
    os.execv(sys.executable, [sys.executable, "-P", "-m", *command])  # noqa: S606 - a list, and no shell


if __name__ == "__main__":
    main()
