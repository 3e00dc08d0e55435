"""How a session begins: logins, new accounts, storage nodes; and what is left to do when it ends."""

from __future__ import annotations

import contextlib

import msgspec
import structlog

from coordinator.core.names import check_user
from coordinator.failures import Refused
from coordinator.service import Coordinator
from coordinator.session import Kind, Session
from coordinator.store.nodes import StorageNode
from coordinator.store.repository import Repository
from coordinator.store.settings import token_hash
from protocol import limits
from protocol import messages as m
from protocol.accounts import AccountState
from protocol.errors import (
    AccessDeniedError,
    BadSignatureError,
    KinfolderError,
    ProtocolError,
    RevokedError,
    SecurityError,
    UnavailableError,
)
from protocol.ids import storage_node_id
from protocol.signing import PUBLIC_KEY_BYTES, verify

_NONCE_BYTES = 32
_URL_BYTES_MAX = 512
_RETIRED = "this node was retired: nothing depends on it, and it can be switched off"

log = structlog.get_logger("coordinator")


def _check_login(session: Session, who: bytes, nonce: bytes, signature: bytes, key: bytes) -> None:
    """Check a login's signature for each URL and certificate under which this server may have been reached.

    Raises:
        AccessDeniedError: It holds for none of them.
    """
    if len(nonce) != _NONCE_BYTES:
        raise ProtocolError("login holds a nonce of a wrong length")
    for origin in session.origins:
        for certificate in session.certificates:
            covered = m.login_bytes(session.challenge, origin, certificate, nonce, who)
            with contextlib.suppress(BadSignatureError):
                verify("login", covered, signature, key)
                return
    raise AccessDeniedError("login refused")


def check_attempts(coordinator: Coordinator, session: Session, what: bytes) -> None:
    """Refuse an attempt at something that can be guessed after too many that failed from one address.

    Raises:
        UnavailableError: There were too many within a minute.
    """
    if coordinator.failures.are_spent(what + session.address.encode(), coordinator.clock.monotonic_s()):
        raise UnavailableError("too many failed attempts from this address: wait a minute")


def count_failure(coordinator: Coordinator, session: Session, what: bytes) -> None:
    """Count a failed attempt."""
    coordinator.failures.count(what + session.address.encode(), coordinator.clock.monotonic_s())


def count_idle(coordinator: Coordinator, session: Session) -> None:
    """Count it as a failed attempt if the session took a mailbox, said nothing, and now leaves it."""
    if session.kind is Kind.MAILBOX and coordinator.mailboxes.is_idle(session.number):
        count_failure(coordinator, session, b"code")


async def login(coordinator: Coordinator, session: Session, message: m.Login) -> m.Message:
    """Let a device in that proves to hold the key of an active device of its account."""
    now_ms = coordinator.clock.now_ms()

    def read(repository: Repository) -> AccountState | None:
        try:
            return coordinator.authorities.account(repository, message.account)
        except KeyError:
            return None

    state = await coordinator.database.read(read)
    try:
        # One answer for every reason, so that nobody learns which accounts and devices there are.
        if state is None or message.device not in state.devices:
            raise AccessDeniedError("login refused")
        key = state.devices[message.device].keys.sign
        _check_login(session, message.account + message.device, message.nonce, message.signature, key)
        if not state.is_active(message.device):
            # It proved who it is, so it is told what became of it.
            raise RevokedError("this device was taken out of its account")
    except SecurityError:
        # A login that is right is let in whatever its neighbours do; one that is wrong learns less and less.
        check_attempts(coordinator, session, b"login")
        count_failure(coordinator, session, b"login")
        raise
    if session.kind is not Kind.OPENING:
        raise ProtocolError("this session has begun already")
    for number in coordinator.hub.join(session.number, message.account, message.device):
        other = coordinator.sessions.get(number)
        if other is not None:
            other.close("another connection of this device")
    session.kind = Kind.DEVICE
    session.account, session.device, session.sign_key = message.account, message.device, key

    def saw(repository: Repository) -> bool:
        repository.accounts.saw(message.account, message.device, now_ms)
        # The device may have been revoked since the state was read.
        return coordinator.authorities.account(repository, message.account).is_active(message.device)

    if not await coordinator.database.write(saw):
        session.close("revoked")
        raise RevokedError("this device was taken out of its account")
    return m.Ok()


async def create_account(coordinator: Coordinator, session: Session, message: m.CreateAccount) -> m.Message:
    """Make an account from its genesis link for whoever holds an invitation."""
    user = check_user(message.user)
    state = AccountState(message.genesis)

    def create(repository: Repository) -> None:
        known = repository.accounts.find(state.id)
        if known is not None:
            if known.user != user:
                raise Refused("name", "this account has another name")
            return
        if not coordinator.open_registration or message.token:
            _take_token(repository, message.token, "user")
        if repository.accounts.find_user(user) is not None:
            raise Refused("name", "this name is taken")
        repository.accounts.create(state.id, user, message.genesis)

    try:
        await coordinator.database.write(create)
    except Refused as error:
        if error.code == "token":
            check_attempts(coordinator, session, b"token")
            count_failure(coordinator, session, b"token")
        raise
    return m.Ok()


def _take_token(repository: Repository, token: str, purpose: str) -> str:
    """Count one use of a token and return the operator that it names.

    Raises:
        Refused: There is no such token, or it is used up.
    """
    known = repository.settings.token(token)
    if known is None or known.purpose != purpose:
        raise Refused("token", "this invitation is not valid here")
    if known.uses_left <= 0:
        raise Refused("token", "this invitation is used up")
    repository.settings.use_token(token)
    return known.operator or token_hash(token)[:8].hex()


def _check_node(message: m.NodeLogin) -> None:
    if not message.url.startswith(("http://", "https://")) or len(message.url.encode()) > _URL_BYTES_MAX:
        raise ProtocolError("storage node has a bad URL")
    if len(message.sign) != PUBLIC_KEY_BYTES:
        raise ProtocolError("storage node has a key of a wrong length")
    if len(message.certificate) > limits.CERTIFICATE_BYTES_MAX or len(message.zone.encode()) > limits.LABEL_BYTES_MAX:
        raise ProtocolError("storage node has too long a certificate or zone")
    if not message.url.isprintable() or not message.zone.isprintable() or not 0 <= message.free_bytes < 1 << 63:
        raise ProtocolError("storage node says something odd of itself")


async def node_login(coordinator: Coordinator, session: Session, message: m.NodeLogin) -> m.Message:
    """Let a storage node in: a new one by its token, a known one by its key, wherever it now is."""
    _check_node(message)
    id = storage_node_id(message.sign)
    now_ms = coordinator.clock.now_ms()

    def enrol(repository: Repository) -> StorageNode:
        known = {node.node: node for node in repository.nodes.all()}.get(id)
        values = {
            "url": message.url,
            "certificate": message.certificate,
            "zone": message.zone or id[:8].hex(),
            "online": True,
            "last_seen_ms": now_ms,
            "free_bytes": message.free_bytes,
        }
        if known is not None:
            retirement = repository.retirements.all().get(id)
            if retirement is not None and retirement.is_over:
                raise RevokedError(_RETIRED)
            repository.nodes.change(id, **values)
            return msgspec.structs.replace(known, **values)
        operator = _take_token(repository, message.token, "storage")
        node = StorageNode(
            node=id,
            number=repository.nodes.next_number(),
            sign=message.sign,
            operator=operator,
            stored_bytes=0,
            **values,  # type: ignore[arg-type]  # the types are those of the fields above
        )
        repository.nodes.add(node)
        return node

    try:
        _check_login(session, message.sign, message.nonce, message.signature, message.sign)
        node = await coordinator.database.write(enrol)
    except RevokedError:
        raise  # it proved who it is: nothing was guessed
    except (SecurityError, Refused):
        check_attempts(coordinator, session, b"node")
        count_failure(coordinator, session, b"node")
        raise
    if session.is_closed:
        raise UnavailableError("the connection has ended")
    if coordinator.registry.is_retired(id):  # since it was looked up
        raise RevokedError(_RETIRED)
    session.kind = Kind.NODE
    session.node = id
    coordinator.registry.put(node)
    before = coordinator.registry.join(id, session.number)
    other = coordinator.sessions.get(before) if before is not None else None
    if other is not None:
        other.close("another connection of this node")
    log.info("storage node online", node=id[:8].hex())
    if coordinator.registry.is_leaving(id):
        session.post(m.NodeLeaves())
    coordinator.tell_nodes()
    coordinator.repair.take_login(id)
    return await coordinator.welcome()


async def left(coordinator: Coordinator, session: Session) -> None:
    """Do what the end of a session asks for."""
    coordinator.hub.leave(session.number)
    count_idle(coordinator, session)
    for other, number in coordinator.mailboxes.leave(session.number):
        told = coordinator.sessions.get(other)
        if told is not None:
            told.post(m.CloseMailbox(number))
    now_ms = coordinator.clock.now_ms()
    with contextlib.suppress(KinfolderError):
        if session.kind is Kind.DEVICE:
            account, device = session.account, session.device
            await coordinator.database.write(lambda repository: repository.accounts.saw(account, device, now_ms))
        elif session.kind is Kind.NODE:
            node = session.node
            if coordinator.registry.leave(node, session.number, coordinator.clock.monotonic_s()):
                log.info("storage node offline", node=node[:8].hex())
                coordinator.tell_nodes()
                await coordinator.database.write(
                    lambda repository: repository.nodes.change(node, online=0, last_seen_ms=now_ms)
                )
