"""Initial schema: events, the read model, and the tables that are not made from the log."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "202611271200"
down_revision = None
_PREFIXED: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create every table and index."""
    _certificates()
    _challenges()
    _commands()
    _counters()
    _dead_letters()
    _devices()
    _enrollments()
    _events()
    _names()
    _positions()
    _reloads()
    _replicas()
    _retries()
    _sessions()
    _tokens()


def downgrade() -> None:
    """Do nothing: the read model is rebuilt from the log, not migrated back."""


def _certificates() -> None:
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
    op.create_index("certificates_by_end", "certificates", ["not_after"])
    op.create_index("certificates_by_key", "certificates", ["spki_sha256"])
    op.create_index("certificates_by_profile", "certificates", ["profile", "recorded_at"])
    op.create_index("certificates_by_time", "certificates", ["recorded_at", "issuer", "serial"])


def _challenges() -> None:
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


def _commands() -> None:
    op.create_table(
        "commands",
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("kind", sa.String(32)),
        sa.Column("operator", sa.Text),
        sa.Column("profile", sa.Text),
        sa.Column("enrollment", _PREFIXED),
        sa.Column("about", sa.Text),
        sa.Column("note", sa.Text),
        sa.Column("ordered_at", sa.BigInteger),
        sa.Column("expected", sa.Integer),
        sa.Column("answered", sa.BigInteger, nullable=False),
        sa.Column("refused", sa.BigInteger, nullable=False),
        sa.Column("detail", sa.Text),
    )
    op.create_index("commands_by_kind", "commands", ["kind", "ordered_at", "subject"])
    op.create_index("commands_by_operator", "commands", ["operator", "ordered_at", "subject"])
    op.create_index("commands_by_time", "commands", ["ordered_at", "subject"])


def _counters() -> None:
    op.create_table(
        "counters",
        sa.Column("hour", sa.BigInteger, primary_key=True),
        sa.Column("profile", sa.Text, primary_key=True),
        sa.Column("challenge", sa.Text, primary_key=True),
        sa.Column("result", sa.String(64), primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
    )


def _dead_letters() -> None:
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


def _devices() -> None:
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


def _enrollments() -> None:
    op.create_table(
        "enrollments",
        sa.Column("enrollment", _PREFIXED, primary_key=True),
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
    op.create_index("enrollments_by_action", "enrollments", ["action", "requested_at", "enrollment"])
    op.create_index("enrollments_by_profile", "enrollments", ["profile", "requested_at", "enrollment"])
    op.create_index("enrollments_by_profile_and_action", "enrollments", ["profile", "action", "requested_at", "enrollment"])
    op.create_index("enrollments_by_profile_and_state", "enrollments", ["profile", "state", "requested_at", "enrollment"])
    op.create_index("enrollments_by_serial", "enrollments", ["serial"])
    op.create_index("enrollments_by_state", "enrollments", ["state", "requested_at", "enrollment"])
    op.create_index("enrollments_by_state_and_action", "enrollments", ["state", "action", "requested_at", "enrollment"])
    op.create_index("enrollments_by_time", "enrollments", ["requested_at", "enrollment"])
    op.create_index("enrollments_by_transaction", "enrollments", ["transaction_id"])


def _events() -> None:
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
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("headers", sa.Text),
        sa.Column("payload", sa.LargeBinary),
    )
    op.create_index("events_by_enrollment", "events", ["enrollment", "recorded_at"])
    op.create_index("events_by_serial", "events", ["serial"])
    op.create_index("events_by_time", "events", ["recorded_at"])
    op.create_index("events_by_transaction", "events", ["transaction_id"])


def _names() -> None:
    op.create_table(
        "names",
        sa.Column("name", _PREFIXED, primary_key=True),
        sa.Column("enrollment", _PREFIXED, primary_key=True),
        sa.Column("requested_at", sa.BigInteger, nullable=False),
    )
    op.create_index("names_by_enrollment", "names", ["enrollment"])
    op.create_index("names_with_times", "names", ["name", "requested_at", "enrollment"])


def _positions() -> None:
    op.create_table(
        "positions",
        sa.Column("stream", sa.String(64), primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False, server_default=""),
    )


def _reloads() -> None:
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


def _replicas() -> None:
    op.create_table(
        "replicas",
        sa.Column("role", sa.String(16), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("first_seen", sa.BigInteger, nullable=False),
        sa.Column("last_seen", sa.BigInteger, nullable=False),
    )


def _retries() -> None:
    op.create_table(
        "retries",
        sa.Column("stream", sa.String(64), primary_key=True),
        sa.Column("sequence", sa.BigInteger, primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("operator", sa.Text),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
    )


def _sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("token", sa.String(64)),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("sessions_by_end", "sessions", ["expires_at"])


def _tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("revoked_at", sa.BigInteger),
    )
