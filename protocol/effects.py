"""The doors to the world: time, chance, processors, the disk and the network, each as narrow as it can be.

Rule 1: a door decides nothing. What to do is decided in a core, and what an answer means by the caller.
Rule 2: each door has a real implementation in its service and a simulated one, held to one contract suite.
Rule 3: a file is named by the descriptor of its directory and one name; no path is ever opened a second time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NewType, Protocol, TypeVar

import msgspec

if TYPE_CHECKING:
    from protocol.grants import Signed
    from protocol.messages import NodeAddress

T = TypeVar("T")

CLOSE_NORMAL: Final = 1000
CLOSE_GOING: Final = 1001
CLOSE_BROKEN: Final = 1006
"""No word of an end reached us."""

Handle = NewType("Handle", int)
"""An open file or directory of a :class:`FileSystem`; a descriptor, where the file system is the machine's own."""


class Clock(Protocol):
    """The time."""

    def now_ms(self) -> int:
        """Return the wall clock in milliseconds since 1970; it may jump."""

    def monotonic_s(self) -> float:
        """Return seconds since some moment of this process; it never goes back."""


class Entropy(Protocol):
    """Secret chance: keys, ids, nonces and jitter are drawn here only."""

    def __call__(self, count: int, /) -> bytes:
        """Return this many random bytes."""


class Processor(Protocol):
    """Where work that computes or blocks is done, so that the event loop stays free."""

    def run(self, function: Callable[..., T], /, *args: Any) -> Awaitable[T]:
        """Call the function elsewhere and return its result or raise its error.

        On a device, who is cancelled meanwhile learns of it once the function has ended, or will never begin: until then
        the files and generators that it works on are its own, and closing one would hand its descriptor to the next.
        """

    def close(self) -> None:
        """Wait for what runs, and start nothing more; blocks."""

    async def finish(self) -> None:
        """As :meth:`close`, while the event loop goes on."""


class Stat(NamedTuple):
    """What ``lstat`` says about a name."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    """Type and permission bits, as in ``st_mode``."""


class Named(NamedTuple):
    """One name of a directory."""

    name: str
    """As ``os.fsdecode`` gives it."""
    stat: Stat | None
    """None: the name is there and ``lstat`` failed."""


class Access(IntEnum):
    """What a file is opened for."""

    READ = 1
    WRITE = 2
    """Read and write a file that is there."""
    CREATE = 3
    """Read and write a file that must not be there yet."""


class FileSystem(Protocol):
    """A disk, by descriptors; no call ever follows a symbolic link below the root.

    Every call may raise ``OSError`` with the ``errno`` that Linux would give; nothing else.
    """

    def open_root(self, path: str) -> Handle:
        """Open a directory by its absolute path; the last part may be no link."""

    def open_directory(self, parent: Handle, name: str) -> Handle:
        """Open a directory; ENOTDIR or ELOOP for anything else."""

    def open_file(self, parent: Handle, name: str, access: Access) -> Handle:
        """Open a file without ever waiting, also for a FIFO; ELOOP for a link. A new file has mode 0666 less the umask."""

    def close(self, handle: Handle) -> None:
        """Close a file or a directory."""

    def list(self, directory: Handle) -> Iterator[Named]:
        """Yield the names of a directory, without "." and "..", in any order."""

    def lstat(self, directory: Handle, name: str) -> Stat:
        """Return what stands at a name."""

    def fstat(self, handle: Handle) -> Stat:
        """Return what is open."""

    def read(self, handle: Handle, buffer: memoryview, offset: int) -> int:
        """Fill the buffer from a position of the file; fewer bytes only at its end."""

    def write(self, handle: Handle, data: bytes | memoryview, offset: int) -> None:
        """Write all the bytes at a position of the file."""

    def truncate(self, handle: Handle, size: int) -> None:
        """Cut the file, or lengthen it with a hole."""

    def set_attributes(self, handle: Handle, *, mtime_ns: int | None = None, mode: int | None = None) -> None:
        """Set the modification time or the permission bits of an open file."""

    def sync(self, handle: Handle) -> None:
        """Make a file's bytes, or a directory's names, durable."""

    def sync_all(self, handle: Handle) -> None:
        """Make everything on the file system of this handle durable."""

    def make_directory(self, parent: Handle, name: str, mode: int) -> None:
        """Make a directory; the process's umask applies."""

    def make_link(self, parent: Handle, name: str, target: bytes) -> None:
        """Make a symbolic link."""

    def read_link(self, parent: Handle, name: str) -> bytes:
        """Return a link's target."""

    def rename(self, parent: Handle, name: str, new_parent: Handle, new_name: str) -> None:
        """Move a name to one that must be free: EEXIST otherwise, never a replacement."""

    def exchange(self, parent: Handle, name: str, other_parent: Handle, other_name: str) -> None:
        """Exchange what stands at two names at one instant; EINVAL where the file system cannot."""

    def unlink(self, parent: Handle, name: str) -> None:
        """Remove a name that is no directory."""

    def remove_directory(self, parent: Handle, name: str) -> None:
        """Remove an empty directory; ENOTEMPTY otherwise."""

    def has_writer(self, handle: Handle) -> bool | None:
        """Tell whether any process has this file open for writing; None where the file system cannot tell."""

    def free_bytes(self, handle: Handle) -> int:
        """Return how many bytes may still be written on the file system of this handle."""

    def held_bytes(self, handle: Handle) -> int:
        """Return how many bytes of its file system an open file takes: its holes take none."""


class DiskEventKind(IntEnum):
    """What a watcher noticed."""

    CREATED = 1
    MODIFIED = 2
    """Bytes or attributes."""
    DELETED = 3
    MOVED_FROM = 4
    MOVED_TO = 5
    APPEARED = 6
    """A directory is watched from now on; whatever it held before must be looked for."""
    OVERFLOW = 7
    """Events were lost: everything must be looked at."""
    DEGRADED = 8
    """Some directories cannot be watched: look everywhere from time to time. Sent once."""
    ROOT_GONE = 9
    """The root was moved, removed or unmounted; nothing follows, unless another directory appears at its path."""


class DiskEvent(msgspec.Struct, frozen=True):
    """A hint where to look; never a fact about what is there."""

    kind: DiskEventKind
    directory: str = ""
    """Path from the root, "/" between parts, "" for the root."""
    name: str = ""
    """The name in the directory; empty where the event is about the directory itself."""
    is_directory: bool = False
    cookie: int = 0
    """Joins the two halves of a move; 0 for other events."""


IsIgnored = Callable[[str, bool], bool]
"""(path from the root, whether it is a directory) -> whether it is left alone."""


class Watcher(Protocol):
    """Says where on a root something happened."""

    @property
    def is_gone(self) -> bool:
        """Whether the root was not there when it was to be watched: this watcher is over, whatever stands there since."""

    async def get(self) -> tuple[DiskEvent, ...]:
        """Wait until something happened and return it, in order; first of all, once everything is watched, the root appears."""

    async def caught_up(self, timeout_s: float) -> None:
        """Wait until all that has happened up to now was returned by :meth:`get`, or the time is over."""

    def close(self) -> None:
        """Stop; a waiting :meth:`get` is cancelled by its caller."""


class Watchers(Protocol):
    """Begins to watch roots."""

    def __call__(self, path: str, *, is_ignored: IsIgnored | None = None) -> Watcher:
        """Return what watches one root.

        Args:
            path: The root; absolute, without links in it.
            is_ignored: Directories to leave out, by path from the root; ``.kinfolder`` always is.
        """


class ChannelClosedError(Exception):
    """A channel has ended: the other end closed it, or it broke. No failure of ours: whoever meets it says what it means."""

    def __init__(self, code: int = CLOSE_BROKEN, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code
        """As the other end gave it (RFC 6455, 7.4); :data:`CLOSE_BROKEN` if it gave none."""
        self.reason = reason


class Channel(Protocol):
    """Whole messages, in order, both ways; a WebSocket, where the network is the machine's own.

    One task receives; any may send. What was sent before an end closed its side still arrives at the other.
    """

    @property
    def peer(self) -> str:
        """The address of the other end; empty if it is not known."""

    async def send(self, data: bytes) -> None:
        """Send a message; return once it is accepted, which waits while the other end does not read.

        Raises:
            ChannelClosedError: It has ended.
        """

    async def receive(self) -> bytes:
        """Return the next message.

        Raises:
            ChannelClosedError: It has ended, and every message that came was returned.
            ProtocolError: What came is no message; the channel is of no use any more.
        """

    async def close(self, code: int = CLOSE_NORMAL, reason: str = "") -> None:
        """End it and wait, for a bounded time, until the other end knows; a second call does nothing."""


class Dialled(NamedTuple):
    """A channel that this side opened."""

    channel: Channel
    certificate_sha256: bytes
    """Of the TLS certificate that the other end showed; 32 zero bytes where there is no TLS."""


class Patience(NamedTuple):
    """How long one waits for the other end of a channel."""

    connect_s: float
    """Until the channel is open."""
    ping_s: float
    """Between questions whether it is still there ..."""
    pong_s: float
    """... each of which it must answer within this time, or the channel breaks."""


class Dialer(Protocol):
    """Opens channels to a coordinator."""

    async def dial(self, url: str, *, pin: bytes, patience: Patience) -> Dialled:
        """Open a channel to just this URL.

        Args:
            url: ``ws://`` or ``wss://``.
            pin: SHA-256 of the only certificate that will do; empty: the system's trust decides.
            patience: With a coordinator that is slow or gone.

        Raises:
            UnavailableError: Nobody answers there; the text says whom and why.
            SecurityError: Another certificate than the pinned one is shown.
            UserError: The URL cannot be used.
        """


class AcceptedChannel(Channel, Protocol):
    """A channel that the other end opened, before anybody knows who that is."""

    @property
    def dialled(self) -> str:
        """The URL that the other end says it dialled, as it stands there; empty if it does not say."""

    def allow(self, bytes_max: int) -> None:
        """Take messages up to this size from now on: a new channel takes few bytes."""

    async def ping(self) -> None:
        """Wait until the other end has said that it is there.

        Raises:
            ChannelClosedError: It has ended.
        """

    def abort(self) -> None:
        """End it without a word."""


class Acceptor(Protocol):
    """Where a coordinator's clients dial."""

    async def start(self, serve: Callable[[AcceptedChannel], Awaitable[None]], /) -> str:
        """Begin to accept; return the URL that clients are to dial.

        Each channel is given to ``serve`` in a task of its own, and closed when that returns.

        Raises:
            UserError: The address cannot be listened on.
        """

    async def stop(self) -> None:
        """Accept no more, close every channel and wait until all that serves them has ended."""


class ChunkRequest(NamedTuple):
    """What a storage node is asked (:mod:`protocol.chunk_api`)."""

    path: str
    grant: Signed
    statement: Signed
    body: bytes | AsyncIterator[bytes | bytearray]
    """Whole, or in pieces as they come to be; taken as fast as the node takes them."""
    forward: bool = False
    """Whether the node is to hand a put on to the other nodes of the statement."""


class ChunkReply(Protocol):
    """A storage node's reply while it arrives."""

    @property
    def status(self) -> int:
        """As in :data:`protocol.chunk_api.STATUS`; 200: done."""

    async def read(self) -> bytes:
        """Return the next piece of its body; nothing at the end.

        Raises:
            UnavailableError: It broke off, or fell silent; all that had come was returned before.
        """


class ChunkNodes(Protocol):
    """The storage nodes, for whoever asks them."""

    def ask(
        self, node: NodeAddress, request: ChunkRequest, *, connect_s: float, silent_s: float | None
    ) -> AbstractAsyncContextManager[ChunkReply]:
        """Ask a node; inside the context its reply has begun, and after it nothing of it comes any more.

        Args:
            node: Whom; nobody else, and over TLS only who shows just its certificate.
            request: What.
            connect_s: How long it may take to be reached.
            silent_s: How long it may send nothing; None: for ever.

        Raises:
            UnavailableError: It cannot be reached, breaks off, or falls silent.
            ProtocolError: It has no address that may be used.
        """

    async def close(self) -> None:
        """Let go of every connection."""


class BrokenBodyError(Exception):
    """The body of a request is none; only a network of bytes has such."""


class ChunkAnswer(NamedTuple):
    """A storage node's reply that is there as a whole."""

    status: int
    body: bytes


class ChunkCall(Protocol):
    """A request to a storage node while it arrives, and the way back."""

    @property
    def path(self) -> str:
        """What is asked; empty where it is nothing that a node could be asked."""

    @property
    def body_bytes(self) -> int:
        """How long the body is said to be; 0 if nothing is said."""

    @property
    def grant(self) -> str | None:
        """As :func:`protocol.chunk_api.encode_proof` writes it; None: there is none."""

    @property
    def statement(self) -> str | None:
        """As the grant."""

    @property
    def forward(self) -> bool:
        """Whether a put is to be handed on."""

    def prove(self) -> None:
        """Say that a valid grant was shown: where there are too many connections, this one stays."""

    def pause(self) -> None:
        """Have whoever sends wait: nothing of the body is taken until :meth:`resume`."""

    def resume(self) -> None:
        """Take the body again; does nothing where it is taken."""

    async def go_on(self) -> None:
        """Let a client send its body that waits for our word."""

    async def read(self) -> bytes:
        """Return the next piece of the body; nothing at the end.

        Raises:
            ConnectionError: Whoever asked has gone.
            BrokenBodyError: What comes is no body.
        """

    async def begin(self) -> None:
        """Begin a reply of status 200 that comes in pieces.

        This and what follows may raise ``ConnectionError``: nobody reads it any more.
        """

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send a piece of it; waits while the client takes nothing."""

    async def end(self) -> None:
        """End it well."""

    def abort(self) -> None:
        """Break the connection: that a reply ends too early is all that can be said of what fails in its middle."""


class ChunkListener(Protocol):
    """Where a storage node is asked."""

    async def start(
        self,
        answer: Callable[[ChunkCall], Awaitable[ChunkAnswer | None]],
        /,
        *,
        certificate: bytes,
        key_pem: bytes,
    ) -> str:
        """Begin to take requests; return the URL where they arrive.

        Args:
            answer: Called for each in a task of its own; it returns the reply, or None if it has sent one.
            certificate: DER, what is shown; empty: there is no TLS.
            key_pem: Its key.

        Raises:
            UserError: The address cannot be listened on.
        """

    async def stop(self) -> None:
        """Take no more, and wait, for a bounded time, until what runs has ended."""
