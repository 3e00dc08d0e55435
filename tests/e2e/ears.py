"""Somebody else on the LAN: hears what is announced by multicast, and reads what passes on the wire.

Rule 1: the wire can be read by root alone; a test that needs it is skipped elsewhere.
"""

from __future__ import annotations

import socket
import struct
import threading
from typing import Any, Final, Self

from zeroconf import DNSIncoming, DNSService, DNSText  # type: ignore[attr-defined]  # documented, and in no __all__

GROUP: Final = "224.0.0.251"
PORT: Final = 5353
_ALL_IP: Final = 0x0800


class _Listening:
    """A thread that keeps what a socket gives."""

    def __init__(self, source: socket.socket) -> None:
        self._socket = source
        self._socket.settimeout(0.2)
        self._is_over = threading.Event()
        self.heard: list[bytes] = []
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._socket.close()

    def _work(self) -> None:
        while not self._is_over.is_set():
            try:
                self.heard.append(self._socket.recv(1 << 16))
            except TimeoutError:
                continue


class Ear(_Listening):
    """Hears announcements on loopback."""

    def __init__(self) -> None:
        source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        source.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        source.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        source.bind(("", PORT))
        member = struct.pack("4s4s", socket.inet_aton(GROUP), socket.inet_aton("127.0.0.1"))
        source.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        super().__init__(source)

    def records(self) -> list[Any]:
        """Return all records that were announced."""
        found: list[Any] = []
        for packet in list(self.heard):
            message = DNSIncoming(packet)
            if message.valid and message.is_response():
                found += message.answers()
        return found

    def announced(self, port: int) -> tuple[set[str], set[bytes]]:
        """Return the names of what was announced for a port, and the tags shown under them."""
        records = self.records()
        names = {record.name for record in records if isinstance(record, DNSService) and record.port == port}
        texts = {record.text for record in records if isinstance(record, DNSText) and record.name in names}
        tags = set()
        for text in texts:
            shown = text[1 + len(b"t=") : 1 + text[0]]
            tags |= {shown[i : i + 8] for i in range(0, len(shown), 8)}
        return names, tags


class Wire(_Listening):
    """Reads the packets of loopback.

    Raises:
        PermissionError: This is not root.
    """

    def __init__(self) -> None:
        source = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL_IP))
        source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        source.bind(("lo", _ALL_IP))
        super().__init__(source)

    def payloads(self, *ports: int) -> bytes:
        """Return what was sent by TCP to or from these ports, in the order seen; each packet is seen twice on loopback."""
        joined = bytearray()
        for packet in list(self.heard):
            start = (packet[0] & 0xF) * 4
            if packet[9] == socket.IPPROTO_TCP and set(struct.unpack_from("!HH", packet, start)) & set(ports):
                joined += packet[start + (packet[start + 12] >> 4) * 4 :]
        return bytes(joined)
