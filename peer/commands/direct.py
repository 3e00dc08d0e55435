"""A command that opens its home itself, because no agent runs: the event loop, and questions while it turns."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from peer.api.backend import METHODS, Backend, DeviceDoor, Json
from peer.commands.hardening import harden
from peer.commands.logs import start_log
from peer.commands.terminal import Terminal
from peer.config import KeyOptions, Settings
from protocol.errors import EXIT_USAGE, UserError

T = TypeVar("T")


def call(settings: Settings, door: DeviceDoor, keys: KeyOptions, terminal: Terminal, method: str, params: Json) -> Json:
    """Open the home, have its device do one thing, close it, and return the result.

    Raises:
        KinfolderError: The home does not open, or the device could not.
    """

    async def work() -> Json:
        chosen = METHODS[method]
        backend = await door.open(settings.home, keys=keys, online=chosen.online, rehearsal=chosen.rehearsal)
        try:
            return await _ask(backend, terminal, method, params)
        finally:
            await backend.close()

    start_log(settings)
    return run_async(settings, work())


async def _ask(backend: Backend, terminal: Terminal, method: str, params: Json) -> Json:
    """Call an open device, and put its questions to the person at the terminal."""
    answers: set[asyncio.Task[None]] = set()

    async def answer(ask: Json) -> None:
        yes = await confirm_digits(terminal, str(ask.get("digits")), str(ask.get("name", "")))
        await backend.call("confirm", {"id": str(ask.get("id")), "yes": yes}, terminal.report)

    def report(message: Json) -> None:
        if "ask" in message:
            answers.add(asyncio.create_task(answer(message)))
        else:
            terminal.report(message)

    try:
        return await backend.call(method, params, report)
    finally:
        for task in answers:
            task.cancel()
        await asyncio.gather(*answers, return_exceptions=True)


async def confirm_digits(terminal: Terminal, digits: str, name: str) -> bool:
    """Ask whether both devices show these digits, as :meth:`Terminal.confirm_digits`, while the event loop goes on."""
    terminal.finish()
    if not terminal.can_ask:
        return False
    loop = asyncio.get_running_loop()
    typed = asyncio.Event()
    # A terminal gives whole lines, so once it can be read, reading it does not wait.
    loop.add_reader(sys.stdin.fileno(), typed.set)
    try:
        sys.stderr.write(terminal.question_about(digits, name))
        sys.stderr.flush()
        await typed.wait()
        return terminal.is_yes(os.read(sys.stdin.fileno(), 256).decode(errors="replace"))
    finally:
        loop.remove_reader(sys.stdin.fileno())


def run_async(settings: Settings, work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that opens a device, on the event loop that the settings choose; Ctrl-C cancels it."""
    harden()
    try:
        factory = loop_factory(settings.event_loop)
    except UserError:
        work.close()
        raise
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


def loop_factory(choice: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes event loops: uvloop's, or None for the standard library's.

    Raises:
        UserError: uvloop is asked for and not installed.
    """
    if choice == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        if choice == "auto":
            return None
        raise UserError("event_loop is uvloop, which is not installed here", exit_code=EXIT_USAGE) from None
    return uvloop.new_event_loop
