"""The one-time code that a person carries from a device that is in to a new one (contract, "A device").

``number-word-word-word``, where the coordinator's certificate is one that the system trusts or on loopback; else followed by
``@host:port.fingerprint``, the hex SHA-256 of the certificate. Which words there are is :mod:`peer.core.linking`'s matter.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from protocol.errors import EXIT_USAGE, UserError
from protocol.invitations import coordinator_url

WORDS: Final = 3
_NUMBER_MAX: Final = (1 << 31) - 1
_CODE = re.compile(
    r"(?P<number>[0-9]{1,10})(?P<words>(?:-[a-z]{1,16}){3})(?:@(?P<place>[^@/#\s]{1,300})\.(?P<fingerprint>[0-9a-f]{64}))?"
)


class LinkCode(NamedTuple):
    """What a code says."""

    number: int
    """Of the mailbox at the coordinator."""
    words: tuple[str, ...]
    url: str | None
    """The coordinator's URL in normal form; None: it is named elsewhere."""
    fingerprint: bytes | None
    """SHA-256 of its certificate (DER); with the URL or not at all."""

    @property
    def password(self) -> bytes:
        """What both devices prove to each other to know."""
        return "-".join((str(self.number), *self.words)).encode()


def parse_link_code(text: str) -> LinkCode:
    """Return what a code says; case does not matter.

    Raises:
        UserError: It is none; the text does not repeat it.
    """
    match = _CODE.fullmatch(text.strip().lower())
    if match is None or int(match["number"]) > _NUMBER_MAX:
        raise UserError(
            "this is no code (NUMBER-WORD-WORD-WORD): copy it as the other device shows it", exit_code=EXIT_USAGE
        )
    words = tuple(match["words"].removeprefix("-").split("-"))
    if match["place"] is None:
        return LinkCode(int(match["number"]), words, None, None)
    url = coordinator_url(f"wss://{match['place']}")
    return LinkCode(int(match["number"]), words, url, bytes.fromhex(match["fingerprint"]))


def format_link_code(code: LinkCode) -> str:
    """Return the one word of a code; :func:`parse_link_code` reads it back.

    Raises:
        UserError: A part of it cannot be written so.
    """
    text = "-".join((str(code.number), *code.words))
    if code.url is not None and code.fingerprint is not None:
        text += f"@{coordinator_url(code.url).removeprefix('wss://')}.{code.fingerprint.hex()}"
    parse_link_code(text)
    return text
