"""The coordinator's tables.

Rule 1: the folder's id (its pseudonym, the account's id) comes first in every key, so that a table can be spread by it.
Rule 2: no foreign keys, triggers or sequences: what belongs together is written in one transaction by one function.
Rule 3: each table is changed by one module of this package only.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table

metadata: Final = MetaData()

SETTINGS: Final = Table(
    "settings",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", String(4096), nullable=False),
    sqlite_with_rowid=False,
)

TOKENS: Final = Table(
    "tokens",
    metadata,
    Column("hash", LargeBinary(32), primary_key=True),
    Column("purpose", String(16), nullable=False),
    Column("operator", String(255), nullable=False),
    Column("uses_left", Integer, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

ACCOUNTS: Final = Table(
    "accounts",
    metadata,
    Column("account", LargeBinary(32), primary_key=True),
    Column("user", String(255), nullable=False),
    Column("user_key", String(255), nullable=False, unique=True),
    Column("seq", Integer, nullable=False),
    Column("head", LargeBinary(32), nullable=False),
    sqlite_with_rowid=False,
)

ACCOUNT_LINKS: Final = Table(
    "account_links",
    metadata,
    Column("account", LargeBinary(32), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
    Column("signature", LargeBinary(64), nullable=False),
    sqlite_with_rowid=False,
)

DEVICES: Final = Table(
    "devices",
    metadata,
    Column("account", LargeBinary(32), primary_key=True),
    Column("device", LargeBinary(32), primary_key=True),
    Column("last_seen_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

FOLDERS: Final = Table(
    "folders",
    metadata,
    Column("folder", LargeBinary(32), primary_key=True),
    Column("pseudonym", LargeBinary(16), nullable=False, unique=True),
    Column("generation", Integer, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("chain", LargeBinary(32), nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("control_seq", Integer, nullable=False),
    Column("control_head", LargeBinary(32), nullable=False),
    Column("registered", BigInteger, nullable=False),
    # The highest position that this coordinator is known to have signed; above "position" only after a loss.
    Column("signed_position", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

CONTROL_LINKS: Final = Table(
    "control_links",
    metadata,
    Column("folder", LargeBinary(32), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("position", BigInteger, nullable=False),
    Index("control_links_by_hash", "folder", "hash", unique=True),
    sqlite_with_rowid=False,
)

MEMBERS: Final = Table(
    "members",
    metadata,
    Column("folder", LargeBinary(32), primary_key=True),
    Column("account", LargeBinary(32), primary_key=True),
    # 0: was a member once; the others still need its chain to read what it wrote.
    Column("role", Integer, nullable=False),
    Index("members_by_account", "account", "folder"),
    sqlite_with_rowid=False,
)

LOG: Final = Table(
    "log",
    metadata,
    Column("folder", LargeBinary(32), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Integer, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("chain", LargeBinary(32), nullable=False),
    Column("data", LargeBinary, nullable=False),
)

AUTHORS: Final = Table(
    "authors",
    metadata,
    Column("folder", LargeBinary(32), primary_key=True),
    Column("device", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    sqlite_with_rowid=False,
)

ENTRIES: Final = Table(
    "entries",
    metadata,
    Column("folder", LargeBinary(32), primary_key=True),
    Column("device", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("counter", BigInteger, nullable=False),
    # 0: registered; else where it stands in the log, or where its void record does.
    Column("position", BigInteger, nullable=False),
    Column("void", Integer),
    Column("replaced_by", LargeBinary(32)),
    Index("entries_by_hash", "folder", "hash", unique=True),
    sqlite_with_rowid=False,
)

PENDING: Final = Table(
    "pending",
    metadata,
    Column("folder", LargeBinary(32), primary_key=True),
    Column("counter", BigInteger, primary_key=True, autoincrement=False),
    Column("device", Integer, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("data", LargeBinary, nullable=False),
)

WAITS: Final = Table(
    "waits",
    metadata,
    Column("folder", LargeBinary(32), primary_key=True),
    # What is waited for: a chunk's quorum, a segment's, or another entry; see coordinator.core.ordering.Wait.
    Column("kind", Integer, primary_key=True, autoincrement=False),
    Column("target", LargeBinary(32), primary_key=True),
    Column("waiter", LargeBinary(32), primary_key=True),
    Index("waits_by_waiter", "folder", "waiter"),
    sqlite_with_rowid=False,
)

REGISTERS: Final = Table(
    "registers",
    metadata,
    Column("folder", LargeBinary(32), primary_key=True),
    Column("node", LargeBinary(16), primary_key=True),
    Column("register", Integer, primary_key=True, autoincrement=False),
    Column("vector", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

SEGMENTS: Final = Table(
    "segments",
    metadata,
    Column("folder", LargeBinary(32), primary_key=True),
    Column("segment", LargeBinary(32), primary_key=True),
    Column("length", Integer, nullable=False),
    # Whether every chunk of it, and it itself, has reached a write quorum.
    Column("durable", Integer, nullable=False),
    # The chunks that it lists: 36 bytes each, id and length.
    Column("chunks", LargeBinary, nullable=False),
)

CHUNKS: Final = Table(
    "chunks",
    metadata,
    Column("pseudonym", LargeBinary(16), primary_key=True),
    Column("chunk", LargeBinary(32), primary_key=True),
    Column("length", Integer, nullable=False),
    # The numbers of the nodes that gave a receipt: two bytes each, sorted.
    Column("nodes", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

STORAGE_NODES: Final = Table(
    "storage_nodes",
    metadata,
    Column("node", LargeBinary(32), primary_key=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("sign", LargeBinary(32), nullable=False),
    Column("url", String(512), nullable=False),
    Column("certificate", LargeBinary, nullable=False),
    Column("zone", String(255), nullable=False),
    Column("operator", String(255), nullable=False),
    Column("online", Integer, nullable=False),
    Column("last_seen_ms", BigInteger, nullable=False),
    Column("free_bytes", BigInteger, nullable=False),
    Column("stored_bytes", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

RETIREMENTS: Final = Table(
    "retirements",
    metadata,
    Column("node", LargeBinary(32), primary_key=True),
    Column("asked_ms", BigInteger, nullable=False),
    # 0: it goes on.
    Column("ended_ms", BigInteger, nullable=False),
    # What the server last counted, and when; 0: not yet.
    Column("counted_ms", BigInteger, nullable=False),
    Column("chunks_left", BigInteger, nullable=False),
    Column("bytes_left", BigInteger, nullable=False),
    Column("chunks_alone", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

REVOCATIONS: Final = Table(
    "revocations",
    metadata,
    Column("device", LargeBinary(32), primary_key=True),
    Column("pseudonym", LargeBinary(16), primary_key=True),
    Column("time_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
