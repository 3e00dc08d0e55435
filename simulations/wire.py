"""A meter between the processes of a cluster: it passes TCP bytes on, counts them, and cuts connections when told.

What a change costs is counted here, on the wire, and so does not rest on what the processes say of themselves.

Rule 1: bytes are passed on unchanged and in order; the meter looks into none of them.
Rule 2: a meter owns its threads and sockets, and ``close`` ends them all.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Final

_PIECE_BYTES: Final = 256 * 1024
_CONNECT_S: Final = 5.0


class Meter:
    """Stands before one server on loopback."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._target: tuple[str, int] | None = None
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._cut_at: int | None = None
        self.to_server = 0
        """Bytes passed on to the server so far."""
        self.to_client = 0
        threading.Thread(target=self._accept, name="meter", daemon=True).start()

    @property
    def address(self) -> str:
        """HOST:PORT to connect to."""
        host, port = self._listening.getsockname()
        return f"{host}:{port}"

    def stand_before(self, address: str) -> None:
        """Pass connections on to ``HOST:PORT``; until then they are closed at once."""
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))

    def cut_after(self, count: int) -> None:
        """Cut all connections, and refuse others, once ``count`` more bytes have passed, both ways together."""
        with self._lock:
            self._cut_at = self.to_server + self.to_client + count

    def mend(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._cut_at = None

    @property
    def is_cut(self) -> bool:
        """Whether the point of :meth:`cut_after` was reached."""
        return self._cut_at is not None and self.to_server + self.to_client >= self._cut_at

    def close(self) -> None:
        """Stop listening and close every connection."""
        self._close(self._listening)
        self._hang_up()

    def _hang_up(self) -> None:
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for each in sockets:
            self._close(each)

    @staticmethod
    def _close(each: socket.socket) -> None:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it
        each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if self._target is None or self.is_cut:
                client.close()
                continue
            try:
                server = socket.create_connection(self._target, _CONNECT_S)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets |= {client, server}
            for source, sink, up in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pass_on, args=(source, sink, up), name="meter", daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, up: bool) -> None:  # noqa: FBT001 - which way
        buffer = memoryview(bytearray(_PIECE_BYTES))
        with contextlib.suppress(OSError):
            while (count := source.recv_into(buffer)) and not self.is_cut:
                sink.sendall(buffer[:count])
                with self._lock:
                    if up:
                        self.to_server += count
                    else:
                        self.to_client += count
        if self.is_cut:
            self._hang_up()
        for each in (source, sink):
            self._close(each)
            with self._lock:
                self._sockets.discard(each)
