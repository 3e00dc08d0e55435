"""Link a new device to an account through a mailbox that nobody trusts (security 3.3).

    new       -> existing   Hello         SPAKE2, and a commitment to the new device's ephemeral key
    existing  -> new        Answer        SPAKE2, and the existing device's ephemeral key
    new       -> existing   Reveal        the ephemeral key, and proof that it knows the code
    existing  -> new        Confirm       the same proof
    both now hold k = derive_key("link", SPAKE2 key || X25519 || transcript); what follows is sealed under it
    new       -> existing   Introduction  its name and platform; both devices show six digits, people compare them
    existing  -> new        Welcome       what the new device's name is to be sealed under
    new       -> existing   NewKeys       its public keys and the proof that it holds them
    existing  -> new        Admission     the signed link, and how far the account's and the folders' histories go

Rule 1: sans I/O. An event goes in, commands come out; the shell sends, shows and asks.
Rule 2: one attempt. Whatever is wrong, the machine fails for good, and the mailbox with it.
Rule 3: nothing of the account leaves the existing device before a person confirmed the digits there.
Rule 4: the new device commits to its key before it sees the other's, so nobody can choose keys until the digits agree.
"""

from __future__ import annotations

import contextlib
import hmac
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from mnemonic import Mnemonic
from spake2 import SPAKE2_A, SPAKE2_B

from peer.core.hpke import Hpke
from peer.core.keys import (
    AccountKeys,
    DeviceSecrets,
    Secret,
    check_label,
    device_name_key,
    open_device_name,
    seal_device_name,
)
from peer.core.linking_messages import (
    Admission,
    Answer,
    Confirm,
    Hello,
    Inner,
    Introduction,
    NewKeys,
    Outer,
    Reveal,
    Sealed,
    Welcome,
)
from peer.core.links import make_add_device
from peer.core.sealing import derive_key, open_sealed, seal
from protocol import limits
from protocol.accounts import AccountState
from protocol.chains import SignedLink
from protocol.codec import decode, encode
from protocol.effects import Entropy
from protocol.errors import AccessDeniedError, KinfolderError, ProtocolError, SecurityError, UserError
from protocol.history import SignedCheckpoint
from protocol.ids import AccountId, DeviceId, LinkHash, device_id
from protocol.link_codes import WORDS, LinkCode

LINKING_VERSION: Final = 1
DIGITS: Final = 6
HEADS_MAX: Final = 200
_PLATFORM_BYTES_MAX: Final = 64
_ID_EXISTING: Final = b"kinfolder/link/existing"
_ID_NEW: Final = b"kinfolder/link/new"


# --- Commands


class Send(NamedTuple):
    """Put this into the mailbox."""

    data: bytes


class Compare(NamedTuple):
    """Show the digits, and have a person say whether the other device shows the same."""

    digits: str
    name: str
    platform: str
    """Of the new device, on the existing one; else empty."""


class Admit(NamedTuple):
    """Append the link to the account's chain, then say :meth:`ExistingDevice.admitted` or :meth:`ExistingDevice.stale`."""

    link: SignedLink
    device: DeviceId


class Linked(NamedTuple):
    """The new device is in."""

    admission: Admission


class Done(NamedTuple):
    """The existing device has said everything."""


class Failed(NamedTuple):
    """It is over; close the mailbox and tell the person. Another attempt needs another code."""

    reason: str


Command: TypeAlias = Send | Compare | Admit | Linked | Done | Failed
Commands: TypeAlias = tuple[Command, ...]


class Stage(Enum):
    """What a machine waits for."""

    HELLO = "hello"
    ANSWER = "answer"
    REVEAL = "reveal"
    CONFIRM = "confirm"
    INTRODUCTION = "introduction"
    PERSON = "person"
    WELCOME = "welcome"
    NEW_KEYS = "new_keys"
    COORDINATOR = "coordinator"
    ADMISSION = "admission"
    OVER = "over"


EXPECTED: Final[dict[Stage, type[Outer | Inner]]] = {
    Stage.HELLO: Hello,
    Stage.ANSWER: Answer,
    Stage.REVEAL: Reveal,
    Stage.CONFIRM: Confirm,
    Stage.INTRODUCTION: Introduction,
    Stage.WELCOME: Welcome,
    Stage.NEW_KEYS: NewKeys,
    Stage.ADMISSION: Admission,
}
"""The one message that each stage takes; the other stages wait for something else than a message."""


def draw_words(entropy: Entropy) -> tuple[str, ...]:
    """Return the three words of a code: 33 bits."""
    bits = int.from_bytes(entropy(5), "big")
    words = Mnemonic("english").wordlist
    return tuple(words[bits >> (11 * i) & 0x7FF] for i in range(WORDS))


def is_word(word: str) -> bool:
    """Tell whether a word can stand in a code; a typing mistake should not cost the attempt."""
    return word in Mnemonic("english").wordlist


class _Side(Secret):
    """What both machines share: the stage, the common key, the sealed channel."""

    __slots__ = ("_entropy", "_ephemeral", "_key", "_received", "_sent", "_spake", "_transcript", "stage")

    _own: bytes
    _other: bytes

    def __init__(self, stage: Stage, spake: SPAKE2_A | SPAKE2_B, entropy: Entropy) -> None:
        self.stage = stage
        self._entropy = entropy
        self._spake = spake
        self._ephemeral = X25519PrivateKey.from_private_bytes(entropy(32))
        self._transcript = blake3(b"kinfolder/link/v1\x00")
        self._key = b""
        self._sent = 0
        self._received = 0

    def handle(self, data: bytes, now_ms: int) -> Commands:
        """Take a message of the other side."""
        if self.stage is Stage.OVER:
            return ()
        try:
            message = self._parse(data)
            if type(message) is not EXPECTED.get(self.stage):
                raise ProtocolError("the other device says something out of turn")
            return self._take(message, now_ms)
        except KinfolderError as error:
            return self.fail(str(error))

    def reject(self) -> Commands:
        """Take the person's word that the digits differ."""
        return self.fail("the digits differ: somebody may be in between")

    def fail(self, reason: str) -> Commands:
        """End the attempt."""
        if self.stage is Stage.OVER:
            return ()
        self.stage = Stage.OVER
        self._key = b""
        return (Failed(reason),)

    @property
    def digits(self) -> str:
        """The six digits that both devices show; they differ if somebody is in between."""
        return f"{int.from_bytes(derive_key('link-digits', self._key, 8), 'big') % 10**DIGITS:0{DIGITS}}"

    def _take(self, message: Outer | Inner, now_ms: int) -> Commands:
        raise NotImplementedError

    def _parse(self, data: bytes) -> Outer | Inner:
        outer: Outer = decode(data, Outer, bytes_max=limits.LINK_MESSAGE_BYTES_MAX, what="linking message")
        if not isinstance(outer, Sealed):
            return outer
        if not self._key:
            raise ProtocolError("the other device says something out of turn")
        aad = self._received.to_bytes(4, "big")
        self._received += 1
        text = open_sealed(
            "link-message", derive_key(f"link-channel-{self._other.decode()}", self._key), aad, outer.data
        )
        inner: Inner = decode(text, Inner, bytes_max=limits.LINK_MESSAGE_BYTES_MAX, what="linking message")
        return inner

    def _say(self, message: Outer) -> Send:
        return Send(encode(message))

    def _whisper(self, message: Inner) -> Send:
        aad = self._sent.to_bytes(4, "big")
        self._sent += 1
        key = derive_key(f"link-channel-{self._own.decode()}", self._key)
        return self._say(Sealed(seal("link-message", key, aad, encode(message), self._entropy)))

    def _agree(self, spake: bytes, ephemeral: bytes) -> None:
        """Make the common key; the transcript holds everything that was said so far."""
        try:
            psk = self._spake.finish(spake)
            shared = self._ephemeral.exchange(X25519PublicKey.from_public_bytes(ephemeral))
        except Exception as error:  # the library raises several kinds for a malformed element; all mean the same
            raise ProtocolError("the other device's keys cannot be used") from error
        self._key = derive_key("link", psk + shared + self._transcript.digest())

    def _proof(self, side: bytes) -> bytes:
        return derive_key(f"link-proof-{side.decode()}", self._key)

    def _check_proof(self, proof: bytes) -> None:
        if not hmac.compare_digest(proof, self._proof(self._other)):
            raise SecurityError("the other device does not know the code")

    @property
    def _ephemeral_public(self) -> bytes:
        return self._ephemeral.public_key().public_bytes_raw()


class ExistingDevice(_Side):
    """The side of a device that is in.

    Args:
        code: As shown to the person.
        state: The account's newest state.
        keys: The account's keys.
        device: This device.
        hpke: Seals the account's key to the new device.
        entropy: Makes the ephemeral keys.
    """

    __slots__ = ("_commitment", "_device", "_hpke", "_introduced", "_keys", "_new", "_spake_message", "_state")

    _own = b"existing"
    _other = b"new"

    def __init__(
        self,
        code: LinkCode,
        state: AccountState,
        keys: AccountKeys,
        device: DeviceSecrets,
        *,
        hpke: Hpke,
        entropy: Entropy,
    ) -> None:
        spake = SPAKE2_A(code.password, idA=_ID_EXISTING, idB=_ID_NEW, entropy_f=entropy)
        super().__init__(Stage.HELLO, spake, entropy)
        self._state = state
        self._keys = keys
        self._device = device
        self._hpke = hpke
        self._commitment = b""
        self._spake_message = b""
        self._introduced: Introduction | None = None
        self._new: NewKeys | None = None

    def confirm(self, typed: str | None = None) -> Commands:
        """Take the person's word that the digits are the same, or the digits typed from the new device."""
        if self.stage is not Stage.PERSON:
            return ()
        if typed is not None and "".join(typed.split()) != self.digits:
            return self.reject()
        self.stage = Stage.NEW_KEYS
        key = self._keys.newest
        return (self._whisper(Welcome(self._state.root_sign, key.generation, device_name_key(key))),)

    def admitted(
        self,
        state: AccountState,
        *,
        user: str,
        log_key: bytes,
        token_key: bytes,
        checkpoints: tuple[SignedCheckpoint, ...],
        contacts: tuple[tuple[AccountId, int, LinkHash], ...],
        link: SignedLink,
    ) -> Commands:
        """Take that the link was appended.

        Args:
            state: The account's state with the link.
            user: The account's name at its coordinator.
            log_key: The coordinator's.
            token_key: The coordinator's.
            checkpoints: The newest of each folder; those of the first 200 are passed on.
            contacts: (account, seq, head) of other accounts; likewise.
            link: As it was appended.
        """
        if self.stage is not Stage.COORDINATOR:
            return ()
        self.stage = Stage.OVER
        said = Admission(
            link,
            state.id,
            user,
            state.seq,
            state.head,
            log_key,
            token_key,
            checkpoints[:HEADS_MAX],
            contacts[:HEADS_MAX],
        )
        return (self._whisper(said), Done())

    def stale(self, state: AccountState, now_ms: int) -> Commands:
        """Take that the account's chain had moved on, and make the link again."""
        if self.stage is not Stage.COORDINATOR or self._new is None:
            return ()
        self._state = state
        try:
            return (self._admit(self._new, now_ms),)
        except KinfolderError as error:
            return self.fail(str(error))

    def _take(self, message: Outer | Inner, now_ms: int) -> Commands:
        match message:
            case Hello():
                if message.version != LINKING_VERSION:
                    raise ProtocolError("the other device speaks another version: update Kinfolder on both")
                answer = Answer(self._spake.start(), self._ephemeral_public)
                self._transcript.update(encode(message)).update(encode(answer))
                self._commitment = message.commitment
                self._spake_message = message.spake
                self.stage = Stage.REVEAL
                return (self._say(answer),)
            case Reveal():
                if not hmac.compare_digest(blake3(message.ephemeral).digest(), self._commitment):
                    raise SecurityError("the other device shows another key than it committed to")
                self._transcript.update(message.ephemeral)
                self._agree(self._spake_message, message.ephemeral)
                self._check_proof(message.proof)
                self.stage = Stage.INTRODUCTION
                return (self._say(Confirm(self._proof(self._own))),)
            case Introduction():
                check_label(message.name)
                if len(message.platform.encode()) > _PLATFORM_BYTES_MAX:
                    raise ProtocolError("the other device's platform is too long")
                self._check_free(message.name)
                self._introduced = message
                self.stage = Stage.PERSON
                return (Compare(self.digits, message.name, message.platform),)
            case NewKeys():
                self._new = message
                command = self._admit(message, now_ms)
                self.stage = Stage.COORDINATOR
                return (command,)
            case _:
                raise AssertionError(message)

    def _check_free(self, name: str) -> None:
        """Two devices of one name could not be told apart; one that was taken out has left its name free.

        Raises:
            UserError: A device of the account has it.
        """
        for one in self._state.active_devices.values():
            with contextlib.suppress(SecurityError):  # whoever enrolled it sealed no name for us
                if open_device_name(one, self._keys) == name:
                    raise UserError(f"the account has a device {name} already: link it under another --device")

    def _admit(self, message: NewKeys, now_ms: int) -> Admit:
        """Make the link, after making sure that everybody will accept it and that it says what the person was shown."""
        assert self._introduced is not None
        if open_device_name(message.device, self._keys) != self._introduced.name:
            raise SecurityError("the new device gives another name than it showed")
        self._check_free(self._introduced.name)
        new = device_id(message.device.sign)
        link = make_add_device(
            self._state,
            self._keys,
            message.device,
            message.proof,
            new,
            signer=self._device,
            hpke=self._hpke,
            now_ms=now_ms,
        )
        self._state.extend([link])
        return Admit(link, new)


class NewDevice(_Side):
    """The side of a device that wants in.

    Args:
        code: As the person typed it.
        device: This device's new keys.
        name: What it is to be called.
        platform: Shown to the person at the other device.
        entropy: Makes the ephemeral keys.
    """

    __slots__ = ("_confirmed", "_device", "_name", "_platform", "_root_sign", "_welcome")

    _own = b"new"
    _other = b"existing"

    def __init__(self, code: LinkCode, device: DeviceSecrets, name: str, platform: str, *, entropy: Entropy) -> None:
        check_label(name)
        spake = SPAKE2_B(code.password, idA=_ID_EXISTING, idB=_ID_NEW, entropy_f=entropy)
        super().__init__(Stage.ANSWER, spake, entropy)
        self._device = device
        self._name = name
        self._platform = platform[:_PLATFORM_BYTES_MAX]
        self._confirmed = False
        self._welcome: Welcome | None = None
        self._root_sign = b""

    def start(self) -> Commands:
        """Say the first word; once, after joining the mailbox."""
        hello = Hello(LINKING_VERSION, self._spake.start(), blake3(self._ephemeral_public).digest())
        self._transcript.update(encode(hello))
        return (self._say(hello),)

    def confirm(self) -> Commands:
        """Take the person's word that the digits are the same."""
        if self.stage is not Stage.WELCOME or self._confirmed:
            return ()
        self._confirmed = True
        return self._answer_welcome()

    def _take(self, message: Outer | Inner, now_ms: int) -> Commands:  # noqa: ARG002  # the other side needs it
        match message:
            case Answer():
                self._transcript.update(encode(message)).update(self._ephemeral_public)
                self._agree(message.spake, message.ephemeral)
                self.stage = Stage.CONFIRM
                return (self._say(Reveal(self._ephemeral_public, self._proof(self._own))),)
            case Confirm():
                self._check_proof(message.proof)
                self.stage = Stage.WELCOME
                said = self._whisper(Introduction(self._name, self._platform))
                return (said, Compare(self.digits, "", ""))
            case Welcome():
                if self._welcome is not None:
                    raise ProtocolError("the other device says something out of turn")
                if len(message.root_sign) != 32 or len(message.name_key) != 32 or not 0 < message.generation < 1 << 32:
                    raise ProtocolError("the other device's welcome is malformed")
                self._welcome = message
                return self._answer_welcome()
            case Admission():
                self.stage = Stage.OVER
                return (Linked(message),)
            case _:
                raise AssertionError(message)

    def _answer_welcome(self) -> Commands:
        if self._welcome is None or not self._confirmed:
            return ()
        welcome = self._welcome
        self._root_sign = welcome.root_sign
        name = seal_device_name(
            self._name, welcome.name_key, welcome.generation, welcome.root_sign, self._device.sign_public, self._entropy
        )
        keys = self._device.public(name)
        self.stage = Stage.ADMISSION
        return (self._whisper(NewKeys(keys, self._device.prove(keys))),)


def check_admission(admission: Admission, state: AccountState, device: DeviceId) -> None:
    """Refuse an account chain, as the coordinator gave it, that is not the one that the other device admitted us to.

    Raises:
        AccessDeniedError: Another account's, an older one, or one in which this device is not active.
    """
    if (
        state.id != admission.account
        or state.seq_of(admission.head) != admission.seq
        or state.seq_of(admission.link.hash) is None
        or not state.is_active(device)
    ):
        raise AccessDeniedError("the coordinator shows another account than the one that admitted this device")
