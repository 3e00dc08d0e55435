"""What all folders of one device share: the doors to the world, the keys, the link, the account chains."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from peer.core.chunking import FIXED, Chunker, FastCdcChunker, FixedChunker
from peer.core.hpke import Hpke
from peer.core.keys import AccountKeys, DeviceSecrets, FolderKeys
from peer.core.membership import open_account_keys, open_epochs
from peer.engine.accounts import AccountBook
from peer.lan.doors import LanNetwork
from peer.net.coordinator_link import CoordinatorLink
from peer.store.database import Database
from peer.store.spool import SpoolFiles
from protocol.effects import ChunkNodes, Clock, Dialer, Entropy, FileSystem, Processor, Watchers
from protocol.errors import SecurityError
from protocol.ids import AccountId
from protocol.membership import ControlState

if TYPE_CHECKING:
    from peer.lan.exchange import Lan
    from peer.net.chunk_client import ChunkClient


STEPS_AHEAD_MAX: Final = 4
"""Steps of uploads that may be in memory at once, of all folders together: each is up to 8 MiB and one chunk, raw and
sealed, and on its way."""

LARGE_UPLOADS_MAX: Final = 2
"""Large files that may be read at once, of all folders together: each has a buffer of its own beside its steps."""


class Doors(msgspec.Struct, frozen=True):
    """The only ways from a device to the world; a simulator passes others."""

    clock: Clock
    entropy: Entropy
    processor: Processor
    files: FileSystem
    hpke: Hpke
    dialer: Dialer
    nodes: ChunkNodes
    lan: LanNetwork
    watchers: Watchers


class FolderRing:
    """The keys of all epochs of one folder."""

    def __init__(self, control: ControlState, epochs: dict[int, FolderKeys]) -> None:
        self.epochs = epochs
        newest = epochs[control.epoch.number]
        self.epoch = newest.epoch
        self.chunk_key = newest.chunk
        self.chunker: Chunker = _chunker(control, newest)

    def entry_key(self, epoch: int) -> bytes:
        """Return K_entry of an epoch.

        Raises:
            SecurityError: The folder has no such epoch.
        """
        try:
            return self.epochs[epoch].entry
        except KeyError:
            raise SecurityError("an entry is sealed in an epoch that its folder does not have") from None


def _chunker(control: ControlState, keys: FolderKeys) -> Chunker:
    genesis = control.genesis
    if genesis.chunker == FIXED:
        return FixedChunker()
    return FastCdcChunker(
        keys.cdc,
        keys.cdc_id,
        bytes_min=genesis.chunk_bytes_min,
        bytes_mean=genesis.chunk_bytes_mean,
        bytes_max=genesis.chunk_bytes_max,
    )


class Context:
    """Shared by all folders of one device."""

    def __init__(
        self,
        *,
        doors: Doors,
        database: Database,
        link: CoordinatorLink,
        chunks: ChunkClient,
        accounts: AccountBook,
        account: AccountId,
        device: DeviceSecrets,
        account_keys: AccountKeys,
        label: str,
        spool: SpoolFiles,
    ) -> None:
        self.doors = doors
        self.clock = doors.clock
        self.entropy = doors.entropy
        self.processor = doors.processor
        self.files = doors.files
        self.hpke = doors.hpke
        self.watchers = doors.watchers
        self.database = database
        self.link = link
        self.chunks = chunks
        self.accounts = accounts
        self.account = account
        self.secrets = device
        self.device = device.id
        self.account_keys = account_keys
        self.label = label
        self.spool = spool
        self.steps = asyncio.Semaphore(STEPS_AHEAD_MAX)
        self.large_uploads = asyncio.Semaphore(LARGE_UPLOADS_MAX)
        self.stopping = threading.Event()
        """Set once the device is being closed: long work in the pool ends at its next safe point."""
        self.lan: Lan | None = None
        """Other devices on the LAN; None where it is not used."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when members or keys of a folder changed."""
        self._rings: dict[int, FolderRing] = {}

    def folder_keys(self, key: int) -> FolderRing:
        """Return the keys of a folder's epochs; KeyError before its control log is known."""
        return self._rings[key]

    def open_account_keys(self) -> None:
        """Open the account's newest key, once its chain has grown.

        Raises:
            SecurityError: It is not sealed to this device, or not the one that the chain names.
        """
        state = self.accounts(self.account)
        self.account_keys = open_account_keys(state, self.secrets, self.hpke, known=self.account_keys)

    def control_changed(self, key: int, control: ControlState) -> None:
        """Open the epochs that a control log gives to this account.

        Raises:
            SecurityError: A key is not the one that its epoch commits to, or none is sealed to this account.
        """
        self.open_account_keys()
        ring = self._rings.get(key)
        known = {} if ring is None else ring.epochs
        self._rings[key] = FolderRing(
            control, open_epochs(control, self.account, self.account_keys, self.hpke, known=known)
        )
        self.on_change()
