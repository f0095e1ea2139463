"""AWS Private CA's API, written from its public documents: JSON 1.1, signed with SigV4.

Requests are checked by AWS's own model of the API, which botocore contains.
"""

import base64
import datetime as dt
import hashlib
import hmac
import ipaddress
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final

import botocore.session
from botocore.validate import ParamValidator
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.issuers.authority import FakeCa

REGION: Final = "eu-central-1"
ARN: Final = (
    f"arn:aws:acm-pca:{REGION}:123456789012:certificate-authority/"
    "12345678-1234-1234-1234-123456789012"
)
TEMPLATES: Final = (
    "arn:aws:acm-pca:::template/BlankEndEntityCertificate_APIPassthrough/V1",
    "arn:aws:acm-pca:::template/BlankEndEntityCertificate_CriticalBasicConstraints_APIPassthrough/V1",
)
TOKEN_SECONDS: Final = 300
OIDS: Final = {
    "SERVER_AUTH": "1.3.6.1.5.5.7.3.1",
    "CLIENT_AUTH": "1.3.6.1.5.5.7.3.2",
    "CODE_SIGNING": "1.3.6.1.5.5.7.3.3",
    "EMAIL_PROTECTION": "1.3.6.1.5.5.7.3.4",
    "SMART_CARD_LOGIN": "1.3.6.1.4.1.311.20.2.2",
}
USAGES: Final = {
    "digital_signature": "DigitalSignature",
    "content_commitment": "NonRepudiation",
    "key_encipherment": "KeyEncipherment",
    "data_encipherment": "DataEncipherment",
    "key_agreement": "KeyAgreement",
    "key_cert_sign": "KeyCertSign",
    "crl_sign": "CRLSign",
    "encipher_only": "EncipherOnly",
    "decipher_only": "DecipherOnly",
}
MODEL: Final = botocore.session.Session().get_service_model("acm-pca")


class AwsError(Exception):
    """An error as AWS answers it."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(code)
        self.code, self.message, self.status = code, message, status


@dataclass
class FakeAwsPca:
    """One CA of one account; `keys` are the access keys and their secrets.

    `unfinished` is how often a certificate is not there yet; `answers` are errors that the next
    calls of an operation get; `received` are the parameters of the calls that were carried out.
    """

    keys: dict[str, str]
    ca: FakeCa = field(default_factory=FakeCa)
    arn: str = ARN
    status: str = "ACTIVE"
    mode: str = "GENERAL_PURPOSE"
    unfinished: int = 0
    clock: Callable[[], float] = time.time
    answers: dict[str, list[AwsError]] = field(default_factory=dict)
    received: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    tokens: dict[str, tuple[float, str]] = field(default_factory=dict)
    certificates: dict[str, bytes] = field(default_factory=dict)

    @property
    def app(self) -> Starlette:
        return Starlette(routes=[Route("/", self.answer, methods=["POST"])])

    async def answer(self, request: Request) -> Response:
        body = await request.body()
        try:
            self.authenticate(request, body)
            found = self.carry_out(request, body)
        except AwsError as error:
            found = {"__type": error.code, "message": error.message}
            return self.response(found, error.status)
        return self.response(found, 200)

    def response(self, found: dict[str, Any], status: int) -> Response:
        kind = "application/x-amz-json-1.1"
        content = json.dumps(found) if found else ""
        return Response(content, status, {"x-amzn-requestid": "1-2-3"}, media_type=kind)

    def authenticate(self, request: Request, body: bytes) -> None:
        """Signature version 4, computed again."""
        sent = request.headers.get("authorization", "")
        if not sent.startswith("AWS4-HMAC-SHA256 "):
            raise AwsError("MissingAuthenticationTokenException", "Missing Authentication Token")
        parts = dict(p.strip().split("=", 1) for p in sent.partition(" ")[2].split(","))
        key, day, region, service, end = parts["Credential"].split("/")
        if (region, service, end) != (REGION, "acm-pca", "aws4_request"):
            raise AwsError("InvalidSignatureException", "Credential should be scoped correctly")
        if key not in self.keys:
            said = "The security token included in the request is invalid."
            raise AwsError("UnrecognizedClientException", said)
        names = parts["SignedHeaders"].split(";")
        assert {"content-type", "host", "x-amz-date", "x-amz-target"} <= set(names)
        at = request.headers["x-amz-date"]
        assert at.startswith(day)
        lines = "".join(f"{n}:{' '.join(request.headers[n].split())}\n" for n in names)
        digest = hashlib.sha256(body).hexdigest()
        canonical = f"POST\n/\n\n{lines}\n{parts['SignedHeaders']}\n{digest}"
        scope = f"{day}/{region}/{service}/{end}"
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        secret = b"AWS4" + self.keys[key].encode()
        for part in (day, region, service, end):
            secret = hmac.digest(secret, part.encode(), "sha256")
        to_sign = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashed}"
        if hmac.digest(secret, to_sign.encode(), "sha256").hex() != parts["Signature"]:
            raise AwsError(
                "InvalidSignatureException",
                "The request signature we calculated does not match. The Canonical String for "
                f"this request should have been {canonical!r}",
            )

    def carry_out(self, request: Request, body: bytes) -> dict[str, Any]:
        service, _, operation = request.headers.get("x-amz-target", "").partition(".")
        if service != "ACMPrivateCA" or operation not in MODEL.operation_names:
            raise AwsError("UnknownOperationException", "")
        if request.headers["content-type"] != "application/x-amz-json-1.1":
            raise AwsError("SerializationException", "")
        parameters = json.loads(body)
        shape = MODEL.operation_model(operation).input_shape
        if "Csr" in parameters:
            parameters["Csr"] = base64.b64decode(parameters["Csr"], validate=True)
        report = ParamValidator().validate(parameters, shape)
        if report.has_errors() or set(parameters) - set(shape.members):
            raise AwsError("ValidationException", "1 validation error detected")
        if waiting := self.answers.get(operation):
            raise waiting.pop(0)
        if parameters["CertificateAuthorityArn"] != self.arn:
            raise AwsError("ResourceNotFoundException", "Could not find the CA")
        found: dict[str, Any] = getattr(self, f"on_{operation}")(parameters)
        self.received.append((operation, parameters))
        return found

    def on_IssueCertificate(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        if self.status != "ACTIVE":
            raise AwsError("InvalidStateException", f"The CA is not ACTIVE but {self.status}")
        token = asked.get("IdempotencyToken")
        since, arn = self.tokens.get(str(token), (0.0, ""))
        if token and self.clock() < since + TOKEN_SECONDS:
            return {"CertificateArn": arn}
        if asked.get("TemplateArn") not in TEMPLATES:
            raise AwsError("InvalidArgsException", "The template is not one of this fake's")
        if asked["SigningAlgorithm"] != "SHA256WITHECDSA":
            raise AwsError("ValidationException", "The signing algorithm does not fit the CA")
        assert asked["Validity"]["Type"] == asked["ValidityNotBefore"]["Type"] == "ABSOLUTE"
        ends = dt.datetime.fromtimestamp(asked["Validity"]["Value"], dt.UTC)
        if ends > self.ca.certificate.not_valid_after_utc:
            raise AwsError(
                "ValidationException", "The certificate validity must end before that of the CA"
            )
        if self.mode != "GENERAL_PURPOSE" and ends.timestamp() > self.clock() + 7 * 86400:
            raise AwsError("ValidationException", "Short-lived certificates last 7 days")
        der = self.sign(asked, ends)
        number = x509.load_der_x509_certificate(der).serial_number
        arn = f"{self.arn}/certificate/{number:x}"
        self.certificates[arn] = der
        self.tokens[str(token)] = self.clock(), arn
        return {"CertificateArn": arn}

    def sign(self, asked: dict[str, Any], ends: dt.datetime) -> bytes:
        """The API's values come before the CSR's; a blank template has no values of its own."""
        try:
            csr = x509.load_pem_x509_csr(asked["Csr"])
        except ValueError:
            raise AwsError("MalformedCSRException", "The CSR is malformed") from None
        passed = asked["ApiPassthrough"]
        subject = csr.subject
        if attributes := passed.get("Subject", {}).get("CustomAttributes"):
            subject = x509.Name(
                x509.NameAttribute(x509.ObjectIdentifier(a["ObjectIdentifier"]), a["Value"])
                for a in attributes
            )
        names = [e for e in csr.extensions if isinstance(e.value, x509.SubjectAlternativeName)]
        if sans := passed["Extensions"].get("SubjectAlternativeNames"):
            names = [SimpleNamespace(value=x509.SubjectAlternativeName(map(general_name, sans)))]
        wanted = SimpleNamespace(subject=subject, public_key=csr.public_key, extensions=names)
        usage = passed["Extensions"]["KeyUsage"]
        return self.ca.sign(
            wanted,
            ends,
            key_usage=x509.KeyUsage(**{k: usage.get(v, False) for k, v in USAGES.items()}),
            extended=tuple(
                each.get("ExtendedKeyUsageObjectIdentifier") or OIDS[each["ExtendedKeyUsageType"]]
                for each in passed["Extensions"]["ExtendedKeyUsage"]
            ),
        )

    def on_GetCertificate(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        der = self.certificates.get(asked["CertificateArn"])
        if der is None:
            raise AwsError("ResourceNotFoundException", "Could not find the certificate")
        if self.unfinished:
            self.unfinished -= 1
            raise AwsError("RequestInProgressException", "The request is still in progress")
        chain = self.ca.certificate.public_bytes(Encoding.PEM).decode()
        text = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()
        return {"Certificate": text, "CertificateChain": chain}

    def on_RevokeCertificate(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        pairs = asked["CertificateSerial"].split(":")
        assert all(len(pair) == 2 for pair in pairs)
        serial = f"{int(''.join(pairs), 16):x}"
        if serial not in self.ca.made:
            raise AwsError("ResourceNotFoundException", "Could not find the certificate")
        if serial in self.ca.revoked:
            raise AwsError("RequestAlreadyProcessedException", "Already revoked")
        self.ca.revoked[serial] = asked["RevocationReason"]
        return {}

    def on_DescribeCertificateAuthority(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        described = {
            "Arn": asked["CertificateAuthorityArn"],
            "Status": self.status,
            "UsageMode": self.mode,
        }
        return {"CertificateAuthority": described}

    def on_GetCertificateAuthorityCertificate(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"Certificate": self.ca.certificate.public_bytes(Encoding.PEM).decode()}


def general_name(name: dict[str, Any]) -> x509.GeneralName:
    ((kind, value),) = name.items()
    match kind:
        case "DnsName":
            return x509.DNSName(value)
        case "Rfc822Name":
            return x509.RFC822Name(value)
        case "UniformResourceIdentifier":
            return x509.UniformResourceIdentifier(value)
        case "IpAddress":
            return x509.IPAddress(ipaddress.ip_address(value))
    raise AwsError("InvalidArgsException", f"{kind} is not supported by this fake")
