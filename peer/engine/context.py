"""What all folders of one device share: the doors to the world, the keys, the link, the account chains."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from peer.core.membership import FolderKeys
from peer.engine.accounts import AccountBook
from peer.net.coordinator_link import CoordinatorLink
from peer.store.database import Database
from protocol.effects import Clock, Entropy, FileSystem, Processor
from protocol.ids import AccountId, DeviceId
from protocol.membership import ControlState

if TYPE_CHECKING:
    from peer.net.chunk_client import ChunkClient


class Doors(msgspec.Struct, frozen=True):
    """The only ways from a device to the world; a simulator passes others."""

    clock: Clock
    entropy: Entropy
    processor: Processor
    files: FileSystem


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
        device: DeviceId,
        label: str,
        sign_seed: bytes,
        open_keys: Callable[[ControlState], FolderKeys],
    ) -> None:
        self.doors = doors
        self.clock = doors.clock
        self.entropy = doors.entropy
        self.processor = doors.processor
        self.files = doors.files
        self.database = database
        self.link = link
        self.chunks = chunks
        self.accounts = accounts
        self.account = account
        self.device = device
        self.label = label
        self.sign_seed = sign_seed
        self._open_keys = open_keys
        self._keys: dict[int, FolderKeys] = {}

    def folder_keys(self, key: int) -> FolderKeys:
        """Return the keys of a folder's epochs; KeyError before its control log is known."""
        return self._keys[key]

    def control_changed(self, key: int, control: ControlState) -> None:
        """Open the epochs that a control log gives to this account."""
        self._keys[key] = self._open_keys(control)
