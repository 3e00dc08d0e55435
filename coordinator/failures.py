"""What the coordinator answers when it does not do as asked."""

from __future__ import annotations

from protocol.errors import AccessDeniedError, KinfolderError, ProtocolError, UserError


class Refused(KinfolderError):
    """A request that is well formed and allowed, but not now or not so; carries the code of its `Failure`."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def stale() -> Refused:
    """Return the answer to a link that does not follow the newest one."""
    return Refused("stale", "the chain has grown meanwhile: read it and try again")


def behind() -> Refused:
    """Return the answer of a coordinator that lost its newest part."""
    return Refused("behind", "the coordinator lost the newest part of this folder's log and needs it back first")


def no_such_folder() -> AccessDeniedError:
    """Return the one answer for a folder that is not there and for one that is not the caller's."""
    return AccessDeniedError("there is no such folder for this account")


__all__ = [
    "AccessDeniedError",
    "KinfolderError",
    "ProtocolError",
    "Refused",
    "UserError",
    "behind",
    "no_such_folder",
    "stale",
]
