"""The agent's end of the local API: bounded connections, each with one call, to the one open device.

Rule 1: bytes from a client are checked against the closed table before anything else looks at them.
Rule 2: whatever a client sends, it gets one line of answer and never a traceback, and the agent goes on.
Rule 3: a call that records something is finished even when its client has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from peer.api import lines, sockets
from peer.api.backend import METHODS, STOP, Backend, Json, check_call, spoken
from peer.config import LOG_NAME
from protocol.errors import EXIT_USAGE, KinfolderError, UserError

PROGRESS_S: Final = 0.1
"""Between two reports of progress to one client; the newest of each kind is kept."""
PROGRESS_BUFFER_BYTES_MAX: Final = 64 * 1024
"""A client that reads more slowly than this gets less progress."""
WRITE_S_MAX: Final = 60.0
FINISH_S_MAX: Final = 5.0
"""What calls that cannot be cancelled get when the agent stops."""

_log = logging.getLogger("peer.api")


class ApiServer:
    """Serves one backend on the home's socket."""

    def __init__(self, home: Path, backend: Backend, *, stop: Callable[[], None]) -> None:
        """Make a server that does not listen yet.

        Args:
            home: Whose socket; the caller holds its lock.
            backend: What answers.
            stop: Called once a client has asked the agent to end.
        """
        self._home = home
        self._backend = backend
        self._stop = stop
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._works: dict[asyncio.Task[Json], bool] = {}
        """Calls at work, and whether each may be cancelled."""

    async def start(self) -> None:
        """Listen; calls are answered from here on."""
        listener = sockets.listen(self._home)
        self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=lines.REQUEST_BYTES_MAX)

    async def close(self) -> None:
        """Listen no more, end the calls, and take the socket away."""
        if self._server is None:
            return
        sockets.unlink(self._home)
        self._server.close()
        for work, cancellable in list(self._works.items()):
            if cancellable:
                work.cancel()
        if self._works:
            await asyncio.wait(list(self._works), timeout=FINISH_S_MAX)
        for work in list(self._works):
            work.cancel()
        if self._connections:
            _, late = await asyncio.wait(list(self._connections), timeout=1)
            for connection in late:
                connection.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        try:
            await self._converse(reader, writer)
        except asyncio.CancelledError:
            pass  # the agent stops; nobody awaits this task
        except Exception:  # noqa: BLE001 - rule 2: whatever it was, the agent goes on
            _log.exception("a connection to the local API failed")
        finally:
            self._connections.discard(connection)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if len(self._connections) > lines.CONNECTIONS_MAX:
                raise UserError("the agent has too many connections; try again", code="busy")
            sockets.check_peer(writer.get_extra_info("socket"))
            line = await _first_line(reader)
            if line is None:
                return
            method, params = check_call(*lines.decode_request(line))
            if method == STOP:
                # A copy of the socket stays open until the process has ended: that is how the client knows.
                os.dup(writer.get_extra_info("socket").fileno())
                result: Json | None = {"pid": os.getpid()}
                self._stop()
            else:
                result = await self._call(method, params, reader, writer)
            if result is None:
                return
            reply = lines.encode({"result": result})
        except KinfolderError as error:
            reply = lines.encode_error(error)
        with contextlib.suppress(OSError, TimeoutError):
            writer.write(reply)
            async with asyncio.timeout(WRITE_S_MAX):
                await writer.drain()

    async def _call(
        self, method: str, params: Json, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Json | None:
        """Return the backend's result, None if nobody is left to hear it."""
        reporter = _Reporter(writer)
        cancellable = METHODS[method].cancellable
        work = asyncio.create_task(_coroutine(self._backend, method, params, reporter))
        watch = asyncio.create_task(self._listen(reader, reporter))
        self._works[work] = cancellable
        work.add_done_callback(lambda done: self._works.pop(done, None))
        watch.add_done_callback(lambda done: done.cancelled() or done.exception())  # looked at below, if it matters
        try:
            await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and cancellable:
                work.cancel()
            await asyncio.wait((work,))
        finally:
            watch.cancel()
            work.cancel()
            reporter.close()
        if work.cancelled():
            await _outcome(watch)  # what was wrong with the client's lines, if that is why
            raise UserError(f"the agent stopped before {spoken(method)} was done", code="stopped")
        failure = work.exception()
        if failure is None:
            return work.result()
        if isinstance(failure, KinfolderError):
            raise failure
        _log.error("%s failed", method, exc_info=failure)
        text = f"{spoken(method)} failed: {type(failure).__name__}: {failure} (log: {self._home / LOG_NAME})"
        raise UserError(text, code="internal")

    async def _listen(self, reader: asyncio.StreamReader, reporter: _Reporter) -> None:
        """Pass a person's answers on; return when the client has gone."""
        for _ in range(lines.ANSWERS_MAX):
            line = await _next_line(reader)
            if line is None:
                return
            answer = lines.decode(line).get("answer")
            _, params = check_call("confirm", answer)
            if params["id"] not in reporter.asked:
                raise UserError("nobody asked for that", exit_code=EXIT_USAGE, code="request")
            await self._backend.call("confirm", params, reporter)
        raise UserError("too many lines", exit_code=EXIT_USAGE, code="request")


class _Reporter:
    """Passes reports to one client: what must arrive at once, progress now and then."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.asked: set[str] = set()
        self._writer = writer
        self._newest: dict[tuple[object, object], Json] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, report: Json) -> None:
        if "ask" in report:
            self.asked.add(str(report.get("id")))
            self._write({"ask": {"kind": report["ask"], **{key: report[key] for key in report if key != "ask"}}})
        elif "phase" in report:
            self._newest[report["phase"], report.get("folder")] = report
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(PROGRESS_S, self._flush)
        else:
            self._write({"progress": report})

    def close(self) -> None:
        """Send what is held back, and nothing later."""
        self._flush()
        if self._timer is not None:
            self._timer.cancel()

    def _flush(self) -> None:
        self._timer = None
        if not self._newest:
            return
        if self._writer.transport.get_write_buffer_size() > PROGRESS_BUFFER_BYTES_MAX:
            self._timer = asyncio.get_running_loop().call_later(PROGRESS_S, self._flush)
            return
        for report in self._newest.values():
            self._write({"progress": report})
        self._newest.clear()

    def _write(self, message: Json) -> None:
        if not self._writer.is_closing():
            self._writer.write(lines.encode(message))


def _coroutine(backend: Backend, method: str, params: Json, report: _Reporter) -> Coroutine[Any, Any, Json]:
    async def call() -> Json:
        return await backend.call(method, params, report)

    return call()


async def _outcome(watch: asyncio.Task[None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await watch


async def _first_line(reader: asyncio.StreamReader) -> bytes | None:
    try:
        async with asyncio.timeout(lines.REQUEST_S_MAX):
            return await _next_line(reader)
    except TimeoutError as error:
        raise UserError("no request came", exit_code=EXIT_USAGE, code="request") from error


async def _next_line(reader: asyncio.StreamReader) -> bytes | None:
    """Return a whole line, None where the client has gone between two."""
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise UserError("a line without an end", exit_code=EXIT_USAGE, code="request") from error
        return None
    except asyncio.LimitOverrunError as error:
        text = f"a line is longer than {lines.REQUEST_BYTES_MAX} bytes"
        raise UserError(text, exit_code=EXIT_USAGE, code="limit") from error
    except OSError:
        return None
