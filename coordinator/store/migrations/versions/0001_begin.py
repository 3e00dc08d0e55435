"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "account_links",
        sa.Column("account", sa.LargeBinary(length=32), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(length=64), nullable=False),
        sa.PrimaryKeyConstraint("account", "seq"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "accounts",
        sa.Column("account", sa.LargeBinary(length=32), nullable=False),
        sa.Column("user", sa.String(length=255), nullable=False),
        sa.Column("user_key", sa.String(length=255), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("head", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("account"),
        sa.UniqueConstraint("user_key"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "authors",
        sa.Column("folder", sa.LargeBinary(length=32), nullable=False),
        sa.Column("device", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("folder", "device"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "chunks",
        sa.Column("pseudonym", sa.LargeBinary(length=16), nullable=False),
        sa.Column("chunk", sa.LargeBinary(length=32), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column("nodes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("pseudonym", "chunk"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "control_links",
        sa.Column("folder", sa.LargeBinary(length=32), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("folder", "seq"),
        sqlite_with_rowid=False,
    )
    op.create_index("control_links_by_hash", "control_links", ["folder", "hash"], unique=True)
    op.create_table(
        "devices",
        sa.Column("account", sa.LargeBinary(length=32), nullable=False),
        sa.Column("device", sa.LargeBinary(length=32), nullable=False),
        sa.Column("last_seen_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "device"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "entries",
        sa.Column("folder", sa.LargeBinary(length=32), nullable=False),
        sa.Column("device", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("void", sa.Integer(), nullable=True),
        sa.Column("replaced_by", sa.LargeBinary(length=32), nullable=True),
        sa.PrimaryKeyConstraint("folder", "device", "seq"),
        sqlite_with_rowid=False,
    )
    op.create_index("entries_by_hash", "entries", ["folder", "hash"], unique=True)
    op.create_table(
        "folders",
        sa.Column("folder", sa.LargeBinary(length=32), nullable=False),
        sa.Column("pseudonym", sa.LargeBinary(length=16), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("chain", sa.LargeBinary(length=32), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.Column("control_seq", sa.Integer(), nullable=False),
        sa.Column("control_head", sa.LargeBinary(length=32), nullable=False),
        sa.Column("registered", sa.BigInteger(), nullable=False),
        sa.Column("signed_position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("folder"),
        sa.UniqueConstraint("pseudonym"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "log",
        sa.Column("folder", sa.LargeBinary(length=32), nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Integer(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.Column("chain", sa.LargeBinary(length=32), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("folder", "position"),
    )
    op.create_table(
        "members",
        sa.Column("folder", sa.LargeBinary(length=32), nullable=False),
        sa.Column("account", sa.LargeBinary(length=32), nullable=False),
        sa.Column("role", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("folder", "account"),
        sqlite_with_rowid=False,
    )
    op.create_index("members_by_account", "members", ["account", "folder"], unique=False)
    op.create_table(
        "pending",
        sa.Column("folder", sa.LargeBinary(length=32), nullable=False),
        sa.Column("counter", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("device", sa.Integer(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("folder", "counter"),
    )
    op.create_table(
        "registers",
        sa.Column("folder", sa.LargeBinary(length=32), nullable=False),
        sa.Column("node", sa.LargeBinary(length=16), nullable=False),
        sa.Column("register", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("folder", "node", "register"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "revocations",
        sa.Column("device", sa.LargeBinary(length=32), nullable=False),
        sa.Column("pseudonym", sa.LargeBinary(length=16), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("device", "pseudonym"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "segments",
        sa.Column("folder", sa.LargeBinary(length=32), nullable=False),
        sa.Column("segment", sa.LargeBinary(length=32), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column("durable", sa.Integer(), nullable=False),
        sa.Column("chunks", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("folder", "segment"),
    )
    op.create_table(
        "settings",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=4096), nullable=False),
        sa.PrimaryKeyConstraint("key"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "storage_nodes",
        sa.Column("node", sa.LargeBinary(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("sign", sa.LargeBinary(length=32), nullable=False),
        sa.Column("url", sa.String(length=512), nullable=False),
        sa.Column("certificate", sa.LargeBinary(), nullable=False),
        sa.Column("zone", sa.String(length=255), nullable=False),
        sa.Column("operator", sa.String(length=255), nullable=False),
        sa.Column("online", sa.Integer(), nullable=False),
        sa.Column("last_seen_ms", sa.BigInteger(), nullable=False),
        sa.Column("free_bytes", sa.BigInteger(), nullable=False),
        sa.Column("stored_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("node"),
        sa.UniqueConstraint("number"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tokens",
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column("operator", sa.String(length=255), nullable=False),
        sa.Column("uses_left", sa.Integer(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hash"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "waits",
        sa.Column("folder", sa.LargeBinary(length=32), nullable=False),
        sa.Column("kind", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("target", sa.LargeBinary(length=32), nullable=False),
        sa.Column("waiter", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("folder", "kind", "target", "waiter"),
        sqlite_with_rowid=False,
    )
    op.create_index("waits_by_waiter", "waits", ["folder", "waiter"], unique=False)
