"""A coordinator's data directory: its lock, database, keys and certificate, and what other commands do to them.

Rule 1: one server at a time; commands work beside it, through the database alone.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import ssl
import time
from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection

from coordinator.keys import (
    CERTIFICATE_FILE,
    CERTIFICATE_KEY_FILE,
    KEYS_FILE,
    ServerKeys,
    load_certificate,
    load_keys,
)
from coordinator.standing import Standing, standings
from coordinator.store.database import connect, create_private, foreign, transaction
from coordinator.store.migrate import current, migrate
from coordinator.store.repository import Repository
from protocol import limits
from protocol.effects import Clock, Entropy
from protocol.errors import EXIT_USAGE, UserError
from protocol.invitations import Invitation, format_invitation

DATABASE_FILE: Final = "coordinator.sqlite"
LOCK_FILE: Final = "coordinator.lock"
HOST_DIRECTORY: Final = "coordinator"
"""Where ``kin host`` has its coordinator, under its own data."""
_OWN_FILES: Final = frozenset({LOCK_FILE, KEYS_FILE, CERTIFICATE_FILE, CERTIFICATE_KEY_FILE, "lost+found"})
"""What may lie beside no database: what a first start that was cut off left, and what a disk of its own has."""
LOCK_TRIES: Final = 4
LOCK_PAUSE_S: Final = 0.1
TOKEN_BYTES: Final = 16
URL_SETTING: Final = "url"
FINGERPRINT_SETTING: Final = "fingerprint"


def check_existing(path: str) -> None:
    """Refuse a directory in which no coordinator keeps its data.

    Raises:
        UserError: It is one; the text names another if that is what was meant.
    """
    if not os.path.lexists(os.path.join(path, DATABASE_FILE)):
        raise UserError(f"--data {path} holds no coordinator{_meant(path)}", exit_code=EXIT_USAGE)


def check_new_or_existing(path: str) -> None:
    """Refuse a directory that holds something else than a coordinator's data; an empty one, or none, will do.

    Raises:
        UserError: It holds something else; the text names another if that is what was meant.
    """
    try:
        names = set(os.listdir(path))
    except OSError:
        return  # not there yet; or using it fails and says why
    if DATABASE_FILE not in names and not names <= _OWN_FILES:
        raise UserError(f"--data {path} holds something else than a coordinator{_meant(path)}", exit_code=EXIT_USAGE)


def _meant(path: str) -> str:
    below = os.path.join(path, HOST_DIRECTORY)
    found = os.path.lexists(os.path.join(below, DATABASE_FILE))
    return f"; did you mean --data {below}?" if found else ": give the directory that serve was given"


class DataDirectory:
    """One data directory; it is made if it is not there."""

    def __init__(self, path: str, clock: Clock, entropy: Entropy) -> None:
        self.path = os.path.abspath(path)
        self._clock = clock
        self._entropy = entropy
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UserError(f"--data {path} is not a directory, nor can it become one") from None
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from error

    @property
    def database_path(self) -> str:
        """Where the SQLite database lies."""
        return os.path.join(self.path, DATABASE_FILE)

    def lock(self) -> int:
        """Take the lock of a server and return its descriptor; it ends with the process.

        Raises:
            UserError: Another server runs on this directory.
        """
        # Whoever only asks whether a server runs holds the lock for an instant.
        for _ in range(LOCK_TRIES - 1):
            descriptor = self._try_lock()
            if descriptor is not None:
                return descriptor
            time.sleep(LOCK_PAUSE_S)
        descriptor = self._try_lock()
        if descriptor is None:
            raise UserError(f"another coordinator runs on {self.path}")
        return descriptor

    def _try_lock(self) -> int | None:
        try:
            descriptor = os.open(os.path.join(self.path, LOCK_FILE), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor

    def is_served(self) -> bool:
        """Tell whether a server runs on this directory."""
        descriptor = self._try_lock()
        if descriptor is None:
            return True
        os.close(descriptor)
        return False

    def prepare(self) -> None:
        """Make the database if it is not there, and bring it to the newest migration."""
        with self._connection() as connection:
            migrate(connection)

    def keys(self) -> ServerKeys:
        """Return the server's secrets; they are drawn when the directory is new."""
        with self._connection() as connection:
            is_new = current(connection) is None
            if not is_new:
                with transaction(connection) as repository:
                    is_new = repository.settings.get("has_keys") is None
        keys = load_keys(self.path, self._entropy, may_create=is_new)
        self.prepare()
        with self.open() as repository:
            repository.settings.put("has_keys", "yes")
        return keys

    def certificate(self, host: str) -> tuple[ssl.SSLContext, bytes]:
        """Return TLS settings and the certificate's SHA-256; the certificate is made when there is none."""
        return load_certificate(self.path, host, self._entropy, self._clock.now_ms())

    @contextlib.contextmanager
    def open(self) -> Iterator[Repository]:
        """Give the repository for one transaction."""
        with self._connection() as connection, transaction(connection) as repository:
            yield repository

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Connection]:
        try:
            create_private(self.database_path)
            connection = connect(self.database_path)
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}") from error
        except Exception as error:
            raise foreign(error) from error
        try:
            yield connection
        finally:
            connection.close()

    def invite(self, *, purpose: str = "user", uses: int = 1, operator: str = "") -> str:
        """Return a new token that lets ``uses`` users or storage nodes in.

        Raises:
            UserError: The purpose, number or operator is wrong.
        """
        if purpose not in ("user", "storage"):
            raise UserError("an invitation is for user or storage", exit_code=EXIT_USAGE)
        if not 1 <= uses <= limits.TOKEN_USES_MAX:
            raise UserError(f"an invitation has 1 to {limits.TOKEN_USES_MAX} uses", exit_code=EXIT_USAGE)
        if operator and purpose != "storage":
            raise UserError("--operator goes with --for storage", exit_code=EXIT_USAGE)
        if len(operator.encode()) > limits.LABEL_BYTES_MAX or not operator.isprintable():
            raise UserError("the operator's name is too long or not printable", exit_code=EXIT_USAGE)
        token = base64.b32encode(self._entropy(TOKEN_BYTES)).decode().rstrip("=").lower()
        self.prepare()
        with self.open() as repository:
            repository.settings.add_token(token, purpose, operator, uses, self._clock.now_ms())
        return token

    def invitation(self, token: str) -> str:
        """Return a whole invitation with a token.

        Raises:
            UserError: The server's URL is not known yet.
        """
        self.prepare()
        with self.open() as repository:
            url = repository.settings.get(URL_SETTING)
            fingerprint = repository.settings.get(FINGERPRINT_SETTING)
        if url is None:
            raise UserError("the server's URL is not known before its first start: start it, then ask for --url")
        return format_invitation(Invitation(url, token, bytes.fromhex(fingerprint) if fingerprint else None))

    def set_url(self, url: str, fingerprint: bytes | None) -> None:
        """Keep under which URL and certificate the server is reached, for invitations."""
        with self.open() as repository:
            repository.settings.put(URL_SETTING, url)
            repository.settings.put(FINGERPRINT_SETTING, "" if fingerprint is None else fingerprint.hex())

    def now_ms(self) -> int:
        """Return milliseconds since 1970."""
        return self._clock.now_ms()

    def copies(self) -> tuple[int, int] | None:
        """Return replicas and quorum, None before the first start."""
        self.prepare()
        with self.open() as repository:
            return repository.settings.copies()

    def set_copies(self, replicas: int, quorum: int) -> None:
        """Set replicas and quorum; a running server follows within seconds."""
        self.prepare()
        with self.open() as repository:
            repository.settings.set_copies(replicas, quorum)

    def nodes(self) -> list[Standing]:
        """Return the storage nodes, also those that are retired."""
        self.prepare()
        with self.open() as repository:
            return standings(repository)
