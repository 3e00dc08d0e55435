"""Devices of the account that turned bad: they are found and let in like any other, and then do what they are told here.

Started as ``python -m tests.e2e.hostile_peer HOME HOW [HOME HOW ...]`` with the homes of linked devices.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog

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
    """The same answer twice, and an end to it each time."""
    for _ in range(2):
        if isinstance(request, GetChunks):
            length = request.chunks[0].length
            await stream.write_frame(id, Parts((Part(0, Encoding.RAW, length),)))
            await stream.write(bytes(length))
        await stream.write_frame(id, End())


async def unasked(stream: Any, id: int, request: Any) -> None:
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


async def stall(stream: Any, id: int, request: Any) -> None:
    """Half of what was promised, and then nothing."""
    if isinstance(request, GetChunks):
        length = request.chunks[0].length
        await stream.write_frame(id, Parts((Part(0, Encoding.RAW, length),)))
        await stream.write(os.urandom(length // 2))
    await asyncio.sleep(3_600)


async def endless(stream: Any, id: int, request: Any) -> None:
    """The end, again and again."""
    for _ in range(20_000):
        await stream.write_frame(id, End())


async def oversized(stream: Any, id: int, request: Any) -> None:
    """A segment far beyond its size."""
    if not isinstance(request, GetChunks):
        await stream.write_frame(id, Parts((Part(0, Encoding.RAW, 4_000_000),)))
        await stream.write(os.urandom(4_000_000))
    await stream.write_frame(id, End())


async def huge_frame(stream: Any, id: int, request: Any) -> None:
    """A frame of 4 GiB, and all that fits through."""
    for _ in range(1_000):
        await stream.write(b"\xff\xff\xff\xff" + bytes(65_536))


async def hang_up(stream: Any, id: int, request: Any) -> None:
    """Nothing, and the connection is gone."""
    stream.close()


async def main(homes: Sequence[Path], hows: Sequence[str]) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))  # nobody reads it
    plain = LanServer.__init__
    turned: dict[LanServer, str] = {}
    left = list(hows)

    def everything(*_: Any) -> Any:
        return object()

    def begin(self: LanServer, shelf: Any, *args: Any) -> None:
        plain(self, everything, *args)  # asked for any folder, it says that it has it
        turned[self] = left.pop(0)

    async def do_it(self: LanServer, stream: Any, id: int, request: Any, shelf: Any) -> None:
        print("asked", turned[self], file=sys.stderr, flush=True)
        await globals()[turned[self]](stream, id, request)

    LanServer.__init__ = begin  # type: ignore[method-assign, assignment]
    LanServer._answer = do_it  # type: ignore[method-assign]
    devices = [await Device.open(home, keys=KeyOptions(no_keyring=True)) for home in homes]
    try:
        await asyncio.gather(*(device.run(lambda: None) for device in devices), announce())
    finally:
        for device in devices:
            await device.close()


async def announce() -> None:
    """Say that all is there."""
    print("ready", flush=True)


if __name__ == "__main__":
    asyncio.run(main([Path(home) for home in sys.argv[1::2]], sys.argv[2::2]))
