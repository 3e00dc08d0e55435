"""A home server in one command: a coordinator and a storage node, kept running as child processes.

Rule 1: the two servers are programs, reached by their commands alone; nothing of theirs is imported here.
Rule 2: no child outlives this process, however it ends.
Rule 3: a server that dies is started again, more slowly each time; one that never became ready ends the command.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from protocol.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_USAGE, KinfolderError, UserError
from protocol.invitations import is_loopback

READY_S_MAX: Final = 60.0
STOP_S_MAX: Final = 20.0
BACKOFF_S_MIN: Final = 0.5
BACKOFF_S_MAX: Final = 60.0
STEADY_S: Final = 60.0
"""A server that ran for so long starts its backoff anew when it dies."""
LINES_KEPT: Final = 5
LINE_BYTES_MAX: Final = 64 * 1024
COORDINATOR_NAME: Final = "coordinator"
STORAGE_NAME: Final = "storage"
STATE_NAME: Final = "host.json"
LOCK_NAME: Final = "host.lock"
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_URL: Final = re.compile(r"\b(?:wss?|https?)://[^\s,;\"')]+")


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int
    """0: a free one."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def become_host(data: str | None, listen: str) -> NoReturn:
    """Replace this process by the home server, which needs nothing of the command line's libraries."""
    parse_address(listen)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    command = [sys.executable, "-P", "-m", "peer.host", str(data_place(data)), listen]
    os.execv(sys.executable, command)  # noqa: S606 - our own program, from a list


def data_place(data: str | None) -> Path:
    """Return where the home server keeps everything, as an absolute path."""
    if data is not None:
        return Path(os.path.abspath(os.path.expanduser(data)))
    import platformdirs

    return platformdirs.user_data_path("kinfolder-host", appauthor=False)


def parse_address(text: str) -> Address:
    """Return what ``HOST:PORT`` says; an IPv6 address stands in brackets.

    Raises:
        UserError: It says nothing that can be listened on.
    """
    match = re.fullmatch(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]/@#\s]+)):(?P<port>[0-9]{1,5})", text)
    if match is None or int(match["port"]) > 65535:
        raise UserError(f"{text!r} is not HOST:PORT", exit_code=EXIT_USAGE)
    return Address(match["v6"] or match["host"], int(match["port"]))


def reachable_host(host: str) -> str:
    """Return the name under which others reach a server that listens on ``host``: this machine's address on its network."""
    if host not in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # chooses a route; nothing is sent
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def two_free_ports(host: str) -> tuple[int, int]:
    """Return two ports that are free just now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as one, socket.socket(family, socket.SOCK_STREAM) as other:
        one.bind((host, 0))
        other.bind((host, 0))
        return int(one.getsockname()[1]), int(other.getsockname()[1])


class Programs(NamedTuple):
    """The modules of the two servers' command lines."""

    coordinator: str = "coordinator.cli"
    storage: str = "storage_node.cli"


PROGRAMS: Final = Programs()


class Server:
    """One child process that serves, started again when it dies."""

    def __init__(self, name: str, module: str, note: Callable[[str], None]) -> None:
        """Make one that does not run yet.

        Args:
            name: What it is called in what is said.
            module: Its command line, run with ``-m``.
            note: Takes one line about what goes on.
        """
        self.name = name
        self._module = module
        self._note = note
        self._arguments: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._reading: list[asyncio.Task[None]] = []
        self._last: deque[str] = deque(maxlen=LINES_KEPT)
        self._ready: asyncio.Future[str] | None = None

    async def start(self, arguments: list[str]) -> str:
        """Start the process and return the URL of its ``ready`` line.

        Raises:
            UserError: It ended, or was not ready in time.
        """
        self._arguments = arguments
        self._last.clear()
        self._ready = asyncio.get_running_loop().create_future()
        process = await spawn(self._module, arguments)
        self._process = process
        assert process.stdout is not None
        assert process.stderr is not None
        self._reading = [
            asyncio.create_task(self._read(process.stdout, looks_for_ready=True)),
            asyncio.create_task(self._read(process.stderr, looks_for_ready=False)),
        ]
        ended = asyncio.create_task(process.wait())
        try:
            await asyncio.wait((self._ready, ended), timeout=READY_S_MAX, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        if self._ready.done():
            return self._ready.result()
        await self.stop()
        raise UserError(f"the {self.name} does not start: {self._last[-1] if self._last else 'it says nothing'}")

    async def keep(self) -> None:
        """Start the process again whenever it ends, and say so; until cancelled."""
        loop = asyncio.get_running_loop()
        backoff_s = BACKOFF_S_MIN
        while True:
            assert self._process is not None
            started_s = loop.time()
            code = await self._process.wait()
            if loop.time() - started_s > STEADY_S:
                backoff_s = BACKOFF_S_MIN
            self._note(f"the {self.name} ended ({_ending(code)}); starting it again in {backoff_s:g} s")
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_S_MAX)
            with contextlib.suppress(UserError):  # its process has ended, so the next turn says so
                self._note(f"the {self.name} is ready again: {await self.start(self._arguments)}")

    async def stop(self) -> None:
        """End the process with SIGTERM, and by force if it does not heed that."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(STOP_S_MAX):
                    await process.wait()
            except TimeoutError:
                self._note(f"the {self.name} does not stop; ending it by force")
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        await asyncio.gather(*self._reading, return_exceptions=True)

    async def _read(self, stream: asyncio.StreamReader, *, looks_for_ready: bool) -> None:
        """Pass the process's lines on, and note the URL of the one that says it is ready."""
        while line := await _read_line(stream):
            text = line.decode(errors="backslashreplace").rstrip()
            self._last.append(text)
            url = _URL.search(text)
            if looks_for_ready and "ready" in text and url is not None and self._ready is not None:
                if not self._ready.done():
                    self._ready.set_result(url.group())
                continue
            self._note(f"{self.name}: {text}")


async def _read_line(stream: asyncio.StreamReader) -> bytes:
    while True:
        try:
            return await stream.readline()
        except ValueError:
            continue  # a line above the limit was dropped


async def spawn(module: str, arguments: list[str]) -> asyncio.subprocess.Process:
    """Start ``python -P -m module`` in a session of its own; it dies with this process."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    tether = [sys.executable, "-P", "-m", "peer.commands.tether", str(os.getpid())]
    return await asyncio.create_subprocess_exec(
        *tether,
        module,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for this process, which stops them in order
        limit=LINE_BYTES_MAX,
        env=environment | {"PYTHONUNBUFFERED": "1"},
    )


class State:
    """What the home server remembers from start to start: whether its storage node has been let in."""

    def __init__(self, folder: Path) -> None:
        """Read it; what cannot be read counts as nothing."""
        self._path = folder / STATE_NAME
        self.enrolled = False
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(self._path.read_text())
            self.enrolled = known.get("enrolled") is True and (folder / STORAGE_NAME).is_dir()

    def enrol(self) -> None:
        """Remember that the storage node has used its token."""
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps({"enrolled": True}) + "\n")
        new.replace(self._path)
        self.enrolled = True


class Host:
    """The coordinator and the storage node of a home server."""

    def __init__(
        self,
        data: Path,
        listen: Address,
        say: Callable[[str], None],
        note: Callable[[str], None],
        programs: Programs = PROGRAMS,
    ) -> None:
        """Make one that does not run yet.

        Args:
            data: Where everything is kept.
            listen: Where the coordinator listens.
            say: Takes one line of the result: URLs, the invitation, ``ready``.
            note: Takes one line about what goes on.
            programs: What to run.
        """
        self._data = data
        self._listen = listen
        self._say = say
        self._programs = programs
        self._state = State(data)
        self._coordinator = Server("coordinator", programs.coordinator, note)
        self._storage = Server("storage node", programs.storage, note)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until told to stop.

        Raises:
            UserError: A server does not start.
        """
        try:
            await _unless(stop, self._serve())
        finally:
            await asyncio.gather(self._storage.stop(), self._coordinator.stop())

    async def _serve(self) -> None:
        name = reachable_host(self._listen.host)
        coordinator_at, storage_at = self._places()
        scheme, web = ("ws", "http") if is_loopback(self._listen.host) else ("wss", "https")
        arguments = ["serve", "--data", str(self._data / COORDINATOR_NAME), "--listen", str(coordinator_at)]
        arguments += ["--replicas", "1", "--quorum", "1"]
        if coordinator_at.host != name:
            arguments += ["--advertise", f"{scheme}://{Address(name, coordinator_at.port)}"]
        url = await self._coordinator.start(arguments)

        storage = ["serve", "--data", str(self._data / STORAGE_NAME), "--listen", str(storage_at)]
        if storage_at.host != name:
            storage += ["--advertise", f"{web}://{Address(name, storage_at.port)}"]
        if not self._state.enrolled:
            storage += ["--invite", await self._invite("--for", "storage")]
        else:
            storage += ["--coordinator", url]
        storage_url = await self._storage.start(storage)
        if not self._state.enrolled:
            self._state.enrol()

        self._say(f"coordinator   {url}")
        self._say(f"storage node  {storage_url}")
        self._say("an invitation for one person, for kin init --invite:")
        self._say(await self._invite())
        self._say(f"kin host: ready, {url}")
        await asyncio.gather(
            self._coordinator.keep(),
            self._storage.keep(),
        )

    def _places(self) -> tuple[Address, Address]:
        """Return where the two listen: two ports that do not change while this runs, so a restart is found again."""
        host, port = self._listen
        if port == 0:
            one, other = two_free_ports(host)
            return Address(host, one), Address(host, other)
        return self._listen, Address(host, port + 1 if port < 65535 else port - 1)

    async def _invite(self, *options: str) -> str:
        """Return a whole invitation from the coordinator."""
        arguments = ["invite", "--data", str(self._data / COORDINATOR_NAME), "--url", *options]
        process = await spawn(self._programs.coordinator, arguments)
        out, problem = await process.communicate()
        words = out.decode(errors="replace").split()
        if process.returncode != 0 or not words:
            said = problem.decode(errors="replace").strip().splitlines()
            raise UserError(f"the coordinator makes no invitation: {said[-1] if said else _ending(process.returncode)}")
        return words[-1]


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Do the work until it ends or ``stop`` is set."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        working.cancel()
        await asyncio.wait((working,))
    if not working.cancelled():
        working.result()


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _lock(data: Path) -> int:
    """Return a descriptor whose lock keeps a second home server off this data."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--data {data} is not a directory, nor can it become one") from None
    descriptor = os.open(data / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{data}: a home server runs here already", code="in_use") from None
    return descriptor


async def _main(host: Host) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    await host.run(stop)


def run_host(data: Path, listen: str, programs: Programs = PROGRAMS) -> int:
    """Be the home server, and return the process's exit code."""
    from peer.commands.terminal import Terminal

    terminal = Terminal(as_json=False)
    try:
        descriptor = _lock(data)
        try:
            asyncio.run(_main(Host(data, parse_address(listen), terminal.say, terminal.note, programs)))
        finally:
            os.close(descriptor)
    except KinfolderError as error:
        return terminal.fail(error)
    except OSError as error:
        return terminal.fail(UserError(f"{error.filename or data}: {error.strerror}"))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(run_host(Path(sys.argv[1]), sys.argv[2]))
