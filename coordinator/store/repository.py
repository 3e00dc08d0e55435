"""The one interface to the coordinator's data: everything an operation may do within its transaction."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection

from coordinator.store.accounts import Accounts
from coordinator.store.chunks import Chunks
from coordinator.store.folders import Folders, Head
from coordinator.store.ledger import FolderLedger
from coordinator.store.nodes import Nodes
from coordinator.store.retirements import Retirements
from coordinator.store.schema import FOLDERS
from coordinator.store.settings import Settings
from coordinator.store.statements import insert
from protocol.ids import FolderId


class Repository:
    """The tables, by what they are about; good for one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.settings = Settings(connection)
        self.accounts = Accounts(connection)
        self.folders = Folders(connection)
        self.chunks = Chunks(connection)
        self.nodes = Nodes(connection)
        self.retirements = Retirements(connection)

    def ledger(self, folder: FolderId, now_ms: int) -> FolderLedger | None:
        """Return a folder's records, None if there is no such folder; at most one at a time for each folder."""
        head = self.folders.head(folder)
        return None if head is None else FolderLedger(self._connection, head, now_ms)

    def new_folder(self, head: Head, now_ms: int) -> FolderLedger:
        """Make an empty folder and return its records."""
        insert(self._connection, FOLDERS, [msgspec.structs.asdict(head)])
        return FolderLedger(self._connection, head, now_ms)
