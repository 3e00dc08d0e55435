"""Replay a folder's control log: who may do what, under which device numbers and keys (security 3.5).

Coordinator and devices use the same code, so both refuse the same links.

Rule 1: a state is never changed; extending it gives another one, or raises and leaves it as it was.
Rule 2: a link counts whole or not at all, and its rights are judged by what stood before it.
Rule 3: times are not checked: nobody's clock decides who may do what.
Rule 4: a link whose previous link is not the head is refused; whether it is stale or a fork is the caller's matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Self, TypeAlias

import msgspec

from protocol import limits
from protocol.accounts import WRAP_BYTES, AccountState, DeviceRecord, check_version
from protocol.chains import (
    CHUNKERS,
    DEDUP_SCOPES,
    FOLD_VERSIONS,
    NO_LINK,
    PADDINGS,
    AddMember,
    ControlLink,
    ControlOp,
    EnrolDevice,
    Epoch,
    FolderGenesis,
    RemoveMember,
    Role,
    SetName,
    SetRole,
    SignedLink,
    parse_control_link,
)
from protocol.errors import AccessDeniedError, LimitExceededError, ProtocolError
from protocol.ids import AccountId, DeviceId, EntryHash, FolderId, LinkHash
from protocol.signing import verify

__all__ = ["AccountState", "Accounts", "ControlState", "DeviceRecord", "Enrolment", "accounts_of"]

Accounts: TypeAlias = Callable[[AccountId], AccountState]
"""Gives an account's newest known state; KeyError for one that is not known."""


class Enrolment(msgspec.Struct, frozen=True):
    """What a device number of a folder stands for."""

    number: int
    device: DeviceId
    account: AccountId
    incarnation: int
    link_seq: int
    """The control link that gave the number."""


def accounts_of(link: ControlLink) -> frozenset[AccountId]:
    """Return the accounts whose chains must be known, up to date, before the link can be checked."""
    named = {link.account}
    for op in link.ops:
        if isinstance(op, AddMember):
            named.add(op.account)
        elif isinstance(op, Epoch):
            named.update(wrap.account for wrap in op.wraps)
    return frozenset(named)


class ControlState:
    """What a folder's control log says after its newest link (security 3.5).

    Rule 1: the owner stays an admin; nobody removes itself. So somebody can always act, and nobody who left drew the key.
    Rule 2: whatever changes who is a member, or lowers a role, carries a new epoch in the same link.
    """

    __slots__ = (
        "_account_seqs",
        "_epochs",
        "_members",
        "_numbers",
        "_wrapped",
        "epoch_min",
        "genesis",
        "head",
        "id",
        "name",
        "seq",
    )

    id: FolderId
    genesis: FolderGenesis
    seq: int
    head: LinkHash
    name: SetName | None
    """The folder's name as it was last set, sealed."""
    epoch_min: int
    """The oldest epoch whose entries are still admitted: nobody lost access since it began."""

    def __init__(self, genesis: SignedLink, accounts: Accounts, *, fresh: bool = False) -> None:
        """Begin with a folder's first link; ``fresh`` as for :meth:`extend`.

        Raises:
            ProtocolError, BadSignatureError, AccessDeniedError, LimitExceededError: As for :meth:`extend`.
        """
        link = parse_control_link(genesis)
        if link.folder or link.seq != 0 or link.previous != NO_LINK:
            raise ProtocolError("control log does not begin with a genesis link")
        if not link.ops or not isinstance(link.ops[0], FolderGenesis):
            raise ProtocolError("control log does not begin with a genesis link")
        self.genesis = link.ops[0]
        _check_genesis(self.genesis)
        if self.genesis.owner != link.account:
            raise AccessDeniedError("folder genesis is not signed by its owner")
        self.id = FolderId(genesis.hash)
        self.seq = 0
        self.head = genesis.hash
        self.name = None
        self.epoch_min = 1
        self._members: dict[AccountId, Role] = {link.account: Role.ADMIN}
        self._numbers: list[Enrolment] = []
        self._epochs: list[Epoch] = []
        self._wrapped: dict[AccountId, int] = {}
        self._account_seqs: dict[AccountId, int] = {}
        self._check_signer(genesis, link, accounts, fresh=fresh)
        # A folder may have been made while its maker could not hear of newer keys; nothing is sealed in it yet, and the
        # first thing that its maker does then is to renew its key.
        self._apply(link, link.ops[1:], accounts, fresh=False)
        if not self._epochs:
            raise ProtocolError("folder genesis makes no key")

    @classmethod
    def replay(cls, links: Iterable[SignedLink], accounts: Accounts, *, folder: FolderId | None = None) -> ControlState:
        """Return the state after a whole control log; where ``folder`` is given, it must be that folder's.

        Raises:
            ProtocolError, BadSignatureError, AccessDeniedError, LimitExceededError: As for :meth:`extend`.
        """
        rest = iter(links)
        first = next(rest, None)
        if first is None:
            raise ProtocolError("control log is empty")
        if folder is not None and bytes(first.hash) != folder:
            raise AccessDeniedError("control log is another folder's")
        return cls(first, accounts).extend(rest, accounts)

    def extend(self, links: Iterable[SignedLink], accounts: Accounts, *, fresh: bool = False) -> ControlState:
        """Return the state after further links.

        Args:
            links: In order.
            accounts: Gives account states; for every account of :func:`accounts_of` as new as can be had.
            fresh: The links are being admitted just now, not replayed: their signers must be active, and keys be sealed
                to the newest account keys, by what is known now. A replay judges by the account head that each link names.

        Raises:
            ProtocolError: A link is malformed or does not follow the one before.
            BadSignatureError: A signature does not hold.
            AccessDeniedError: The signer is no active device, or had no right to an op.
            LimitExceededError: Too many members, devices or ops.
        """
        state = self._copy()
        for signed in links:
            link = parse_control_link(signed)
            if link.folder != state.id or link.seq != state.seq + 1 or link.previous != state.head:
                raise ProtocolError("control link does not follow the newest one")
            state._check_signer(signed, link, accounts, fresh=fresh)  # noqa: SLF001  # the copy is ours
            state.seq = link.seq
            state._apply(link, link.ops, accounts, fresh=fresh)  # noqa: SLF001
            state.head = signed.hash
        return state

    @property
    def members(self) -> Mapping[AccountId, Role]:
        """Every member account and its role."""
        return MappingProxyType(self._members)

    @property
    def numbers(self) -> tuple[Enrolment, ...]:
        """What each device number stands for; number n at index n - 1."""
        return tuple(self._numbers)

    @property
    def epochs(self) -> tuple[Epoch, ...]:
        """All epoch ops; epoch n at index n - 1."""
        return tuple(self._epochs)

    @property
    def epoch(self) -> Epoch:
        """The newest epoch."""
        return self._epochs[-1]

    def enrolment(self, number: int) -> Enrolment | None:
        """Return what a device number stands for, None if it was never given."""
        return self._numbers[number - 1] if 1 <= number <= len(self._numbers) else None

    def number_of(self, device: DeviceId) -> int | None:
        """Return the number of a device's newest incarnation, None if it is not enrolled."""
        return max((e.number for e in self._numbers if e.device == device), default=None)

    def incarnation_of(self, device: DeviceId) -> int:
        """Return a device's newest incarnation, 0 if it is not enrolled."""
        return max((e.incarnation for e in self._numbers if e.device == device), default=0)

    def is_enrolled(self, device: DeviceId) -> bool:
        """Tell whether some incarnation of the device has a number."""
        return self.number_of(device) is not None

    def role_of(self, account: AccountId) -> Role | None:
        """Return an account's role, None if it is no member."""
        return self._members.get(account)

    def role_of_number(self, number: int) -> Role | None:
        """Return the role of the account behind a device number, None if there is none or it is no member now."""
        enrolment = self.enrolment(number)
        return None if enrolment is None else self._members.get(enrolment.account)

    def may_read(self, account: AccountId) -> bool:
        """Tell whether the account is a member."""
        return account in self._members

    def may_write(self, number: int) -> bool:
        """Tell whether entries under this device number may be ordered now, as far as the control log decides.

        Whether the device is still active is its account chain's matter (:meth:`may_author`).
        """
        return (self.role_of_number(number) or 0) >= Role.WRITER

    def may_author(self, account: AccountState, number: int, seq: int, hash: EntryHash) -> bool:
        """Tell whether an entry that is not ordered yet may still be, as far as its author goes.

        His account must be a writer; the device must be active, or the entry must lie before the cut of its revocation.

        Args:
            account: The newest state of the account behind the number.
            number: The device's.
            seq: The entry's.
            hash: The entry's.
        """
        enrolment = self.enrolment(number)
        if enrolment is None or not self.may_write(number):
            return False
        if account.is_active(enrolment.device):
            return True
        cut = account.cut_of(self.id, number)
        return cut is not None and (seq < cut[0] or (seq == cut[0] and hash == cut[1]))

    def knows_revoked(self, account: AccountState, device: DeviceId) -> bool:
        """Tell whether a link of this log was signed in the knowledge that a device is revoked.

        What the device had ordered before then stands before that link, and it may have no more ordered after it.
        """
        record = account.devices.get(device)
        if record is None or record.revoked_seq is None:
            return False
        return self._account_seqs.get(account.id, 0) >= record.revoked_seq

    def is_outdated(self, accounts: Accounts) -> bool:
        """Tell whether a member's device was revoked since the newest epoch was sealed, so that it needs another."""
        return any(accounts(wrap.account).aek_generation > wrap.aek_generation for wrap in self.epoch.wraps)

    def admits_epoch(self, epoch: int) -> bool:
        """Tell whether an entry sealed in this epoch may still be ordered."""
        return self.epoch_min <= epoch <= len(self._epochs)

    def _copy(self) -> Self:
        twin = object.__new__(type(self))
        for name in ("id", "genesis", "seq", "head", "name", "epoch_min"):
            setattr(twin, name, getattr(self, name))
        twin._members = dict(self._members)
        twin._numbers = list(self._numbers)
        twin._epochs = list(self._epochs)
        twin._wrapped = dict(self._wrapped)
        twin._account_seqs = dict(self._account_seqs)
        return twin

    def _check_signer(self, signed: SignedLink, link: ControlLink, accounts: Accounts, *, fresh: bool) -> None:
        check_version(link.version, link.suite)
        if len(link.ops) > limits.CONTROL_OPS_MAX:
            raise LimitExceededError("ops of a control link", limits.CONTROL_OPS_MAX)
        if link.account not in self._members:
            raise AccessDeniedError("control link is signed by no member")
        account = _lookup(accounts, link.account)
        seq = account.seq_of(link.account_head)
        if seq is None:
            raise AccessDeniedError("control link names a state of its account that is not known")
        if seq < self._account_seqs.get(link.account, 0):
            # A revoked device cannot act by naming a state in which it was still active.
            raise AccessDeniedError("control link names an older state of its account than one before it")
        record = account.devices.get(link.signer)
        if record is None or not record.is_active_at(seq) or (fresh and not account.is_active(link.signer)):
            raise AccessDeniedError("control link is not signed by an active device")
        verify("control-link", signed.body, signed.signature, record.keys.sign)
        self._account_seqs[link.account] = seq

    def _apply(self, link: ControlLink, ops: tuple[ControlOp, ...], accounts: Accounts, *, fresh: bool) -> None:
        members_before = dict(self._members)
        epochs_before = len(self._epochs)
        for op in ops:
            _require(members_before[link.account], op)
            match op:
                case EnrolDevice():
                    self._enrol(link, op)
                case AddMember():
                    if op.account in self._members:
                        raise ProtocolError("account is a member already")
                    _lookup(accounts, op.account)
                    self._members[op.account] = op.role
                case RemoveMember() | SetRole():
                    self._change_member(link, op)
                case Epoch():
                    if len(self._epochs) != epochs_before:
                        raise ProtocolError("control link holds two epochs")
                    _check_epoch(op, len(self._epochs) + 1)
                    self._epochs.append(op)
                case SetName():
                    if op.epoch != len(self._epochs) or not 0 < len(op.sealed) <= limits.SEALED_NAME_BYTES_MAX:
                        raise ProtocolError("folder's name is not sealed in the newest epoch")
                    self.name = op
                case FolderGenesis():
                    raise ProtocolError("control log begins twice")
        if not ops and link.seq:
            raise ProtocolError("control link is empty")
        if len(self._members) > limits.FOLDER_MEMBERS_MAX:
            raise LimitExceededError("members of a folder", limits.FOLDER_MEMBERS_MAX)
        lost = any(self._members.get(account, 0) < role for account, role in members_before.items())
        joined = self._members.keys() - members_before.keys()
        if len(self._epochs) > epochs_before:
            lost |= self._check_wraps(self.epoch, accounts, fresh=fresh)
            if lost:
                self.epoch_min = self.epoch.number
        elif lost or joined:
            raise ProtocolError("control link changes who may read or write, but not the key")

    def _enrol(self, link: ControlLink, op: EnrolDevice) -> None:
        if op.device != link.signer:
            raise AccessDeniedError("a device is enrolled by itself only")
        if op.number != len(self._numbers) + 1:
            raise ProtocolError("device number is not the next one")
        if op.number > limits.DEVICE_NUMBER_MAX:
            raise LimitExceededError("device numbers of a folder", limits.DEVICE_NUMBER_MAX)
        if not self.incarnation_of(op.device) < op.incarnation < 1 << 31:
            raise ProtocolError("device's incarnation does not rise")
        self._numbers.append(Enrolment(op.number, op.device, link.account, op.incarnation, link.seq))

    def _change_member(self, link: ControlLink, op: RemoveMember | SetRole) -> None:
        if op.account not in self._members:
            raise ProtocolError("account is no member")
        if op.account == self.genesis.owner:
            raise AccessDeniedError("the owner stays an admin")
        if isinstance(op, SetRole):
            self._members[op.account] = op.role
            return
        if op.account == link.account:
            # It would draw the folder's next key itself, and so keep it.
            raise AccessDeniedError("a member cannot remove itself")
        del self._members[op.account]

    def _check_wraps(self, epoch: Epoch, accounts: Accounts, *, fresh: bool) -> bool:
        """Check an epoch's recipients; tell whether an account has renewed its key, so that a device lost access."""
        if [wrap.account for wrap in epoch.wraps] != sorted(self._members):
            raise ProtocolError("epoch is not sealed to exactly the members")
        renewed = False
        for wrap in epoch.wraps:
            newest = _lookup(accounts, wrap.account).aek_generation
            before = self._wrapped.get(wrap.account, 1)
            if not before <= wrap.aek_generation <= newest or (fresh and wrap.aek_generation != newest):
                raise AccessDeniedError("epoch is sealed to an old or unknown key of a member")
            renewed |= wrap.aek_generation > before and wrap.account in self._wrapped
            self._wrapped[wrap.account] = wrap.aek_generation
        return renewed


def _lookup(accounts: Accounts, account: AccountId) -> AccountState:
    try:
        return accounts(account)
    except KeyError as error:
        raise AccessDeniedError("control link names an account that is not known") from error


def _require(role: Role, op: ControlOp) -> None:
    least = {EnrolDevice: Role.READER, Epoch: Role.WRITER, SetName: Role.WRITER}.get(type(op), Role.ADMIN)
    if role < least:
        raise AccessDeniedError(f"a {role.name.lower()} may not do this")


def _check_genesis(genesis: FolderGenesis) -> None:
    if genesis.chunker not in CHUNKERS or genesis.padding not in PADDINGS or genesis.fold_version not in FOLD_VERSIONS:
        raise ProtocolError("folder is of an unknown kind: update Kinfolder")
    sizes = (genesis.chunk_bytes_min, genesis.chunk_bytes_mean, genesis.chunk_bytes_max)
    if not limits.CHUNK_PADDED_BYTES_MIN <= sizes[0] <= sizes[1] <= sizes[2] <= limits.CHUNK_BYTES_MAX:
        raise ProtocolError("folder has chunk sizes out of range")
    if len(genesis.salt) != 32:
        raise ProtocolError("folder genesis holds a salt of a wrong length")


def _check_epoch(epoch: Epoch, number: int) -> None:
    if epoch.number != number or epoch.dedup_scope not in DEDUP_SCOPES:
        raise ProtocolError("epoch has a wrong number or scope")
    if len(epoch.commit) != 32 or any(len(wrap.sealed) != WRAP_BYTES for wrap in epoch.wraps):
        raise ProtocolError("epoch holds a value of a wrong length")
    if bool(epoch.back) != (number > 1) or not epoch.cdc:
        raise ProtocolError("epoch does not pass on the former keys")
    if max(len(epoch.back), len(epoch.cdc)) > limits.SEALED_KEY_BYTES_MAX:
        raise LimitExceededError("sealed key", limits.SEALED_KEY_BYTES_MAX)
