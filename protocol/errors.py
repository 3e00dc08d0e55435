"""The tree of errors; a foreign exception becomes one of these at the shell that met it.

KinfolderError
├── ProtocolError            bytes from outside that are not what the format says; carries who is to blame
│   └── LocalProtocolError   we were about to send what the format forbids: a defect of ours
├── SecurityError            a signature, a key, a hash, a history that does not hold; never retried, never swallowed
│   ├── BadSignatureError
│   ├── RollbackError        a party shows an older history than it once signed
│   ├── ForkError            two signed histories for one position; carries both checkpoints
│   ├── HistoryError         a history that the coordinator shows does not hold together; nothing of it is taken over
│   └── AccessDeniedError    the author may not do this
│       └── RevokedError     this device was taken out of its account
├── UnavailableError         a party cannot be reached or has no room just now; retried with backoff
│   ├── FullError            a storage node has no room
│   ├── NoQuorumError
│   ├── NoSourceError
│   └── SpoolFullError       what waits for storage has no more room on this device's disk
├── LimitExceededError       carries the limit's name and value
├── CorruptChunkError        a chunk that is not what its id says; leads to another source and to repair
├── CorruptStateError        our own database or key file is damaged
└── UserError                something a person can mend: one clear line, and the process's exit code
"""

from __future__ import annotations

from typing import Final

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_TIMEOUT: Final = 3
EXIT_NEEDS_PERSON: Final = 4
EXIT_NO_AGENT: Final = 5
EXIT_INTERRUPTED: Final = 130


class KinfolderError(Exception):
    """Anything that Kinfolder raises on purpose."""

    code: str = "error"
    """Stable word for the wire and for JSON."""


class ProtocolError(KinfolderError):
    """Bytes from another party break the format."""

    code = "protocol"


class LocalProtocolError(ProtocolError):
    """We were about to send something that the format forbids."""

    code = "local_protocol"


class SecurityError(KinfolderError):
    """A check that protects the user failed."""

    code = "security"


class BadSignatureError(SecurityError):
    """A signature does not fit its key and bytes."""

    code = "bad_signature"


class RollbackError(SecurityError):
    """A party shows an older history than one that it signed before."""

    code = "rollback"


class ForkError(SecurityError):
    """Two histories, both signed by the coordinator, for one position."""

    code = "fork"


class HistoryError(SecurityError):
    """What a coordinator shows of a folder's history does not hold together; nothing of it is taken over."""

    code = "history"


class AccessDeniedError(SecurityError):
    """The party may not do what it asked for."""

    code = "access_denied"


class RevokedError(AccessDeniedError):
    """This device was taken out of its account."""

    code = "revoked"


class UnavailableError(KinfolderError):
    """A party cannot serve us now; worth another try later."""

    code = "unavailable"


class FullError(UnavailableError):
    """A storage node has no room for what was offered; what it holds it still serves."""

    code = "full"


class NoQuorumError(UnavailableError):
    """Fewer storage nodes than the write quorum took the bytes."""

    code = "no_quorum"


class NoSourceError(UnavailableError):
    """No party that we can reach has the chunk."""

    code = "no_source"


class SpoolFullError(UnavailableError):
    """Storage does not take the bytes now, and the spool of this device has no room to keep them until it does."""

    code = "spool_full"


class LimitExceededError(KinfolderError):
    """A bound of :mod:`protocol.limits` would be passed."""

    code = "limit"

    def __init__(self, what: str, limit: float) -> None:
        super().__init__(f"{what} is above the limit of {limit}")
        self.what = what
        self.limit = limit


class CorruptChunkError(KinfolderError):
    """A chunk's bytes are not those that its id, key or row promise."""

    code = "corrupt_chunk"


class CorruptStateError(KinfolderError):
    """A database or key file of ours is damaged."""

    code = "corrupt_state"


class UserError(KinfolderError):
    """Something that a person can mend; the text names the thing and says what to do."""

    code = "user"

    def __init__(self, text: str, *, exit_code: int = EXIT_FAILED, code: str | None = None) -> None:
        super().__init__(text)
        self.exit_code = exit_code
        if code is not None:
            self.code = code


def unreachable_because(error: Exception) -> str:
    """Say in words why no connection came about, for a line that names who cannot be reached."""
    for kind in type(error).__mro__:
        if (words := _UNREACHABLE.get(kind.__name__)) is not None:
            return words
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    return "it broke off" if isinstance(error, OSError | EOFError) else "what answers there is something else"


_UNREACHABLE: Final = {
    "gaierror": "its name is not known",
    "ConnectionRefusedError": "nothing listens there",
    "ConnectionClosed": "it broke off",
    "TimeoutError": "it does not answer in time",
    "SSLCertVerificationError": "this system does not trust its certificate; an invitation or a code pins it",
    "SSLError": "it does not speak TLS as it should",
}
"""By name, so that what has no network need not import it."""
