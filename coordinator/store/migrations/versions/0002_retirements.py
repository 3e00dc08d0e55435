"""Storage nodes can be taken out of service."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "retirements",
        sa.Column("node", sa.LargeBinary(length=32), nullable=False),
        sa.Column("asked_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_ms", sa.BigInteger(), nullable=False),
        sa.Column("counted_ms", sa.BigInteger(), nullable=False),
        sa.Column("chunks_left", sa.BigInteger(), nullable=False),
        sa.Column("bytes_left", sa.BigInteger(), nullable=False),
        sa.Column("chunks_alone", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("node"),
        sqlite_with_rowid=False,
    )
