"""Events and positions: the first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make both tables and the indexes that lists and look-ups use."""
    op.create_table(
        "events",
        sa.Column("stream", sa.String(64), primary_key=True),
        sa.Column("sequence", sa.BigInteger, primary_key=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        sa.Column("profile", sa.Text),
        sa.Column("enrollment", sa.Text),
        sa.Column("transaction_id", sa.Text),
        sa.Column("device", sa.Text),
        sa.Column("result", sa.String(64)),
        sa.Column("serial", sa.Text),
        sa.Column("headers", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )
    op.create_index("events_by_enrollment", "events", ["enrollment", "recorded_at"])
    op.create_index("events_by_transaction", "events", ["transaction_id"])
    op.create_index("events_by_serial", "events", ["serial"])
    op.create_index("events_by_time", "events", ["recorded_at"])
    op.create_table(
        "positions",
        sa.Column("stream", sa.String(64), primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """The read model is rebuilt from the log, not migrated back."""
    raise NotImplementedError("rebuild the read model from the log instead")
