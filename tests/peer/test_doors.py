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


def test_who_is_cancelled_waits_for_what_works_on_its_files():
    """Else its descriptors would be closed, and given to others, under a thread that still writes to them."""

    async def main():
        processor = ThreadProcessor(1)
        begun, go_on, ended = threading.Event(), threading.Event(), []

        def work():
            begun.set()
            go_on.wait()
            ended.append("work")

        try:
            working = asyncio.create_task(processor.run(work))
            waiting = asyncio.create_task(processor.run(ended.append, "never begun"))
            assert await asyncio.to_thread(begun.wait, 30)
            working.cancel()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert not working.done()
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await working
            assert ended == ["work"]
        finally:
            go_on.set()
            processor.close()

    asyncio.run(main())
