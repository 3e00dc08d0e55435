"""Which folders of the coordinator's list are ours: an own folder, and nothing that a stranger or the coordinator made up."""

import asyncio
import contextlib
import sqlite3
from types import SimpleNamespace

import pytest

from peer import folder_commands
from peer.device import Device
from peer.disk.files import LinuxFileSystem
from peer.folder_commands import get, remote_folders
from peer.store import folders
from peer.store.home import known_head, put_known_head
from peer.store.schema import SCHEMA
from protocol import messages as m
from protocol.chains import Role
from protocol.errors import ProtocolError, RollbackError, UnavailableError
from protocol.history import Checkpoint, sign_checkpoint
from protocol.ids import FolderId, LinkHash, Pseudonym
from protocol.signing import public_key
from tests.peer.core.key_world import RealAccount, RealFolder

LOG_SEED = b"\x05" * 32


class Book:
    """Knows alice's account, and counts who is asked for."""

    def __init__(self, account):
        self.account = account
        self.refreshed = []

    def __call__(self, account):
        return {self.account.state.id: self.account.state}[account]

    async def refresh(self, account):
        self.refreshed.append(account)
        return self(account)

    def known(self):
        return [self.account.state]


class FakeCoordinator:
    """Answers as the test says; a page of the control log holds two links."""

    def __init__(self, *folders, info=None):
        self.logs = {FolderId(folder.links[0].hash): list(folder.links) for folder in folders}
        self.infos = info if info is not None else [listed(id) for id in sorted(self.logs)]
        self.asked = 0

    async def ask(self, body, kind, **_):
        self.asked += 1
        if isinstance(body, m.ListFolders):
            page = [info for info in self.infos if info.folder > body.after][:2]
            return m.Folders(tuple(page), len([i for i in self.infos if i.folder > body.after]) > 2)
        rest = self.logs.get(body.folder, [])[body.after_seq + 1 :]
        return m.ControlLog(tuple(rest[:2]), len(rest) > 2)


def signed_head(id, position, *, seed=LOG_SEED):
    return sign_checkpoint(Checkpoint(1, id, position, bytes(32), LinkHash(id), 1), seed)


def listed(id, *, position=1, seed=LOG_SEED):
    return m.FolderInfo(id, Pseudonym(b"p" * 16), signed_head(id, position, seed=seed))


@pytest.fixture
def alice():
    return RealAccount("alice")


@pytest.fixture
def mallory():
    return RealAccount("mallory")


def device_of(alice, coordinator):
    book = Book(alice)
    context = SimpleNamespace(account=alice.state.id, accounts=book, account_keys=alice.keys, hpke=alice.hpke)
    record = SimpleNamespace(log_key=public_key(LOG_SEED))
    return SimpleNamespace(context=context, coordinator=coordinator, record=record), book


def names(alice, coordinator):
    device, book = device_of(alice, coordinator)
    found = asyncio.run(remote_folders(device))
    assert set(book.refreshed) <= {alice.state.id}, "a stranger's chain was asked for"
    return [remote.name for remote in found]


def test_own_folders_are_shown_page_by_page(alice):
    long = RealFolder(alice, "long")
    for _ in range(6):
        long.rotate()
    coordinator = FakeCoordinator(long, *(RealFolder(alice, f"f{i}") for i in range(4)))
    assert sorted(names(alice, coordinator)) == ["f0", "f1", "f2", "f3", "long"]


def test_a_strangers_folder_with_us_as_a_member_is_left_out(alice, mallory):
    theirs = RealFolder(mallory, "work")
    theirs.share(alice, Role.ADMIN)
    assert names(alice, FakeCoordinator(RealFolder(alice, "work"), theirs)) == ["work"]
    assert names(alice, FakeCoordinator(theirs)) == []


def test_a_strangers_folder_is_refused_by_its_first_page(alice, mallory):
    theirs = RealFolder(mallory, "work")
    for _ in range(20):
        theirs.rotate()
    coordinator = FakeCoordinator(theirs)
    assert names(alice, coordinator) == []
    assert coordinator.asked == 2


def test_an_own_folder_with_another_member_is_left_out(alice, mallory):
    """Sharing is not in this version: no honest device of ours makes one."""
    shared = RealFolder(alice, "shared")
    shared.share(mallory)
    assert names(alice, FakeCoordinator(shared, RealFolder(alice, "mine"))) == ["mine"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda links: [],
        lambda links: links[1:],
        lambda links: [links[0], links[0]],
        lambda links: [links[0], type(links[0])(b"junk", links[1].signature)],
        lambda links: [links[0], type(links[0])(links[1].body, bytes(64))],
        lambda links: [type(links[0])(b"", b"")],
    ],
)
def test_a_folder_that_does_not_hold_spoils_no_other(alice, spoil):
    bad = RealFolder(alice, "bad")
    bad.rotate()
    coordinator = FakeCoordinator(bad, RealFolder(alice, "good"))
    id = FolderId(bad.links[0].hash)
    coordinator.logs[id] = spoil(coordinator.logs[id])
    assert names(alice, coordinator) == ["good"]


def test_a_head_that_the_coordinator_did_not_sign_is_left_out(alice):
    folder, other = RealFolder(alice, "one"), RealFolder(alice, "two")
    coordinator = FakeCoordinator(folder, other)
    id = FolderId(folder.links[0].hash)
    coordinator.infos = [listed(i, seed=b"\x06" * 32 if i == id else LOG_SEED) for i in sorted(coordinator.logs)]
    assert names(alice, coordinator) == ["two"]
    coordinator.infos = [m.FolderInfo(id, Pseudonym(b"p" * 16), listed(FolderId(other.links[0].hash)).checkpoint)]
    assert names(alice, coordinator) == []


def test_an_endless_control_log_ends_with_the_page_that_does_not_follow(alice):
    folder = RealFolder(alice, "endless")

    class Endless(FakeCoordinator):
        async def ask(self, body, kind, **rest):
            if isinstance(body, m.GetControlLog):
                self.asked += 1
                return m.ControlLog(tuple(folder.links), more=True)
            return await super().ask(body, kind, **rest)

    coordinator = Endless(folder)
    assert names(alice, coordinator) == []
    assert coordinator.asked == 3


@pytest.mark.parametrize("name", ["CONTROL_LOG_LINKS_MAX", "CONTROL_LOG_BYTES_MAX"])
def test_a_control_log_is_bounded(alice, monkeypatch, name):
    folder = RealFolder(alice, "long")
    for _ in range(4):
        folder.rotate()
    size = sum(len(link.body) + len(link.signature) for link in folder.links)
    most = len(folder.links) if "LINKS" in name else size
    monkeypatch.setattr(folder_commands, name, most)
    assert names(alice, FakeCoordinator(folder)) == ["long"]
    monkeypatch.setattr(folder_commands, name, most - 1)
    assert names(alice, FakeCoordinator(folder)) == []


def test_a_list_that_does_not_rise_or_end_is_refused(alice, monkeypatch):
    folder = RealFolder(alice, "one")
    info = listed(FolderId(folder.links[0].hash))

    class Twice(FakeCoordinator):
        async def ask(self, body, kind, **rest):
            if isinstance(body, m.ListFolders):
                return m.Folders((info,), more=True)
            return await super().ask(body, kind, **rest)

    with pytest.raises(ProtocolError):
        names(alice, Twice(folder))
    many = [listed(FolderId(bytes([n]) * 32)) for n in range(1, 8)]
    monkeypatch.setattr(folder_commands, "FOLDER_PAGES_MAX", 3)
    with pytest.raises(ProtocolError):
        names(alice, FakeCoordinator(info=many))


def test_a_coordinator_that_is_gone_is_no_empty_list(alice):
    class Gone(FakeCoordinator):
        async def ask(self, body, kind, **_):
            if isinstance(body, m.GetControlLog):
                raise UnavailableError("gone")
            return await super().ask(body, kind)

    with pytest.raises(UnavailableError):
        names(alice, Gone(RealFolder(alice, "one")))


def test_the_highest_head_of_each_folder_is_remembered():
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(SCHEMA)
        one, two = FolderId(b"1" * 32), FolderId(b"2" * 32)
        assert known_head(db, one) is None
        for position in (5, 9, 7):
            put_known_head(db, signed_head(one, position))
        put_known_head(db, signed_head(two, 3))
        assert known_head(db, one) == signed_head(one, 9)
        assert known_head(db, two) == signed_head(two, 3)


@pytest.mark.parametrize(("shown", "refused"), [(8, True), (9, False), (10, False)])
def test_a_folder_begins_with_the_head_that_the_linking_device_had_seen(alice, tmp_path, shown, refused):
    folder = RealFolder(alice, "work")
    id = FolderId(folder.links[0].hash)
    coordinator = FakeCoordinator(folder, info=[listed(id, position=shown)])
    device, _ = device_of(alice, coordinator)
    started = []
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(SCHEMA)
        put_known_head(db, signed_head(id, 9))

        async def run(function, *args):
            return function(*args)

        async def run_on_database(operation):
            return operation(db)

        async def need_link():
            pass

        async def start_folder(record):
            started.append(record)

        device.context.database = SimpleNamespace(run=run_on_database)
        device.context.processor = SimpleNamespace(run=run)
        device.context.files = LinuxFileSystem()
        device.engines, device.home = {}, tmp_path / "home"
        device.need_link, device.start_folder = need_link, start_folder
        device.record.device = alice.device.id
        root = tmp_path / "work"
        if refused:
            with pytest.raises(RollbackError):
                asyncio.run(get(device, "work", str(root)))
            assert not root.exists()
            assert started == []
        else:
            asyncio.run(get(device, "work", str(root)))
            assert [record.checkpoint for record in started] == [signed_head(id, 9)]
            assert folders.folder(db, started[0].key).checkpoint == signed_head(id, 9)


def test_a_notice_about_a_stranger_brings_no_chain(alice, mallory, monkeypatch):
    device = Device.__new__(Device)
    book = Book(alice)
    monkeypatch.setattr(device, "accounts", book, raising=False)
    monkeypatch.setattr(device, "_finish_renewal", lambda: None)
    asyncio.run(device._on_notice(m.AccountChanged(mallory.state.id, 0)))
    assert book.refreshed == []
    asyncio.run(device._on_notice(m.AccountChanged(alice.state.id, 0)))
    assert book.refreshed == [alice.state.id]
