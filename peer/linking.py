"""Link a device: the shell around :mod:`peer.core.linking`, with a mailbox of the coordinator between the two sides.

Rule 1: the machines decide; here messages are carried, digits shown and links appended.
Rule 2: whatever ends a side closes the mailbox, so a code is good for one attempt.
Rule 3: what a person decides or this disk may refuse is settled before the first message: no device is let in that
cannot keep its keys.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from peer.api.backend import Json, Report
from peer.config import KeyOptions
from peer.core.keys import AccountKeys, DeviceSecrets, check_label
from peer.core.linking import (
    Admit,
    Command,
    Compare,
    Done,
    ExistingDevice,
    Failed,
    Linked,
    NewDevice,
    Send,
    check_admission,
    draw_words,
)
from peer.core.linking_messages import Admission
from peer.core.membership import open_account_keys
from peer.engine.context import Doors
from peer.joining import empty_home, key_place, put_first_record
from peer.net.coordinator_link import Address, Identity, Session, StaleError, login, open_session
from peer.store.home import DeviceRecord
from protocol import limits
from protocol import messages as m
from protocol.chains import SignedLink
from protocol.errors import EXIT_USAGE, SecurityError, UnavailableError, UserError
from protocol.history import SignedCheckpoint, verify_checkpoint
from protocol.ids import AccountId
from protocol.invitations import coordinator_url
from protocol.link_codes import LinkCode, format_link_code, parse_link_code
from protocol.membership import AccountState

if TYPE_CHECKING:
    from peer.device import Device

PERSON_S: Final = 300.0


async def show_code(device: Device, *, yes: bool, report: Report) -> Json:
    """Show a one-time code, wait for a new device to use it, and let it in; return its id and name.

    Raises:
        UserError: The attempt failed, or a person said that the digits differ.
        UnavailableError: The coordinator cannot be reached.
    """
    await device.need_link()
    context = device.context
    state = await device.accounts.refresh(device.record.account)
    context.account_keys = open_account_keys(state, context.secrets, context.hpke, known=context.account_keys)
    opened = await device.coordinator.ask(m.OpenMailbox(), m.MailboxOpened)
    pinned = bool(device.record.certificate_sha256)
    code = LinkCode(
        opened.number,
        draw_words(context.entropy),
        device.record.url if pinned else None,
        device.record.certificate_sha256 if pinned else None,
    )
    box: asyncio.Queue[m.Message] = asyncio.Queue(maxsize=16)
    device.mailboxes[opened.number] = box
    machine = ExistingDevice(
        code, state, context.account_keys, context.secrets, hpke=context.hpke, entropy=context.entropy
    )
    side = _ExistingSide(device, machine, opened.number, yes=yes, report=report)
    report({"code": format_link_code(code)})
    try:
        async with asyncio.timeout(limits.LINK_MAILBOX_S):
            while not side.is_over:
                match await box.get():
                    case m.MailboxMessage(_, data):
                        await side.carry_out(machine.handle(data, context.clock.now_ms()))
                    case _:
                        raise UserError("the other device gave up: show a new code and try again")
    except TimeoutError:
        raise UserError("nobody used the code in time: show a new one when you need it") from None
    finally:
        device.mailboxes.pop(opened.number, None)
        if not side.is_over:
            await _close(lambda: device.coordinator.ask(m.CloseMailbox(opened.number), m.Ok))
    return {"device": {"id": side.admitted_id, "name": side.name}}


class _ExistingSide:
    """Carries out what the machine of a device that is in decides."""

    def __init__(self, device: Device, machine: ExistingDevice, number: int, *, yes: bool, report: Report) -> None:
        self._device = device
        self._machine = machine
        self._number = number
        self._yes = yes
        self._report = report
        self.is_over = False
        self.admitted_id = ""
        self.name = ""

    async def carry_out(self, commands: Sequence[Command]) -> None:
        for command in commands:
            match command:
                case Send(data):
                    await self._device.coordinator.ask(m.MailboxSend(self._number, data), m.Ok)
                case Compare(digits, name, _):
                    self.name = name
                    same = self._yes or await self._ask(digits, name)
                    await self.carry_out(self._machine.confirm() if same else self._machine.reject())
                case Admit(link, new):
                    self.admitted_id = new.hex()
                    await self._admit(link)
                case Done():
                    self.is_over = True
                case Failed(reason):
                    raise UserError(f"the device was not linked: {reason}")
                case _:
                    pass

    async def _ask(self, digits: str, name: str) -> bool:
        id = self._device.context.entropy(8).hex()
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._device.confirmations[id] = future
        try:
            self._report({"ask": "digits", "digits": digits, "id": id, "name": name})
            async with asyncio.timeout(PERSON_S):
                return await future
        finally:
            self._device.confirmations.pop(id, None)

    async def _admit(self, link: SignedLink) -> None:
        device = self._device
        try:
            await device.coordinator.ask(m.AppendAccountLink(link), m.Ok)
        except StaleError:
            state = await device.accounts.refresh(device.record.account)
            await self.carry_out(self._machine.stale(state, device.context.clock.now_ms()))
            return
        state = await device.accounts.refresh(device.record.account)
        checkpoints = tuple(
            engine.record.checkpoint for engine in device.engines.values() if engine.record.checkpoint is not None
        )
        contacts = tuple(
            (one.id, one.seq, one.head) for one in device.accounts.known() if one.id != device.record.account
        )
        await self.carry_out(
            self._machine.admitted(
                state,
                user=device.record.user,
                log_key=device.record.log_key,
                token_key=device.record.token_key,
                checkpoints=checkpoints,
                contacts=contacts,
                link=link,
            )
        )


async def join(
    home: Path,
    doors: Doors,
    *,
    code: str,
    coordinator: str | None,
    device: str,
    keys: KeyOptions,
    confirm: Callable[[str], Awaitable[bool]],
    report: Report,
) -> Json:
    """Join the account of the device that shows ``code``; return what ``kin link`` prints.

    Raises:
        UserError: The code is no good, or a person said that the digits differ.
        SecurityError: The coordinator shows something else than the other device said.
    """
    parsed = parse_link_code(code)
    check_label(device)
    url = parsed.url or (coordinator_url(coordinator) if coordinator else "")
    if not url:
        raise UserError("name the coordinator with --coordinator URL: this code does not", exit_code=EXIT_USAGE)
    with empty_home(home), key_place(home, keys) as place:
        joined = await be_linked(doors, parsed, url, device, confirm)
        place.put(joined.secrets, joined.account_keys, warn=lambda text: report({"warning": text}))
        record = joined.record
        await put_first_record(home, record, joined.chain, joined.heads)
    return {"user": record.user, "device": {"id": record.device.hex(), "name": device}}


class Joined(NamedTuple):
    """What a device is that was just let into an account."""

    record: DeviceRecord
    secrets: DeviceSecrets
    account_keys: AccountKeys
    chain: tuple[SignedLink, ...]
    """The account's."""
    heads: tuple[SignedCheckpoint, ...]
    """How far the account's folders had come, checked."""


async def be_linked(
    doors: Doors, code: LinkCode, url: str, device: str, confirm: Callable[[str], Awaitable[bool]]
) -> Joined:
    """Be let into the account of the device that shows a code; nothing is kept yet.

    Raises:
        UserError, SecurityError, UnavailableError: As :func:`join`.
    """
    secrets = DeviceSecrets.create(doors.entropy)
    pin = code.fingerprint or b""
    session = await open_session(Address(url, pin, b"", b""), doors.dialer)
    try:
        admission = await _be_admitted(session, code, secrets, device, doors, confirm)
    finally:
        await session.close()
    address = Address(url, pin, admission.log_key, admission.token_key)
    session = await open_session(address, doors.dialer)
    try:
        identity = Identity(admission.account, secrets.id, secrets.sign_seed)
        await login(session, identity, doors.entropy)
        links = await _account_chain(session, admission.account)
    finally:
        await session.close()
    state = AccountState.replay(links, account=admission.account)
    check_admission(admission, state, secrets.id)
    for head in admission.checkpoints:
        verify_checkpoint(head, admission.log_key)
    record = DeviceRecord(
        account=admission.account,
        user=admission.user,
        device=secrets.id,
        name=device,
        url=url,
        certificate_sha256=pin,
        log_key=admission.log_key,
        token_key=admission.token_key,
    )
    account_keys = open_account_keys(state, secrets, doors.hpke)
    return Joined(record, secrets, account_keys, tuple(links), tuple(admission.checkpoints))


async def _be_admitted(
    session: Session,
    code: LinkCode,
    secrets: DeviceSecrets,
    name: str,
    doors: Doors,
    confirm: Callable[[str], Awaitable[bool]],
) -> Admission:
    await session.ask(m.JoinMailbox(code.number), m.Ok)
    machine = NewDevice(code, secrets, name, f"{platform.system()} {platform.machine()}", entropy=doors.entropy)
    closed = asyncio.ensure_future(session.closed.wait())
    admission: Admission | None = None

    async def carry_out(commands: Sequence[Command]) -> None:
        nonlocal admission
        for command in commands:
            match command:
                case Send(data):
                    await session.ask(m.MailboxSend(code.number, data), m.Ok)
                case Compare(digits, _, _):
                    await carry_out(machine.confirm() if await confirm(digits) else machine.reject())
                case Linked(found):
                    admission = found
                case Failed(reason):
                    raise UserError(f"this device was not linked: {reason}")
                case _:
                    pass

    try:
        async with asyncio.timeout(limits.LINK_MAILBOX_S):
            await carry_out(machine.start())
            while admission is None:
                notice = asyncio.ensure_future(session.notices.get())
                await asyncio.wait([notice, closed], return_when=asyncio.FIRST_COMPLETED)
                if not notice.done():
                    notice.cancel()
                    raise UnavailableError("the coordinator closed the connection")
                match notice.result():
                    case m.MailboxMessage(_, data):
                        await carry_out(machine.handle(data, doors.clock.now_ms()))
                    case m.CloseMailbox():
                        raise UserError("the other device gave up, and says why: see there, and ask it for a new code")
                    case _:
                        pass
    except TimeoutError:
        raise UserError("the other device did not answer in time: ask it for a new code") from None
    finally:
        closed.cancel()
    return admission


async def _account_chain(session: Session, account: AccountId) -> list[SignedLink]:
    links: list[SignedLink] = []
    while True:
        page = await session.ask(m.GetAccountChain(account, len(links) - 1), m.AccountChain)
        links += page.links
        if not page.more:
            return links
        if not page.links or len(links) > limits.ACCOUNT_CHAIN_LINKS_MAX:
            raise SecurityError("the coordinator shows an endless account chain")


async def _close(ask: Callable[[], Awaitable[object]]) -> None:
    try:
        await ask()
    except (UnavailableError, UserError, SecurityError):
        return
