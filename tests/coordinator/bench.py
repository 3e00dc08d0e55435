"""One folder in a database in memory, driven without a server: what the ordering's tests are made on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from blake3 import blake3

from coordinator.authorities import Authorities
from coordinator.core.ordering import Ordering, Record, Wait
from coordinator.keys import ServerKeys
from coordinator.requests.folders import empty_head
from coordinator.store.database import connect_memory, transaction
from coordinator.store.folders import Head
from coordinator.store.ledger import FolderLedger
from coordinator.store.repository import Repository
from protocol import messages as m
from protocol.chains import EnrolDevice, Role, SignedLink
from protocol.codec import decode
from protocol.entries import parse_entry
from protocol.grants import ChunkRef
from protocol.history import CHAIN_START, ItemKind, LogItem, VoidRecord, next_chain
from protocol.ids import EntryHash
from tests.builders import Author
from tests.protocol.chain_world import TestAccount, TestFolder, fixed

T = TypeVar("T")
KEYS = ServerKeys(1, fixed("log"), fixed("token"), fixed("pseudonym"))


class Pseudonymous:
    """What :func:`empty_head` asks of a coordinator."""

    keys = KEYS


def enrolled_folder(*writers: TestAccount) -> TestFolder:
    """Return a folder of the first account that the others write to; account n has device number n + 1."""
    folder = TestFolder(writers[0])
    for account in writers[1:]:
        folder.share(account, Role.WRITER)
        folder.append(EnrolDevice(account.device.id, 1, len(folder.state.numbers) + 1), by=account)
    return folder


class Bench:
    """A database with the accounts and the folder of a test."""

    def __init__(self, folder: TestFolder, quorum: int = 2) -> None:
        self.folder = folder
        self.quorum = quorum
        self.connection = connect_memory()
        self.authorities = Authorities()
        self.now_ms = 1_000
        for account in folder.known.values():
            self.add_account(account)
        with transaction(self.connection) as repository:
            ledger = repository.new_folder(empty_head(Pseudonymous(), folder.id), self.now_ms)  # type: ignore[arg-type]
            ledger.append_control(folder.links[0])
            ledger.flush()
        self.links = 1
        self.follow()

    def close(self) -> None:
        self.connection.close()

    def add_account(self, account: TestAccount) -> None:
        with transaction(self.connection) as repository:
            known = repository.accounts.find(account.id)
            if known is None:
                repository.accounts.create(account.id, account.name, account.links[0])
            for seq in range(known.seq + 1 if known else 1, len(account.links)):
                repository.accounts.append(account.id, seq, account.links[seq])

    def work(self, do: Callable[[Repository, FolderLedger, Ordering], T]) -> T:
        """Do something in a transaction of its own."""
        with transaction(self.connection) as repository:
            ledger = repository.ledger(self.folder.id, self.now_ms)
            assert ledger is not None
            ordering = Ordering(ledger, self.authorities.folder(repository, ledger.head))
            result = do(repository, ledger, ordering)
            ledger.flush()
            self.now_ms += 1
            return result

    def follow(self) -> None:
        """Append the folder's control links that the database does not have yet."""
        for link in self.folder.links[self.links :]:

            def append(_repository, ledger, _ordering, link=link):
                ledger.append_control(link)

            self.work(append)
            self.links += 1
        self.work(lambda _repository, _ledger, ordering: ordering.recheck_authors())

    def register(self, *entries: bytes) -> list[str]:
        def run(_repository, ledger, ordering):
            ledger.prefetch(parse_entry(data) for data in entries)
            return [ordering.register(parse_entry(data), data) for data in entries]

        return self.work(run)

    def declare(self, *segments: m.PinnedSegment) -> None:
        def run(repository, ledger, ordering):
            durable = repository.chunks.declare(self.folder.id, ledger.head.pseudonym, segments, self.quorum)
            ordering.release(Wait.SEGMENT, durable)

        self.work(run)

    def receipt(self, node: int, chunks: Iterable[ChunkRef]) -> None:
        def run(repository, ledger, ordering):
            counts, _ = repository.chunks.add_locations(ledger.head.pseudonym, list(chunks), node)
            ordering.release(Wait.CHUNK, [chunk for chunk, count in counts.items() if count >= self.quorum])

        self.work(run)

    def recheck(self) -> None:
        self.work(lambda _repository, _ledger, ordering: ordering.recheck_authors())

    def record(self, entry: bytes) -> Record:
        found = self.work(lambda _repository, ledger, _ordering: ledger.find(parse_entry(entry).hash))
        assert found is not None
        return found

    def pending(self) -> list[EntryHash]:
        return self.work(lambda _repository, ledger, _ordering: [r.hash for r in ledger.pending_records()])

    @property
    def head(self) -> Head:
        with transaction(self.connection) as repository:
            head = repository.folders.head(self.folder.id)
            assert head is not None
            return head

    def items(self) -> list[LogItem]:
        with transaction(self.connection) as repository:
            return repository.folders.items(self.folder.id, 0, 10_000, 1 << 30)

    def waits(self) -> int:
        count: int = self.connection.exec_driver_sql("SELECT count(*) FROM waits").scalar_one()
        return count

    def check_log(self) -> list[LogItem]:
        """Check that positions have no gap, that J holds and times never go back; return the items."""
        items = self.items()
        chain, time_ms = CHAIN_START, 0
        for position, item in enumerate(items, 1):
            assert item.position == position
            assert item.time_ms >= time_ms
            time_ms = item.time_ms
            match item.kind:
                case ItemKind.ENTRY:
                    hash: bytes = parse_entry(item.data).hash
                case ItemKind.CONTROL:
                    hash = decode(item.data, SignedLink, bytes_max=1 << 20).hash
                case _:
                    decode(item.data, VoidRecord, bytes_max=1 << 20)
                    hash = blake3(item.data).digest()
            chain = next_chain(chain, item.kind, hash, item.time_ms)
        head = self.head
        assert (head.position, head.chain) == (len(items), chain)
        return items


def authors(folder: TestFolder) -> list[Author]:
    """Return an author for each device number of a folder."""
    devices = {device.id: device for account in folder.known.values() for device in account.devices.values()}
    return [Author(folder, devices[one.device], one.number) for one in folder.state.numbers]
