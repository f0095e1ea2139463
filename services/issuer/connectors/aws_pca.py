"""`aws-pca`: AWS Private CA (docs/issuers/aws-pca.md).

An order carries an idempotency token. AWS recognises it for five minutes and then forgets it, so a
repeated order gives the same certificate only within that time (`Recovery.SHORT_TOKEN`). The
certificate's ARN is the order's handle: with it, the order is found at any later time.
"""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import Field

from services.issuer.connectors.aws_api import (
    AwsClient,
    AwsOptions,
    RejectedError,
    aws_client,
    safe,
)
from services.issuer.connectors.connector import (
    AnswerLostError,
    CaUnavailableError,
    ConnectorKind,
    Issued,
    Order,
    Pending,
    Prepared,
    Recovery,
    Refused,
    Result,
    RevocationRefusedError,
    UnknownOutcome,
)
from services.issuer.connectors.options import connector_section, read_options
from services.issuer.connectors.pinned import ExternalConnector, read_pinned
from services.issuer.connectors.wanted import pem, wanted
from services.issuer.received import load_draft
from shared.config.load import SettingsError
from shared.config.sections import AnyIssuerSection, Configuration
from shared.log.events.commands import RevocationReason
from shared.scep.certificate import read_certificate

_TOKEN_SECONDS: Final = 270.0  # AWS keeps a token for 300; the rest is for clocks and the network
_LOOKS: Final = (0.0, 0.3)  # pauses before an issued certificate is asked for, in seconds
_MOST_VALUE: Final = 256  # characters of an attribute of a subject
_ARN: Final = (
    r"arn:(aws[a-z-]*):acm-pca:([a-z0-9-]+):[0-9]{12}:certificate-authority/[A-Za-z0-9-]{1,64}"
)
_Arn = Annotated[str, Field(pattern=f"^{_ARN}$", max_length=160)]
_BAD_REQUEST: Final = frozenset(
    {
        "InvalidArgsException",
        "InvalidRequestException",
        "MalformedCSRException",
        "SerializationException",
        "ValidationException",
    }
)
_PURPOSES: Final = {
    "1.3.6.1.5.5.7.3.1": "SERVER_AUTH",
    "1.3.6.1.5.5.7.3.2": "CLIENT_AUTH",
    "1.3.6.1.5.5.7.3.3": "CODE_SIGNING",
    "1.3.6.1.5.5.7.3.4": "EMAIL_PROTECTION",
    "1.3.6.1.5.5.7.3.8": "TIME_STAMPING",
    "1.3.6.1.5.5.7.3.9": "OCSP_SIGNING",
    "1.3.6.1.4.1.311.20.2.2": "SMART_CARD_LOGIN",
}
_REASONS: Final = {
    RevocationReason.UNSPECIFIED: "UNSPECIFIED",
    RevocationReason.KEY_COMPROMISE: "KEY_COMPROMISE",
    RevocationReason.AFFILIATION_CHANGED: "AFFILIATION_CHANGED",
    RevocationReason.SUPERSEDED: "SUPERSEDED",
    RevocationReason.CESSATION_OF_OPERATION: "CESSATION_OF_OPERATION",
    RevocationReason.PRIVILEGE_WITHDRAWN: "PRIVILEGE_WITHDRAWN",
}


class AwsPcaOptions(AwsOptions):
    """`[issuers.NAME.options]` of `aws-pca`."""

    authority_arn: _Arn
    """ARN of the CA; its region is where the calls go."""
    previous_arns: list[_Arn] = Field(default_factory=list, max_length=16)
    """ARNs of the previous CAs of ca_cert_path, in the same order, for revocations."""
    template: Literal[
        "BlankEndEntityCertificate_APIPassthrough/V1",
        "BlankEndEntityCertificate_CriticalBasicConstraints_APIPassthrough/V1",
    ] = "BlankEndEntityCertificate_APIPassthrough/V1"
    """AWS template: only the blank ones leave the usages to the certificate profile."""
    signing_algorithm: (
        Literal[
            "SHA256WITHECDSA",
            "SHA384WITHECDSA",
            "SHA512WITHECDSA",
            "SHA256WITHRSA",
            "SHA384WITHRSA",
            "SHA512WITHRSA",
        ]
        | None
    ) = None
    """Algorithm of the CA's signatures [fits the CA's key]."""


@dataclass(frozen=True)
class AwsPcaConnector(ExternalConnector):
    """See `Connector`; `arns` are the CAs' by pin."""

    client: AwsClient
    options: AwsPcaOptions
    arns: dict[str, str]
    signing_algorithm: str

    @property
    def recovery(self) -> Recovery:
        """See `Connector.recovery`."""
        return Recovery.SHORT_TOKEN

    @property
    def token_lifetime(self) -> float:
        """See `Connector.token_lifetime`."""
        return _TOKEN_SECONDS

    def prepare(self, order: Order) -> Prepared | Refused:
        """See `Connector.prepare`: refuse names that AWS would take from the CSR, or cannot take.

        AWS copies the CSR's subject and subjectAltName unless the call names others.
        """
        passed = _passthrough(order, self.current.chain[0])
        return passed if isinstance(passed, Refused) else Prepared()

    async def issue(self, order: Order, prepared: Prepared) -> Result:
        """See `Connector.issue`: everything but the key is passed through the API."""
        del prepared
        passed = _passthrough(order, self.current.chain[0])
        if isinstance(passed, Refused):
            return passed
        partition = self.options.authority_arn.split(":", 2)[1]
        try:
            answer = await self.client.call(
                "issue_certificate",
                CertificateAuthorityArn=self.options.authority_arn,
                Csr=pem(order.csr, "CERTIFICATE REQUEST").encode(),
                SigningAlgorithm=self.signing_algorithm,
                TemplateArn=f"arn:{partition}:acm-pca:::template/{self.options.template}",
                ApiPassthrough=passed,
                Validity={"Type": "ABSOLUTE", "Value": order.template.not_after},
                ValidityNotBefore={"Type": "ABSOLUTE", "Value": order.template.not_before},
                IdempotencyToken=order.key,
            )
        except RejectedError as error:
            return _refusal(error)
        arn = answer.get("CertificateArn")
        if not isinstance(arn, str) or not self._is_handle(arn):
            raise AnswerLostError("the answer contains no ARN of a certificate of this CA")
        return await self._issued(arn)

    async def find(self, order: Order, handle: str = "") -> Result | None:
        """See `Connector.find`: by the certificate's ARN; without it, AWS cannot tell."""
        del order
        if not self._is_handle(handle):
            return UnknownOutcome("without a certificate's ARN, AWS cannot find an order")
        return await self._certificate(handle)

    async def revoke(
        self, serial: str, ca: str, reason: RevocationReason, certificate: bytes = b""
    ) -> None:
        """See `Connector.revoke`: AWS cannot suspend."""
        del certificate
        said = _REASONS.get(reason)
        if said is None:
            raise RevocationRefusedError("this CA cannot suspend a certificate, only revoke it")
        arn = self.arns.get(ca)
        if arn is None:
            raise RevocationRefusedError(
                "the ARN of the CA that issued the certificate is not configured: previous_arns"
            )
        try:
            await self.client.call(
                "revoke_certificate",
                CertificateAuthorityArn=arn,
                CertificateSerial=_pairs(serial),
                RevocationReason=said,
            )
        except RejectedError as error:
            if error.code == "RequestAlreadyProcessedException":
                return
            if error.code in ("RequestInProgressException", "RequestFailedException"):
                raise CaUnavailableError(str(error)) from error
            raise RevocationRefusedError(str(error)) from error

    async def check(self) -> str:
        """See `Connector.check`: the CA is active, and its certificate is the pinned one."""
        arn = self.options.authority_arn
        try:
            described = await self.client.call(
                "describe_certificate_authority", CertificateAuthorityArn=arn
            )
            answer = await self.client.call(
                "get_certificate_authority_certificate", CertificateAuthorityArn=arn
            )
        except RejectedError as error:
            raise CaUnavailableError(f"AWS does not describe the CA {arn}: {error}") from error
        except AnswerLostError as error:
            raise CaUnavailableError(str(error)) from error
        found = described.get("CertificateAuthority")
        about = found if isinstance(found, dict) else {}
        if about.get("Status") != "ACTIVE":
            status = safe(about.get("Status", "unknown"), 32)
            raise CaUnavailableError(f"the CA {arn} is not ACTIVE but {status}")
        ca = _der(answer)
        if ca is None or _spki(ca) != read_certificate(self.current.chain[0]).spki:
            raise CaUnavailableError(f"the CA {arn} is not the CA of ca_cert_path")
        short = about.get("UsageMode") == "SHORT_LIVED_CERTIFICATE"
        limit = "; it issues for at most 7 days" if short else ""
        return f"the credentials are accepted; the CA is active and the pinned one{limit}"

    async def close(self) -> None:
        """See `Connector.close`."""
        await self.client.close()

    async def _issued(self, arn: str) -> Result:
        """Return the certificate of a placed order, or that it is pending: AWS signs a bit later.

        Nothing that goes wrong here may look like an order that was not placed.
        """
        result: Result = Pending(arn)
        for pause in _LOOKS:
            await asyncio.sleep(pause)
            try:
                result = await self._certificate(arn)
            except (CaUnavailableError, AnswerLostError):
                return Pending(arn)
            if not isinstance(result, Pending):
                break
        return result

    async def _certificate(self, arn: str) -> Result:
        try:
            answer = await self.client.call(
                "get_certificate",
                CertificateAuthorityArn=self.options.authority_arn,
                CertificateArn=arn,
            )
        except RejectedError as error:
            # AWS gave the ARN itself: a certificate that it does not show is not there yet.
            if error.code in ("RequestInProgressException", "ResourceNotFoundException"):
                return Pending(arn)
            if error.code == "RequestFailedException":
                return Refused(str(error))
            raise AnswerLostError(f"the CA does not show the certificate: {error}") from error
        der = _der(answer)
        if der is None:
            raise AnswerLostError("the answer contains no certificate")
        return Issued(der)

    def _is_handle(self, arn: str) -> bool:
        """Return whether this is the ARN of a certificate of the current CA."""
        begin, number = f"{self.options.authority_arn}/certificate/", arn.rpartition("/")[2]
        return (
            arn == begin + number and number.isascii() and number.isalnum() and len(number) <= 64  # noqa: PLR2004 - 160 bits are 49 digits
        )


def _refusal(error: RejectedError) -> Refused:
    if error.code in _BAD_REQUEST:
        return Refused(str(error))
    if error.code in ("ResourceNotFoundException", "InvalidArnException"):
        raise CaUnavailableError(f"AWS has no such CA or template: check authority_arn: {error}")
    raise AnswerLostError(f"AWS answered with an error that says nothing of the order: {error}")


def _passthrough(order: Order, ca: bytes) -> dict[str, Any] | Refused:
    """Return the subject and extensions to pass through the API, or why that is impossible.

    Names are passed only where they differ from the CSR's: those of the CSR, AWS copies as they
    are.
    """
    template = order.template
    draft = load_draft(template, ca)
    asked = wanted(template, ca)
    csr_subject, csr_names = _csr_names(order.csr)
    passed: dict[str, Any] = {
        "Extensions": {
            "KeyUsage": {_usage(name): True for name in asked.key_usages},
            "ExtendedKeyUsage": [_purpose(oid) for oid in asked.extended_key_usages],
        }
    }
    if frozenset(asked.names) != csr_names:
        names = [_general_name(name) for name in asked.names]
        if not names:
            return Refused("AWS would copy the CSR's subjectAltName, which was not approved")
        if None in names:
            return Refused("a subjectAltName is of a kind that AWS only copies from the CSR")
        passed["Extensions"]["SubjectAlternativeNames"] = names
    if csr_subject is None or draft.subject != csr_subject:
        attributes = _attributes(draft.subject)
        if attributes is None:
            return Refused("the subject differs from the CSR's and cannot be passed to AWS")
        passed["Subject"] = {"CustomAttributes": attributes}
    return passed


def _csr_names(csr: bytes) -> tuple[x509.Name | None, frozenset[x509.GeneralName]]:
    """Return the subject and subjectAltNames of a CSR (DER); nothing if there is none here."""
    if not csr:
        return None, frozenset()
    loaded = x509.load_der_x509_csr(csr)
    for extension in loaded.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            return loaded.subject, frozenset(extension.value)
    return loaded.subject, frozenset()


def _attributes(subject: x509.Name) -> list[dict[str, str]] | None:
    """Return a subject as AWS's list; None if it is empty or does not fit."""
    if not list(subject) or any(len(list(rdn)) > 1 for rdn in subject.rdns):
        return None
    if any(not isinstance(a.value, str) or len(a.value) > _MOST_VALUE for a in subject):
        return None
    return [{"ObjectIdentifier": a.oid.dotted_string, "Value": str(a.value)} for a in subject]


def _general_name(name: x509.GeneralName) -> dict[str, str] | None:
    match name:
        case x509.DNSName():
            return {"DnsName": name.value}
        case x509.RFC822Name():
            return {"Rfc822Name": name.value}
        case x509.UniformResourceIdentifier():
            return {"UniformResourceIdentifier": name.value}
        case x509.IPAddress():
            return {"IpAddress": str(name.value)}
        case x509.RegisteredID():
            return {"RegisteredId": name.value.dotted_string}
        case _:
            return None


def _usage(name: str) -> str:
    """Return a key usage as AWS spells it."""
    return "CRLSign" if name == "cRLSign" else name[0].upper() + name[1:]


def _purpose(oid: str) -> dict[str, str]:
    if named := _PURPOSES.get(oid):
        return {"ExtendedKeyUsageType": named}
    return {"ExtendedKeyUsageObjectIdentifier": oid}


def _der(answer: dict[str, Any]) -> bytes | None:
    try:
        text = str(answer["Certificate"]).encode("ascii")
        return x509.load_pem_x509_certificate(text).public_bytes(Encoding.DER)
    except (KeyError, ValueError):
        return None


def _spki(der: bytes) -> bytes:
    return read_certificate(der).spki


def _pairs(serial: str) -> str:
    """Return a serial number (hex of the INTEGER's contents) as pairs with colons."""
    trimmed = serial[2:] if serial.startswith("00") and len(serial) > 2 else serial  # noqa: PLR2004
    return ":".join(trimmed[i : i + 2] for i in range(0, len(trimmed), 2))


def _build(configuration: Configuration, name: str, section: AnyIssuerSection) -> AwsPcaConnector:
    external = connector_section(name, section)
    options = read_options(AwsPcaOptions, name, external)
    cas = read_pinned(configuration, section)
    if len(options.previous_arns) > len(cas.previous):
        raise SettingsError(
            f"issuers.{name}.options.previous_arns: more than ca_cert_path has previous CAs"
        )
    pins = (cas.current.pin, *(ca.pin for ca in cas.previous))
    arns = dict(zip(pins, (options.authority_arn, *options.previous_arns), strict=False))
    region = options.authority_arn.split(":")[3]
    client = aws_client(configuration, name, options, region, external.lease)
    algorithm = options.signing_algorithm or _algorithm(cas.current.chain[0])
    return AwsPcaConnector(
        cas, external.lease, external.pending_limit, client, options, arns, algorithm
    )


def _algorithm(ca: bytes) -> str:
    """Return the algorithm that fits a CA's key (certificate as DER)."""
    key = x509.load_der_x509_certificate(ca).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return "SHA256WITHRSA"
    return {256: "SHA256WITHECDSA", 384: "SHA384WITHECDSA"}.get(key.key_size, "SHA512WITHECDSA")


KIND: Final = ConnectorKind("aws-pca", _build)
