"""Secret keys: of a device, of an account's root, of the account, of a folder's epochs (security 3.2, 3.5).

Rule 1: every key is made from bytes of the Entropy door, never by a library's own chance.
Rule 2: a class that holds a secret shows nothing of it in its repr and cannot be pickled or copied.
Rule 3: one key, one purpose: whatever is derived goes through :func:`peer.core.sealing.derive_key`.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Final, NoReturn

from blake3 import blake3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from mnemonic import Mnemonic

from peer.core.certificates import self_signed
from peer.core.sealing import derive_key, open_sealed, seal
from protocol import limits, signing
from protocol.chains import DeviceKeys, device_keys_proof_bytes
from protocol.effects import Entropy
from protocol.errors import ProtocolError, SecurityError, UserError
from protocol.ids import DeviceId, NodeId, device_id

KEY_BYTES: Final = 32
CDC_ID_BYTES: Final = 16
PHRASE_WORDS: Final = 24


class Secret:
    """Base of what must not leave by accident."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, not shown>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} cannot be pickled or copied")


def box_public(secret: bytes) -> bytes:
    """Return the X25519 public key of a secret."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


class DeviceSecrets(Secret):
    """The three keys that one device makes and keeps: to sign, to be sealed to, and for TLS on the LAN."""

    __slots__ = ("box_public", "box_secret", "certificate", "id", "sign_public", "sign_seed", "tls_seed")

    id: DeviceId
    certificate: bytes
    """DER, self-signed by the TLS key."""

    def __init__(self, sign_seed: bytes, box_secret: bytes, tls_seed: bytes) -> None:
        self.sign_seed = sign_seed
        self.box_secret = box_secret
        self.tls_seed = tls_seed
        self.sign_public = signing.public_key(sign_seed)
        self.box_public = box_public(box_secret)
        self.certificate = self_signed(tls_seed)
        self.id = device_id(self.sign_public)

    @classmethod
    def create(cls, entropy: Entropy) -> DeviceSecrets:
        """Make a new device's keys."""
        return cls(entropy(KEY_BYTES), entropy(KEY_BYTES), entropy(KEY_BYTES))

    def sign(self, kind: str, data: bytes) -> bytes:
        """Sign bytes as a ``kind`` (:mod:`protocol.signing`)."""
        return signing.sign(kind, data, self.sign_seed)

    def public(self, sealed_name: bytes) -> DeviceKeys:
        """Return the device's public face."""
        return DeviceKeys(self.sign_public, self.box_public, self.certificate, sealed_name)

    def prove(self, keys: DeviceKeys) -> bytes:
        """Return the proof that this device holds ``keys``."""
        return self.sign("device-keys", device_keys_proof_bytes(keys))

    def tls_key_pem(self) -> bytes:
        """Return the TLS key as ``ssl`` wants it; never to be written where others can read it."""
        return Ed25519PrivateKey.from_private_bytes(self.tls_seed).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


class AccountRoot(Secret):
    """The account's root keys, all from the 32 bytes that the recovery phrase writes down."""

    __slots__ = ("box_public", "box_secret", "seed", "sign_public", "sign_seed")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != KEY_BYTES:
            raise ProtocolError("account root is not made from 32 bytes")
        self.seed = seed
        self.sign_seed = derive_key("root-sign", seed)
        self.box_secret = derive_key("root-box", seed)
        self.sign_public = signing.public_key(self.sign_seed)
        self.box_public = box_public(self.box_secret)

    @classmethod
    def create(cls, entropy: Entropy) -> AccountRoot:
        """Make a new account's root."""
        return cls(entropy(KEY_BYTES))

    @classmethod
    def from_words(cls, text: str) -> AccountRoot:
        """Return the root that a recovery phrase writes down; case and spacing do not matter.

        Raises:
            UserError: A word that is not in the list, another number of words, or a checksum that does not hold.
        """
        words = text.lower().split()
        if len(words) != PHRASE_WORDS:
            raise UserError(f"a recovery phrase has {PHRASE_WORDS} words, this one has {len(words)}")
        dictionary = Mnemonic("english")
        known = frozenset(dictionary.wordlist)
        for number, word in enumerate(words, 1):
            if word not in known:
                raise UserError(f"word {number} of the recovery phrase is not in the list of words")
        try:
            return cls(bytes(dictionary.to_entropy(words)))
        except ValueError:
            raise UserError("the recovery phrase does not hold together: a word is wrong or out of place") from None

    def words(self) -> str:
        """Return the recovery phrase: 24 words of BIP-39, which decode back to the 32 bytes."""
        return str(Mnemonic("english").to_mnemonic(self.seed))


class AccountKey(Secret):
    """One generation of the account's encryption key (AEK), to which folder keys are sealed."""

    __slots__ = ("generation", "public", "secret")

    def __init__(self, generation: int, secret: bytes) -> None:
        self.generation = generation
        self.secret = secret
        self.public = box_public(secret)


class AccountKeys(Secret):
    """All generations of an account's encryption key that this device can open."""

    __slots__ = ("_generations", "root_sign")

    def __init__(self, root_sign: bytes, generations: Mapping[int, bytes]) -> None:
        self.root_sign = root_sign
        self._generations = {number: AccountKey(number, secret) for number, secret in sorted(generations.items())}

    @property
    def newest(self) -> AccountKey:
        """The generation that new things are sealed to."""
        return self._generations[max(self._generations)]

    @property
    def secrets(self) -> dict[int, bytes]:
        """Generation to secret, for the key store."""
        return {number: key.secret for number, key in self._generations.items()}

    def generation(self, number: int) -> AccountKey:
        """Return one generation.

        Raises:
            SecurityError: This device was never given it.
        """
        try:
            return self._generations[number]
        except KeyError:
            raise SecurityError("a sealed key cannot be opened") from None

    def and_next(self, secret: bytes) -> AccountKeys:
        """Return these keys and one more generation."""
        return AccountKeys(self.root_sign, {**self.secrets, self.newest.generation + 1: secret})


class FolderKeys(Secret):
    """What one epoch's key opens (security 3.5)."""

    __slots__ = ("cdc", "cdc_id", "chunk", "dedup_scope", "disc", "entry", "epoch", "fek", "pin")

    def __init__(self, epoch: int, fek: bytes, *, cdc_id: bytes, cdc: bytes, dedup_scope: str) -> None:
        self.epoch = epoch
        self.fek = fek
        self.entry = derive_key("epoch-entry", fek)
        self.chunk = derive_key("epoch-chunk", fek)
        self.disc = derive_key("epoch-disc", fek)
        self.pin = derive_key("epoch-pin", fek)
        self.cdc_id = cdc_id
        self.cdc = cdc
        self.dedup_scope = dedup_scope

    def chunk_key(self, file: NodeId) -> bytes:
        """Return the key for the chunks of a file: one for all, or one each, as the epoch says."""
        return derive_key("chunk-file", self.chunk + file) if self.dedup_scope == "file" else self.chunk

    @property
    def commit(self) -> bytes:
        """What the epoch op says of the key, so that everybody was given the same."""
        return derive_key("epoch-commit", self.fek)


def matches(one: bytes, other: bytes) -> bool:
    """Compare two secrets or commitments in constant time."""
    return hmac.compare_digest(one, other)


# --- Names


def seal_device_name(name: str, key: bytes, generation: int, root_sign: bytes, sign: bytes, entropy: Entropy) -> bytes:
    """Return a device's name sealed for its account: ``generation (4) || SEAL``.

    Args:
        name: As its user gave it.
        key: :func:`device_name_key` of that generation.
        generation: Of the account's encryption key.
        root_sign: The account's root, which the name is bound to.
        sign: The device's public signing key, likewise.
        entropy: Gives the salt.
    """
    check_label(name)
    return generation.to_bytes(4, "big") + seal("device-name", key, root_sign + sign, name.encode(), entropy)


def open_device_name(keys: DeviceKeys, account: AccountKeys) -> str:
    """Return the name of a device of one's own account.

    Raises:
        SecurityError: It is not sealed under a key of this account.
    """
    key = device_name_key(account.generation(int.from_bytes(keys.sealed_name[:4], "big")))
    return _text(open_sealed("device-name", key, account.root_sign + keys.sign, keys.sealed_name[4:]))


def device_name_key(key: AccountKey) -> bytes:
    """Return the key for device names: all that a device being linked is told before it is admitted."""
    return derive_key("device-name-key", key.secret)


def seal_folder_name(name: str, keys: FolderKeys, context: bytes, entropy: Entropy) -> bytes:
    """Return a folder's name sealed under an epoch's key; ``context`` is :func:`protocol.chains.folder_context`."""
    check_label(name)
    return seal("folder-name", keys.fek, context + keys.epoch.to_bytes(4, "big"), name.encode(), entropy)


def open_folder_name(sealed: bytes, keys: FolderKeys, context: bytes) -> str:
    """Return a folder's name.

    Raises:
        SecurityError: It is not sealed under this epoch's key.
    """
    return _text(open_sealed("folder-name", keys.fek, context + keys.epoch.to_bytes(4, "big"), sealed))


def check_label(name: str) -> None:
    """Refuse a name of a device or a folder that is empty or longer than 255 bytes.

    Raises:
        UserError: It is.
    """
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise UserError("a name must be Unicode text") from None
    if not 0 < length <= limits.LABEL_BYTES_MAX:
        raise UserError(f"a name must have 1 to {limits.LABEL_BYTES_MAX} bytes")


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ProtocolError("a sealed name is not Unicode text") from None


def discovery_tag(disc_key: bytes, day: int, port: int) -> bytes:
    """Return the 8 bytes that a LAN announcement shows for a folder on one day (days since 1970, UTC) and port."""
    return blake3(day.to_bytes(4, "big") + port.to_bytes(2, "big"), key=disc_key).digest(8)
