"""Every message between a coordinator and its clients (devices and storage nodes), over one WebSocket each.

The server speaks first (`Challenge`); the client answers with `Login`, `NodeLogin`, `CreateAccount` or a mailbox message. Then
either side sends `Frame`s: a request gets exactly one reply with its id; a notice (id 0) gets none. The opening is made of
frames too: the challenge is a notice, a login is a request.

Rule 1: binary frames only, one message a frame (websockets fragments above FRAME_BYTES_MAX), no compression.
Rule 2: a tag never changes its meaning; fields are only ever appended in a new message.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from protocol import limits
from protocol.chains import SignedLink
from protocol.codec import decode, encode
from protocol.grants import ChunkRef, Operation, ReceiptFor, Signed
from protocol.history import LogItem, SignedCheckpoint, VoidReason
from protocol.ids import AccountId, ChunkId, DeviceId, EntryHash, FolderId, Pseudonym, StorageNodeId


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all messages."""


# --- Opening


class Challenge(_Message, frozen=True, tag=1):
    """The server's first word."""

    version: int
    log_key: bytes
    """Public key that signs checkpoints: the server's identity."""
    token_key: bytes
    """Public key that signs grants."""
    nonce: bytes
    time_ms: int


class Login(_Message, frozen=True, tag=2):
    """A device proves who it is; kind ``login`` over :func:`login_bytes`."""

    account: AccountId
    device: DeviceId
    nonce: bytes
    signature: bytes


class CreateAccount(_Message, frozen=True, tag=3):
    """Makes an account by an invitation token (empty with open registration); a `Login` follows on the same socket."""

    token: str
    user: str
    genesis: SignedLink


class NodeLogin(_Message, frozen=True, tag=4):
    """A storage node proves who it is; ``token`` is used at its first login only."""

    token: str
    sign: bytes
    url: str
    certificate: bytes
    zone: str
    free_bytes: int
    nonce: bytes
    signature: bytes


class Ok(_Message, frozen=True, tag=5):
    """Done; there is nothing more to say."""


class Failure(_Message, frozen=True, tag=6):
    """Not done: a code of :mod:`protocol.errors` and a line for people without names or secrets."""

    code: str
    text: str


# --- Accounts


class GetAccountChain(_Message, frozen=True, tag=10):
    """Asks for links of an account that the caller shares a folder with (or its own)."""

    account: AccountId
    after_seq: int


class AccountChain(_Message, frozen=True, tag=11):
    """Links in order, with the user's name as the coordinator knows it."""

    user: str
    links: tuple[SignedLink, ...]
    more: bool


class AppendAccountLink(_Message, frozen=True, tag=12):
    """Adds a link to one's own account chain; refused with ``stale`` if its previous link is not the newest."""

    link: SignedLink


class GetDevices(_Message, frozen=True, tag=13):
    """Asks when the devices of one's own account were last seen."""


class DeviceSeen(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the coordinator observed of one device."""

    device: DeviceId
    last_seen_ms: int
    """0: never."""
    online: bool


class Devices(_Message, frozen=True, tag=14):
    """Answer to `GetDevices`."""

    devices: tuple[DeviceSeen, ...]


class FindAccount(_Message, frozen=True, tag=15):
    """Asks for the account of a user's name, to share with; answered with the first page of its `AccountChain`.

    Whoever found an account may ask for the rest of its chain in the same session. Refused with ``user`` if
    there is none of that name, and with ``unavailable`` after too many in a minute.
    """

    user: str


# --- Folders


class CreateFolder(_Message, frozen=True, tag=20):
    """Makes a folder from its genesis link; the same link again is answered alike."""

    link: SignedLink


class FolderCreated(_Message, frozen=True, tag=21):
    """The folder exists."""

    pseudonym: Pseudonym
    checkpoint: SignedCheckpoint


class AppendControlLink(_Message, frozen=True, tag=22):
    """Adds a link to a folder's control log; refused with ``stale`` if its previous link is not the newest."""

    folder: FolderId
    link: SignedLink


class ListFolders(_Message, frozen=True, tag=23):
    """Asks for the folders that the caller's account is a member of."""

    after: bytes
    """Folder id of the page before, or empty."""


class FolderInfo(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A folder as its member sees it in a list."""

    folder: FolderId
    pseudonym: Pseudonym
    checkpoint: SignedCheckpoint


class Folders(_Message, frozen=True, tag=24):
    """Answer to `ListFolders`."""

    folders: tuple[FolderInfo, ...]
    more: bool


class GetControlLog(_Message, frozen=True, tag=25):
    """Asks for a folder's control links alone (they stand in the log too)."""

    folder: FolderId
    after_seq: int
    """-1 for all."""


class ControlLog(_Message, frozen=True, tag=26):
    """Answer to `GetControlLog`."""

    links: tuple[SignedLink, ...]
    more: bool


# --- The log


class PinnedSegment(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A segment and the chunks that it lists, so that the coordinator can tell when all of them are durable."""

    segment: ChunkRef
    chunks: tuple[ChunkRef, ...]


class PinSegments(_Message, frozen=True, tag=30):
    """Declares segments before an entry pins them; known ones are ignored."""

    folder: FolderId
    segments: tuple[PinnedSegment, ...]


class AddReceipts(_Message, frozen=True, tag=31):
    """Hands in receipts of storage nodes; whatever waits for them may be ordered now."""

    folder: FolderId
    receipts: tuple[ReceiptFor, ...]


class RegisterEntries(_Message, frozen=True, tag=32):
    """Hands in signed entries of the caller or, relayed, of another member; a second delivery changes nothing."""

    folder: FolderId
    known: SignedCheckpoint | None
    """The highest checkpoint that the caller holds; a coordinator behind it must not append."""
    entries: tuple[bytes, ...]


class EntryState(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What became of one entry."""

    entry: EntryHash
    position: int
    """Of the entry, or of its void record; 0: registered, not yet ordered."""
    void: VoidReason | None
    refused: str
    """Not empty: it was not even registered; a code such as ``gap``, ``bad_signature``, ``access_denied``, ``chain``;
    with ``full``, too many wait to be ordered: hand it in again later."""


class EntryStates(_Message, frozen=True, tag=33):
    """Answer to `RegisterEntries`, in the order given."""

    states: tuple[EntryState, ...]
    own_seq: int
    """The highest sequence number registered for the caller's device number."""


class Pull(_Message, frozen=True, tag=34):
    """Asks for log items after a position."""

    folder: FolderId
    after: int
    items_max: int


class Pulled(_Message, frozen=True, tag=35):
    """Items without a gap, and the head as it was when they were read."""

    items: tuple[LogItem, ...]
    checkpoint: SignedCheckpoint
    reached: SignedCheckpoint | None = None
    """Of the last of these items, where the head is beyond it: nobody keeps what nobody signed."""


class PullRegistered(_Message, frozen=True, tag=36):
    """Asks for entries that are registered and not yet ordered or void."""

    folder: FolderId
    after: int
    """Registration counter of the page before; 0 for the first."""


class Registered(_Message, frozen=True, tag=37):
    """Answer to `PullRegistered`."""

    entries: tuple[tuple[int, bytes], ...]
    """(registration counter, entry)."""
    more: bool


class GetHeads(_Message, frozen=True, tag=38):
    """Asks for the heads of all folders of the caller's account, and of what is registered for its own device."""


class FolderHead(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One folder's head."""

    checkpoint: SignedCheckpoint
    registered: int
    """The highest registration counter of an entry that is neither ordered nor void; 0: there is none."""


class Heads(_Message, frozen=True, tag=39):
    """Answer to `GetHeads`, and a notice when a head moved."""

    heads: tuple[FolderHead, ...]


class GetOwnSeq(_Message, frozen=True, tag=40):
    """Asks for the highest sequence number registered under one device number of a folder."""

    folder: FolderId
    device: int


class OwnSeq(_Message, frozen=True, tag=41):
    """Answer to `GetOwnSeq`: 0 and 32 zero bytes if there is none."""

    seq: int
    entry: EntryHash


class RepushLog(_Message, frozen=True, tag=42):
    """Gives a coordinator that lost its newest part the items back that it had ordered, with its own checkpoint."""

    items: tuple[LogItem, ...]
    checkpoint: SignedCheckpoint


class GiveUp(_Message, frozen=True, tag=44):
    """Says that a device lost contents of entries that it had registered, and finds them nowhere.

    Those of which no storage node is known to hold them become void, unless one is away.
    """

    folder: FolderId
    entries: tuple[EntryHash, ...]


class AccountChanged(_Message, frozen=True, tag=43):
    """Notice: an account chain of interest has a new head."""

    account: AccountId
    seq: int


# --- Storage


class NodeAddress(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A storage node as clients and other nodes reach it."""

    id: StorageNodeId
    sign: bytes
    url: str
    certificate: bytes
    """DER that its TLS must show; empty on loopback http."""
    zone: str
    operator: str
    online: bool


class GetGrant(_Message, frozen=True, tag=50):
    """Asks for a grant for one of the caller's folders."""

    folder: FolderId
    operations: Operation
    bytes_max: int
    chunks_max: int


class Granted(_Message, frozen=True, tag=51):
    """A grant and where to use it: nodes by preference, the first ``replicas`` of them are to hold a chunk."""

    grant: Signed
    pseudonym: Pseudonym
    replicas: int
    quorum: int
    nodes: tuple[NodeAddress, ...]


class GetStorage(_Message, frozen=True, tag=52):
    """Asks how the storage stands."""


class Storage(_Message, frozen=True, tag=53):
    """Answer to `GetStorage`."""

    replicas: int
    quorum: int
    nodes: tuple[NodeAddress, ...]


class NodeWelcome(_Message, frozen=True, tag=54):
    """Answer to `NodeLogin`, and a notice whenever the nodes changed: who the other nodes are."""

    nodes: tuple[NodeAddress, ...]
    revoked: tuple[tuple[DeviceId, Pseudonym], ...]


class NodeReport(_Message, frozen=True, tag=55):
    """A node says how much room it has and that it is well: a request, answered with `Ok`."""

    free_bytes: int
    stored_bytes: int


class Replicate(_Message, frozen=True, tag=56):
    """Order to a node: pull these chunks from another node and hand in the receipt; at most BATCH_CHUNKS_MAX of them."""

    pseudonym: Pseudonym
    source: StorageNodeId
    chunks: tuple[ChunkRef, ...]
    grant: Signed
    """A `Grant` for GET of this pseudonym whose ``device`` is the signing key of the node that pulls, with room for the
    chunks and their bytes: it makes its own statement under it, and the source checks both like a device's."""


class Replicated(_Message, frozen=True, tag=57):
    """Answer to `Replicate`; chunks that the source did not have are missing from the receipts.

    The receipts' ``device`` is :func:`protocol.ids.device_id` of the signing key of the node that pulled.
    """

    receipts: tuple[ReceiptFor, ...]


class LostChunks(_Message, frozen=True, tag=58):
    """A node found by scrubbing that it no longer holds these chunks as it should: a request, answered with `Ok`."""

    chunks: tuple[ChunkId, ...]


class NodeLeaves(_Message, frozen=True, tag=59):
    """Notice to a node: it goes out of service, takes nothing new, and gives what it has until the link ends for good.

    Once it is out of service its login is answered with a `Failure` of code ``revoked``.
    """


# --- Linking a device: a mailbox of the coordinator between two who do not trust it


class OpenMailbox(_Message, frozen=True, tag=60):
    """By a device that is in: makes a mailbox for ten minutes; refused after too many in an hour."""


class MailboxOpened(_Message, frozen=True, tag=61):
    """The mailbox's number, part of the code."""

    number: int


class JoinMailbox(_Message, frozen=True, tag=62):
    """By the new device, before any login: takes the other side of a mailbox; only one that says something ever can."""

    number: int


class MailboxSend(_Message, frozen=True, tag=63):
    """Puts a message for the other side."""

    number: int
    data: bytes


class MailboxMessage(_Message, frozen=True, tag=64):
    """Notice: the other side's message."""

    number: int
    data: bytes


class CloseMailbox(_Message, frozen=True, tag=65):
    """Ends a mailbox; a notice when the other side ended it."""

    number: int


# --- Looking back


class GetCopies(_Message, frozen=True, tag=70):
    """Asks how many storage nodes hold each of some chunks of one of the caller's folders."""

    folder: FolderId
    chunks: tuple[ChunkId, ...]


class Copies(_Message, frozen=True, tag=71):
    """Answer to `GetCopies`: a count for each, in the same order."""

    counts: tuple[int, ...]


Opening: TypeAlias = Challenge | Login | CreateAccount | NodeLogin | JoinMailbox
Message: TypeAlias = (
    Challenge
    | Login
    | CreateAccount
    | NodeLogin
    | Ok
    | Failure
    | GetAccountChain
    | AccountChain
    | AppendAccountLink
    | GetDevices
    | Devices
    | FindAccount
    | CreateFolder
    | FolderCreated
    | AppendControlLink
    | ListFolders
    | Folders
    | GetControlLog
    | ControlLog
    | PinSegments
    | AddReceipts
    | RegisterEntries
    | EntryStates
    | Pull
    | Pulled
    | PullRegistered
    | Registered
    | GetHeads
    | Heads
    | GetOwnSeq
    | OwnSeq
    | RepushLog
    | GiveUp
    | AccountChanged
    | GetGrant
    | Granted
    | GetStorage
    | Storage
    | NodeWelcome
    | NodeReport
    | Replicate
    | Replicated
    | LostChunks
    | OpenMailbox
    | MailboxOpened
    | JoinMailbox
    | MailboxSend
    | MailboxMessage
    | CloseMailbox
    | GetCopies
    | Copies
    | NodeLeaves
)


class Frame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One WebSocket message."""

    id: int
    """Chosen by the asker, even for devices and odd for the server; a reply repeats it; 0 for a notice."""
    reply: bool
    body: Message


def encode_frame(id: int, body: Message, *, reply: bool = False) -> bytes:
    """Return the bytes of a request, a reply or a notice (id 0)."""
    return encode(Frame(id, reply, body))


def decode_frame(data: bytes) -> Frame:
    """Return the frame that ``data`` encodes.

    Raises:
        LimitExceededError: Above 1 MiB.
        ProtocolError: Malformed.
    """
    frame: Frame = decode(data, Frame, bytes_max=limits.MESSAGE_BYTES_MAX, what="message")
    return frame


def login_bytes(challenge: Challenge, origin: str, certificate_sha256: bytes, client_nonce: bytes, who: bytes) -> bytes:
    """Return what a login signs: it holds for one server, one TLS end and one challenge only (security 4.3).

    Args:
        challenge: As the server sent it.
        origin: The URL's scheme, host and port, as dialled.
        certificate_sha256: Of the TLS certificate as seen; 32 zero bytes without TLS.
        client_nonce: 32 random bytes of the client.
        who: Account id and device id, or the storage node's public key.
    """
    return encode((challenge.log_key, origin, certificate_sha256, challenge.nonce, client_nonce, who))
