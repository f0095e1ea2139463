"""The tables of the audit service: every event with its place in the log, and the read model."""

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()
# Ordered by code points, so that a search by prefix is a range of the index. Joined columns must
# have the same collation, or no index is used.
PREFIXED = Text().with_variant(Text(collation="C"), "postgresql")

# Times are those of the log, in Unix nanoseconds, unless noted otherwise.
events = Table(
    "events",
    metadata,
    Column("stream", String(64), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("subject", Text, nullable=False),
    Column("type", String(64), nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    Column("profile", Text),
    Column("enrollment", Text),  # the subject without its stage
    Column("transaction_id", Text),
    Column("device", Text),  # the CSR's subject, from a hold or a verdict
    Column("result", String(64)),  # a reason, or held, approved, denied, issued
    Column("serial", Text),
    Column("digest", LargeBinary, nullable=False),  # SHA-256 of the event and its place
    # As stored, if they are kept; otherwise they are only on the log.
    Column("headers", Text),  # a JSON object
    Column("payload", LargeBinary),  # signatures are over these bytes
    Index("events_by_enrollment", "enrollment", "recorded_at"),
    Index("events_by_transaction", "transaction_id"),
    Index("events_by_serial", "serial"),
    Index("events_by_time", "recorded_at"),
)

# How far a stream is recorded.
positions = Table(
    "positions",
    metadata,
    Column("stream", String(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False, server_default=""),
)

enrollments = Table(
    "enrollments",
    metadata,
    Column("enrollment", PREFIXED, primary_key=True),
    Column("profile", Text, nullable=False),
    Column("fleet", Text),
    Column("transaction_id", Text),
    Column("action", String(32)),  # scep_pkcsreq, scep_renewalreq; _intune if signed
    Column("message_type", Integer),
    Column("signer_sha256", Text),
    Column("client_address", Text),
    Column("gateway", Text),
    Column("device", Text),
    Column("sans", Text),  # a JSON array
    Column("key_type", Text),
    Column("key_bits", Integer),
    Column("spki_sha256", Text),
    Column("csr_sha256", Text),
    Column("challenge", Text),
    Column("device_id", Text),
    Column("claim_issuer", Text),
    Column("claim_subject", Text),
    Column("state", String(16), nullable=False),
    Column("reason", String(64)),
    Column("detail", Text),
    Column("fail_info", Integer),
    Column("renews", Text),
    Column("issuer", Text),
    Column("serial", Text),
    Column("not_after", BigInteger),  # Unix seconds
    Column("operator", Text),
    Column("requested_at", BigInteger, nullable=False),
    Column("held_at", BigInteger),
    Column("decided_at", BigInteger),
    Column("verdict_at", BigInteger),
    Column("ended_at", BigInteger),
    Index("enrollments_by_time", "requested_at", "enrollment"),
    Index("enrollments_by_profile", "profile", "requested_at", "enrollment"),
    Index("enrollments_by_state", "state", "requested_at", "enrollment"),
    Index("enrollments_by_profile_and_state", "profile", "state", "requested_at", "enrollment"),
    Index("enrollments_by_action", "action", "requested_at", "enrollment"),
    Index("enrollments_by_state_and_action", "state", "action", "requested_at", "enrollment"),
    Index("enrollments_by_profile_and_action", "profile", "action", "requested_at", "enrollment"),
    Index("enrollments_by_transaction", "transaction_id"),
    Index("enrollments_by_serial", "serial"),
)

# The search index of enrollments: names in lower case.
names = Table(
    "names",
    metadata,
    Column("name", PREFIXED, primary_key=True),
    Column("enrollment", PREFIXED, primary_key=True),
    Column("requested_at", BigInteger, nullable=False),
    Index("names_by_enrollment", "enrollment"),
    # Covers a search that matches many names: the newest are found in the index alone.
    Index("names_with_times", "name", "requested_at", "enrollment"),
)


def _partial(name: str, *columns: str, where: str) -> Index:
    """Return an index of the certificates that fulfil a condition."""
    condition = text(where)
    return Index(
        name, *columns, "issuer", "serial", sqlite_where=condition, postgresql_where=condition
    )


certificates = Table(
    "certificates",
    metadata,
    Column("issuer", Text, primary_key=True),
    Column("serial", Text, primary_key=True),
    Column("enrollment", Text),
    Column("profile", Text),
    Column("subject", Text),
    Column("spki_sha256", Text),
    Column("not_before", BigInteger),  # Unix seconds
    Column("not_after", BigInteger),  # Unix seconds
    Column("ca_spki_sha256", Text),
    Column("renews", Text),
    Column("recorded_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),  # Unix seconds
    Column("revocation_reason", String(32)),
    Column("revoked_by", Text),
    Column("superseded_by", Text),  # serial number of its newest renewal
    Column("superseded_at", BigInteger),
    Index("certificates_by_time", "recorded_at", "issuer", "serial"),
    Index("certificates_by_profile", "profile", "recorded_at", "issuer", "serial"),
    Index("certificates_by_key", "spki_sha256"),
    # Whether a device has a later certificate.
    Index("certificates_by_subject", "profile", "subject", "recorded_at"),
    # Partial, so that what needs attention stays small beside what was renewed.
    _partial("certificates_by_end", "not_after", where="superseded_by IS NULL"),
    _partial("certificates_by_profile_and_end", "profile", "not_after",
             where="superseded_by IS NULL"),
    _partial("certificates_by_renewal", "superseded_at", where="superseded_at IS NOT NULL"),
    _partial("certificates_by_profile_and_renewal", "profile", "superseded_at",
             where="superseded_at IS NOT NULL"),
    _partial("certificates_by_revocation", "revoked_at", where="revoked_at IS NOT NULL"),
    _partial("certificates_by_profile_and_revocation", "profile", "revoked_at",
             where="revoked_at IS NOT NULL"),
)  # fmt: skip

devices = Table(
    "devices",
    metadata,
    Column("profile", Text, primary_key=True),
    Column("device", Text, primary_key=True),
    Column("first_seen", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False),
    Column("issued", BigInteger, nullable=False),
    Column("refused", BigInteger, nullable=False),
    Column("last_enrollment", Text, nullable=False),
    Column("last_state", String(16), nullable=False),
    Index("devices_by_time", "last_seen"),
)

# Ended enrollments by the hour, for counters and charts.
counters = Table(
    "counters",
    metadata,
    Column("hour", BigInteger, primary_key=True),  # Unix seconds of its start
    Column("profile", Text, primary_key=True),
    Column("challenge", Text, primary_key=True),
    Column("result", String(64), primary_key=True),
    Column("count", BigInteger, nullable=False),
)

replicas = Table(
    "replicas",
    metadata,
    Column("role", String(16), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("first_seen", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False),
)

reloads = Table(
    "reloads",
    metadata,
    Column("reload", Text, primary_key=True),  # the command's subject without its last tokens
    Column("replica", Text, primary_key=True),  # "" for the command itself
    Column("profile", Text, nullable=False),
    Column("operator", Text),
    Column("done", Integer),
    Column("detail", Text),
    Column("recorded_at", BigInteger, nullable=False),
    Index("reloads_by_time", "recorded_at"),
)

challenges = Table(
    "challenges",
    metadata,
    Column("profile", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("cn", Text),
    Column("sans", Text),  # a JSON array
    Column("operator", Text),
    Column("created_at", BigInteger),
    Column("expires_at", BigInteger),  # Unix seconds
    Column("cancelled_at", BigInteger),
    Column("cancelled_by", Text),
    Index("challenges_by_time", "profile", "created_at"),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("stream", String(64), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("subject", Text, nullable=False),
    Column("role", String(16), nullable=False),
    Column("deliveries", Integer, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    Index("dead_letters_by_time", "recorded_at"),
)

# Orders whose answer was lost, so that the CA may have a certificate that no device got.
orphans = Table(
    "orphans",
    metadata,
    Column("issuer", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("enrollment", PREFIXED, nullable=False),
    Column("placement", BigInteger),
    Column("spki_sha256", Text),
    Column("suspected_at", BigInteger),
    Column("settled_at", BigInteger),  # 0: open
    Column("serials", Text),  # JSON
    Column("detail", Text),
    Column("operator", Text),
    Index("orphans_by_time", "suspected_at"),
    Index("orphans_by_enrollment", "enrollment"),
)

# Which dead letters were retried, and as which attempt.
retries = Table(
    "retries",
    metadata,
    Column("stream", String(64), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("operator", Text),
    Column("recorded_at", BigInteger, nullable=False),
)

# Operators' commands, with how many issuers or replicas answered, and how many of them refused.
commands = Table(
    "commands",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("kind", String(32)),
    Column("operator", Text),
    Column("profile", Text),
    Column("enrollment", PREFIXED),
    Column("about", Text),
    Column("note", Text),
    Column("ordered_at", BigInteger),
    Column("expected", Integer),  # number of answers; null if none is expected
    Column("answered", BigInteger, nullable=False),
    Column("refused", BigInteger, nullable=False),
    Column("detail", Text),
    Index("commands_by_time", "ordered_at", "subject"),
    Index("commands_by_operator", "operator", "ordered_at", "subject"),
    Index("commands_by_kind", "kind", "ordered_at", "subject"),
)

# Tables that are not made from the log, and stay when the others are rebuilt.
own = MetaData()

tokens = Table(
    "tokens",
    own,
    Column("name", String(64), primary_key=True),
    Column("level", String(16), nullable=False),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),  # Unix seconds
    Column("revoked_at", BigInteger),  # Unix seconds
)

# Sessions of the page.
sessions = Table(
    "sessions",
    own,
    Column("sha256", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("level", String(16), nullable=False),
    Column("token", String(64)),  # name of the API token that opened it; null for OIDC
    Column("expires_at", BigInteger, nullable=False),  # Unix seconds
    Index("sessions_by_end", "expires_at"),
)

# Up to which certificate the webhook was notified of those that expire.
expiry_notices = Table(
    "expiry_notices",
    own,
    Column("seconds", BigInteger, primary_key=True, autoincrement=False),  # before the end
    Column("not_after", BigInteger, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("serial", Text, nullable=False),
    # The replica that sends, and until when (Unix seconds) no other one does.
    Column("holder", String(64), nullable=False),
    Column("held_until", BigInteger, nullable=False),
)
