"""The catalogue of the log: one row for each kind of subject, from which the rest is derived.

Subjects, NATS grants, consumers' filters, the AsyncAPI document, the log verifier's table of who
may sign what, and the projector's dispatch are derived from `CHANNELS`.
"""

from collections.abc import Mapping
from typing import Final

from shared.log.channels import Channel, Channels
from shared.log.events.base import EventPayload
from shared.log.events.certificates import (
    CaChain,
    CertificateRecorded,
    CertificateStatusChanged,
    CrlPublished,
    KeyCompromised,
    OcspResponseSigned,
    OrderChanged,
    OrphanSettled,
    OrphanSuspected,
    ServiceCertificateIssued,
)
from shared.log.events.commands import (
    ApiTokenCreated,
    ApiTokenRevoked,
    ChallengeCancelled,
    ChallengeCreated,
    CommandAnswered,
    OrphanReported,
    ReloadOrdered,
    ResumeOrdered,
    RetryOrdered,
    RevocationOrdered,
    WithdrawalOrdered,
)
from shared.log.events.enrollment import (
    CertificateConfirmed,
    CertificateIssued,
    CertificateOrdered,
    ConfirmationFailed,
    EnrollmentApproved,
    EnrollmentHeld,
    EnrollmentRejected,
    EnrollmentRequested,
    HoldDecided,
    IssuanceFailed,
)
from shared.log.events.state import (
    ChallengeClaimed,
    CheckpointSigned,
    DeadLetter,
    DeviceCounted,
    GatewayHeartbeat,
    Heartbeat,
    LeaseTaken,
    NoticeBegun,
    RevocationReported,
    RevocationRequested,
    StreamMeasured,
)
from shared.log.roles import SERVICES, Role
from shared.log.stages import ATTEMPT, Stage
from shared.log.streams import (
    CA_CHAINS,
    CERTS,
    CRLS,
    DEAD_LETTERS,
    DEVICES,
    OCSP,
    OPS,
    REPLAYS,
    REPLICAS,
    enroll_stream,
)

_ENROLL: Final = enroll_stream("{shard}")
_GATEWAY = (Role.GATEWAY,)
_VALIDATOR = (Role.VALIDATOR,)
_ISSUER = (Role.ISSUER,)
_AUDIT = (Role.AUDIT,)

REQUEST: Final = Channel(
    f"{ATTEMPT}.{Stage.REQUEST}", (EnrollmentRequested,), _ENROLL,
    writers=_GATEWAY, consumers=(Role.VALIDATOR, Role.AUDIT), readers=_GATEWAY,
)  # fmt: skip
HOLD: Final = Channel(
    f"{ATTEMPT}.{Stage.HOLD}", (EnrollmentHeld,), _ENROLL,
    writers=_VALIDATOR, consumers=_AUDIT, readers=_GATEWAY,
)  # fmt: skip
DECISION: Final = Channel(
    f"{ATTEMPT}.{Stage.DECISION}", (HoldDecided,), _ENROLL,
    writers=_AUDIT, consumers=(Role.VALIDATOR, Role.AUDIT),
)  # fmt: skip
VERDICT: Final = Channel(
    f"{ATTEMPT}.{Stage.VERDICT}", (EnrollmentApproved, EnrollmentRejected), _ENROLL,
    writers=_VALIDATOR, consumers=(Role.ISSUER, Role.AUDIT), readers=_GATEWAY,
)  # fmt: skip
# The intent, written only if the connector cannot record the serial number before asking the CA.
ORDER: Final = Channel(
    f"{ATTEMPT}.{Stage.ORDER}", (CertificateOrdered,), _ENROLL,
    writers=_ISSUER, consumers=_AUDIT,
)  # fmt: skip
OUTCOME: Final = Channel(
    f"{ATTEMPT}.{Stage.OUTCOME}", (CertificateIssued, IssuanceFailed), _ENROLL,
    writers=_ISSUER, consumers=_AUDIT, readers=_GATEWAY,
)  # fmt: skip
# Only of certificates that a connection's service must accept first.
CONFIRMATION: Final = Channel(
    f"{ATTEMPT}.{Stage.CONFIRMATION}", (CertificateConfirmed, ConfirmationFailed), _ENROLL,
    writers=_VALIDATOR, consumers=_AUDIT, readers=_GATEWAY,
)  # fmt: skip

CERTIFICATE: Final = Channel(
    "cert.{issuer}.{serial}.issued", (CertificateRecorded,), CERTS,
    writers=_ISSUER, consumers=(Role.ISSUER, Role.AUDIT), readers=_GATEWAY,
)  # fmt: skip
CERTIFICATE_STATUS: Final = Channel(
    "cert.{issuer}.{serial}.status.{number}", (CertificateStatusChanged,), CERTS,
    writers=_ISSUER, consumers=_AUDIT,
)  # fmt: skip
KEY: Final = Channel(
    "key.{spki_sha256}.issued.{issuer}.{serial}", (CertificateRecorded,), CERTS,
    writers=_ISSUER, consumers=_AUDIT,
)  # fmt: skip
KEY_COMPROMISE: Final = Channel(
    "key.{spki_sha256}.compromised.{number}", (KeyCompromised,), CERTS,
    writers=_ISSUER, consumers=_AUDIT,
)  # fmt: skip
ORDER_CHANGE: Final = Channel(
    "order.{issuer}.{key}.{number}", (OrderChanged,), CERTS,
    writers=_ISSUER, consumers=_AUDIT,
)  # fmt: skip
ORPHAN: Final = Channel(
    "orphan.{issuer}.{key}.{number}", (OrphanSuspected, OrphanSettled), CERTS,
    writers=_ISSUER, consumers=_AUDIT,
)  # fmt: skip
SERVICE_CERTIFICATE: Final = Channel(
    "service.{issuer}.{serial}.issued", (ServiceCertificateIssued,), CERTS,
    writers=_ISSUER, consumers=_AUDIT,
)  # fmt: skip
RA_CERTIFICATE: Final = Channel(
    "ra.{issuer}.{spki_sha256}.{number}", (ServiceCertificateIssued,), CERTS,
    writers=_ISSUER, consumers=_AUDIT, readers=_GATEWAY,
)  # fmt: skip
OCSP_RESPONSE: Final = Channel(
    "ocsp.{issuer}.{serial}.{number}", (OcspResponseSigned,), OCSP, writers=_ISSUER
)
# `kind` is "head" (an event, under the CA's key), "head-8-3" for partition 3 of 8, or "data"
# (pieces, under the CRL's digest).
CRL: Final = Channel(
    "crl.{issuer}.{sha256}.{kind}.{number}", (CrlPublished,), CRLS, writers=_ISSUER
)
CHAIN: Final = Channel("$KV.CA_CHAINS.{issuer}", (CaChain,), CA_CHAINS, writers=_ISSUER)

REVOCATION: Final = Channel(
    "ops.revoke.{issuer}.{serial}.{attempt}.ordered", (RevocationOrdered,), OPS,
    writers=_AUDIT, consumers=(Role.ISSUER, Role.AUDIT),
)  # fmt: skip
REVOCATION_ANSWER: Final = Channel(
    "ops.revoke.{issuer}.{serial}.{attempt}.answered", (CommandAnswered,), OPS,
    writers=_ISSUER, consumers=_AUDIT,
)  # fmt: skip
WITHDRAWAL: Final = Channel(
    "ops.withdraw.{issuer}.{serial}.{attempt}.ordered", (WithdrawalOrdered,), OPS,
    writers=_VALIDATOR, consumers=(Role.ISSUER, Role.AUDIT),
)  # fmt: skip
WITHDRAWAL_ANSWER: Final = Channel(
    "ops.withdraw.{issuer}.{serial}.{attempt}.answered", (CommandAnswered,), OPS,
    writers=_ISSUER, consumers=_AUDIT,
)  # fmt: skip
# What a connection's service asked to be revoked, and the result that it received. `context` is
# a digest.
REVOCATION_REQUEST: Final = Channel(
    "ops.asked.{connection}.{context}.0.received", (RevocationRequested,), OPS,
    writers=_VALIDATOR, consumers=_AUDIT,
)  # fmt: skip
REVOCATION_REPORT: Final = Channel(
    "ops.asked.{connection}.{context}.0.reported", (RevocationReported,), OPS,
    writers=_VALIDATOR, consumers=_AUDIT,
)  # fmt: skip
ORPHAN_REPORT: Final = Channel(
    "ops.orphan.{issuer}.{key}.{attempt}.ordered", (OrphanReported,), OPS,
    writers=_AUDIT, consumers=(Role.ISSUER, Role.AUDIT),
)  # fmt: skip
ORPHAN_ANSWER: Final = Channel(
    "ops.orphan.{issuer}.{key}.{attempt}.answered", (CommandAnswered,), OPS,
    writers=_ISSUER, consumers=_AUDIT,
)  # fmt: skip
# For a retried revocation, the parts are issuer, serial number and attempt.
RETRY: Final = Channel(
    "ops.retry.{transaction}.{csr}.{attempt}.ordered", (RetryOrdered,), OPS,
    writers=_AUDIT, consumers=_AUDIT, readers=_GATEWAY,
)  # fmt: skip
RESUME: Final = Channel(
    "ops.resume.{transaction}.{csr}.{attempt}-{number}.ordered", (ResumeOrdered,), OPS,
    writers=_AUDIT, consumers=(Role.VALIDATOR, Role.ISSUER, Role.AUDIT),
)  # fmt: skip
RA_RELOAD: Final = Channel(
    "ops.ra.{profile}.{command}.all.ordered", (ReloadOrdered,), OPS,
    writers=_AUDIT, consumers=_AUDIT, readers=_GATEWAY,
)  # fmt: skip
# Written by the audit service, which sees in gateways' heartbeats what they did.
RA_RELOAD_ANSWER: Final = Channel(
    "ops.ra.{profile}.{command}.{replica}.answered", (CommandAnswered,), OPS,
    writers=_AUDIT, consumers=_AUDIT,
)  # fmt: skip
ANCHOR_RELOAD: Final = Channel(
    "ops.reload.{profile}.{command}.all.ordered", (ReloadOrdered,), OPS,
    writers=_AUDIT, consumers=_AUDIT,
)  # fmt: skip
ANCHOR_RELOAD_ANSWER: Final = Channel(
    "ops.reload.{profile}.{command}.{replica}.answered", (CommandAnswered,), OPS,
    writers=_VALIDATOR, consumers=_AUDIT,
)  # fmt: skip
CHALLENGE: Final = Channel(
    "ops.challenge.{profile}.{digest}.0.created", (ChallengeCreated,), OPS,
    writers=_AUDIT, consumers=_AUDIT,
)  # fmt: skip
CHALLENGE_CANCELLATION: Final = Channel(
    "ops.challenge.{profile}.{digest}.{number}.cancelled", (ChallengeCancelled,), OPS,
    writers=_AUDIT, consumers=_AUDIT,
)  # fmt: skip
API_TOKEN: Final = Channel(
    "ops.token.{name}.{command}.0.created", (ApiTokenCreated,), OPS,
    writers=_AUDIT, consumers=_AUDIT,
)  # fmt: skip
API_TOKEN_REVOCATION: Final = Channel(
    "ops.token.{name}.{command}.0.revoked", (ApiTokenRevoked,), OPS,
    writers=_AUDIT, consumers=_AUDIT,
)  # fmt: skip
CHECKPOINT: Final = Channel(
    "ops.checkpoint.{stream}.{sequence}.audit.signed", (CheckpointSigned,), OPS,
    writers=_AUDIT, consumers=_AUDIT,
)  # fmt: skip

REPLAY: Final = Channel(
    "replay.{kind}.{digest}.{number}", (ChallengeClaimed,), REPLAYS, writers=_VALIDATOR
)
NOTICE: Final = Channel("notice.{attempt}.{number}", (NoticeBegun,), REPLAYS, writers=_VALIDATOR)
LEASE: Final = Channel("lease.{connection}.{number}", (LeaseTaken,), REPLAYS, writers=_VALIDATOR)
DEVICE: Final = Channel(
    "$KV.DEVICES.{device}.{number}", (DeviceCounted,), DEVICES, writers=_VALIDATOR
)
HEARTBEAT: Final = Channel(
    "$KV.REPLICAS.{role}.{name}", (GatewayHeartbeat, Heartbeat), REPLICAS,
    writers=SERVICES,
)  # fmt: skip
QUOTA: Final = Channel("quota.{stream}", (StreamMeasured,), "", writers=_AUDIT)  # not stored
DEAD_LETTER: Final = Channel(
    "dead.{role}.{stream}.{sequence}", (DeadLetter,), DEAD_LETTERS,
    writers=(Role.VALIDATOR, Role.ISSUER), consumers=_AUDIT,
)  # fmt: skip

CHANNELS: Final = Channels(
    (
        REQUEST, HOLD, DECISION, VERDICT, ORDER, OUTCOME, CONFIRMATION,
        CERTIFICATE, CERTIFICATE_STATUS, KEY, KEY_COMPROMISE, ORDER_CHANGE, ORPHAN,
        SERVICE_CERTIFICATE, RA_CERTIFICATE, OCSP_RESPONSE, CRL, CHAIN,
        REVOCATION, REVOCATION_ANSWER, WITHDRAWAL, WITHDRAWAL_ANSWER,
        REVOCATION_REQUEST, REVOCATION_REPORT, ORPHAN_REPORT, ORPHAN_ANSWER,
        RETRY, RESUME, RA_RELOAD, RA_RELOAD_ANSWER,
        ANCHOR_RELOAD, ANCHOR_RELOAD_ANSWER, CHALLENGE, CHALLENGE_CANCELLATION,
        API_TOKEN, API_TOKEN_REVOCATION, CHECKPOINT,
        REPLAY, NOTICE, LEASE, DEVICE, HEARTBEAT, QUOTA, DEAD_LETTER,
    )
)  # fmt: skip
STAGES: Final[Mapping[Stage, Channel]] = {
    Stage.REQUEST: REQUEST,
    Stage.HOLD: HOLD,
    Stage.DECISION: DECISION,
    Stage.VERDICT: VERDICT,
    Stage.ORDER: ORDER,
    Stage.OUTCOME: OUTCOME,
    Stage.CONFIRMATION: CONFIRMATION,
}
EVENT_TYPES: Final[dict[str, type[EventPayload]]] = {
    kind.__name__: kind for row in CHANNELS.rows for kind in row.events
}
VERSIONS: Final[dict[str, int]] = dict.fromkeys(EVENT_TYPES, 1)
