"""What the device keeps of each folder beside its trees: the record, the control log, the ordered log, the tail."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from peer.core.mass_changes import Mark
from protocol.chains import SignedLink
from protocol.codec import encode
from protocol.entries import Entry, parse_entry
from protocol.history import CHAIN_START, ItemKind, LogItem, SignedCheckpoint
from protocol.ids import EntryHash, FolderId, Pseudonym


class FolderRecord(msgspec.Struct, frozen=True, array_like=True):
    """One folder on this device."""

    key: int
    """Number of the folder in this database."""
    id: FolderId
    name: str
    path: bytes
    """Absolute path of its root, as the system spells it."""
    pseudonym: Pseudonym | None
    """None until the coordinator knows the folder."""
    number: int = 0
    """This incarnation's device number; 0 until it is enrolled."""
    incarnation: int = 0
    generation: int = 0
    position: int = 0
    """Up to here the log is folded."""
    chain: bytes = CHAIN_START
    checkpoint: SignedCheckpoint | None = None
    """The highest that the coordinator signed and this device has checked."""
    own_seq: int = 0
    own_hash: EntryHash = EntryHash(bytes(32))
    joined: bool = False
    """Whether all that stood in the folder at joining was taken over once."""
    frozen: str = ""
    """Not empty: a check that protects the user failed; nothing is sent or applied until a person looks."""
    looked: bool = False
    """Whether everything on this disk was ever looked at."""
    rules: bytes = b""
    """Hash of the rules of ``.kinignore`` under which all was planned; empty if there were none."""
    mistrusted: bool = False
    """Whether this is a restored or copied device that has not caught up yet: what its disk lacks proves no removal."""
    removed: tuple[int, int] = (0, 0)
    """Files of the newest mass removal that passed here, and when in ms: for as long as undoing it is offered."""
    removed_marks: tuple[Mark, ...] = ()
    """Of these: by which it is seen that they came back."""
    lost_after: int | None = None
    """Not None: from here on the coordinator had lost its log, and has not been told of all again where the contents lie."""


_record = msgspec.msgpack.Decoder(FolderRecord)
_SET_BACK: Final = "set back:"
"""Before the hexadecimal id of a folder."""


def all_folders(connection: sqlite3.Connection) -> list[FolderRecord]:
    """Return every folder on this device, by key."""
    return [_record.decode(row[0]) for row in connection.execute("SELECT record FROM folder ORDER BY key")]


def folder(connection: sqlite3.Connection, key: int) -> FolderRecord:
    """Return one folder's record."""
    row = connection.execute("SELECT record FROM folder WHERE key = ?", (key,)).fetchone()
    if row is None:
        raise KeyError(key)
    return _record.decode(row[0])


def put_folder(connection: sqlite3.Connection, record: FolderRecord) -> None:
    """Add or replace a folder's record."""
    connection.execute("INSERT OR REPLACE INTO folder VALUES (?, ?, ?)", (record.key, record.id, encode(record)))


def next_key(connection: sqlite3.Connection) -> int:
    """Return a number that no folder on this device has had."""
    row = connection.execute("SELECT value FROM setting WHERE name = 'folder_key'").fetchone()
    key = 1 + (int(row[0]) if row else 0)
    connection.execute("INSERT OR REPLACE INTO setting VALUES ('folder_key', ?)", (str(key),))
    return key


def drop_folder(connection: sqlite3.Connection, key: int) -> None:
    """Forget all that the database holds of a folder; its files stay."""
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        if "folder" in columns:
            connection.execute(f"DELETE FROM {table} WHERE folder = ?", (key,))
    connection.execute("DELETE FROM folder WHERE key = ?", (key,))


# --- Chains


def control_links(connection: sqlite3.Connection, key: int) -> list[SignedLink]:
    """Return a folder's control log."""
    rows = connection.execute("SELECT body, signature FROM control_link WHERE folder = ? ORDER BY seq", (key,))
    return [SignedLink(*row) for row in rows]


def put_control_link(connection: sqlite3.Connection, key: int, seq: int, link: SignedLink) -> None:
    """Keep a checked link of a folder's control log."""
    connection.execute("INSERT OR REPLACE INTO control_link VALUES (?, ?, ?, ?)", (key, seq, link.body, link.signature))


def account_links(connection: sqlite3.Connection, account: bytes) -> list[SignedLink]:
    """Return an account's chain as far as this device has checked it."""
    rows = connection.execute("SELECT body, signature FROM account_link WHERE account = ? ORDER BY seq", (account,))
    return [SignedLink(*row) for row in rows]


def put_account_links(connection: sqlite3.Connection, account: bytes, first: int, links: Iterable[SignedLink]) -> None:
    """Keep checked links of an account's chain from sequence number ``first`` on."""
    connection.executemany(
        "INSERT OR REPLACE INTO account_link VALUES (?, ?, ?, ?)",
        [(account, first + i, link.body, link.signature) for i, link in enumerate(links)],
    )


# --- The log


def put_log_items(
    connection: sqlite3.Connection, key: int, items: Iterable[LogItem], chains: Mapping[int, bytes]
) -> None:
    """Append items of the ordered log, each with J at its position."""
    connection.executemany(
        "INSERT OR REPLACE INTO log VALUES (?, ?, ?, ?, ?, ?)",
        [(key, i.position, int(i.kind), i.time_ms, i.data, chains[i.position]) for i in items],
    )


def chain_at(connection: sqlite3.Connection, key: int, position: int) -> bytes | None:
    """Return J at a position of the ordered log, None beyond what is known."""
    if position == 0:
        return CHAIN_START
    row = connection.execute("SELECT chain FROM log WHERE folder = ? AND position = ?", (key, position)).fetchone()
    return None if row is None else bytes(row[0])


def log_items(connection: sqlite3.Connection, key: int, after: int, most: int) -> list[LogItem]:
    """Return items of the ordered log after a position."""
    rows = connection.execute(
        "SELECT position, kind, time_ms, data FROM log WHERE folder = ? AND position > ? ORDER BY position LIMIT ?",
        (key, after, most),
    )
    return [LogItem(row[0], ItemKind(row[1]), row[2], row[3]) for row in rows]


def log_backwards(connection: sqlite3.Connection, key: int, most: int) -> Iterator[LogItem]:
    """Yield items of the ordered log, the newest first; nothing may be written to it meanwhile."""
    rows = connection.execute(
        "SELECT position, kind, time_ms, data FROM log WHERE folder = ? ORDER BY position DESC LIMIT ?", (key, most)
    )
    for row in rows:
        yield LogItem(row[0], ItemKind(row[1]), row[2], row[3])


def log_items_before(connection: sqlite3.Connection, key: int, before: int, most: int) -> list[LogItem]:
    """Return items of the ordered log before a position, the newest first."""
    rows = connection.execute(
        "SELECT position, kind, time_ms, data FROM log WHERE folder = ? AND position < ? ORDER BY position DESC LIMIT ?",
        (key, before, most),
    )
    return [LogItem(row[0], ItemKind(row[1]), row[2], row[3]) for row in rows]


def time_at(connection: sqlite3.Connection, key: int, position: int) -> int | None:
    """Return when the coordinator ordered what stands at a position, in milliseconds."""
    row = connection.execute("SELECT time_ms FROM log WHERE folder = ? AND position = ?", (key, position)).fetchone()
    return None if row is None else int(row[0])


def position_at(connection: sqlite3.Connection, key: int, time_ms: int) -> int:
    """Return the last position that was ordered by a moment; 0: no entry was."""
    row = connection.execute(
        "SELECT max(position), max(kind = ?) FROM log WHERE folder = ? AND time_ms <= ?",
        (int(ItemKind.ENTRY), key, time_ms),
    ).fetchone()
    return int(row[0]) if row[1] else 0


def first_entry(connection: sqlite3.Connection, key: int) -> tuple[int, int] | None:
    """Return the position of the first entry and when the coordinator ordered it; None if there is none."""
    row: tuple[int, int] | None = connection.execute(
        "SELECT position, time_ms FROM log WHERE folder = ? AND kind = ? ORDER BY position LIMIT 1",
        (key, int(ItemKind.ENTRY)),
    ).fetchone()
    return row


def position_of_entry(connection: sqlite3.Connection, key: int, beginning: bytes) -> int:
    """Return the position of the ordered entry whose hash begins so; 0 if there is none."""
    row = connection.execute(
        "SELECT position FROM entry WHERE folder = ? AND substr(hash, 1, ?) = ? AND position > 0",
        (key, len(beginning), beginning),
    ).fetchone()
    return 0 if row is None else int(row[0])


def put_entry_hash(
    connection: sqlite3.Connection, key: int, device: int, seq: int, hash: EntryHash, position: int
) -> EntryHash | None:
    """Remember where an entry stands; return the hash of another entry already known for that number, if any."""
    row = connection.execute(
        "SELECT hash FROM entry WHERE folder = ? AND device = ? AND seq = ?", (key, device, seq)
    ).fetchone()
    if row is not None and row[0] != hash:
        return EntryHash(row[0])
    connection.execute("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?)", (key, device, seq, hash, position))
    return None


def entry_hash_of(connection: sqlite3.Connection, key: int, device: int, seq: int) -> tuple[EntryHash, int] | None:
    """Return hash and position (0: not ordered) of the entry with this number."""
    row = connection.execute(
        "SELECT hash, position FROM entry WHERE folder = ? AND device = ? AND seq = ?", (key, device, seq)
    ).fetchone()
    return None if row is None else (EntryHash(row[0]), row[1])


# --- The tail: own entries that are not ordered yet


def put_tail(connection: sqlite3.Connection, key: int, entry: Entry, data: bytes) -> None:
    """Record an entry of this device before it is sent."""
    connection.execute("INSERT OR REPLACE INTO tail VALUES (?, ?, ?, ?)", (key, entry.header.seq, entry.hash, data))
    put_entry_hash(connection, key, entry.header.device, entry.header.seq, entry.hash, 0)


def tail(connection: sqlite3.Connection, key: int) -> Iterator[tuple[Entry, bytes]]:
    """Yield own unordered entries by sequence number."""
    for row in connection.execute("SELECT data FROM tail WHERE folder = ? ORDER BY seq", (key,)).fetchall():
        yield parse_entry(row[0]), row[0]


def tail_hashes(connection: sqlite3.Connection, key: int) -> tuple[EntryHash, ...]:
    """Return the hashes of own unordered entries by sequence number."""
    rows = connection.execute("SELECT hash FROM tail WHERE folder = ? ORDER BY seq", (key,))
    return tuple(EntryHash(row[0]) for row in rows)


def tail_data(connection: sqlite3.Connection, key: int, after: int) -> list[tuple[int, bytes]]:
    """Return sequence number and bytes of own unordered entries beyond a number, in order."""
    return list(
        connection.execute("SELECT seq, data FROM tail WHERE folder = ? AND seq > ? ORDER BY seq", (key, after))
    )


def drop_tail(connection: sqlite3.Connection, key: int, hash: EntryHash) -> bool:
    """Take an entry off the tail, since it was ordered or is void; tell whether it stood there."""
    return connection.execute("DELETE FROM tail WHERE folder = ? AND hash = ?", (key, hash)).rowcount > 0


def forget_tail(connection: sqlite3.Connection, key: int, entry: Entry) -> None:
    """Take an entry off the tail that nobody was given, number and all."""
    drop_tail(connection, key, entry.hash)
    connection.execute(
        "DELETE FROM entry WHERE folder = ? AND device = ? AND seq = ? AND position = 0",
        (key, entry.header.device, entry.header.seq),
    )


# --- The tail of others: entries that are registered and not ordered yet


def put_foreign(connection: sqlite3.Connection, key: int, entry: Entry, data: bytes) -> None:
    """Keep a checked entry of another device."""
    header = entry.header
    connection.execute(
        "INSERT OR REPLACE INTO foreign_tail VALUES (?, ?, ?, ?, ?)", (key, header.device, header.seq, entry.hash, data)
    )
    put_entry_hash(connection, key, header.device, header.seq, entry.hash, 0)


def foreign_tail(connection: sqlite3.Connection, key: int) -> list[Entry]:
    """Return the unordered entries of other devices, by device and sequence number."""
    rows = connection.execute("SELECT data FROM foreign_tail WHERE folder = ? ORDER BY device, seq", (key,))
    return [parse_entry(row[0]) for row in rows.fetchall()]


def foreign_hashes(connection: sqlite3.Connection, key: int) -> tuple[EntryHash, ...]:
    """Return the hashes of unordered entries of other devices, by device and sequence number."""
    rows = connection.execute("SELECT hash FROM foreign_tail WHERE folder = ? ORDER BY device, seq", (key,))
    return tuple(EntryHash(row[0]) for row in rows)


def foreign_size(connection: sqlite3.Connection, key: int) -> tuple[int, int]:
    """Return how many unordered entries of other devices there are, and their bytes."""
    row = connection.execute(
        "SELECT count(*), coalesce(sum(length(data)), 0) FROM foreign_tail WHERE folder = ?", (key,)
    ).fetchone()
    return int(row[0]), int(row[1])


def drop_foreign(connection: sqlite3.Connection, key: int, hash: EntryHash) -> Entry | None:
    """Take an entry off the tail of others; return it if it stood there."""
    row = connection.execute("SELECT data FROM foreign_tail WHERE folder = ? AND hash = ?", (key, hash)).fetchone()
    if row is None:
        return None
    connection.execute("DELETE FROM foreign_tail WHERE folder = ? AND hash = ?", (key, hash))
    return parse_entry(row[0])


def is_ordered(connection: sqlite3.Connection, key: int, hash: EntryHash) -> bool:
    """Tell whether an entry stands in the log as far as this device knows it."""
    row = connection.execute("SELECT position FROM entry WHERE folder = ? AND hash = ?", (key, hash)).fetchone()
    return row is not None and row[0] > 0


def forget_entry(connection: sqlite3.Connection, key: int, device: int, seq: int) -> None:
    """Forget which entry has a number: it turned out to be another one's."""
    connection.execute("DELETE FROM entry WHERE folder = ? AND device = ? AND seq = ?", (key, device, seq))


# --- Settings


def setting(connection: sqlite3.Connection, name: str) -> bytes | None:
    """Return a setting of this device."""
    row = connection.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
    return None if row is None else bytes(row[0])


def put_setting(connection: sqlite3.Connection, name: str, value: bytes) -> None:
    """Change a setting of this device."""
    connection.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, value))


class SetBack(msgspec.Struct, frozen=True, array_like=True):
    """That a folder's log at the coordinator was found to end earlier than it once did."""

    time_ms: int
    """When this device noticed it last."""
    missing: int
    """How many of the positions that the coordinator had signed were gone."""


_set_back = msgspec.msgpack.Decoder(SetBack)


def put_set_back(connection: sqlite3.Connection, folder: FolderId, found: SetBack) -> None:
    """Remember that the coordinator was set back, for the person to be told."""
    put_setting(connection, _SET_BACK + folder.hex(), encode(found))


def set_back(connection: sqlite3.Connection, folder: FolderId) -> SetBack | None:
    """Return when the coordinator was last found to be set back; None if it never was."""
    data = setting(connection, _SET_BACK + folder.hex())
    return None if data is None else _set_back.decode(data)
