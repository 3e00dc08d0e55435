"""The tables of a device's database. Folder key first in every key; blobs are MessagePack of typed structs."""

from __future__ import annotations

from typing import Final

from peer.store.fold_store import FOLD_SCHEMA

SCHEMA_VERSION: Final = 1

_OWN_TABLES: Final = """
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

-- Account chains that this device has checked, links in order.
CREATE TABLE IF NOT EXISTS account_link (
    account BLOB NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL, signature BLOB NOT NULL,
    PRIMARY KEY (account, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS account (id BLOB PRIMARY KEY, user TEXT NOT NULL) WITHOUT ROWID;

-- One row for each folder on this device.
CREATE TABLE IF NOT EXISTS folder (
    key INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS control_link (
    folder INTEGER NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL, signature BLOB NOT NULL,
    PRIMARY KEY (folder, seq)) WITHOUT ROWID;

-- The ordered log as received, and the entries of this device that are not in it yet.
CREATE TABLE IF NOT EXISTS log (
    folder INTEGER NOT NULL, position INTEGER NOT NULL, kind INTEGER NOT NULL, time_ms INTEGER NOT NULL,
    data BLOB NOT NULL, chain BLOB NOT NULL, PRIMARY KEY (folder, position));
CREATE TABLE IF NOT EXISTS entry (
    folder INTEGER NOT NULL, device INTEGER NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL,
    position INTEGER NOT NULL, PRIMARY KEY (folder, device, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tail (
    folder INTEGER NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (folder, seq)) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS entry_hash ON entry (folder, hash);
-- Entries of other devices that are registered and not in the log yet, folded after it as this device's own are.
CREATE TABLE IF NOT EXISTS foreign_tail (
    folder INTEGER NOT NULL, device INTEGER NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (folder, device, seq)) WITHOUT ROWID;

-- The two trees of observations; the third, remote, is the fold's.
CREATE TABLE IF NOT EXISTS local_item (
    folder INTEGER NOT NULL, id BLOB NOT NULL, parent BLOB NOT NULL, name BLOB NOT NULL,
    content BLOB NOT NULL, fingerprint BLOB NOT NULL, inode INTEGER NOT NULL, PRIMARY KEY (folder, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS local_child ON local_item (folder, parent, name);
CREATE INDEX IF NOT EXISTS local_inode ON local_item (folder, inode);
CREATE TABLE IF NOT EXISTS synced_item (
    folder INTEGER NOT NULL, id BLOB NOT NULL, parent BLOB NOT NULL, name BLOB NOT NULL,
    content BLOB NOT NULL, members BLOB NOT NULL, PRIMARY KEY (folder, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS synced_child ON synced_item (folder, parent, name);
-- Items of which two trees may differ; planning looks at these alone.
CREATE TABLE IF NOT EXISTS dirty (folder INTEGER NOT NULL, id BLOB NOT NULL, PRIMARY KEY (folder, id)) WITHOUT ROWID;
-- What of this disk's changes waits for a person (peer.core.brake), with the directories above it.
CREATE TABLE IF NOT EXISTS held (
    folder INTEGER NOT NULL, id BLOB NOT NULL, waiting INTEGER NOT NULL, is_file INTEGER NOT NULL,
    PRIMARY KEY (folder, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS held_kind ON held (folder, is_file, waiting);
-- What the last scan could not read or will never sync, by path.
CREATE TABLE IF NOT EXISTS problem (
    folder INTEGER NOT NULL, path BLOB NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (folder, path)) WITHOUT ROWID;
-- What this disk could not take when it was last tried, by item.
CREATE TABLE IF NOT EXISTS obstacle (
    folder INTEGER NOT NULL, id BLOB NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (folder, id)) WITHOUT ROWID;

-- What a person keeps off this device.
CREATE TABLE IF NOT EXISTS exclusion (
    folder INTEGER NOT NULL, path BLOB NOT NULL, parent BLOB, nodes BLOB NOT NULL,
    PRIMARY KEY (folder, path)) WITHOUT ROWID;
-- Items of synced that no scan sees, since they are ignored or excluded: their absence proves no removal.
CREATE TABLE IF NOT EXISTS unseen (
    folder INTEGER NOT NULL, id BLOB NOT NULL, apart INTEGER NOT NULL, PRIMARY KEY (folder, id)) WITHOUT ROWID;

-- Sealed chunks and segments that wait in the spool's files for a write quorum; raw_hash is empty for segments.
CREATE TABLE IF NOT EXISTS spool (
    number INTEGER PRIMARY KEY AUTOINCREMENT, folder INTEGER NOT NULL, id BLOB NOT NULL, raw_hash BLOB NOT NULL,
    what BLOB NOT NULL, file INTEGER NOT NULL, at INTEGER NOT NULL, length INTEGER NOT NULL, UNIQUE (folder, id));
CREATE INDEX IF NOT EXISTS spool_order ON spool (folder, number);
CREATE INDEX IF NOT EXISTS spool_piece ON spool (folder, raw_hash);
CREATE INDEX IF NOT EXISTS spool_file ON spool (file);
-- Chunks that are durable on storage nodes, by the hash of their raw bytes.
CREATE TABLE IF NOT EXISTS chunk (
    folder INTEGER NOT NULL, raw_hash BLOB NOT NULL, row BLOB NOT NULL, PRIMARY KEY (folder, raw_hash)) WITHOUT ROWID;
-- Segments that storage nodes hold and the coordinator knows.
CREATE TABLE IF NOT EXISTS segment (folder INTEGER NOT NULL, id BLOB NOT NULL, PRIMARY KEY (folder, id)) WITHOUT ROWID;
-- Contents of the folder by the hash of all their bytes: the dot of one that is ordered.
CREATE TABLE IF NOT EXISTS known_content (
    folder INTEGER NOT NULL, hash BLOB NOT NULL, node BLOB NOT NULL, dot BLOB NOT NULL,
    PRIMARY KEY (folder, hash)) WITHOUT ROWID;
-- Snapshots by the entry that made each; position 0: that entry is not ordered yet.
CREATE TABLE IF NOT EXISTS snapshot (
    folder INTEGER NOT NULL, hash BLOB NOT NULL, name TEXT NOT NULL, device INTEGER NOT NULL, seq INTEGER NOT NULL,
    seen INTEGER NOT NULL, time_ms INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (folder, hash)) WITHOUT ROWID;
-- Where chunks stand in this device's own files, by the first 8 bytes of the hash of what they hold; a hint, read back
-- and hashed before it is used.
CREATE TABLE IF NOT EXISTS place (
    folder INTEGER NOT NULL, mark INTEGER NOT NULL, item BLOB NOT NULL, offset INTEGER NOT NULL,
    PRIMARY KEY (folder, mark)) WITHOUT ROWID;
-- Rows of chunks whose bytes are here, but not from a storage node: whether one holds them is their author's word.
CREATE TABLE IF NOT EXISTS received_chunk (
    folder INTEGER NOT NULL, raw_hash BLOB NOT NULL, row BLOB NOT NULL, PRIMARY KEY (folder, raw_hash)) WITHOUT ROWID;
-- What segments list, as marks, so that they can be sealed again for another device.
CREATE TABLE IF NOT EXISTS segment_list (
    folder INTEGER NOT NULL, id BLOB NOT NULL, marks BLOB NOT NULL, PRIMARY KEY (folder, id)) WITHOUT ROWID;
-- Swaps begun on the disk.
CREATE TABLE IF NOT EXISTS swap (
    number INTEGER PRIMARY KEY, folder INTEGER NOT NULL, id BLOB NOT NULL, checked INTEGER NOT NULL,
    time_ms INTEGER NOT NULL, row BLOB NOT NULL, UNIQUE (folder, id));
-- What steps are about to have stand on the disk; a row goes in the commit that notes in the trees what stands there.
CREATE TABLE IF NOT EXISTS intent (
    number INTEGER PRIMARY KEY, folder INTEGER NOT NULL, id BLOB NOT NULL, as_user INTEGER NOT NULL, row BLOB NOT NULL,
    UNIQUE (folder, id));
CREATE INDEX IF NOT EXISTS swap_age ON swap (folder, checked, time_ms, number);
"""

SCHEMA: Final = _OWN_TABLES + FOLD_SCHEMA
