"""The agent's real doors."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from peer.doors import SystemClock, SystemEntropy, ThreadProcessor


def test_the_clocks_are_the_machine_s():
    clock = SystemClock()
    assert abs(clock.now_ms() - time.time() * 1000) < 1000
    assert clock.monotonic_s() <= clock.monotonic_s()


def test_entropy_gives_what_is_asked_and_never_the_same():
    entropy = SystemEntropy()
    assert len(entropy(16)) == 16
    assert entropy(16) != entropy(16)


def test_the_processor_works_beside_the_loop_and_passes_errors_on():
    async def main():
        processor = ThreadProcessor(2)
        try:
            assert await processor.run(threading.get_ident) != threading.get_ident()
            with pytest.raises(ZeroDivisionError):
                await processor.run(divmod, 1, 0)
        finally:
            processor.close()

    asyncio.run(main())
