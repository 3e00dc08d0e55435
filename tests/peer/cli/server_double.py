"""Stands in for the two servers of ``kin host``: their commands and lines, and nothing behind them.

With ``fail`` in its data directory it does not start.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("action")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--listen")
    for name in ("--replicas", "--quorum", "--advertise", "--coordinator", "--invite", "--for"):
        parser.add_argument(name)
    parser.add_argument("--url", action="store_true")
    options = vars(parser.parse_args())
    data = options["data"]
    if options["action"] == "invite":
        print(f"kin+ws://127.0.0.1:1/#{options['for'] or 'user'}")
        return 0
    data.mkdir(exist_ok=True, parents=True)
    with (data / "starts").open("a") as starts:
        starts.write(" ".join(sys.argv[1:]) + "\n")
    if (data.parent / f"{data.name}.fail").exists():
        print("this port is taken", file=sys.stderr)
        return 1
    (data / "pid").write_text(str(os.getpid()))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    scheme = "http" if data.name == "storage" else "ws"
    print(f"server ready {scheme}://{options['listen']}", flush=True)
    print("something happened", file=sys.stderr, flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
