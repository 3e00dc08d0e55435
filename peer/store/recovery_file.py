"""The recovery file: the 24 words that bring an account back, and where its coordinator is (contract, "A device").

It is text, so that it can be printed and typed in again: one ``name: value`` a line, and lines of explanation.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from peer.core.keys import AccountRoot, Secret
from peer.store.private_files import write_new
from protocol import limits
from protocol.errors import UserError
from protocol.ids import AccountId

_BYTES_MAX: Final = 16 * limits.KIB
_EXPLANATION: Final = """\
# Kinfolder recovery file. The words below bring the account back when every device is lost,
# and give it to whoever finds them: keep this file away from the devices, or print and delete it.
"""


class Recovery(Secret):
    """What a recovery file says."""

    __slots__ = ("account", "fingerprint", "root", "url")

    def __init__(self, root: AccountRoot, url: str, fingerprint: bytes, account: AccountId | None) -> None:
        self.root = root
        self.url = url
        self.fingerprint = fingerprint
        """SHA-256 of the coordinator's certificate; empty where there is none to pin."""
        self.account = account


def write_recovery_file(
    path: Path, words: str, url: str, fingerprint: bytes, *, account: AccountId | None = None
) -> None:
    """Write a new recovery file of mode 0600, durably.

    Args:
        path: Where.
        words: The recovery phrase, :meth:`peer.core.keys.AccountRoot.words`.
        url: The coordinator's.
        fingerprint: SHA-256 of its certificate; empty, or zeros, where there is none to pin.
        account: The account's id, where it is known: it spares a search.

    Raises:
        UserError: There is a file already, or the disk does not take it.
    """
    lines = [f"coordinator: {url}"]
    if any(fingerprint):
        lines.append(f"fingerprint: {fingerprint.hex()}")
    if account is not None:
        lines.append(f"account: {account.hex()}")
    lines.append(f"words: {words}")
    try:
        write_new(path, (_EXPLANATION + "\n".join(lines) + "\n").encode())
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except FileExistsError:
        raise UserError(f"{path} is there already: choose another --recovery-file") from None
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def read_recovery_file(path: Path) -> Recovery:
    """Return what a recovery file says.

    Raises:
        UserError: It cannot be read, or a line of it is wrong; which one, but not what it says.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_BYTES_MAX + 1)
        text = data.decode()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UserError(f"{path} is no recovery file") from None
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.strip().partition(":")
        if colon and not line.startswith("#"):
            found[name.strip()] = value.strip()
    if "words" not in found or len(data) > _BYTES_MAX:
        raise UserError(f"{path} is no recovery file: it has no line with the words")
    fingerprint = _hex(found.get("fingerprint"), path, "fingerprint")
    account = _hex(found.get("account"), path, "account")
    return Recovery(
        AccountRoot.from_words(found["words"]),
        found.get("coordinator", ""),
        fingerprint or b"",
        None if account is None else AccountId(account),
    )


def _hex(text: str | None, path: Path, name: str) -> bytes | None:
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        value = bytes.fromhex(text)
        if len(value) == 32:
            return value
    raise UserError(f"{path} is damaged: the line {name} is not 64 hex digits")
