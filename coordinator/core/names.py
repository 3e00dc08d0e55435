"""What a user may be called."""

from __future__ import annotations

import unicodedata
from typing import Final

from protocol.errors import UserError

USER_CHARACTERS_MAX: Final = 64
_MARKS: Final = "._-@+"


def check_user(user: str) -> str:
    """Return a user's name in normal form: letters and digits of any script, and ``._-@+`` after the first character.

    Raises:
        UserError: It is none.
    """
    name = unicodedata.normalize("NFC", user)
    if not 1 <= len(name) <= USER_CHARACTERS_MAX:
        raise UserError(f"a user's name has 1 to {USER_CHARACTERS_MAX} characters", code="name")
    if not name[0].isalnum() or not all(c.isalnum() or c in _MARKS or unicodedata.combining(c) for c in name):
        raise UserError(
            f"a user's name holds letters, digits and {_MARKS}, and begins with one of the first two", code="name"
        )
    return name
