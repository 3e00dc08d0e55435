"""The commands of the contract whose engine is still to come: they take any arguments and refuse with exit code 2."""

from __future__ import annotations

from typing import Final, NoReturn

from protocol.errors import EXIT_USAGE, UserError

COMMANDS: Final = (
    # name, arguments, help
    ("recover", "--recovery-file FILE --device NAME", "Bring the account back with its 24 words."),
    ("share", "FOLDER[/PATH] USER --role reader|writer|admin", "Let another user in."),
    ("unshare", "FOLDER USER", "Take a user out."),
)


def refuse() -> NoReturn:
    """Say that this is not in this version.

    Raises:
        UserError: Always.
    """
    raise UserError("not in this version", exit_code=EXIT_USAGE, code="not_in_this_version")
