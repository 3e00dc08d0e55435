"""What the coordinator does for each request; one module for each group of :mod:`protocol.messages`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from coordinator.requests import accounts, entries, folders, mailboxes, opening, storage
from coordinator.session import Kind
from protocol import messages as m

Handler: TypeAlias = Callable[[Any, Any, Any], Awaitable[m.Message]]

_OPENING: Final = frozenset({Kind.OPENING})
_DEVICE: Final = frozenset({Kind.DEVICE})
_NODE: Final = frozenset({Kind.NODE})
_LINKING: Final = frozenset({Kind.DEVICE, Kind.MAILBOX})

HANDLERS: Final[dict[type[m.Message], tuple[frozenset[Kind], Handler]]] = {
    m.Login: (_OPENING, opening.login),
    m.CreateAccount: (_OPENING, opening.create_account),
    m.NodeLogin: (_OPENING, opening.node_login),
    m.JoinMailbox: (_OPENING, mailboxes.join),
    m.OpenMailbox: (_DEVICE, mailboxes.open),
    m.MailboxSend: (_LINKING, mailboxes.send),
    m.CloseMailbox: (_LINKING, mailboxes.close),
    m.GetAccountChain: (_DEVICE, accounts.get_chain),
    m.AppendAccountLink: (_DEVICE, accounts.append_link),
    m.GetDevices: (_DEVICE, accounts.get_devices),
    m.FindAccount: (_DEVICE, accounts.find),
    m.CreateFolder: (_DEVICE, folders.create),
    m.AppendControlLink: (_DEVICE, folders.append_link),
    m.ListFolders: (_DEVICE, folders.list_folders),
    m.GetControlLog: (_DEVICE, folders.get_control_log),
    m.GetHeads: (_DEVICE, folders.get_heads),
    m.PinSegments: (_DEVICE, entries.pin_segments),
    m.AddReceipts: (_DEVICE, entries.add_receipts),
    m.RegisterEntries: (_DEVICE, entries.register),
    m.Pull: (_DEVICE, entries.pull),
    m.PullRegistered: (_DEVICE, entries.pull_registered),
    m.GetOwnSeq: (_DEVICE, entries.get_own_seq),
    m.RepushLog: (_DEVICE, entries.repush),
    m.GiveUp: (_DEVICE, entries.give_up),
    m.GetGrant: (_DEVICE, storage.get_grant),
    m.GetStorage: (_DEVICE, storage.get_storage),
    m.GetCopies: (_DEVICE, storage.get_copies),
    m.NodeReport: (_NODE, storage.node_report),
    m.LostChunks: (_NODE, storage.lost_chunks),
}
"""For each request: in which kinds of session it may come, and what handles it."""
