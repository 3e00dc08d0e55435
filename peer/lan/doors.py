"""The doors to a LAN: who is there, and streams of frames and bytes to devices whose certificates were checked.

They speak of a device's own types, so they stand here and not in :mod:`protocol.effects`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from peer.core.keys import DeviceSecrets
from peer.core.lan import LanDevice, Network
from protocol.lan import LanFrame, LanMessage


class Announced(NamedTuple):
    """What somebody announces; none of it is checked."""

    name: str
    addresses: tuple[str, ...]
    port: int
    tags: bytes


class Interface(NamedTuple):
    """An address of this machine."""

    address: str
    network: Network


class Stream(Protocol):
    """One end of an open connection: frames, and bytes between them, as :mod:`protocol.lan` has it.

    Every call that waits raises ``UnavailableError`` once the connection was lost. Whoever stops in the middle of a read or a
    write closes the stream: it is out of step from then on.
    """

    @property
    def received_bytes(self) -> int:
        """How much has come so far: whether the other side is getting on is seen by it."""

    @property
    def is_loopback(self) -> bool:
        """Whether the other side is on this machine."""

    async def wait_readable(self) -> None:
        """Wait, however long, until something was received."""

    async def read_frame(self) -> LanFrame:
        """Return the next frame.

        Raises:
            ProtocolError, LimitExceededError: What came is no frame.
        """

    async def read_into(self, target: memoryview) -> None:
        """Fill a buffer with the next bytes."""

    async def write_frame(self, id: int, body: LanMessage) -> None:
        """Send a frame, as fast as the other side takes it."""

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, as fast as the other side takes them."""

    def close(self) -> None:
        """End the connection at once."""


class Met(NamedTuple):
    """A connection, and who is at its other end: his certificate was checked, and he holds its key."""

    stream: Stream
    device: LanDevice


class Trusted(Protocol):
    """Who may connect, in the shape that a network needs it in; it takes only what it made itself."""

    @property
    def allowed(self) -> Mapping[bytes, LanDevice]:
        """By the SHA-256 of their certificates."""


class Knock(Protocol):
    """Somebody who connected, before anything was said."""

    async def open(self, trust: Trusted) -> Met:
        """Let him show who he is, for a bounded time.

        Raises:
            KinfolderError, OSError, TimeoutError: He may not be here; the connection is closed.
        """

    def close(self) -> None:
        """Send him away without a word."""


class Listening(Protocol):
    """One address where others connect."""

    @property
    def port(self) -> int:
        """The port."""

    async def accept(self) -> Knock:
        """Wait for the next one.

        Raises:
            OSError: The system has no room for one more just now.
        """

    def close(self) -> None:
        """Listen no more."""


class Discovery(Protocol):
    """Announces this device and hears others."""

    async def start(self) -> None:
        """Begin to hear.

        Raises:
            OSError, TimeoutError: The system does not let us.
        """

    async def announce(self, name: str, port: int, tags: bytes) -> None:
        """Announce this device under a name, in place of what was announced before."""

    def ask_again(self) -> None:
        """Ask who is there soon: somebody was told who was not made use of."""

    async def close(self) -> None:
        """Say goodbye once, and stop."""


class LanNetwork(Protocol):
    """The networks that this machine is on."""

    def interfaces(self, only: Sequence[str] | None) -> list[Interface]:
        """Return this machine's addresses for the LAN; those of ``only``, if that is given. Blocks."""

    def trust(self, secrets: DeviceSecrets, allowed: Mapping[bytes, LanDevice]) -> Trusted:
        """Return who may connect, by the SHA-256 of their certificates, with this device's own. Blocks."""

    async def dial(self, address: str, port: int, trust: Trusted) -> Met:
        """Connect to whoever listens there, and find out who that is.

        Raises:
            KinfolderError, OSError, TimeoutError: Nobody does, or nobody that may be.
        """

    def listen(self, address: str, port: int) -> Listening:
        """Begin to listen; at any port, if that is 0.

        Raises:
            OSError: That cannot be listened on.
        """

    def discovery(
        self, addresses: Sequence[str], on_found: Callable[[Announced], None], on_gone: Callable[[str], None]
    ) -> Discovery:
        """Return what announces this device and hears others, on some addresses of this machine.

        Args:
            addresses: Of this machine.
            on_found: Told what somebody announces, again when it changes.
            on_gone: Told the name of who says goodbye or was not heard for long.
        """
