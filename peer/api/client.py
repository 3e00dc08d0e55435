"""One call of the local API by a command: blocking, so that a command starts quickly and Ctrl-C ends it at once."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peer.api import lines, sockets
from peer.api.backend import Json, Report, spoken
from protocol.errors import UserError

READ_BYTES = 64 * 1024


class Agent:
    """A connection to a running agent, good for one call."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._buffer = bytearray()
        self._searched = 0

    @classmethod
    def dial(cls, home: Path) -> Agent | None:
        """Return a connection to the home's agent, None if none runs."""
        channel = sockets.dial(home)
        return None if channel is None else cls(channel)

    def call(
        self,
        method: str,
        params: Json,
        *,
        report: Report,
        confirm: Callable[[str, str], bool],
        timeout_s: float | None = None,
    ) -> Json:
        """Ask the agent and return its result.

        Args:
            method: One of :data:`peer.api.backend.METHODS`, or ``stop``.
            params: All of its parameters.
            report: Takes progress.
            confirm: Takes six digits and the other device's name, and returns whether a person sees the same there.
            timeout_s: How long the agent may be silent; None: for ever.

        Raises:
            UserError: What the agent answered, or that it stopped answering.
        """
        self._channel.settimeout(timeout_s)
        self._send({"version": lines.VERSION, "method": method, "params": params})
        while True:
            message = self._receive(method)
            if "result" in message:
                result: Any = message["result"]
                if isinstance(result, dict):
                    return result
            elif "progress" in message and isinstance(message["progress"], dict):
                report(message["progress"])
            elif isinstance(ask := message.get("ask"), dict):
                self._send(
                    {
                        "answer": {
                            "id": str(ask.get("id")),
                            "yes": confirm(str(ask.get("digits")), str(ask.get("name", ""))),
                        }
                    }
                )
            else:
                lines.raise_error(message.get("error"))

    def wait_until_gone(self, timeout_s: float) -> None:
        """Return when the agent's process has ended, which its kernel tells by closing this connection.

        Raises:
            UserError: It is still there.
        """
        self._channel.settimeout(timeout_s)
        try:
            while self._channel.recv(READ_BYTES):
                pass
        except TimeoutError as error:
            raise UserError(f"the agent was told to stop {timeout_s:.0f} s ago and still runs") from error
        except OSError:
            pass  # a connection that is reset is gone too

    def close(self) -> None:
        """Go away; the agent cancels the call if it can be cancelled."""
        self._channel.close()

    def _send(self, message: Json) -> None:
        try:
            self._channel.sendall(lines.encode(message))
        except TimeoutError as error:
            raise UserError("the agent does not answer", code="agent") from error
        except OSError:
            pass  # it has gone; what it said last is still to be read

    def _receive(self, method: str) -> Json:
        while (end := self._buffer.find(b"\n", self._searched)) < 0:
            self._searched = len(self._buffer)
            if self._searched > lines.REPLY_BYTES_MAX:
                raise UserError("the agent sends a line without an end", code="agent")
            try:
                data = self._channel.recv(READ_BYTES)
            except TimeoutError as error:
                raise UserError(f"the agent does not answer to {spoken(method)}", code="agent") from error
            except OSError:
                data = b""
            if not data:
                raise UserError(f"the agent ended before {spoken(method)} was done", code="agent")
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return lines.decode(line)
