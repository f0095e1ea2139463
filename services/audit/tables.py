"""The audit service's tables: every event with its place in the log, and how far it was read."""

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

events = Table(
    "events",
    metadata,
    Column("stream", String(64), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("subject", Text, nullable=False),
    Column("type", String(64), nullable=False),
    Column("recorded_at", BigInteger, nullable=False),  # the log's time, Unix nanoseconds
    Column("profile", Text),
    Column("enrollment", Text),  # the subject without its stage
    Column("transaction_id", Text),
    Column("device", Text),  # the CSR's subject, once a verdict told it
    Column("result", String(64)),  # the reason of a refusal, or "approved", "issued"
    Column("serial", Text),
    Column("headers", Text, nullable=False),  # as stored, a JSON object
    Column("payload", LargeBinary, nullable=False),  # as stored: signatures are over these bytes
    Index("events_by_enrollment", "enrollment", "recorded_at"),
    Index("events_by_transaction", "transaction_id"),
    Index("events_by_serial", "serial"),
    Index("events_by_time", "recorded_at"),
)

positions = Table(
    "positions",
    metadata,
    Column("stream", String(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
)
