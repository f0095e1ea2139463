"""`entrust-ca-gateway`: the REST API of Entrust CA Gateway (docs/issuers/entrust-ca-gateway.md).

An order has no name that the client chooses, and certificates are listed only as events, by day.
The gateway asks for a validity as a duration, so that no second of notAfter can be chosen as a tag,
and a device may renew with its old key. So an order whose answer is lost cannot be found again: the
recovery is `blind`.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self
from urllib.parse import quote

from cryptography import x509
from cryptography.x509.oid import NameOID
from pydantic import Field, model_validator

from services.issuer.connectors.connector import (
    AnswerLostError,
    CaUnavailableError,
    ConnectorKind,
    Issued,
    Order,
    Prepared,
    Recovery,
    Refused,
    Result,
    RevocationRefusedError,
)
from services.issuer.connectors.http import Answer, HttpClient
from services.issuer.connectors.options import (
    HttpOptions,
    connector_section,
    http_client,
    read_options,
)
from services.issuer.connectors.pinned import ExternalConnector, read_pinned
from services.issuer.connectors.wanted import wanted
from services.issuer.received import load_draft
from shared.config.sections import AnyIssuerSection, Configuration
from shared.log.events.commands import RevocationReason
from shared.runtime.process import now
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError

_REFUSALS: Final = (400, 409, 413, 422)
_TIMEOUT: Final = 408
_SHORTEST: Final = 60  # seconds of validity that are worth asking for
_REJECTED: Final = "REJECTED"
_ACTIONS: Final = {
    RevocationReason.CERTIFICATE_HOLD: ("HoldAction", "unspecified"),
    RevocationReason.REMOVE_FROM_CRL: ("UnholdAction", "unspecified"),
}
# RFC 4519's names of attributes that RFC 4514 has no name for, and PKCS #9's.
_KEYWORDS: Final = {
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.GIVEN_NAME: "givenName",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.SURNAME: "sn",
    NameOID.TITLE: "title",
}
_ALTERNATIVES: Final[dict[type[x509.GeneralName], str]] = {
    x509.DNSName: "dNSName",
    x509.RFC822Name: "rfc822Name",
    x509.UniformResourceIdentifier: "uniformResourceIdentifier",
    x509.IPAddress: "iPAddress",
    x509.DirectoryName: "directoryName",
    x509.RegisteredID: "registeredID",
}
_Property = Annotated[str, Field(max_length=1000)]


class EntrustCaGatewayOptions(HttpOptions):
    """`[issuers.NAME.options]` of `entrust-ca-gateway`; `url` ends before `/v1`.

    The client certificate (`tls_cert_path`, `tls_key_path`) authenticates the issuer. With an http
    URL, something on this machine presents one.
    """

    ca_id: Annotated[str, Field(min_length=1, max_length=200)]
    """The gateway's ID of the CA."""
    profile_id: Annotated[str, Field(min_length=1, max_length=200)]
    """ID of the certificate profile."""
    properties: dict[str, _Property] = Field(default_factory=dict, max_length=50)
    """Properties of every enrollment that the CA behind the gateway needs."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.url.startswith("https:") and self.tls_cert_path is None:
            raise ValueError("tls_cert_path and tls_key_path are required")
        return self


@dataclass(frozen=True)
class EntrustCaGatewayConnector(ExternalConnector):
    """See `Connector`."""

    http: HttpClient
    options: EntrustCaGatewayOptions

    @property
    def recovery(self) -> Recovery:
        """See `Connector.recovery` and the module."""
        return Recovery.BLIND

    def prepare(self, order: Order) -> Prepared | Refused:
        """See `Connector.prepare`: every name must be one that the gateway's API has."""
        for name in wanted(order.template, self.current.chain[0]).names:
            if _alternative(name) is None:
                kind = type(name).__name__
                return Refused(f"Entrust CA Gateway has no subjectAltName of the kind {kind}")
        for attribute in self._subject(order):
            if attribute.oid not in _KEYWORDS and _is_dotted(attribute):
                oid = attribute.oid.dotted_string
                return Refused(f"Entrust CA Gateway has no name for the subject's attribute {oid}")
        return Prepared()

    async def issue(self, order: Order, prepared: Prepared) -> Result:
        """See `Connector.issue`: the names are those of the template, not of the CSR."""
        del prepared
        seconds = int(order.template.not_after - now() - self.lease)
        if seconds < _SHORTEST:
            return Refused("the approved validity ends before the CA could issue")
        names = wanted(order.template, self.current.chain[0]).names
        body = {
            "profileId": self.options.profile_id,
            "requiredFormat": {"format": "X509"},
            "csr": base64.b64encode(order.csr).decode("ascii"),
            "subjectAltNames": [found for name in names if (found := _alternative(name))],
            "optionalCertificateRequestDetails": {
                "subjectDn": self._subject(order).rfc4514_string(_KEYWORDS),
                "validityPeriod": f"PT{seconds}S",
            },
        }
        if self.options.properties:
            body["properties"] = self.options.properties
        answer = await self.http.call("POST", self._path("enrollments"), json=body)
        if answer.ok:
            return _enrolled(answer)
        if answer.status in _REFUSALS:
            return Refused(_said(answer))
        if answer.status == _TIMEOUT:
            raise AnswerLostError(_said(answer))
        raise CaUnavailableError(f"{_said(answer)}: check url, ca_id and profile_id")

    async def find(self, order: Order, handle: str = "") -> Result | None:
        """See `Connector.find`: never called, as the recovery is `blind` and no order has a handle.

        The public documents name no call that returns an earlier enrollment.
        """
        del order, handle
        return None

    async def revoke(
        self, serial: str, ca: str, reason: RevocationReason, certificate: bytes = b""
    ) -> None:
        """See `Connector.revoke`: an action; repeating one succeeds."""
        del ca, certificate
        kind, said = _ACTIONS.get(reason, ("RevokeAction", str(reason)))
        path = self._path("certificates", serial, "actions")
        body = {"action": {"type": kind, "reason": said, "comment": "scepstream"}}
        answer = await self.http.call("POST", path, json=body)
        if not answer.ok:
            raise RevocationRefusedError(_said(answer))
        status = _part(answer, "action").get("status")
        if status == _REJECTED:
            raise RevocationRefusedError("the CA rejected the action")
        if status not in ("ACCEPTED", "COMPLETED"):
            raise AnswerLostError("the answer does not say whether the action was taken")

    async def check(self) -> str:
        """See `Connector.check`: compare the CA, and read the profile."""
        try:
            await self._compare()
            answer = await self.http.call("GET", self._path("profiles", self.options.profile_id))
        except AnswerLostError as error:
            raise CaUnavailableError(str(error)) from error
        if not answer.ok:
            raise CaUnavailableError(f"{_said(answer)}: check profile_id")
        return "the gateway accepts the client certificate; the CA is the pinned one"

    async def close(self) -> None:
        """See `Connector.close`."""
        await self.http.close()

    async def _compare(self) -> None:
        """Raise `CaUnavailableError` if the gateway's CA is not the pinned one."""
        fields = {"$fields": "ca.id,ca.name,ca.certificate"}
        answer = await self.http.call("GET", self._path(), params=fields)
        if not answer.ok:
            raise CaUnavailableError(f"{_said(answer)}: check url and ca_id")
        ca = _part(answer, "ca").get("certificate")
        if not isinstance(ca, dict):
            raise CaUnavailableError("the gateway shows no certificate of the CA")
        spki = read_certificate(_decoded(ca.get("certificateData"))).spki
        if spki != read_certificate(self.current.chain[0]).spki:
            raise CaUnavailableError(f"{self.options.ca_id} is not the CA of ca_cert_path")

    def _subject(self, order: Order) -> x509.Name:
        return load_draft(order.template, self.current.chain[0]).subject

    def _path(self, *parts: str) -> str:
        steps = (self.options.ca_id, *parts)
        return "/".join(("v1/certificate-authorities", *(quote(step, safe="") for step in steps)))


def _enrolled(answer: Answer) -> Result:
    """Return the certificate of an enrollment, or that the CA rejected it."""
    enrollment = _part(answer, "enrollment")
    if enrollment.get("body"):
        return Issued(_decoded(enrollment["body"]))
    status = enrollment.get("status")
    if status == _REJECTED:
        return Refused("the CA rejected the enrollment")
    raise AnswerLostError("the CA took the enrollment and returned no certificate")


def _part(answer: Answer, name: str) -> dict[str, Any]:
    """Return an object of the answer; raises `AnswerLostError` if it is not there."""
    found = answer.json()
    part = found.get(name) if isinstance(found, dict) else None
    if not isinstance(part, dict):
        raise AnswerLostError(f"the answer ({answer.status}) has no {name}")
    return part


def _decoded(text: Any) -> bytes:
    """Return a certificate (base64) as DER; raises `AnswerLostError` if it is none."""
    try:
        der = base64.b64decode(text, validate=True)
        read_certificate(der)
    except (TypeError, ValueError, binascii.Error, ScepError):
        raise AnswerLostError("the answer contains no certificate") from None
    return der


def _said(answer: Answer) -> str:
    """Return the gateway's error in one line; not its details, which may repeat the request."""
    found: Any = None
    if answer.content[:1] == b"{":
        found = answer.json()
    error = found.get("error") if isinstance(found, dict) else None
    if isinstance(error, dict):
        parts = (error.get("code"), error.get("message"))
        said = ": ".join(part for part in parts if isinstance(part, str) and part)
        if said:
            return Answer(answer.status, {}, said.encode("utf-8", "replace")).words()
    return f"the gateway answered {answer.status}"


def _alternative(name: x509.GeneralName) -> dict[str, str] | None:
    """Return a subjectAltName in the API's terms; None if it has none for this kind."""
    keyword = _ALTERNATIVES.get(type(name))
    if keyword is None:
        return None
    value = name.value
    if isinstance(value, x509.Name):
        value = value.rfc4514_string(_KEYWORDS)
    elif isinstance(value, x509.ObjectIdentifier):
        value = value.dotted_string
    return {"type": keyword, "value": str(value)}


def _is_dotted(attribute: x509.NameAttribute[Any]) -> bool:
    return attribute.rfc4514_attribute_name == attribute.oid.dotted_string


def _build(
    configuration: Configuration, name: str, section: AnyIssuerSection
) -> EntrustCaGatewayConnector:
    external = connector_section(name, section)
    options = read_options(EntrustCaGatewayOptions, name, external)
    return EntrustCaGatewayConnector(
        read_pinned(configuration, section),
        external.lease,
        external.pending_limit,
        http_client(configuration, name, options, external.lease),
        options,
    )


KIND: Final = ConnectorKind("entrust-ca-gateway", _build)
