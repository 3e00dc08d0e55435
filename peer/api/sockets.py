"""The agent's Unix socket: where it is bound, how it is dialled, and who is at its other end.

Rule 1: it is bound only by the process that holds the home's lock, so a socket that is there already is stale.
Rule 2: neither end talks to another user's process.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from peer.api.lines import SOCKET_NAME
from protocol.errors import AccessDeniedError, UserError

PATH_BYTES_MAX: Final = 107 if sys.platform == "linux" else 103
"""What ``sockaddr_un`` holds besides its final zero."""
BACKLOG: Final = 64
CONNECT_S_MAX: Final = 10.0
_CREDENTIALS: Final = struct.Struct("3i")


def listen(home: Path) -> socket.socket:
    """Return a listening socket in ``home``, with mode 0600, in place of a stale one.

    The caller holds the home's lock.
    """
    with _address(home) as address:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(address)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(listener.fileno(), 0o600)  # Linux gives the file this mode, so that it is never wider
            listener.bind(address)
            os.chmod(address, 0o600)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    listener.setblocking(False)
    return listener


def unlink(home: Path) -> None:
    """Take the socket's file away, while the caller still holds the home's lock."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(home / SOCKET_NAME)


def dial(home: Path) -> socket.socket | None:
    """Return a socket that is connected to the home's agent; None if none listens.

    Raises:
        AccessDeniedError: The other end is another user's.
        UserError: The system refuses.
    """
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel.settimeout(CONNECT_S_MAX)
    try:
        with _address(home) as address:
            channel.connect(address)
        check_peer(channel)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        channel.close()
        return None
    except OSError as error:
        channel.close()
        raise UserError(f"{home / SOCKET_NAME}: {error.strerror or 'the agent takes no connection'}") from error
    except BaseException:
        channel.close()
        raise
    return channel


def check_peer(channel: socket.socket) -> None:
    """Refuse a process of another user.

    Raises:
        AccessDeniedError: It is one.
    """
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return  # elsewhere than on Linux the modes of the home and of the socket decide
    _, uid, _ = _CREDENTIALS.unpack(channel.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    if uid != os.geteuid():
        raise AccessDeniedError(f"the process at the other end belongs to another user (uid {uid})")


@contextlib.contextmanager
def _address(home: Path) -> Iterator[str]:
    """Give a name for the socket that is short enough; through the home's descriptor where its path is not."""
    path = str(home / SOCKET_NAME)
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        yield path
        return
    if sys.platform != "linux":
        raise UserError(f"{home}: the path is too long for a socket here; choose a shorter --home")
    folder = os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET_NAME}"
    finally:
        os.close(folder)
