"""A device of the account that turned bad: it is found and let in like any other, and then does what it is told here.

Started as ``python -m tests.e2e.hostile_peer HOME HOW`` with the home of a linked device that has the folder.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from peer.config import KeyOptions
from peer.device import Device
from peer.lan.server import LanServer
from protocol.lan import Encoding, End, GetChunks, Part, Parts


async def garbage(stream: Any, id: int, request: Any) -> None:
    """Other bytes of the right length."""
    if isinstance(request, GetChunks):
        for number, wanted in enumerate(request.chunks):
            await stream.write_frame(id, Parts((Part(number, Encoding.RAW, wanted.length),)))
            await stream.write(os.urandom(wanted.length))
    await stream.write_frame(id, End())


async def bomb(stream: Any, id: int, request: Any) -> None:
    """Something that says it is compressed."""
    if isinstance(request, GetChunks):
        await stream.write_frame(id, Parts((Part(0, Encoding.ZSTD, 100),)))
        await stream.write(b"\x28\xb5\x2f\xfd" + os.urandom(96))
    await stream.write_frame(id, End())


async def noise(stream: Any, id: int, request: Any) -> None:
    """No frames at all."""
    await stream.write(os.urandom(100_000))


async def twice(stream: Any, id: int, request: Any) -> None:
    """Parts that nobody asked for."""
    await stream.write_frame(id, Parts((Part(0, Encoding.RAW, 1), Part(255, Encoding.RAW, 1 << 30))))


async def drip(stream: Any, id: int, request: Any) -> None:
    """A byte now and then."""
    length = request.chunks[0].length if isinstance(request, GetChunks) else 1_000
    await stream.write_frame(id, Parts((Part(0, Encoding.RAW, length),)))
    for _ in range(length):
        await stream.write(b"x")
        await asyncio.sleep(0.2)


async def silence(stream: Any, id: int, request: Any) -> None:
    """Nothing."""
    await asyncio.sleep(3_600)


async def main(home: Path, how: str) -> None:
    answer = globals()[how]

    async def do_it(self: LanServer, stream: Any, id: int, request: Any, shelf: Any) -> None:
        print("asked", file=sys.stderr, flush=True)
        await answer(stream, id, request)

    LanServer._answer = do_it  # type: ignore[method-assign]
    device = await Device.open(home, keys=KeyOptions(no_keyring=True))
    try:
        await device.run(lambda: print("ready", flush=True))
    finally:
        await device.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
