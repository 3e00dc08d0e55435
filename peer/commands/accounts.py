"""Making an account, and bringing further devices into it: ``init``, ``link-code``, ``link``, ``devices``."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

from peer.commands.direct import confirm_digits, run_async
from peer.commands.logs import start_log
from peer.commands.session import Session
from peer.commands.tables import moment, write_table
from peer.commands.terminal import Terminal
from peer.store.home import refuse_device
from protocol import limits
from protocol.errors import EXIT_USAGE, UserError

WORDS_ASKED: Final = 3
_CHANCE: Final = random.SystemRandom()


def init(
    session: Session,
    *,
    coordinator: str | None,
    invite: str | None,
    user: str,
    device: str,
    recovery_file: str | None,
    no_keyring: bool,
    passphrase_file: str | None,
) -> None:
    """Make an account whose first device is this home."""
    terminal = session.terminal
    refuse_device(session.settings.home)
    if recovery_file is None and not terminal.can_ask:
        text = "the 24 words of recovery need a place: give --recovery-file, or run this at a terminal"
        raise UserError(text, exit_code=EXIT_USAGE)
    _check_names(user=user, device=device)
    start_log(session.settings)
    result = run_async(
        session.settings,
        session.door.create(
            session.settings.home,
            coordinator=coordinator or "",
            invite=invite or "",
            user=user,
            device=device,
            keys=session.keys(no_keyring=no_keyring, passphrase_file=passphrase_file),
            recovery_file=None if recovery_file is None else Path(os.path.abspath(recovery_file)),
            report=terminal.report,
        ),
    )
    terminal.finish()
    if words := result.get("words"):
        try:
            show_words(terminal, str(words).split())
        except KeyboardInterrupt:
            terminal.note("")
            terminal.warn("the account is made; if its words are not on paper, begin anew with another --home")
            raise
    terminal.say(f"{result['device']['name']} is the first device of {result['user']}")
    if recovery_file is not None:
        terminal.say(f"The words of recovery are in {recovery_file}: keep them apart from this device")


def _check_names(**names: str) -> None:
    for what, name in names.items():
        if not name.strip():
            raise UserError(f"--{what} is empty", exit_code=EXIT_USAGE)
        if len(os.fsencode(name)) > limits.LABEL_BYTES_MAX:
            raise UserError(f"--{what} is longer than {limits.LABEL_BYTES_MAX} bytes", exit_code=EXIT_USAGE)


def show_words(
    terminal: Terminal, words: list[str], choose: Callable[[range, int], list[int]] = _CHANCE.sample
) -> None:
    """Show the words of recovery once, and have some of them typed back."""
    with terminal.other_screen():
        terminal.note("These words bring your account back when every device is lost, and open it to who finds them.")
        terminal.note("They are shown once. Write them on paper.")
        terminal.note("")
        rows = (len(words) + 3) // 4
        for row in range(rows):
            line = [f"{at + 1:2} {words[at]:<10}" for at in range(row, len(words), rows)]
            terminal.note("  " + "  ".join(line).rstrip(), "bold")
        terminal.note("")
        terminal.ask("Press Enter once they are on paper: ")
    for at in sorted(choose(range(len(words)), min(WORDS_ASKED, len(words)))):
        while terminal.ask(f"Word {at + 1}? ").strip().lower() != words[at]:
            terminal.note("Another word stands there. Look at the paper.", "attention")


def link_code(session: Session, *, yes: bool) -> None:
    """Show a one-time code, and let the device in that uses it."""
    _need_person(session.terminal, yes)
    result = session.call("link_code", yes=yes)
    device = result.get("device")
    name = device["name"] if isinstance(device, dict) else "the new device"
    session.terminal.note(f"{name} is now a device of this account")


def link(
    session: Session,
    *,
    code: str,
    coordinator: str | None,
    device: str,
    yes: bool,
    no_keyring: bool,
    passphrase_file: str | None,
) -> None:
    """Join the account of the device that shows ``code``."""
    terminal = session.terminal
    refuse_device(session.settings.home)
    _need_person(terminal, yes)
    _check_names(device=device)

    async def confirm(digits: str) -> bool:
        return yes or await confirm_digits(terminal, digits, "")

    start_log(session.settings)
    result = run_async(
        session.settings,
        session.door.link(
            session.settings.home,
            code=code,
            coordinator=coordinator,
            device=device,
            keys=session.keys(no_keyring=no_keyring, passphrase_file=passphrase_file),
            confirm=confirm,
            report=terminal.report,
        ),
    )
    terminal.finish()
    terminal.say(f"{result['device']['name']} is now a device of {result['user']}")


def _need_person(terminal: Terminal, yes: bool) -> None:  # noqa: FBT001 - the option's value
    if not yes and not terminal.can_ask:
        text = "people compare six digits, and there is no terminal: give --yes on both devices, or use one"
        raise UserError(text, exit_code=EXIT_USAGE)


def devices(session: Session) -> None:
    """Show the account's devices."""
    result = session.call("devices")
    terminal = session.terminal
    if terminal.as_json:
        terminal.print_json(result)
        return
    rows = []
    for device in result["devices"]:
        if device["revoked"]:
            state = f"revoked {moment(device['revoked'])}"
        elif device["this"]:
            state = "this device"
        elif device["online"]:
            state = "online"
        else:
            state = f"last seen {moment(device['last_seen'])}" if device["last_seen"] else "never seen"
        rows.append((device["name"], state, f"added {moment(device['added'])}", device["id"][:12]))
    write_table(terminal, rows)


def revoke(session: Session, *, device: str) -> None:
    """Take a device out of the account."""
    result = session.call("revoke", device=device)
    terminal = session.terminal
    name = result["device"]["name"] or result["device"]["id"][:12]
    if result["was_in"]:
        terminal.say(f"{name} was taken out of the account: what is written from now on it can neither read nor change")
        terminal.note(
            "What it wrote before stays; 'kin history' and 'kin restore' bring back what was there before that."
        )
    else:
        terminal.say(f"{name} is out of the account already")
    if left := result["left"]:
        why = f" ({result['note']})" if result["note"] else ""
        terminal.warn(
            f"not renewed yet: the keys of {', '.join(left)}{why}; any device of the account does it with its next sync"
        )
