"""Sessions of the page, what was driven again, and indexes for what it lists and searches."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Nobody is signed in yet."""
    op.create_table(
        "sessions",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("token", sa.String(64)),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("sessions_by_end", "sessions", ["expires_at"])
    op.create_table(
        "redrives",
        sa.Column("stream", sa.String(64), primary_key=True),
        sa.Column("sequence", sa.BigInteger, primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("operator", sa.Text),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
    )
    for other in ("state", "profile"):
        columns = [other, "action", "requested_at", "enrollment"]
        op.create_index(f"enrollments_by_{other}_and_action", "enrollments", columns)
    op.create_index("names_with_times", "names", ["name", "requested_at", "enrollment"])
