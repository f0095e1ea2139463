"""Possible orphans: orders at external CAs whose answer was lost."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "202611271500"
down_revision = "202611271200"
_PREFIXED: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the table and its indexes."""
    op.create_table(
        "orphans",
        sa.Column("issuer", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("enrollment", _PREFIXED, nullable=False),
        sa.Column("placement", sa.BigInteger),
        sa.Column("spki_sha256", sa.Text),
        sa.Column("suspected_at", sa.BigInteger),
        sa.Column("settled_at", sa.BigInteger),
        sa.Column("serials", sa.Text),
        sa.Column("detail", sa.Text),
        sa.Column("operator", sa.Text),
    )
    op.create_index("orphans_by_time", "orphans", ["suspected_at"])
    op.create_index("orphans_by_enrollment", "orphans", ["enrollment"])


def downgrade() -> None:
    """Do nothing: the read model is rebuilt from the log, not migrated back."""
