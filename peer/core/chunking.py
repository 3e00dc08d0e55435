"""Where a file is cut into chunks (security 3.6).

``fastcdc-seeded/1`` cuts by content, seeded with 48 bits of the folder's K_cdc, so an edit moves few cuts; ``fixed-1MiB/1``
cuts every MiB and tells nothing by its cuts. The id and the key's id are recorded with each content, since a changed
file is cut as it was cut before. Test vectors pin the cuts: another cut would silently end all deduplication.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol, TypeAlias

import pyfastcdc

from peer.core.sealing import derive_key
from protocol import limits
from protocol.errors import LocalProtocolError, ProtocolError, UserError

FASTCDC: Final = "fastcdc-seeded/1"
FIXED: Final = "fixed-1MiB/1"
CDC_ID_BYTES: Final = 16
_FIXED_BYTES: Final = limits.MIB
_SEED_BYTES: Final = 6

Read: TypeAlias = Callable[[memoryview], int]
"""Fills a buffer from where the last call ended, returns how many bytes; 0 only at the end."""


class Chunker(Protocol):
    """One way to cut a content."""

    @property
    def bytes_max(self) -> int:
        """No chunk is longer."""

    @property
    def label(self) -> str:
        """What is recorded with the content, so that the next version is cut alike."""

    def cuts(self, window: memoryview) -> Iterator[int]:
        """Yield the ends of the chunks of a window that begins at a cut; the last one is the window's end."""


class FixedChunker:
    """Cuts every MiB."""

    bytes_max = _FIXED_BYTES
    label = FIXED

    def cuts(self, window: memoryview) -> Iterator[int]:
        """Yield the ends of the chunks of a window."""
        yield from range(_FIXED_BYTES, len(window), _FIXED_BYTES)
        if window:
            yield len(window)


class FastCdcChunker:
    """Cuts by content: FastCDC 2020 with its gear table masked by a secret seed.

    Args:
        cdc_key: K_cdc, 32 bytes.
        cdc_id: The id of that key, 16 bytes.
        bytes_min: No chunk but the last is shorter.
        bytes_mean: About the mean.
        bytes_max: No chunk is longer.
    """

    def __init__(
        self,
        cdc_key: bytes,
        cdc_id: bytes,
        *,
        bytes_min: int = limits.CHUNK_BYTES_MIN,
        bytes_mean: int = limits.CHUNK_BYTES_MEAN,
        bytes_max: int = limits.CHUNK_BYTES_MAX,
    ) -> None:
        check_compiled(pyfastcdc.FastCDC)
        # The seed 0 would mean "unseeded", hence 1 + 48 bits; the chunker's masks reach no higher bit.
        seed = 1 + int.from_bytes(derive_key("cdc", cdc_key)[:_SEED_BYTES], "big")
        try:
            self._cdc = pyfastcdc.FastCDC(bytes_mean, min_size=bytes_min, max_size=bytes_max, seed=seed)
        except ValueError as error:
            raise ProtocolError("folder has chunk sizes that its chunker cannot make") from error
        self._bytes_max = bytes_max
        self._label = f"{FASTCDC}#{cdc_id.hex()}"

    @property
    def bytes_max(self) -> int:
        """No chunk is longer."""
        return self._bytes_max

    @property
    def label(self) -> str:
        """What is recorded with the content: the chunker's id and the key's."""
        return self._label

    def cuts(self, window: memoryview) -> Iterator[int]:
        """Yield the ends of the chunks of a window."""
        for chunk in self._cdc.cut_buf(window):
            yield chunk.offset + chunk.length


def check_compiled(kind: type) -> None:
    """Refuse the chunker's fallback in pure Python: the same cuts, two hundred times slower.

    Raises:
        UserError: The compiled module of pyfastcdc is missing.
    """
    if not kind.__module__.startswith("pyfastcdc.cy"):
        raise UserError("the compiled part of pyfastcdc is missing: reinstall it from a wheel for this Python")


def parse_label(label: str) -> tuple[str, bytes]:
    """Return (chunker id, key id or nothing) of what is recorded with a content.

    Raises:
        ProtocolError: No chunker of ours is recorded so.
    """
    id, _, key = label.partition("#")
    if id == FIXED and label == FIXED:
        return FIXED, b""
    if id == FASTCDC and len(key) == 2 * CDC_ID_BYTES and key == key.lower():
        try:
            return FASTCDC, bytes.fromhex(key)
        except ValueError:
            pass
    raise ProtocolError("content was cut by an unknown chunker")


def cut_buffer(data: bytes | bytearray | memoryview, chunker: Chunker) -> Iterator[memoryview]:
    """Yield the chunks of a content that is in memory, as views of it."""
    view = memoryview(data)
    start = 0
    for end in chunker.cuts(view):
        yield view[start:end]
        start = end


def cut_stream(read: Read, chunker: Chunker, *, window_bytes: int | None = None) -> Iterator[bytes]:
    """Yield the chunks of a content of any size as they are read; memory is bounded by the window and one chunk.

    Args:
        read: Gives the content.
        chunker: Decides the cuts; they do not depend on how much each read gives.
        window_bytes: How much is looked at at once; at least, and by default twice, the longest chunk.
    """
    longest = chunker.bytes_max
    size = 2 * longest if window_bytes is None else window_bytes
    if size < longest:
        raise LocalProtocolError("window is shorter than the longest chunk")
    window = memoryview(bytearray(size))
    filled = 0
    while True:
        ended = False
        while filled < size and not ended:
            count = read(window[filled:])
            filled += count
            ended = not count
        start = 0
        for end in chunker.cuts(window[:filled]):
            if not ended and filled - start < longest:
                break  # more bytes might move this cut
            yield bytes(window[start:end])
            start = end
        if ended:
            return
        window[: filled - start] = bytes(window[start:filled])
        filled -= start


def cut_blocks(blocks: Iterable[bytes], chunker: Chunker) -> Iterator[bytes]:
    """Yield the chunks of a content that comes in blocks of any size."""
    rest = memoryview(b"")
    source = iter(blocks)

    def read(buffer: memoryview) -> int:
        nonlocal rest
        while not rest:
            block = next(source, None)
            if block is None:
                return 0
            rest = memoryview(block)
        count = min(len(rest), len(buffer))
        buffer[:count] = rest[:count]
        rest = rest[count:]
        return count

    return cut_stream(read, chunker)
