"""How a home becomes a device by making an account; being linked to one is in :mod:`peer.linking`.

Rule 1: nothing is told to the coordinator before the keys are safe on this disk; where they go, and under which
passphrase, is settled before a connection is made.
Rule 2: what fails leaves the home as it was, so the same command can be given again.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from peer.api.backend import Json, Report
from peer.config import KeyOptions
from peer.core.keys import AccountRoot, DeviceSecrets, check_label
from peer.core.links import make_account
from peer.engine.context import Doors
from peer.net.coordinator_link import Address, Identity, Session, login, open_session
from peer.store import folders
from peer.store.database import Database, ThreadedDatabase
from peer.store.home import (
    DATABASE,
    DeviceRecord,
    HomeLock,
    device_record,
    is_device,
    put_device_record,
    put_known_head,
)
from peer.store.keyfile import KeyPlace, KeyStore, write_recovery_file
from peer.store.schema import SCHEMA
from protocol import messages as m
from protocol.chains import SignedLink
from protocol.effects import Entropy
from protocol.errors import EXIT_USAGE, AccessDeniedError, UserError
from protocol.history import SignedCheckpoint
from protocol.ids import AccountId
from protocol.invitations import coordinator_url, is_invitation, parse_invitation

USER_CHARACTERS_MAX: Final = 64


class Target(msgspec.Struct, frozen=True):
    """Where to join."""

    url: str
    token: str
    certificate_sha256: bytes


def target_of(coordinator: str, invite: str) -> Target:
    """Return where ``--coordinator`` and ``--invite`` lead; an invitation alone will do.

    Raises:
        UserError: Neither names a coordinator, or they name two.
    """
    if is_invitation(invite):
        invitation = parse_invitation(invite)
        if coordinator and coordinator_url(coordinator) != invitation.url:
            raise UserError("--coordinator and --invite name two coordinators", exit_code=EXIT_USAGE)
        return Target(invitation.url, invitation.token, invitation.fingerprint or b"")
    if not coordinator:
        text = "give a whole invitation with --invite, or name the coordinator with --coordinator URL"
        raise UserError(text, exit_code=EXIT_USAGE)
    return Target(coordinator_url(coordinator), invite, b"")


@contextlib.contextmanager
def empty_home(home: Path) -> Iterator[None]:
    """Hold a home that is no device yet; what was put into it goes again if the work inside fails.

    Raises:
        UserError: It is a device already, or cannot be used.
    """
    lock = HomeLock(home)
    before = set(home.iterdir())
    try:
        if home / DATABASE in before:
            if _is_device(home):
                raise is_device(home)
            # What a cut-off attempt left behind was never known to anybody.
            _remove(home, [p for p in before if p.name.startswith(DATABASE) or p.name.startswith("keys.")])
        try:
            # The database comes first: beside one that is no device's, what a cut-off attempt left is known as such.
            _is_device(home)
            yield
        except BaseException:
            _remove(home, [p for p in home.iterdir() if p not in before or p.name.startswith(DATABASE)])
            raise
    finally:
        lock.release()


def _is_device(home: Path) -> bool:
    from peer.store.database import connect

    connection = connect(home / DATABASE)
    try:
        connection.executescript(SCHEMA)
        return device_record(connection) is not None
    finally:
        connection.close()


def _remove(home: Path, paths: Sequence[Path]) -> None:
    for path in paths:
        if path.name not in ("lock", "kin.log", "settings.toml") and path.parent == home and path.is_file():
            path.unlink()


async def create_account(
    home: Path,
    doors: Doors,
    *,
    target: Target,
    user: str,
    device: str,
    keys: KeyOptions,
    recovery_file: Path | None,
    report: Report,
) -> Json:
    """Make an account whose first device this home becomes; return what ``kin init`` prints.

    Raises:
        UserError: A name, the invitation or the home will not do.
        UnavailableError: The coordinator cannot be reached.
    """
    check_label(device)
    if not 0 < len(user) <= USER_CHARACTERS_MAX:
        raise UserError(f"--user has 1 to {USER_CHARACTERS_MAX} characters", exit_code=EXIT_USAGE)
    with empty_home(home), key_place(home, keys) as place:
        secrets = DeviceSecrets.create(doors.entropy)
        root = AccountRoot.create(doors.entropy)
        genesis, account_keys = make_account(
            root, secrets, device, hpke=doors.hpke, entropy=doors.entropy, now_ms=doors.clock.now_ms()
        )
        session = await open_session(Address(target.url, target.certificate_sha256, b"", b""), doors.dialer)
        try:
            if recovery_file is not None:
                write_recovery_file(recovery_file, root.words(), target.url, target.certificate_sha256)
            try:
                place.put(secrets, account_keys, warn=lambda text: report({"warning": text}))
                record = await register_account(
                    session, target, genesis, secrets, user=user, device=device, entropy=doors.entropy
                )
                await put_first_record(home, record, [genesis])
            except BaseException:
                if recovery_file is not None:
                    recovery_file.unlink(missing_ok=True)
                raise
        finally:
            await session.close()
    return {
        "user": user,
        "device": {"id": secrets.id.hex(), "name": device},
        "words": None if recovery_file is not None else root.words(),
    }


async def register_account(
    session: Session,
    target: Target,
    genesis: SignedLink,
    secrets: DeviceSecrets,
    *,
    user: str,
    device: str,
    entropy: Entropy,
) -> DeviceRecord:
    """Make the coordinator know an account, log its first device in, and return what that device is.

    Raises:
        UserError: The name or the invitation will not do.
    """
    await _be_let_in(session, m.CreateAccount(target.token, user, genesis))
    account = AccountId(genesis.hash)
    await login(session, Identity(account, secrets.id, secrets.sign_seed), entropy)
    return DeviceRecord(
        account=account,
        user=user,
        device=secrets.id,
        name=device,
        url=target.url,
        certificate_sha256=target.certificate_sha256,
        log_key=session.challenge.log_key,
        token_key=session.challenge.token_key,
    )


async def _be_let_in(session: Session, request: m.CreateAccount) -> None:
    try:
        await session.ask(request, m.Ok)
    except (AccessDeniedError, UserError) as error:
        if request.token:
            raise
        text = f"--invite is missing, and this coordinator lets nobody in without an invitation ({error})"
        raise UserError(text, exit_code=EXIT_USAGE) from error


@contextlib.contextmanager
def key_place(home: Path, options: KeyOptions) -> Iterator[KeyPlace]:
    """Settle where a new device's keys go before the work inside tells anybody of them; undone if that work fails.

    Raises:
        UserError: A person has not said where, gave no passphrase, or this disk or keyring takes no keys.
    """
    place = KeyStore.prepare(home, options)
    try:
        yield place
    except BaseException:
        place.forget()
        raise


async def put_first_record(
    home: Path, record: DeviceRecord, chain: Sequence[SignedLink], heads: Sequence[SignedCheckpoint] = ()
) -> None:
    """Make the home a device, in one commit; ``heads`` are those that other folders of the account had, checked."""
    database = ThreadedDatabase(home / DATABASE, SCHEMA)
    try:
        await fill_database(database, record, chain, heads)
    finally:
        await database.close()


async def fill_database(
    database: Database, record: DeviceRecord, chain: Sequence[SignedLink], heads: Sequence[SignedCheckpoint] = ()
) -> None:
    """Write what makes an empty database that of a device, in one commit."""

    def operation(db: sqlite3.Connection) -> None:
        folders.put_account_links(db, record.account, 0, chain)
        for head in heads:
            put_known_head(db, head)
        put_device_record(db, record)

    await database.run(operation)
