"""Make the signed links of chains: accounts, devices, folders, members, epochs (security 3.2, 3.5).

Each maker returns a link that :mod:`protocol.membership` accepts after the state it was given. The coordinator refuses
it as stale if the chain has moved on meanwhile: take the new links in and make it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from peer.core.hpke import Hpke
from peer.core.keys import (
    CDC_ID_BYTES,
    KEY_BYTES,
    AccountKey,
    AccountKeys,
    AccountRoot,
    DeviceSecrets,
    FolderKeys,
    device_name_key,
    seal_device_name,
    seal_folder_name,
)
from peer.core.sealing import seal
from protocol import limits
from protocol.chains import (
    LINK_VERSION,
    NO_LINK,
    ROOT_RECIPIENT,
    SUITE,
    AccountGenesis,
    AccountLink,
    AccountOp,
    AddDevice,
    AddMember,
    ControlLink,
    ControlOp,
    DeviceKeys,
    EnrolDevice,
    Epoch,
    EpochWrap,
    FolderGenesis,
    RemoveMember,
    RevokeDevice,
    Role,
    SetName,
    SetRole,
    SignedLink,
    folder_context,
)
from protocol.codec import encode
from protocol.effects import Entropy
from protocol.ids import AccountId, DeviceId, FolderId
from protocol.membership import Accounts, AccountState, ControlState
from protocol.signing import sign

Signer = DeviceSecrets | AccountRoot


def account_wrap_info(root_sign: bytes, generation: int, recipient: bytes) -> bytes:
    """Return the HPKE info of an account key sealed to a device or to the root."""
    return b"kinfolder/aek-wrap/v1\x00" + root_sign + generation.to_bytes(4, "big") + recipient


def epoch_wrap_info(context: bytes, epoch: int, account: AccountId, generation: int) -> bytes:
    """Return the HPKE info of an epoch's key sealed to a member account."""
    numbers = epoch.to_bytes(4, "big") + generation.to_bytes(4, "big")
    return b"kinfolder/epoch-wrap/v1\x00" + context + numbers + account


def numbered(context: bytes, number: int) -> bytes:
    """Return the aad of a key sealed under a generation's or an epoch's key."""
    return context + number.to_bytes(4, "big")


# --- The account chain


def make_account(
    root: AccountRoot, device: DeviceSecrets, device_name: str, *, hpke: Hpke, entropy: Entropy, now_ms: int
) -> tuple[SignedLink, AccountKeys]:
    """Return the genesis link of an account with its first device, and the account's encryption key."""
    key = AccountKey(1, entropy(KEY_BYTES))
    name = seal_device_name(device_name, device_name_key(key), 1, root.sign_public, device.sign_public, entropy)
    public = device.public(name)
    recipients = [(ROOT_RECIPIENT, root.box_public), (device.id, device.box_public)]
    op = AccountGenesis(
        root_sign=root.sign_public,
        root_box=root.box_public,
        device=public,
        device_proof=device.prove(public),
        aek_public=key.public,
        aek_wraps=_account_wraps(root.sign_public, key, recipients, hpke),
    )
    body = AccountLink(LINK_VERSION, SUITE, b"", 0, NO_LINK, now_ms, root.sign_public, op)
    data = encode(body)
    return SignedLink(data, sign("account-link", data, root.sign_seed)), AccountKeys(root.sign_public, {1: key.secret})


def make_add_device(
    state: AccountState,
    keys: AccountKeys,
    device: DeviceKeys,
    proof: bytes,
    device_id: DeviceId,
    *,
    signer: Signer,
    hpke: Hpke,
    now_ms: int,
) -> SignedLink:
    """Return the link that enrols a device, with the account's newest key sealed to it."""
    generation = state.aek_generation
    info = account_wrap_info(state.root_sign, generation, device_id)
    wrap = hpke.seal(device.box, info, keys.generation(generation).secret)
    return _account_link(state, AddDevice(device, proof, generation, wrap), signer, now_ms)


def make_revoke_device(
    state: AccountState,
    keys: AccountKeys,
    device: DeviceId,
    cut: Iterable[tuple[FolderId, int, int, bytes]],
    *,
    signer: Signer,
    hpke: Hpke,
    entropy: Entropy,
    now_ms: int,
) -> tuple[SignedLink, AccountKeys]:
    """Return the link that ends a device and renews the account's key; every folder needs a new epoch after it.

    Args:
        state: The account's newest state.
        keys: The account's keys.
        device: Whom to revoke.
        cut: (folder, device number, last seq that counts, its entry's hash), in any order.
        signer: Another device, or the root.
        hpke: Seals the new key.
        entropy: Makes it.
        now_ms: The wall clock.
    """
    renewed = keys.and_next(entropy(KEY_BYTES))
    key, former = renewed.newest, keys.newest
    left = [(id, public.box) for id, public in state.active_devices.items() if id != device]
    back = seal("aek-back", key.secret, numbered(state.root_sign, key.generation), former.secret, entropy)
    op = RevokeDevice(
        device=device,
        cut=tuple(sorted(cut)),
        aek_generation=key.generation,
        aek_public=key.public,
        aek_wraps=_account_wraps(state.root_sign, key, [(ROOT_RECIPIENT, state.root_box), *left], hpke),
        aek_back=back,
    )
    return _account_link(state, op, signer, now_ms), renewed


def _account_wraps(
    root_sign: bytes, key: AccountKey, recipients: Iterable[tuple[bytes, bytes]], hpke: Hpke
) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(
        (recipient, hpke.seal(box, account_wrap_info(root_sign, key.generation, recipient), key.secret))
        for recipient, box in sorted(recipients)
    )


def _account_link(state: AccountState, op: AccountOp, signer: Signer, now_ms: int) -> SignedLink:
    body = AccountLink(LINK_VERSION, SUITE, state.id, state.seq + 1, state.head, now_ms, signer.sign_public, op)
    data = encode(body)
    return SignedLink(data, sign("account-link", data, signer.sign_seed))


# --- A folder's control log


def make_folder(
    account: AccountState,
    device: DeviceSecrets,
    name: str,
    *,
    hpke: Hpke,
    entropy: Entropy,
    now_ms: int,
    chunker: str = "fastcdc-seeded/1",
    dedup_scope: str = "folder",
) -> tuple[SignedLink, FolderKeys]:
    """Return the one link that makes a folder: genesis, this device as number 1, the first epoch, the name."""
    genesis = FolderGenesis(
        owner=account.id,
        chunker=chunker,
        chunk_bytes_min=limits.CHUNK_BYTES_MIN,
        chunk_bytes_mean=limits.CHUNK_BYTES_MEAN,
        chunk_bytes_max=limits.CHUNK_BYTES_MAX,
        padding="padme/1",
        fold_version=1,
        salt=entropy(32),
    )
    epoch, keys = make_epoch(
        genesis, None, [account], hpke=hpke, entropy=entropy, new_cdc=True, dedup_scope=dedup_scope
    )
    named = SetName(1, seal_folder_name(name, keys, folder_context(genesis), entropy))
    ops = (genesis, EnrolDevice(device.id, 1, 1), epoch, named)
    body = ControlLink(LINK_VERSION, SUITE, b"", 0, NO_LINK, now_ms, account.id, account.head, device.id, ops)
    data = encode(body)
    return SignedLink(data, device.sign("control-link", data)), keys


def make_control_link(
    state: ControlState, account: AccountState, device: DeviceSecrets, ops: Sequence[ControlOp], *, now_ms: int
) -> SignedLink:
    """Return the next link of a folder's control log with these ops, signed by a device of a member."""
    body = ControlLink(
        version=LINK_VERSION,
        suite=SUITE,
        folder=state.id,
        seq=state.seq + 1,
        previous=state.head,
        time_ms=now_ms,
        account=account.id,
        account_head=account.head,
        signer=device.id,
        ops=tuple(ops),
    )
    data = encode(body)
    return SignedLink(data, device.sign("control-link", data))


def enrol_op(state: ControlState, device: DeviceId) -> EnrolDevice:
    """Return the op by which a device gets the next number, in a new incarnation if it has one already."""
    return EnrolDevice(device, state.incarnation_of(device) + 1, len(state.numbers) + 1)


def name_op(state: ControlState, keys: FolderKeys, name: str, entropy: Entropy) -> SetName:
    """Return the op that names the folder; ``keys`` are those of its newest epoch."""
    return SetName(keys.epoch, seal_folder_name(name, keys, folder_context(state.genesis), entropy))


def make_epoch(
    genesis: FolderGenesis,
    former: FolderKeys | None,
    members: Iterable[AccountState],
    *,
    hpke: Hpke,
    entropy: Entropy,
    new_cdc: bool,
    dedup_scope: str | None = None,
) -> tuple[Epoch, FolderKeys]:
    """Return a new epoch's op and keys.

    Args:
        genesis: The folder's.
        former: The newest epoch's keys; None for a new folder.
        members: Newest states of exactly the accounts that are members after the link.
        hpke: Seals the key to each.
        entropy: Makes the key.
        new_cdc: Draw another chunking secret; whenever somebody loses access.
        dedup_scope: ``folder`` or ``file``; as before if None.
    """
    number = 1 if former is None else former.epoch + 1
    context = folder_context(genesis)
    fek = entropy(KEY_BYTES)
    if former is None or new_cdc:
        cdc_id, cdc = entropy(CDC_ID_BYTES), entropy(KEY_BYTES)
    else:
        cdc_id, cdc = former.cdc_id, former.cdc
    scope = dedup_scope or ("folder" if former is None else former.dedup_scope)
    keys = FolderKeys(number, fek, cdc_id=cdc_id, cdc=cdc, dedup_scope=scope)
    wraps = []
    for member in sorted(members, key=lambda state: state.id):
        info = epoch_wrap_info(context, number, member.id, member.aek_generation)
        wraps.append(EpochWrap(member.id, member.aek_generation, hpke.seal(member.aek_public, info, fek)))
    aad = numbered(context, number)
    op = Epoch(
        number=number,
        commit=keys.commit,
        wraps=tuple(wraps),
        back=b"" if former is None else seal("epoch-back", fek, aad, former.fek, entropy),
        cdc=seal("epoch-cdc", fek, aad, cdc_id + cdc, entropy),
        dedup_scope=scope,
    )
    return op, keys


def share_ops(
    state: ControlState,
    former: FolderKeys,
    account: AccountState,
    role: Role,
    accounts: Accounts,
    *,
    hpke: Hpke,
    entropy: Entropy,
) -> tuple[tuple[ControlOp, ...], FolderKeys]:
    """Return the ops that admit an account, with an epoch that it can open, and that epoch's keys."""
    members = [*(accounts(id) for id in state.members), account]
    epoch, keys = make_epoch(state.genesis, former, members, hpke=hpke, entropy=entropy, new_cdc=False)
    return (AddMember(account.id, role), epoch), keys


def unshare_ops(
    state: ControlState, former: FolderKeys, account: AccountId, accounts: Accounts, *, hpke: Hpke, entropy: Entropy
) -> tuple[tuple[ControlOp, ...], FolderKeys]:
    """Return the ops that end an account's access, with an epoch and a chunking secret that it never learns."""
    members = [accounts(id) for id in state.members if id != account]
    epoch, keys = make_epoch(state.genesis, former, members, hpke=hpke, entropy=entropy, new_cdc=True)
    return (RemoveMember(account), epoch), keys


def role_ops(
    state: ControlState,
    former: FolderKeys,
    account: AccountId,
    role: Role,
    accounts: Accounts,
    *,
    hpke: Hpke,
    entropy: Entropy,
) -> tuple[tuple[ControlOp, ...], FolderKeys]:
    """Return the ops that give a member another role, with a new epoch."""
    members = [accounts(id) for id in state.members]
    epoch, keys = make_epoch(state.genesis, former, members, hpke=hpke, entropy=entropy, new_cdc=False)
    return (SetRole(account, role), epoch), keys


def rotate_ops(
    state: ControlState, former: FolderKeys, accounts: Accounts, *, hpke: Hpke, entropy: Entropy, lost: bool
) -> tuple[tuple[ControlOp, ...], FolderKeys]:
    """Return the op of a new epoch for the same members; ``lost``: since a device of one was revoked."""
    members = [accounts(id) for id in state.members]
    epoch, keys = make_epoch(state.genesis, former, members, hpke=hpke, entropy=entropy, new_cdc=lost)
    return (epoch,), keys
