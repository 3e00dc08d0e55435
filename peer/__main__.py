"""Where ``kin`` begins: Ctrl-C must find no half-imported program that would show a traceback.

Rule 1: nothing is imported here that takes time.
"""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run the command line; until it can take Ctrl-C itself, Ctrl-C ends the process without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from peer.cli import main as work

    try:
        return work()
    except KeyboardInterrupt:  # came while the command line was telling of another end
        return 130


if __name__ == "__main__":
    sys.exit(main())
