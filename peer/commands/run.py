"""The agent: one open device that works until it is told to stop, and answers commands meanwhile.

It runs as ``python -P -m peer.commands.run HOME``, which ``kin run`` becomes once it has read its arguments, so the
agent's process never holds the command line's libraries.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Final, NoReturn

from peer.api.backend import IN_USE, Backend, DeviceDoor
from peer.api.client import Agent
from peer.api.server import ApiServer
from peer.commands.direct import run_async
from peer.commands.logs import start_log, unexpected
from peer.commands.session import IN_USE_S_MAX, RETRY_S, device_door
from peer.commands.terminal import Terminal
from peer.config import Settings, key_options, load_settings
from protocol.errors import EXIT_DONE, EXIT_INTERRUPTED, KinfolderError, UserError

STOP_S_MAX: Final = 30.0
COLLECT_AFTER: Final = 50_000
"""Objects made before Python looks for circles among them. What a scan or a fold makes holds none and lives on for a
moment, and looking through it every 700 objects, the default, was a fifth of the work."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_log = logging.getLogger("peer.agent")


def become_agent(home: Path) -> NoReturn:
    """Replace this process by the agent of this home; signals wait until it can take them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    command = [sys.executable, "-P", "-m", "peer.commands.run", os.fspath(home)]
    os.execv(sys.executable, command)  # noqa: S606 - our own program, from a list


async def serve(settings: Settings, door: DeviceDoor, terminal: Terminal) -> None:
    """Open the home's device, and be its agent until SIGTERM, SIGINT or ``kin stop``.

    Raises:
        KinfolderError: The device does not open, or stops working.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    stopping = asyncio.create_task(stop.wait())
    opening = asyncio.create_task(_open(settings, door))
    try:
        await asyncio.wait((opening, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not opening.done():
            opening.cancel()
            await asyncio.wait((opening,))
        if opening.cancelled():
            return
        backend = opening.result()
        ready = asyncio.Event()
        getting_ready = asyncio.create_task(ready.wait())
        working = asyncio.create_task(backend.run(ready.set))
        server = ApiServer(settings.home, backend, stop=stop.set)
        try:
            await asyncio.wait((getting_ready, working, stopping), return_when=asyncio.FIRST_COMPLETED)
            if ready.is_set() and not stopping.done():
                await server.start()
                _log.info("ready, process %d", os.getpid())
                terminal.say(f"kin: ready, the agent of {settings.home} (process {os.getpid()})")
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            getting_ready.cancel()
            await server.close()
            await backend.close()
            await _finish(working)
        _log.info("stopped")
        if working.done() and not working.cancelled() and (failure := working.exception()) is not None:
            raise failure
    finally:
        stopping.cancel()


async def _open(settings: Settings, door: DeviceDoor) -> Backend:
    """Open the home; wait for a command that is at work on it, but not for another agent."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + IN_USE_S_MAX
    while True:
        try:
            return await door.open(settings.home, keys=key_options(settings))
        except UserError as error:
            if error.code != IN_USE or loop.time() > deadline_s:
                raise
        if (agent := Agent.dial(settings.home)) is not None:
            agent.close()
            raise UserError(f"an agent runs already for {settings.home}", code=IN_USE)
        await asyncio.sleep(RETRY_S)


async def _finish(working: asyncio.Task[None]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_S_MAX):
            await asyncio.wait((working,))
    if not working.done():
        working.cancel()
        await asyncio.wait((working,), timeout=1)


def run_agent(home: Path, door: DeviceDoor | None = None) -> int:
    """Be the agent of this home, and return the process's exit code."""
    terminal = Terminal(as_json=False)
    gc.set_threshold(COLLECT_AFTER)
    try:
        settings = load_settings(home)
        start_log(settings)
        if not home.is_dir():
            raise UserError(f"{home}: no device here; make one with kin init, or kin link", code="no_device")
        run_async(settings, serve(settings, device_door() if door is None else door, terminal))
    except KinfolderError as error:
        _log.warning("the agent ends: %s", error)
        return terminal.fail(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last door: one line for a person, the rest for the log
        return terminal.fail(unexpected(os.fspath(home), "the agent", error))
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(run_agent(Path(sys.argv[1])))
