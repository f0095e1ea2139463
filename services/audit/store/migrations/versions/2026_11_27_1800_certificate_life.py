"""Renewed certificates, indexes by what became of a certificate, and notices of expiry."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "202611271800"
down_revision = "202611271500"
_TABLE: Final = "certificates"
# By the newest event: its row was recorded last. A certificate without a row of its own gets one,
# as it does from the log.
_SUPERSEDED: Final = """
INSERT INTO certificates (issuer, serial, recorded_at, superseded_by, superseded_at)
SELECT issuer, renews, first, serial, recorded_at FROM (
    SELECT issuer, renews, serial, recorded_at,
           MIN(recorded_at) OVER (PARTITION BY issuer, renews) AS first,
           ROW_NUMBER() OVER (
               PARTITION BY issuer, renews ORDER BY recorded_at DESC, serial DESC
           ) AS place
    FROM certificates WHERE renews <> serial
) AS renewals WHERE place = 1
ON CONFLICT (issuer, serial) DO UPDATE SET
    superseded_by = excluded.superseded_by, superseded_at = excluded.superseded_at
"""


def upgrade() -> None:
    """Add the columns, fill them from the rows, and create table and indexes."""
    with op.batch_alter_table(_TABLE) as batch:
        batch.add_column(sa.Column("superseded_by", sa.Text))
        batch.add_column(sa.Column("superseded_at", sa.BigInteger))
    op.execute(_SUPERSEDED)
    op.drop_index("certificates_by_end", _TABLE)
    op.drop_index("certificates_by_profile", _TABLE)
    op.create_index(
        "certificates_by_profile", _TABLE, ["profile", "recorded_at", "issuer", "serial"]
    )
    op.create_index("certificates_by_subject", _TABLE, ["profile", "subject", "recorded_at"])
    _partial("certificates_by_end", ["not_after"], "superseded_by IS NULL")
    _partial("certificates_by_profile_and_end", ["profile", "not_after"], "superseded_by IS NULL")
    _partial("certificates_by_renewal", ["superseded_at"], "superseded_at IS NOT NULL")
    _partial(
        "certificates_by_profile_and_renewal",
        ["profile", "superseded_at"],
        "superseded_at IS NOT NULL",
    )
    _partial("certificates_by_revocation", ["revoked_at"], "revoked_at IS NOT NULL")
    _partial(
        "certificates_by_profile_and_revocation",
        ["profile", "revoked_at"],
        "revoked_at IS NOT NULL",
    )
    op.create_table(
        "expiry_notices",
        sa.Column("seconds", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("not_after", sa.BigInteger, nullable=False),
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("serial", sa.Text, nullable=False),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("held_until", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Do nothing: the read model is rebuilt from the log, not migrated back."""


def _partial(name: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(
        name,
        _TABLE,
        [*columns, "issuer", "serial"],
        sqlite_where=condition,
        postgresql_where=condition,
    )
