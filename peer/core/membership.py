"""Open what the chains seal to this device: the account's keys, every epoch of a folder, names (security 3.2, 3.5).

The newest key is sealed to us; each one passes on the one before. Every key is checked against what its link commits to,
so a link that gave two members two keys is found out by both.
"""

from __future__ import annotations

from collections.abc import Mapping

from peer.core.hpke import Hpke
from peer.core.keys import (
    CDC_ID_BYTES,
    AccountKey,
    AccountKeys,
    AccountRoot,
    DeviceSecrets,
    FolderKeys,
    matches,
    open_folder_name,
)
from peer.core.links import account_wrap_info, epoch_wrap_info, numbered
from peer.core.sealing import open_sealed
from protocol.chains import ROOT_RECIPIENT, Epoch, folder_context
from protocol.errors import SecurityError
from protocol.ids import AccountId
from protocol.membership import AccountState, ControlState


def open_account_keys(
    state: AccountState, holder: DeviceSecrets | AccountRoot, hpke: Hpke, *, known: AccountKeys | None = None
) -> AccountKeys:
    """Return all generations of the account's encryption key.

    Args:
        state: The account's newest state.
        holder: An active device, or the root.
        hpke: Opens the newest.
        known: Generations that were opened before; opened again only where the chain has newer ones.

    Raises:
        SecurityError: The chain seals no key to this holder, or another key than it names.
    """
    if known is not None and known.newest.generation == state.aek_generation:
        return known
    recipient: bytes = ROOT_RECIPIENT if isinstance(holder, AccountRoot) else holder.id
    wrap = state.aek_wrap(recipient)
    if wrap is None:
        raise SecurityError("the account's key is not sealed to this device")
    number = state.aek_generation
    secret = hpke.open(holder.box_secret, account_wrap_info(state.root_sign, number, recipient), wrap)
    secrets = {} if known is None else known.secrets
    while True:
        if len(secret) != 32 or not matches(AccountKey(number, secret).public, state.aek_publics[number - 1]):
            raise SecurityError("the account's key is not the one that its chain names")
        secrets[number] = secret
        if number == 1 or number - 1 in secrets:
            return AccountKeys(state.root_sign, secrets)
        back = state.aek_backs[number - 2]
        secret = open_sealed("aek-back", secret, numbered(state.root_sign, number), back)
        number -= 1


def open_epochs(
    state: ControlState,
    account: AccountId,
    keys: AccountKeys,
    hpke: Hpke,
    *,
    known: Mapping[int, FolderKeys] | None = None,
) -> dict[int, FolderKeys]:
    """Return the keys of every epoch of a folder that this account is a member of.

    Args:
        state: The folder's newest control state.
        account: One's own.
        keys: One's own, with the newest generation.
        hpke: Opens the newest epoch.
        known: Epochs that were opened before.

    Raises:
        SecurityError: The newest epoch is not sealed to this account, or a key is not the one that its epoch commits to.
    """
    opened = dict(known or {})
    context = folder_context(state.genesis)
    number = state.epoch.number
    fek: bytes | None = None
    while number and number not in opened:
        epoch = state.epochs[number - 1]
        if fek is None:
            fek = _unwrap(epoch, context, account, keys, hpke)
        opened[number] = _checked(epoch, context, fek)
        if number > 1:
            fek = open_sealed("epoch-back", fek, numbered(context, number), epoch.back)
        number -= 1
    return dict(sorted(opened.items()))


def open_name(state: ControlState, keys: Mapping[int, FolderKeys]) -> str:
    """Return the folder's name, empty if it has none.

    Raises:
        SecurityError: It is not sealed under the key of the epoch that it names.
    """
    if state.name is None:
        return ""
    if state.name.epoch not in keys:
        raise SecurityError("the folder's name is sealed in an epoch that is not open")
    return open_folder_name(state.name.sealed, keys[state.name.epoch], folder_context(state.genesis))


def _unwrap(epoch: Epoch, context: bytes, account: AccountId, keys: AccountKeys, hpke: Hpke) -> bytes:
    for wrap in epoch.wraps:
        if wrap.account == account:
            key = keys.generation(wrap.aek_generation)
            return hpke.open(key.secret, epoch_wrap_info(context, epoch.number, account, key.generation), wrap.sealed)
    raise SecurityError("the folder's newest epoch is not sealed to this account")


def _checked(epoch: Epoch, context: bytes, fek: bytes) -> FolderKeys:
    if len(fek) != 32:
        raise SecurityError("an epoch's key is not the one that it commits to")
    both = open_sealed("epoch-cdc", fek, numbered(context, epoch.number), epoch.cdc)
    if len(both) != CDC_ID_BYTES + 32:
        raise SecurityError("an epoch's chunking secret is malformed")
    keys = FolderKeys(
        epoch.number, fek, cdc_id=both[:CDC_ID_BYTES], cdc=both[CDC_ID_BYTES:], dedup_scope=epoch.dedup_scope
    )
    if not matches(keys.commit, epoch.commit):
        raise SecurityError("an epoch's key is not the one that it commits to")
    return keys
