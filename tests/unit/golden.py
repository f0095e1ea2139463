"""The value behind every golden file: one event of each (type, version) ever written."""

import json
from pathlib import Path
from typing import Any, Final

from shared.events import (
    CaChain,
    CertificateIssued,
    CertificateRecorded,
    CertificateTemplate,
    DeadLetter,
    EnrollmentApproved,
    EnrollmentRejected,
    EnrollmentRequested,
    Event,
    Facts,
    GateResult,
    IssuanceFailed,
    Message,
    TemplateExtension,
    encode,
    sign,
)
from shared.reasons import Reason
from shared.scep.errors import FailInfo
from shared.subjects import EnrollmentId, Stage
from tests.unit.world import signer

DIRECTORY: Final = Path(__file__).parents[1] / "golden"
ENROLLMENT: Final = EnrollmentId(
    "0", "corp", "abcdefghijklmnopqrstuvwxyz", "zyxwvutsrqponmlkjihgfedcba", 0
)
REQUEST: Final = "0123456789abcdef" * 4
SIGNER: Final = signer(b"g")

_FACTS: Final = Facts(
    subject="CN=Prüfgerät 7, O=Lab",
    sans=("dns:device.example", "ip:192.0.2.7"),
    key_type="rsa",
    key_bits=2048,
    spki_sha256="aa" * 32,
    csr_sha256="bb" * 32,
    challenge="static",
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

EVENTS: Final[dict[tuple[str, int], tuple[str, Event]]] = {
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
        ),
    ),
    ("CertificateIssued", 1): (
        ENROLLMENT.subject(Stage.OUTCOME),
        CertificateIssued(
            request_sha256=REQUEST,
            issuer="local",
            serial="40112233445566778899aabbccddeeff",
            certificate=b"\x30\x0bcertificate",
            not_after=1798761600,
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
        "cert.local.40112233445566778899aabbccddeeff.issued",
        CertificateRecorded(
            request_sha256=REQUEST,
            enrollment=ENROLLMENT.prefix(),
            spki_sha256="aa" * 32,
            subject="CN=Prüfgerät 7, O=Lab",
            not_before=1767225000,
            not_after=1798761600,
        ),
    ),
    ("CaChain", 1): ("$KV.CA_CHAINS.local", CaChain(certificates=(b"\x30\x02ca", b"\x30\x04root"))),
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


def write(kind: str, version: int) -> Message:
    """The event as its writer would write it today."""
    subject, event = EVENTS[kind, version]
    if isinstance(event, EnrollmentRequested | CaChain | DeadLetter):
        return encode(event)
    return sign(event, subject, event.request_sha256, SIGNER)


def path(kind: str, version: int) -> Path:
    return DIRECTORY / f"{kind}.v{version}.json"


def read(kind: str, version: int) -> tuple[str, Message]:
    """(subject, message) of a golden file; its payload is compact JSON in the file's order."""
    table: dict[str, Any] = json.loads(path(kind, version).read_text())
    payload = json.dumps(table["payload"], separators=(",", ":"), ensure_ascii=False)
    return table["subject"], Message(payload.encode(), table["headers"])
