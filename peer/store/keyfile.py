"""A device's keys at rest: one small file, sealed by the system's keyring or a passphrase, or plain where asked for.

The file is SEAL (security 3.8) under a 32-byte master key; its own header is bound to it. The master key lies in the
system's keyring, or is Argon2id of a passphrase. Security 4.1 says what each of them protects from.

Rule 1: the file is written whole, under another name, synced, and then renamed; it is never open to other users.
Rule 2: a home or a file that others could read or write is refused, not mended in silence.
Rule 3: a file that asks for a cheaper Argon2id than ours is refused, whoever wrote it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from peer.config import KeyOptions
from peer.core.keys import KEY_BYTES, AccountKeys, DeviceSecrets, Secret
from peer.core.sealing import open_sealed, seal
from peer.store.private_files import check_private, private_directory, write_new
from peer.store.recovery_file import read_recovery_file, write_recovery_file
from peer.store.vault import Vault, system_vault
from protocol import limits
from protocol.codec import decode, encode
from protocol.effects import Entropy
from protocol.errors import EXIT_USAGE, CorruptStateError, KinfolderError, SecurityError, UserError

__all__ = ["KeyPlace", "KeyStore", "Lock", "has_keys", "read_passphrase", "read_recovery_file", "write_recovery_file"]

SEALED_NAME: Final = "keys.sealed"
PLAIN_NAME: Final = "keys.plain"
KEY_FILE_VERSION: Final = 1
PASSPHRASE_BYTES_MAX: Final = 4 * limits.KIB
KEY_FILE_BYTES_MAX: Final = 256 * limits.KIB
ARGON2_MEMORY_KIB: Final = 64 * 1024
ARGON2_ITERATIONS: Final = 3
ARGON2_LANES: Final = 4
_ARGON2_MEMORY_KIB_MAX: Final = 1024 * 1024
_ARGON2_ITERATIONS_MAX: Final = 64
_ARGON2_LANES_MAX: Final = 64
_SALT_BYTES: Final = 16
_PURPOSE: Final = "key-file"
_TEMPORARY: Final = ".keys.new"
_PROBE: Final = ".keys.probe"
_PROBE_BYTES: Final = 16 * limits.KIB
"""More than a new key file has: what a disk takes of these it takes of that."""


class Lock(IntEnum):
    """What keeps the key file closed."""

    KEYRING = 1
    PASSPHRASE = 2
    NOTHING = 3


class _Stored(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The plaintext of a key file."""

    sign_seed: bytes
    box_secret: bytes
    tls_seed: bytes
    root_sign: bytes
    generations: tuple[tuple[int, bytes], ...]

    def __repr__(self) -> str:
        return "<_Stored, not shown>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class _KeyFile(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A key file; all but the body is what the body is bound to."""

    version: int
    lock: Lock
    vault_id: bytes
    """16 random bytes that name the master key in the keyring; else empty."""
    salt: bytes
    memory_kib: int
    iterations: int
    lanes: int
    body: bytes

    def __repr__(self) -> str:
        return "<_KeyFile, not shown>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class Keys(Protocol):
    """A device's open keys."""

    @property
    def secrets(self) -> DeviceSecrets:
        """The device's."""

    @property
    def account_keys(self) -> AccountKeys:
        """The account's, as they were when the device was made."""

    @property
    def lock(self) -> Lock:
        """What keeps them closed on the disk."""


class KeyStore(Secret):
    """The open key file of a home."""

    __slots__ = ("_file", "_home", "_master", "_vault", "account_keys", "secrets")

    secrets: DeviceSecrets
    account_keys: AccountKeys

    def __init__(self, home: Path, file: _KeyFile, master: bytes, stored: _Stored, vault: Vault | None) -> None:
        self._home = home
        self._file = file
        self._master = master
        self._vault = vault
        self.secrets = DeviceSecrets(stored.sign_seed, stored.box_secret, stored.tls_seed)
        self.account_keys = AccountKeys(stored.root_sign, dict(stored.generations))

    @classmethod
    def create(
        cls,
        home: Path,
        secrets: DeviceSecrets,
        account_keys: AccountKeys,
        options: KeyOptions,
        *,
        warn: Callable[[str], None],
        entropy: Entropy = os.urandom,
        find_vault: Callable[[], Vault | None] = system_vault,
    ) -> KeyStore:
        """Write a new home's keys, durably, and return them open.

        Args:
            home: The home's directory, mode 0700.
            secrets: The device's keys.
            account_keys: The account's.
            options: Which lock its user asks for.
            warn: Told one line if nothing will protect them.
            entropy: Makes master key and salts.
            find_vault: Gives the system's keyring, if there is one.

        Raises:
            UserError: There are keys already, or no lock could be chosen (exit code 2).
        """
        place = cls.prepare(home, options, entropy=entropy, find_vault=find_vault)
        return place.put(secrets, account_keys, warn=warn, entropy=entropy)

    @classmethod
    def prepare(
        cls,
        home: Path,
        options: KeyOptions,
        *,
        entropy: Entropy = os.urandom,
        find_vault: Callable[[], Vault | None] = system_vault,
    ) -> KeyPlace:
        """Settle where a new home's keys go, before anybody is told of them: all that asks a person or may fail here.

        Raises:
            UserError: As :meth:`create`; or no passphrase, two that differ, or a disk or keyring that takes nothing.
        """
        with private_directory(home) as directory:
            if _exists(directory, SEALED_NAME) or _exists(directory, PLAIN_NAME):
                raise UserError(f"{home} holds the keys of a device already: choose another home with --home")
        vault = None if options.no_keyring else find_vault()
        lock = _choose(options, vault)
        _write(home, _PROBE, bytes(_PROBE_BYTES))
        (home / _PROBE).unlink()
        file = _KeyFile(KEY_FILE_VERSION, lock, b"", b"", 0, 0, 0, b"")
        master = b""
        if lock is Lock.KEYRING:
            assert vault is not None
            master = entropy(KEY_BYTES)
            file = msgspec.structs.replace(file, vault_id=entropy(16))
            vault.put(file.vault_id.hex(), master)
        elif lock is Lock.PASSPHRASE:
            file = msgspec.structs.replace(
                file,
                salt=entropy(_SALT_BYTES),
                memory_kib=ARGON2_MEMORY_KIB,
                iterations=ARGON2_ITERATIONS,
                lanes=ARGON2_LANES,
            )
            master = _stretch(_passphrase(options, new=True), file)
        return KeyPlace(home, file, master, vault)

    @classmethod
    def load(
        cls, home: Path, options: KeyOptions, *, find_vault: Callable[[], Vault | None] = system_vault
    ) -> KeyStore:
        """Open a home's keys.

        Raises:
            UserError: There are none, others can read them, the passphrase is wrong or missing (then exit code 2), or
                the keyring does not give the master key.
            CorruptStateError: The file is damaged, or asks for less than Kinfolder ever wrote.
        """
        file = _read(home)
        master = b""
        vault = find_vault() if file.lock is Lock.KEYRING else None
        if file.lock is Lock.KEYRING:
            found = None if vault is None else vault.get(file.vault_id.hex())
            if found is None:
                raise UserError("the system's keyring does not give this device's key: unlock it, and try again")
            master = found
        elif file.lock is Lock.PASSPHRASE:
            master = _stretch(_passphrase(options, new=False), file)
        return cls(home, file, master, _open(file, master), vault)

    @property
    def lock(self) -> Lock:
        """What keeps the file closed; ``status`` says so where it is nothing."""
        return self._file.lock

    def save(self, account_keys: AccountKeys, entropy: Entropy = os.urandom) -> None:
        """Replace the account's keys, under the same lock.

        Raises:
            UserError: The disk does not take it; the old keys are still there.
        """
        text = encode(_stored(self.secrets, account_keys))
        if self._file.lock is not Lock.NOTHING:
            text = seal(_PURPOSE, self._master, _header(self._file), text, entropy)
        self._file = msgspec.structs.replace(self._file, body=text)
        _write(self._home, _name(self._file.lock), encode(self._file))
        self.account_keys = account_keys

    def discard(self) -> None:
        """Remove the keys for good, for a home that did not become a device after all."""
        with private_directory(self._home) as directory, contextlib.suppress(FileNotFoundError):
            os.unlink(_name(self._file.lock), dir_fd=directory)
            os.fsync(directory)
        if self._file.lock is Lock.KEYRING and self._vault is not None:
            self._vault.delete(self._file.vault_id.hex())


class KeyPlace(Secret):
    """Where a new home's keys are going to lie: settled, and still empty."""

    __slots__ = ("_file", "_home", "_master", "_vault")

    def __init__(self, home: Path, file: _KeyFile, master: bytes, vault: Vault | None) -> None:
        self._home = home
        self._file = file
        self._master = master
        self._vault = vault

    def put(
        self,
        secrets: DeviceSecrets,
        account_keys: AccountKeys,
        *,
        warn: Callable[[str], None],
        entropy: Entropy = os.urandom,
    ) -> KeyStore:
        """Write the keys, durably, and return them open; ``warn`` is told one line if nothing protects them.

        Raises:
            UserError: The disk does not take them.
        """
        if self._file.lock is Lock.NOTHING:
            place = self._home / PLAIN_NAME
            warn(f"the keys lie in {place} without a passphrase: who can read that file is this device")
        store = KeyStore(self._home, self._file, self._master, _stored(secrets, account_keys), self._vault)
        store.save(account_keys, entropy)
        return store

    def forget(self) -> None:
        """Take back what the keyring was given, for a home that did not become a device after all."""
        if self._vault is not None and self._file.lock is Lock.KEYRING:
            self._vault.delete(self._file.vault_id.hex())


def has_keys(home: Path) -> bool:
    """Tell whether a home holds keys."""
    return any(os.path.lexists(home / name) for name in (SEALED_NAME, PLAIN_NAME))


def lock_of(home: Path) -> Lock:
    """Return what keeps a home's keys closed, without opening them.

    Raises:
        UserError: There are none, or others can read them.
        CorruptStateError: The file is damaged.
    """
    return _read(home).lock


def _choose(options: KeyOptions, vault: Vault | None) -> Lock:
    if vault is not None and not options.no_keyring:
        return Lock.KEYRING
    if options.passphrase_file is not None:
        return Lock.PASSPHRASE
    if options.no_keyring:
        return Lock.NOTHING
    if options.ask is not None:
        return Lock.PASSPHRASE
    text = "there is no keyring to keep the device's keys in: give --passphrase-file, or --no-keyring for a plain file"
    raise UserError(text, exit_code=EXIT_USAGE)


def _passphrase(options: KeyOptions, *, new: bool) -> bytes:
    if options.passphrase_file is not None:
        return read_passphrase(options.passphrase_file)
    if options.ask is None:
        text = "this device's keys are under a passphrase: name its file in KIN_PASSPHRASE_FILE"
        raise UserError(text, exit_code=EXIT_USAGE)
    text = options.ask("Passphrase for this device: " if new else "Passphrase: ")
    if new and text != options.ask("The same again: "):
        raise UserError("the two passphrases differ")
    return _checked_passphrase(text.encode("utf-8", "surrogateescape"))


def read_passphrase(path: Path) -> bytes:
    """Return the first line of a passphrase file.

    Raises:
        UserError: It cannot be read, or its first line is empty or too long.
    """
    try:
        with open(path, "rb") as file:
            line = file.readline(PASSPHRASE_BYTES_MAX + 2)
    except OSError as error:
        raise UserError(f"the passphrase file {path} cannot be read: {error.strerror}") from error
    return _checked_passphrase(line.rstrip(b"\r\n"))


def _checked_passphrase(passphrase: bytes) -> bytes:
    if not 0 < len(passphrase) <= PASSPHRASE_BYTES_MAX:
        raise UserError(f"a passphrase has 1 to {PASSPHRASE_BYTES_MAX} bytes")
    return passphrase


def _stretch(passphrase: bytes, file: _KeyFile) -> bytes:
    return Argon2id(
        salt=file.salt, length=KEY_BYTES, iterations=file.iterations, lanes=file.lanes, memory_cost=file.memory_kib
    ).derive(passphrase)


def _header(file: _KeyFile) -> bytes:
    return encode(msgspec.structs.replace(file, body=b""))


def _name(lock: Lock) -> str:
    return PLAIN_NAME if lock is Lock.NOTHING else SEALED_NAME


def _open(file: _KeyFile, master: bytes) -> _Stored:
    try:
        text = file.body
        if file.lock is not Lock.NOTHING:
            text = open_sealed(_PURPOSE, master, _header(file), file.body)
        stored: _Stored = decode(text, _Stored, bytes_max=KEY_FILE_BYTES_MAX, what="key file")
    except SecurityError:
        if file.lock is Lock.PASSPHRASE:
            raise UserError("the passphrase is wrong, or the key file is damaged") from None
        raise CorruptStateError("the key file does not open with the key that the keyring holds") from None
    except KinfolderError as error:
        raise CorruptStateError("the key file is damaged") from error
    secrets = (stored.sign_seed, stored.box_secret, stored.tls_seed, *(secret for _, secret in stored.generations))
    if any(len(secret) != KEY_BYTES for secret in secrets) or not stored.generations:
        raise CorruptStateError("the key file is damaged")
    return stored


def _stored(secrets: DeviceSecrets, account_keys: AccountKeys) -> _Stored:
    return _Stored(
        sign_seed=secrets.sign_seed,
        box_secret=secrets.box_secret,
        tls_seed=secrets.tls_seed,
        root_sign=account_keys.root_sign,
        generations=tuple(sorted(account_keys.secrets.items())),
    )


def _check(file: _KeyFile) -> None:
    if file.version != KEY_FILE_VERSION:
        raise CorruptStateError(f"the key file is of version {file.version}, which this Kinfolder does not know")
    if file.lock is Lock.PASSPHRASE and not (
        len(file.salt) == _SALT_BYTES
        and ARGON2_MEMORY_KIB <= file.memory_kib <= _ARGON2_MEMORY_KIB_MAX
        and ARGON2_ITERATIONS <= file.iterations <= _ARGON2_ITERATIONS_MAX
        and ARGON2_LANES <= file.lanes <= _ARGON2_LANES_MAX
    ):
        raise CorruptStateError("the key file asks for another cost of its passphrase than Kinfolder ever wrote")


# --- The disk


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _read(home: Path) -> _KeyFile:
    with private_directory(home) as directory:
        present = [name for name in (SEALED_NAME, PLAIN_NAME) if _exists(directory, name)]
        if len(present) != 1:
            text = "holds no keys of a device" if not present else f"holds both {SEALED_NAME} and {PLAIN_NAME}"
            raise UserError(f"{home} {text}")
        try:
            handle = os.open(present[0], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        except OSError as error:
            raise UserError(f"{home / present[0]} cannot be read: {error.strerror}") from error
        with open(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise UserError(f"{home / present[0]} is no file")
            check_private(handle, str(home / present[0]))
            data = stream.read(KEY_FILE_BYTES_MAX + 1)
    try:
        file: _KeyFile = decode(data, _KeyFile, bytes_max=KEY_FILE_BYTES_MAX, what="key file")
    except KinfolderError as error:
        raise CorruptStateError("the key file is damaged") from error
    _check(file)
    if _name(file.lock) != present[0]:
        raise CorruptStateError("the key file is damaged")
    return file


def _write(home: Path, name: str, data: bytes) -> None:
    """Put a file in place, whole or not at all; the home's lock keeps other processes of ours out."""
    with private_directory(home) as directory:
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_TEMPORARY, dir_fd=directory)
            write_new(_TEMPORARY, data, directory=directory)
            os.rename(_TEMPORARY, name, src_dir_fd=directory, dst_dir_fd=directory)
            os.fsync(directory)
        except OSError as error:
            raise UserError(f"the keys cannot be written to {home}: {error.strerror}") from error
