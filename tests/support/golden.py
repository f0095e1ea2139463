"""The value behind every golden file: one event of each (type, version) ever written."""

import json
from pathlib import Path
from typing import Any, Final

import msgspec

from shared.bus.topology import quota_hints
from shared.log.catalog import VERSIONS
from shared.log.envelope import Message, encode, sign
from shared.log.events.base import EventPayload
from shared.log.events.certificates import (
    CaChain,
    CertificateRecorded,
    CertificateStatus,
    CertificateStatusChanged,
    CrlPublished,
    KeyCompromised,
    OcspResponseSigned,
    OrderChanged,
    OrderStep,
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
    RevocationReason,
    WithdrawalOrdered,
)
from shared.log.events.enrollment import (
    AssignedNames,
    CertificateConfirmed,
    CertificateIssued,
    CertificateOrdered,
    CertificateTemplate,
    ConfirmationFailed,
    EnrollmentApproved,
    EnrollmentHeld,
    EnrollmentRejected,
    EnrollmentRequested,
    Facts,
    GateResult,
    HoldDecided,
    IssuanceFailed,
    RenewedCertificate,
    TemplateExtension,
)
from shared.log.events.state import (
    ChallengeClaimed,
    CheckpointSigned,
    Claim,
    CountedEnrollment,
    DeadLetter,
    DeviceCounted,
    GatewayHeartbeat,
    Heartbeat,
    LeaseTaken,
    LoadedAnchor,
    NoticeBegun,
    RevocationReported,
    RevocationRequested,
    StreamMeasured,
    TenantReport,
)
from shared.log.reasons import Reason
from shared.log.stages import Stage
from shared.log.subjects import (
    EnrollmentId,
    anchor_reload_command,
    api_token_created,
    api_token_revoked,
    certificate_issued,
    certificate_status,
    checkpoint,
    connection_lease,
    crl_head,
    device_subject,
    key_compromised,
    notice_begun,
    ocsp_response,
    one_time_cancelled,
    one_time_created,
    order_change,
    orphan_command,
    possible_orphan,
    replay_record,
    replica_subject,
    resume_command,
    retry_command,
    revocation_answer,
    revocation_command,
    revocation_report,
    revocation_request,
    service_certificate,
    withdrawal_command,
)
from shared.scep.errors import FailInfo
from tests.support.world import signer

DIRECTORY: Final = Path(__file__).parents[1] / "golden"
ENROLLMENT: Final = EnrollmentId(
    "0", "corp", "abcdefghijklmnopqrstuvwxyz", "zyxwvutsrqponmlkjihgfedcba", 0
)
REQUEST: Final = "0123456789abcdef" * 4
SIGNER: Final = signer(b"g")
SERIAL: Final = "40112233445566778899aabbccddeeff"
ORDER_KEY: Final = "0123456789abcdef" * 2
OLD_SERIAL: Final = "4100112233445566778899aabbccddee"

_FACTS: Final = Facts(
    subject="CN=Prüfgerät 7, O=Lab",
    sans=("dns:device.example", "ip:192.0.2.7"),
    key_type="rsa",
    key_bits=2048,
    spki_sha256="aa" * 32,
    csr_sha256="bb" * 32,
    challenge="signed",
    device_id="8a1b2c3d-0000-4000-8000-0123456789ab",
    fleet="laptops",
)
_CLAIM: Final = Claim(
    issuer="connector-1",
    subject="device-guid",
    device="Prüfgerät 7",
    issued_at=1767225500,
    expires_at=1767229200,
    record=replay_record("signed", "abcdefghijklmnopqrstuvwxyz", "*"),
)
_TEMPLATE: Final = CertificateTemplate(
    issuer="local",
    ca_spki_sha256="cc" * 32,
    subject=b"\x30\x00",
    spki=b"\x30\x03\x02\x01\x07",
    not_before=1767225000,
    not_after=1798761600,
    extensions=(
        TemplateExtension(oid="2.5.29.15", critical=True, value=b"\x03\x02\x05\xa0"),
        TemplateExtension(oid="2.5.29.14", critical=False, value=b"\x04\x02\xbe\xef"),
    ),
)

EVENTS: Final[dict[tuple[str, int], tuple[str, EventPayload]]] = {
    ("EnrollmentRequested", 1): (
        ENROLLMENT.subject(Stage.REQUEST),
        EnrollmentRequested(
            pki_message=b"\x30\x80pkiMessage\x00\x00",
            content_key=bytes(range(64)),
            sealing_key="0011223344556677",
            transaction_id="0123456789ABCDEF",
            message_type=19,
            signer_sha256="dd" * 32,
            client_address="192.0.2.1",
            gateway="gateway-0",
            reply_budget_ms=10000,
        ),
    ),
    ("EnrollmentApproved", 1): (
        ENROLLMENT.subject(Stage.VERDICT),
        EnrollmentApproved(
            request_sha256=REQUEST,
            gateway="gateway-0",
            facts=_FACTS,
            gates=(GateResult(gate="key", passed=True), GateResult(gate="subject", passed=True)),
            template=_TEMPLATE,
            valid_until=1767312000,
            renews=RenewedCertificate(serial=OLD_SERIAL, not_after=1767225600, key_uses=1),
            existing=SERIAL,
            csr=b"\x01sealed",
            csr_key="0123456789abcdef",
            claim=_CLAIM,
        ),
    ),
    ("EnrollmentHeld", 1): (
        ENROLLMENT.subject(Stage.HOLD),
        EnrollmentHeld(
            request_sha256=REQUEST,
            facts=_FACTS,
            gates=(GateResult(gate="key", passed=True),),
            claim=_CLAIM,
            assigned=AssignedNames(
                subject=b"\x30\x00",
                san=b"\x30\x03\x82\x01a",
                sid="S-1-5-21-1004336348-1177238915-682003330-1104",
            ),
        ),
    ),
    ("HoldDecided", 1): (
        ENROLLMENT.subject(Stage.DECISION),
        HoldDecided(
            request_sha256=REQUEST, approved=True, operator="jörg@host", note="seen on site"
        ),
    ),
    ("EnrollmentRejected", 1): (
        ENROLLMENT.subject(Stage.VERDICT),
        EnrollmentRejected(
            request_sha256=REQUEST,
            reason=Reason.CHALLENGE_WRONG,
            fail_info=FailInfo.BAD_MESSAGE_CHECK,
            detail="the challenge password is wrong",
            facts=_FACTS,
            gates=(GateResult(gate="challenge", passed=False, detail="wrong"),),
            claim=_CLAIM,
        ),
    ),
    ("CertificateOrdered", 1): (
        ENROLLMENT.subject(Stage.ORDER),
        CertificateOrdered(
            request_sha256=REQUEST,
            issuer="corp",
            key="0123456789abcdef0123456789abcdef",
            lease_until=1767225660,
        ),
    ),
    ("CertificateIssued", 1): (
        ENROLLMENT.subject(Stage.OUTCOME),
        CertificateIssued(
            request_sha256=REQUEST,
            issuer="local",
            serial=SERIAL,
            certificate=b"\x30\x0bcertificate",
            not_after=1798761600,
        ),
    ),
    ("CertificateConfirmed", 1): (
        ENROLLMENT.subject(Stage.CONFIRMATION),
        CertificateConfirmed(
            request_sha256=REQUEST,
            connection="contoso",
            serial=SERIAL,
            activity="1b4e28ba-2fa1-11d2-883f-0016d3cca427",
        ),
    ),
    ("ConfirmationFailed", 1): (
        ENROLLMENT.subject(Stage.CONFIRMATION),
        ConfirmationFailed(
            request_sha256=REQUEST,
            connection="contoso",
            serial=SERIAL,
            reason=Reason.NOT_CONFIRMED,
            fail_info=FailInfo.BAD_REQUEST,
            detail="Intune could not be notified",
            withdrawn=True,
        ),
    ),
    ("NoticeBegun", 1): (
        notice_begun(ENROLLMENT, 0),
        NoticeBegun(
            request_sha256=REQUEST,
            connection="contoso",
            enrollment=ENROLLMENT.prefix(),
            replica="validator-0",
        ),
    ),
    ("LeaseTaken", 1): (
        connection_lease("contoso", 3),
        LeaseTaken(connection="contoso", replica="validator-0", until=1767225720),
    ),
    ("WithdrawalOrdered", 1): (
        withdrawal_command("local", SERIAL, 0),
        WithdrawalOrdered(
            issuer="local",
            serial=SERIAL,
            attempt=0,
            reason=RevocationReason.CESSATION_OF_OPERATION,
            operator="contoso",
            cause="unconfirmed",
        ),
    ),
    ("RevocationRequested", 1): (
        revocation_request("contoso", "request 7"),
        RevocationRequested(connection="contoso", context="request 7", serial="0A:BC"),
    ),
    ("RevocationReported", 1): (
        revocation_report("contoso", "request 7"),
        RevocationReported(
            connection="contoso",
            context="request 7",
            succeeded=False,
            error="CertificateNotFoundError",
            detail="no such certificate was issued for this tenant",
        ),
    ),
    ("IssuanceFailed", 1): (
        ENROLLMENT.subject(Stage.OUTCOME),
        IssuanceFailed(
            request_sha256=REQUEST,
            reason=Reason.BEYOND_CEILING,
            fail_info=FailInfo.BAD_REQUEST,
            detail="the certificate would outlive its CA",
        ),
    ),
    ("CertificateRecorded", 1): (
        certificate_issued("local", SERIAL),
        CertificateRecorded(
            request_sha256=REQUEST,
            enrollment=ENROLLMENT.prefix(),
            spki_sha256="aa" * 32,
            subject="CN=Prüfgerät 7, O=Lab",
            not_before=1767225000,
            not_after=1798761600,
            serial=SERIAL,
            ca_spki_sha256="cc" * 32,
            names_sha256="ee" * 32,
            renews=OLD_SERIAL,
            key_uses=1,
            sid="S-1-5-21-1004336348-1177238915-682003330-1104",
        ),
    ),
    ("RevocationOrdered", 1): (
        revocation_command("local", SERIAL, 1),
        RevocationOrdered(
            issuer="local",
            serial=SERIAL,
            reason=RevocationReason.KEY_COMPROMISE,
            operator="jörg@host",
            attempt=1,
        ),
    ),
    ("CommandAnswered", 1): (
        revocation_answer(revocation_command("local", SERIAL, 1)),
        CommandAnswered(request_sha256=REQUEST, done=True, detail="revoked; on CRL number 7"),
    ),
    ("OrderChanged", 1): (
        order_change("corp", ORDER_KEY, 0),
        OrderChanged(
            request_sha256=REQUEST,
            enrollment=ENROLLMENT.prefix(),
            issuer="corp",
            key=ORDER_KEY,
            step=OrderStep.PENDING,
            placement=1,
            since=1767225600,
            lease_until=0,
            handle="https://ca.example/orders/7",
        ),
    ),
    ("OrphanSuspected", 1): (
        possible_orphan("corp", ORDER_KEY, 0),
        OrphanSuspected(
            request_sha256=REQUEST,
            enrollment=ENROLLMENT.prefix(),
            issuer="corp",
            key=ORDER_KEY,
            placement=0,
            spki_sha256="aa" * 32,
            ca_spki_sha256="cc" * 32,
        ),
    ),
    ("OrphanSettled", 1): (
        possible_orphan("corp", ORDER_KEY, 1),
        OrphanSettled(
            request_sha256=REQUEST,
            enrollment=ENROLLMENT.prefix(),
            issuer="corp",
            key=ORDER_KEY,
            serials=(SERIAL,),
            detail="revoked at the CA",
            operator="jörg@host",
        ),
    ),
    ("OrphanReported", 1): (
        orphan_command("corp", ORDER_KEY, 0),
        OrphanReported(
            issuer="corp",
            key=ORDER_KEY,
            attempt=0,
            placement=0,
            certificates=(b"\x30\x0bcertificate",),
            operator="jörg@host",
        ),
    ),
    ("CertificateStatusChanged", 1): (
        certificate_status("local", SERIAL, 0),
        CertificateStatusChanged(
            request_sha256=REQUEST,
            serial=SERIAL,
            ca_spki_sha256="cc" * 32,
            status=CertificateStatus.REASON_CHANGED,
            reason=RevocationReason.KEY_COMPROMISE,
            revoked_at=1767225601,
            operator="jörg@host",
            command=42,
            not_after=1798761600,
            spki_sha256="aa" * 32,
        ),
    ),
    ("KeyCompromised", 1): (
        key_compromised("aa" * 32, 0),
        KeyCompromised(request_sha256=REQUEST, serial=SERIAL),
    ),
    ("CrlPublished", 1): (
        crl_head("local", "cc" * 32, 7, "8-3"),
        CrlPublished(
            issuer="local",
            ca_spki_sha256="cc" * 32,
            number=7,
            this_update=1767225600,
            next_update=1767830400,
            chunks=2,
            sha256="ff" * 32,
            position=42,
            partitions=8,
            partition=3,
        ),
    ),
    ("OcspResponseSigned", 1): (
        ocsp_response("local", SERIAL, 3),
        OcspResponseSigned(
            issuer="local",
            serial=SERIAL,
            ca_spki_sha256="cc" * 32,
            this_update=1767225600,
            next_update=1767830400,
            not_after=1798761600,
            position=42,
            responses={"sha1": b"\x30\x03\x0a\x01\x00"},
        ),
    ),
    ("ServiceCertificateIssued", 1): (
        service_certificate("local", SERIAL),
        ServiceCertificateIssued(
            issuer="local",
            serial=SERIAL,
            ca_spki_sha256="cc" * 32,
            purpose="ocsp",
            certificate=b"\x30\x00",
        ),
    ),
    ("CaChain", 1): (
        "$KV.CA_CHAINS.local",
        CaChain(
            certificates=(b"\x30\x02ca", b"\x30\x04root"),
            previous=(b"\x30\x03old",),
            next_signed=b"\x30\x04next",
        ),
    ),
    ("ChallengeClaimed", 1): (
        replay_record("signed", "abcdefghijklmnopqrstuvwxyz", 0),
        ChallengeClaimed(
            request_sha256=REQUEST,
            kind="signed",
            enrollment=ENROLLMENT.prefix(),
            spki_sha256="aa" * 32,
            expires_at=1767229260,
        ),
    ),
    ("DeviceCounted", 1): (
        device_subject("abcdefghijklmnopqrstuvwxyz", 0),
        DeviceCounted(
            request_sha256=REQUEST,
            entries=(CountedEnrollment(enrollment=ENROLLMENT.prefix(), at=1767225600),),
        ),
    ),
    ("ChallengeCreated", 1): (
        one_time_created("corp", "abcdefghijklmnopqrstuvwxyz"),
        ChallengeCreated(
            profile="corp",
            expires_at=1767229200,
            operator="jörg",
            cn="printer-1",
            sans=("dns:printer-1.example",),
        ),
    ),
    ("ChallengeCancelled", 1): (
        one_time_cancelled("corp", "abcdefghijklmnopqrstuvwxyz", 0),
        ChallengeCancelled(profile="corp", operator="jörg"),
    ),
    ("ReloadOrdered", 1): (
        anchor_reload_command("corp", "0123456789abcdef"),
        ReloadOrdered(profile="corp", operator="jörg", replicas=("validator-0", "validator-1")),
    ),
    ("RetryOrdered", 1): (
        retry_command(ENROLLMENT.at(1)),
        RetryOrdered(
            stream="ENROLL_0",
            sequence=7,
            enrollment=ENROLLMENT.prefix(),
            attempt=1,
            operator="jörg",
        ),
    ),
    ("ResumeOrdered", 1): (
        resume_command(ENROLLMENT, 2),
        ResumeOrdered(
            enrollment=ENROLLMENT.prefix(),
            stage=Stage.VERDICT,
            number=2,
            give_up=False,
            operator="scepstream",
        ),
    ),
    ("ApiTokenCreated", 1): (
        api_token_created("helpdesk", "0123456789abcdef"),
        ApiTokenCreated(name="helpdesk", level="operator", operator="jörg"),
    ),
    ("ApiTokenRevoked", 1): (
        api_token_revoked("helpdesk", "0123456789abcdef"),
        ApiTokenRevoked(name="helpdesk", operator="jörg"),
    ),
    ("StreamMeasured", 1): (
        quota_hints("ENROLL_0"),
        StreamMeasured(stream="ENROLL_0", used=3, most=4, at=1767225600),
    ),
    ("Heartbeat", 1): (
        replica_subject("validator", "validator-0"),
        Heartbeat(
            role="validator",
            name="validator-0",
            since=1767225600,
            anchors={"corp": "ff" * 32},
            tenants=(
                TenantReport(
                    connection="contoso",
                    tenant="contoso.example",
                    cloud="public",
                    credential_kind="certificate",
                    credential=1,
                    calls={"success": 3},
                ),
            ),
            loaded=(
                LoadedAnchor(
                    profile="corp",
                    issuer="https://sts.example/1",
                    subject="CN=connector",
                    sha256="ee" * 32,
                    not_before=1764633600,
                    not_after=1796169600,
                ),
            ),
        ),
    ),
    ("GatewayHeartbeat", 1): (
        replica_subject("gateway", "gateway-0"),
        GatewayHeartbeat(name="gateway-0", since=1767225600, ra={"corp": "ff" * 32}, command=4),
    ),
    ("CheckpointSigned", 1): (
        checkpoint("ENROLL_0", 4711),
        CheckpointSigned(stream="ENROLL_0", sequence=4711, digest="ab" * 32),
    ),
    ("DeadLetter", 1): (
        "dead.validator.ENROLL_0.7",
        DeadLetter(
            subject=ENROLLMENT.subject(Stage.REQUEST),
            stream="ENROLL_0",
            sequence=7,
            deliveries=13,
            role="validator",
        ),
    ),
}


def newest(kind: str) -> EventPayload:
    """The event of this type as it is written today."""
    return EVENTS[kind, VERSIONS[kind]][1]


def event(kind: type[EventPayload], /, **changes: Any) -> EventPayload:
    """The event of this type with other values in it."""
    return msgspec.structs.replace(newest(kind.__name__), **changes)


def write(kind: str, version: int) -> Message:
    """The event as its writer would write it today."""
    subject, event = EVENTS[kind, version]
    if isinstance(event, EnrollmentRequested | CaChain | DeadLetter):
        return encode(event)
    return sign(event, subject, SIGNER)


def path(kind: str, version: int) -> Path:
    return DIRECTORY / f"{kind}.v{version}.json"


def read(kind: str, version: int) -> tuple[str, Message]:
    """(subject, message) of a golden file; its payload is compact JSON in the file's order."""
    table: dict[str, Any] = json.loads(path(kind, version).read_text())
    payload = json.dumps(table["payload"], separators=(",", ":"), ensure_ascii=False)
    return table["subject"], Message(payload.encode(), table["headers"])
