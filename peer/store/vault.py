"""The system's keyring, where it is one that keeps secrets: macOS Keychain, Windows, Secret Service, KWallet.

Rule 1: backends are allowed by name. Any other, and above all one that stores plain text, counts as no keyring.
Rule 2: ``keyring`` is an optional extra; without it there is no keyring.
"""

from __future__ import annotations

import base64
from typing import Any, Final, Protocol

from protocol.errors import UserError

SERVICE: Final = "kinfolder"
BACKENDS: Final = frozenset(
    {
        ("keyring.backends.macOS", "Keyring"),
        ("keyring.backends.Windows", "WinVaultKeyring"),
        ("keyring.backends.SecretService", "Keyring"),
        ("keyring.backends.libsecret", "Keyring"),
        ("keyring.backends.kwallet", "DBusKeyring"),
        ("keyring.backends.kwallet", "DBusKeyringKWallet4"),
    }
)
_CHAINER: Final = ("keyring.backends.chainer", "ChainerBackend")


class Vault(Protocol):
    """Keeps 32-byte keys by name."""

    def get(self, name: str) -> bytes | None:
        """Return a key, None if there is none or the vault stays locked."""

    def put(self, name: str, key: bytes) -> None:
        """Keep a key."""

    def delete(self, name: str) -> None:
        """Forget a key; one that is not there is no error."""


class KeyringVault:
    """A backend of the ``keyring`` library."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def get(self, name: str) -> bytes | None:
        """Return a key, None if there is none or the keyring stays locked."""
        try:
            text = self._backend.get_password(SERVICE, name)
            key = None if text is None else base64.b64decode(text, validate=True)
        except Exception:  # noqa: BLE001  # each backend has errors of its own; all of them mean the same to us
            return None
        return key if key is not None and len(key) == 32 else None

    def put(self, name: str, key: bytes) -> None:
        """Keep a key, and read it back: a keyring that forgets must be noticed before it matters.

        Raises:
            UserError: The keyring did not keep it.
        """
        try:
            self._backend.set_password(SERVICE, name, base64.b64encode(key).decode())
        except Exception as error:
            raise _refused() from error
        if self.get(name) != key:
            raise _refused()

    def delete(self, name: str) -> None:
        """Forget a key."""
        try:
            self._backend.delete_password(SERVICE, name)
        except Exception:  # noqa: BLE001  # see get; what is left behind opens nothing by itself
            return


def system_vault() -> Vault | None:
    """Return this system's keyring if the library is installed and its backend is on the list."""
    try:
        import keyring
    except ImportError:
        return None
    backend = allowed(keyring.get_keyring())
    return None if backend is None else KeyringVault(backend)


def allowed(backend: Any) -> Any | None:
    """Return the backend if it is on the list, or the first of a chain that is."""
    kind = type(backend)
    if (kind.__module__, kind.__qualname__) in BACKENDS:
        return backend
    if (kind.__module__, kind.__qualname__) == _CHAINER:
        return next((one for one in map(allowed, backend.backends) if one is not None), None)
    return None


def _refused() -> UserError:
    return UserError("the system's keyring does not keep the key: unlock it, or give --no-keyring")
