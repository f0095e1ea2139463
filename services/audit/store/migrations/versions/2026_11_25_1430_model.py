"""The model: enrollments, certificates, devices and what else operators ask for."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables empty; the audit service fills them from the events it has."""
    op.add_column("positions", sa.Column("projected", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("positions", sa.Column("digest", sa.String(64), nullable=False, server_default=""))
    op.create_table(
        "enrollments",
        sa.Column("enrollment", sa.Text, primary_key=True),
        sa.Column("profile", sa.Text, nullable=False),
        sa.Column("fleet", sa.Text),
        sa.Column("transaction_id", sa.Text),
        sa.Column("action", sa.String(32)),
        sa.Column("message_type", sa.Integer),
        sa.Column("signer_sha256", sa.Text),
        sa.Column("client_address", sa.Text),
        sa.Column("gateway", sa.Text),
        sa.Column("device", sa.Text),
        sa.Column("sans", sa.Text),
        sa.Column("key_type", sa.Text),
        sa.Column("key_bits", sa.Integer),
        sa.Column("spki_sha256", sa.Text),
        sa.Column("csr_sha256", sa.Text),
        sa.Column("challenge", sa.Text),
        sa.Column("device_id", sa.Text),
        sa.Column("claim_issuer", sa.Text),
        sa.Column("claim_subject", sa.Text),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(64)),
        sa.Column("detail", sa.Text),
        sa.Column("fail_info", sa.Integer),
        sa.Column("renews", sa.Text),
        sa.Column("issuer", sa.Text),
        sa.Column("serial", sa.Text),
        sa.Column("not_after", sa.BigInteger),
        sa.Column("operator", sa.Text),
        sa.Column("requested_at", sa.BigInteger, nullable=False),
        sa.Column("held_at", sa.BigInteger),
        sa.Column("decided_at", sa.BigInteger),
        sa.Column("verdict_at", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger),
    )
    by = {
        "enrollments_by_time": ["requested_at", "enrollment"],
        "enrollments_by_profile": ["profile", "requested_at", "enrollment"],
        "enrollments_by_state": ["state", "requested_at", "enrollment"],
        "enrollments_by_profile_and_state": ["profile", "state", "requested_at", "enrollment"],
        "enrollments_by_action": ["action", "requested_at", "enrollment"],
        "enrollments_by_transaction": ["transaction_id"],
        "enrollments_by_serial": ["serial"],
    }
    for name, columns in by.items():
        op.create_index(name, "enrollments", columns)
    op.create_table(
        "names",
        sa.Column(
            "name",
            sa.Text().with_variant(sa.Text(collation="C"), "postgresql"),
            primary_key=True,
        ),
        sa.Column("enrollment", sa.Text, primary_key=True),
        sa.Column("requested_at", sa.BigInteger, nullable=False),
    )
    op.create_index("names_by_enrollment", "names", ["enrollment"])
    op.create_table(
        "certificates",
        sa.Column("issuer", sa.Text, primary_key=True),
        sa.Column("serial", sa.Text, primary_key=True),
        sa.Column("enrollment", sa.Text),
        sa.Column("profile", sa.Text),
        sa.Column("subject", sa.Text),
        sa.Column("spki_sha256", sa.Text),
        sa.Column("not_before", sa.BigInteger),
        sa.Column("not_after", sa.BigInteger),
        sa.Column("ca_spki_sha256", sa.Text),
        sa.Column("renews", sa.Text),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("revocation_reason", sa.String(32)),
        sa.Column("revoked_by", sa.Text),
    )
    op.create_index("certificates_by_time", "certificates", ["recorded_at", "issuer", "serial"])
    op.create_index("certificates_by_profile", "certificates", ["profile", "recorded_at"])
    op.create_index("certificates_by_key", "certificates", ["spki_sha256"])
    op.create_index("certificates_by_end", "certificates", ["not_after"])
    op.create_table(
        "devices",
        sa.Column("profile", sa.Text, primary_key=True),
        sa.Column("device", sa.Text, primary_key=True),
        sa.Column("first_seen", sa.BigInteger, nullable=False),
        sa.Column("last_seen", sa.BigInteger, nullable=False),
        sa.Column("issued", sa.BigInteger, nullable=False),
        sa.Column("refused", sa.BigInteger, nullable=False),
        sa.Column("last_enrollment", sa.Text, nullable=False),
        sa.Column("last_state", sa.String(16), nullable=False),
    )
    op.create_index("devices_by_time", "devices", ["last_seen"])
    op.create_table(
        "counters",
        sa.Column("hour", sa.BigInteger, primary_key=True),
        sa.Column("profile", sa.Text, primary_key=True),
        sa.Column("challenge", sa.Text, primary_key=True),
        sa.Column("result", sa.String(64), primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "replicas",
        sa.Column("role", sa.String(16), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("first_seen", sa.BigInteger, nullable=False),
        sa.Column("last_seen", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "reloads",
        sa.Column("reload", sa.Text, primary_key=True),
        sa.Column("replica", sa.Text, primary_key=True),
        sa.Column("profile", sa.Text, nullable=False),
        sa.Column("operator", sa.Text),
        sa.Column("done", sa.Integer),
        sa.Column("detail", sa.Text),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
    )
    op.create_index("reloads_by_time", "reloads", ["recorded_at"])
    op.create_table(
        "challenges",
        sa.Column("profile", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("cn", sa.Text),
        sa.Column("sans", sa.Text),
        sa.Column("operator", sa.Text),
        sa.Column("created_at", sa.BigInteger),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("cancelled_at", sa.BigInteger),
        sa.Column("cancelled_by", sa.Text),
    )
    op.create_index("challenges_by_time", "challenges", ["profile", "created_at"])
    op.create_table(
        "dead_letters",
        sa.Column("stream", sa.String(64), primary_key=True),
        sa.Column("sequence", sa.BigInteger, primary_key=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("deliveries", sa.Integer, nullable=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
    )
    op.create_index("dead_letters_by_time", "dead_letters", ["recorded_at"])
    op.create_table(
        "tokens",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("revoked_at", sa.BigInteger),
    )


def downgrade() -> None:
    """The read model is rebuilt from the log, not migrated back."""
    raise NotImplementedError("rebuild the read model from the log instead")
