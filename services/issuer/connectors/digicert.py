"""`digicert`: DigiCert CertCentral, Services API v2 (docs/issuers/digicert.md).

An order is asynchronous: the CA answers with its ID. The order's key is sent as
`alternative_order_id`, which CertCentral stores and finds, but does not keep unique: the same
request sent twice makes two orders.
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final

from cryptography import x509
from cryptography.x509.oid import NameOID
from pydantic import Field

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
    refuse_suspension,
)
from services.issuer.connectors.http import Answer, HttpClient
from services.issuer.connectors.options import (
    CaUrl,
    HttpOptions,
    connector_section,
    http_client,
    read_options,
    read_secret,
)
from services.issuer.connectors.pinned import ExternalConnector, read_pinned
from services.issuer.connectors.vendors import (
    certificate_for,
    common_name,
    identifier,
    is_past,
    last_day,
    listed_words,
    merged,
    one_line,
    part,
    read_list,
    read_object,
    refuses,
    serial_digits,
    subject,
    text,
)
from services.issuer.connectors.wanted import pem, wanted
from shared.config.sections import AnyIssuerSection, Configuration
from shared.log.events.commands import RevocationReason
from shared.runtime.process import now

_API: Final = "services/v2"
_NOT_FOUND: Final = 404
_NO_CONTENT: Final = 204
_MOST_ORDERS: Final = 20  # with one alternative order ID; an order is placed three times at most
# What the organization and the request give a certificate; nothing else reaches its subject.
_SUBJECT: Final = frozenset(
    {
        NameOID.COMMON_NAME,
        NameOID.ORGANIZATION_NAME,
        NameOID.LOCALITY_NAME,
        NameOID.STATE_OR_PROVINCE_NAME,
        NameOID.COUNTRY_NAME,
    }
)
_WAITING: Final = frozenset(
    {"pending", "needs_approval", "processing", "waiting_pickup", "reissue_pending"}
)
_MADE: Final = frozenset({"issued", "revoked", "expired"})
_REFUSED: Final = frozenset({"rejected", "canceled"})
_REASONS: Final = {
    RevocationReason.KEY_COMPROMISE: "key_compromise",
    RevocationReason.AFFILIATION_CHANGED: "affiliation_changed",
    RevocationReason.SUPERSEDED: "superseded",
    RevocationReason.CESSATION_OF_OPERATION: "cessation_of_operation",
}


class DigicertOptions(HttpOptions):
    """`[issuers.NAME.options]` of `digicert`."""

    url: CaUrl = "https://www.digicert.com"
    """The API's server: https://certcentral.digicert.eu for accounts in Europe."""
    api_key_path: Path
    """File with the API key, mode 0600."""
    product: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")]
    """Name ID of the product, "private_ssl_flex" say."""
    organization_id: Annotated[int, Field(ge=1)]
    """ID of the validated organization that is named in certificates."""
    ca_cert_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9]{1,64}$")] | None = None
    """ID of the issuing CA, where the account has several for the product."""
    container_id: Annotated[int, Field(ge=1)] | None = None
    """ID of the division that orders [that of the API key]."""


@dataclass(frozen=True)
class DigicertConnector(ExternalConnector):
    """See `Connector`."""

    http: HttpClient
    options: DigicertOptions

    @property
    def recovery(self) -> Recovery:
        """See `Connector.recovery`."""
        return Recovery.SEARCHABLE

    def prepare(self, order: Order) -> Prepared | Refused:
        """See `Connector.prepare`: the API takes host names, addresses and whole days only."""
        ca = self.current.chain[0]
        if not common_name(order, ca):
            return Refused("DigiCert needs exactly one common name in the subject")
        if odd := [a for a in subject(order, ca) if a.oid not in _SUBJECT]:
            return Refused(
                f"DigiCert does not accept {odd[0].rfc4514_attribute_name} in the subject"
            )
        names = wanted(order.template, ca).names
        if not all(isinstance(name, x509.DNSName | x509.IPAddress) for name in names):
            return Refused("DigiCert takes only host names and addresses as subjectAltNames")
        if is_past(last_day(order.template.not_after), now()):
            return Refused("DigiCert issues for whole days; the approved validity is too short")
        return Prepared()

    async def issue(self, order: Order, prepared: Prepared) -> Result:
        """See `Connector.issue`."""
        del prepared
        path = f"order/certificate/{self.options.product}"
        answer = await self._call("POST", path, json=self._request(order))
        if answer.status == _NOT_FOUND:
            raise CaUnavailableError(
                f"the account has no product {self.options.product}: {listed_words(answer)}"
            )
        if refuses(answer):
            return Refused(listed_words(answer))
        placed = read_object(answer)
        handle = identifier(placed.get("id"))
        if not answer.ok or not handle:
            raise AnswerLostError(f"the answer ({answer.status}) contains no order ID")
        chain = placed.get("certificate_chain")
        pems = [text(each, "pem") for each in chain] if isinstance(chain, list) else []
        der = certificate_for(order, "\n".join(pems))
        return Issued(der) if der else Pending(handle)

    async def find(self, order: Order, handle: str = "") -> Result | None:
        """See `Connector.find`: the order of the handle, or every order with the key."""
        if handle:
            if not identifier(handle):
                return UnknownOutcome("the recorded handle is not an order ID")
            return await self._order(order, handle)
        answer = await self._call("GET", f"order/alternate/{order.key}")
        if answer.status == _NOT_FOUND:
            return None
        _expect(answer, "search for orders")
        listed = read_list(read_object(answer).get("orders"), "orders")
        handles = {identifier(each.get("order_id")) for each in listed} - {""}
        if len(handles) > _MOST_ORDERS:
            return UnknownOutcome(f"{len(handles)} orders have the key")
        return merged([await self._order(order, each) for each in sorted(handles, key=int)])

    async def revoke(
        self, serial: str, ca: str, reason: RevocationReason, certificate: bytes = b""
    ) -> None:
        """See `Connector.revoke`: without an approval, which needs an administrator's key."""
        del ca, certificate
        refuse_suspension(reason)
        body = {
            "comments": "revoked by scepstream",
            "skip_approval": True,
            "revocation_reason": _REASONS.get(reason, "unspecified"),
        }
        digits = serial_digits(serial)
        answer = await self._call("PUT", f"certificate/{digits}/revoke", json=body)
        if answer.status == _NO_CONTENT or await self._is_revoked(digits):
            return
        if answer.ok:
            raise RevocationRefusedError(
                "the revocation waits for an administrator of CertCentral: approve it there, and "
                "give the API key the role of an administrator"
            )
        raise RevocationRefusedError(listed_words(answer))

    async def check(self) -> str:
        """See `Connector.check`: whose key it is, and whether it may order the product."""
        _expect(user := await self._call("GET", "user/me"), "read its user")
        answer = await self._call("GET", f"product/{self.options.product}")
        if not answer.ok:
            raise CaUnavailableError(
                f"the account has no product {self.options.product}: {listed_words(answer)}"
            )
        allowed = _names(read_object(answer), "allowed_ca_certs", "ca_cert_id")
        if self.options.ca_cert_id and allowed and self.options.ca_cert_id not in allowed:
            raise CaUnavailableError(
                f"{self.options.product} cannot be issued by the CA of ca_cert_id: see the "
                "product's allowed_ca_certs"
            )
        roles = _names(read_object(user), "access_roles", "name")
        held = one_line(user, ", ".join(roles) or "no role")
        return f"the API key is valid ({held}); {self.options.product} can be ordered"

    async def close(self) -> None:
        """See `Connector.close`."""
        await self.http.close()

    def _request(self, order: Order) -> dict[str, Any]:
        """Return the body of an order: the API reads nothing but the key from the CSR."""
        ca = self.current.chain[0]
        name = common_name(order, ca)
        certificate: dict[str, Any] = {
            "common_name": name,
            "dns_names": [n for n in _written(wanted(order.template, ca).names) if n != name],
            "csr": pem(order.csr, "CERTIFICATE REQUEST"),
            "signature_hash": "sha256",
        }
        if self.options.ca_cert_id:
            certificate["ca_cert_id"] = self.options.ca_cert_id
        body: dict[str, Any] = {
            "certificate": certificate,
            "organization": {"id": self.options.organization_id},
            "order_validity": {"custom_expiration_date": _ends(order).isoformat()},
            "alternative_order_id": order.key,
            "comments": "ordered by scepstream",
            "disable_renewal_notifications": True,
            "skip_approval": True,
        }
        if self.options.container_id:
            body["container"] = {"id": self.options.container_id}
        return body

    async def _order(self, order: Order, handle: str) -> Result | None:
        """Return what became of one order, None if CertCentral does not have it."""
        answer = await self._call("GET", f"order/certificate/{handle}")
        if answer.status == _NOT_FOUND and "not_found|order" in listed_words(answer, key="code"):
            return None
        _expect(answer, "read orders")
        found = read_object(answer)
        status = text(found, "status").lower()
        if status in _WAITING:
            return Pending(handle)
        if status in _REFUSED:
            return Refused(f"the order {handle} was {status} at DigiCert")
        number = identifier(part(found, "certificate").get("id"))
        if status not in _MADE or not number:
            return UnknownOutcome(f"the order {handle} has an unknown status")
        path = f"certificate/{number}/download/format/pem_all"
        answer = await self._call("GET", path)
        if refuses(answer):
            return Pending(handle)
        der = certificate_for(order, answer.content.decode("utf-8", "replace"))
        return Issued(der) if der else UnknownOutcome(f"the order {handle} is for another key")

    async def _is_revoked(self, serial: str) -> bool:
        answer = await self._call("GET", f"order/certificate/{serial}")
        if not answer.ok:
            return False
        found = read_object(answer)
        return "revoked" in (text(found, "status"), text(part(found, "certificate"), "status"))

    async def _call(self, method: str, path: str, **parts: Any) -> Answer:
        return await self.http.call(method, f"{_API}/{path}", **parts)


def _expect(answer: Answer, what: str) -> None:
    if not answer.ok:
        raise CaUnavailableError(f"the API key cannot {what}: {listed_words(answer)}")


def _names(found: dict[str, Any], name: str, key: str) -> list[str]:
    """Return the strings `key` of a list of objects; empty if there is none."""
    listed = found.get(name)
    return [v for each in listed if (v := text(each, key))] if isinstance(listed, list) else []


def _ends(order: Order) -> date:
    """Return the day with whose last second (UTC) the certificate ends."""
    return last_day(order.template.not_after)


def _written(names: tuple[x509.GeneralName, ...]) -> list[str]:
    """Return host names and addresses as the API takes them."""
    return [str(n.value) for n in names if isinstance(n, x509.DNSName | x509.IPAddress)]


def _build(configuration: Configuration, name: str, section: AnyIssuerSection) -> DigicertConnector:
    external = connector_section(name, section)
    options = read_options(DigicertOptions, name, external)
    http = http_client(configuration, name, options, external.lease)
    http.headers = {"x-dc-devkey": read_secret(configuration, options.api_key_path)}
    return DigicertConnector(
        read_pinned(configuration, section),
        external.lease,
        external.pending_limit,
        http,
        options,
    )


KIND: Final = ConnectorKind("digicert", _build)
