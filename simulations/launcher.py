"""Starts commands from a process that has loaded the programs already: thousands of them, each a real process.

A new interpreter takes most of the time that a short command needs. The launcher is one process with one thread, which
has imported all that commands import; for each request it forks, and the child runs the command line as its own.

Rule 1: a command that is launched knows nothing of it: same arguments, environment, exit code, output and signals.
Rule 2: the launcher never opens a home, starts a thread or an event loop; what a child does ends with the child.
Rule 3: commands run without the rights by which root reads and writes every file, where these can be dropped.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, NoReturn, Self

from simulations.processes import environment

_LENGTH: Final = struct.Struct("!I")
_REPLY: Final = struct.Struct("!i")
_NO_RIGHTS: Final = "-dac_override,-dac_read_search"
_STOP_S: Final = 10.0
KIN: Final = "peer.cli"
_PROGRAMS: Final = {KIN: "kin", "coordinator.cli": "kin-coordinator"}


class Result(NamedTuple):
    """How a command ended."""

    code: int
    """Its exit code; below 0: the signal that ended it."""
    out: str
    err: str


@functools.cache
def without_root_rights() -> tuple[str, ...] | None:
    """Return what makes a command obey the permissions of files; None if nothing does, () if it does anyhow."""
    if os.geteuid() != 0:
        return ()
    found = shutil.which("setpriv")
    prefix = (found or "", f"--bounding-set={_NO_RIGHTS}", f"--inh-caps={_NO_RIGHTS}")
    if found is None or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        return None
    return prefix


class Launched:
    """A command that runs; who asked for it waits for it or ends it."""

    def __init__(self, channel: socket.socket, pid: int, out: int, err: int) -> None:
        self.pid = pid
        self._channel = channel
        self._out, self._err = out, err
        self._read = b""

    def line(self, timeout_s: float) -> str:
        """Return its next line of output; what there is if it ends or says nothing in time."""
        deadline_s = time.monotonic() + timeout_s
        while b"\n" not in self._read and self._read_more(deadline_s):
            pass
        line, _, self._read = self._read.partition(b"\n")
        return line.decode(errors="replace")

    def kill(self) -> None:
        """End it as a power cut would; :meth:`wait` is still due."""
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, timeout_s: float) -> Result:
        """Wait for its end, and return how it ended.

        Raises:
            TimeoutError: It did not end in time, and was killed.
        """
        deadline_s = time.monotonic() + timeout_s
        try:
            while self._read_more(deadline_s):
                pass
            self._channel.settimeout(max(0.01, deadline_s - time.monotonic()))
            code = _REPLY.unpack(_receive(self._channel, _REPLY.size))[0]
            err = os.pread(self._err, os.fstat(self._err).st_size, 0)
        except TimeoutError:
            self.kill()
            raise
        finally:
            self._channel.close()
            os.close(self._out)
            os.close(self._err)
        return Result(code, self._read.decode(errors="surrogateescape"), err.decode(errors="replace"))

    def _read_more(self, deadline_s: float) -> bool:
        """Read what it printed; whether there may be more.

        Raises:
            TimeoutError: It printed nothing in time, and did not end.
        """
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        if not poll.poll(max(0, deadline_s - time.monotonic()) * 1000):
            raise TimeoutError("a command did not end in time")
        piece = os.read(self._out, 1 << 16)
        self._read += piece
        return bool(piece)


class Launcher:
    """The process that launches; leaving the block ends it, though not what still runs."""

    def __init__(self, directory: Path) -> None:
        """Make one that is not started.

        Args:
            directory: Where its socket stands.
        """
        self._address = str(directory / "launcher")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [*(without_root_rights() or ()), sys.executable, "-P", "-m", "simulations.launcher", self._address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
        )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError("the launcher did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        assert process is not None
        process.terminate()
        process.wait(_STOP_S)
        if process.stdout is not None:
            process.stdout.close()

    def spawn(self, args: Sequence[str], module: str = KIN) -> Launched:
        """Begin a program, by the module that holds its ``main``, with these arguments."""
        channel = socket.socket(socket.AF_UNIX)
        channel.connect(self._address)
        out, out_end = os.pipe()
        err = os.memfd_create("errors")
        request = json.dumps([module, *args]).encode()
        socket.send_fds(channel, [_LENGTH.pack(len(request))], [out_end, err])
        channel.sendall(request)
        os.close(out_end)
        return Launched(channel, _REPLY.unpack(_receive(channel, _REPLY.size))[0], out, err)

    def run(self, args: Sequence[str], timeout_s: float, module: str = KIN) -> Result:
        """Run a program with these arguments to its end.

        Raises:
            TimeoutError: It did not end in time, and was killed.
        """
        return self.spawn(args, module).wait(timeout_s)


def _receive(channel: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = channel.recv(count - len(data))
        if not piece:
            raise ConnectionError("the launcher has gone")
        data += piece
    return data


# --- The launcher's own process


def _load() -> None:
    """Import what commands import."""
    import importlib
    import pkgutil

    import coordinator
    import peer

    for package in (peer, coordinator):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.rpartition(".")[2] != "__main__" and ".migrations." not in module.name:  # these act at once
                importlib.import_module(module.name)
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: F401 - loaded for the children


def _serve(address: str) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that stand between
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            channel, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _stand_between(channel)
            channel.close()


def _stand_between(channel: socket.socket) -> NoReturn:
    """Fork the command itself, wait for it, and tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    header, handles, _, _ = socket.recv_fds(channel, _LENGTH.size, 2)
    args: list[str] = json.loads(_receive(channel, _LENGTH.unpack(header)[0]))
    pid = os.fork()
    if pid == 0:
        channel.close()
        _become(args, handles)
    for handle in handles:
        os.close(handle)
    channel.sendall(_REPLY.pack(pid))
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):
        channel.sendall(_REPLY.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _become(args: list[str], handles: Sequence[int]) -> NoReturn:
    import importlib
    import random

    module, *args = args
    main = importlib.import_module(module).main
    for handle, number in zip(handles, (1, 2), strict=True):
        os.dup2(handle, number)
        os.close(handle)
    os.setsid()
    random.seed()
    streams: Any = sys
    streams.stdin, streams.stdout, streams.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    streams.argv = [_PROGRAMS[module], *args]
    code = 1
    try:
        code = main() or 0
    except SystemExit as end:
        code = 0 if end.code is None else end.code if isinstance(end.code, int) else 1
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _load()
    _serve(sys.argv[1])
