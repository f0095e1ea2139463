"""`sectigo`: device certificates of Sectigo Certificate Manager, REST (docs/issuers/sectigo.md).

The device API takes the subject from the CSR and needs no person and no validated domain, unlike
those for client and SSL certificates. An order is asynchronous. Its key is written into the
certificate's comments. The list cannot be searched by comments, so `find` reads the certificates
with the common name.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

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
    longest_term,
    merged,
    one_line,
    read_list,
    read_object,
    refuses,
    same_serial,
    serial_digits,
    text,
)
from services.issuer.connectors.wanted import pem
from shared.config.sections import AnyIssuerSection, Configuration
from shared.log.events.commands import RevocationReason
from shared.runtime.process import now

_API: Final = "api/device/v1"
_NOT_FOUND: Final = 404
_UNKNOWN_USER: Final = -16
_PAGE: Final = 200  # the API's maximum
_MOST_LISTED: Final = 10_000
_READS: Final = 8  # at once, of certificates that a search looks at
_WAITING: Final = frozenset({"requested", "awaiting_approval", "approved", "applied"})
_MADE: Final = frozenset({"issued", "downloaded", "revoked", "expired"})
_REFUSED: Final = frozenset({"declined", "rejected"})
_REASONS: Final = {
    RevocationReason.KEY_COMPROMISE: "1",
    RevocationReason.AFFILIATION_CHANGED: "3",
    RevocationReason.SUPERSEDED: "4",
    RevocationReason.CESSATION_OF_OPERATION: "5",
}
_Positive = Annotated[int, Field(ge=1)]
_Header = Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]


class SectigoOptions(HttpOptions):
    """`[issuers.NAME.options]` of `sectigo`."""

    url: CaUrl = "https://cert-manager.com"
    """Server of your instance of Certificate Manager."""
    customer_uri: _Header
    """The last part of your instance's login URL."""
    login: _Header
    """Name of an administrator for the API."""
    password_path: Path
    """File with the password, mode 0600."""
    org_id: _Positive
    """ID of the organization or department."""
    cert_type: _Positive
    """ID of the device certificate profile."""
    terms: Annotated[tuple[_Positive, ...], Field(min_length=1, max_length=32)]
    """The profile's terms in days that may be ordered; the longest that ends in time is."""
    custom_fields: dict[str, str] = Field(default_factory=dict, max_length=20)
    """Values of mandatory custom fields, by name."""


@dataclass(frozen=True)
class SectigoConnector(ExternalConnector):
    """See `Connector`."""

    http: HttpClient
    options: SectigoOptions

    @property
    def recovery(self) -> Recovery:
        """See `Connector.recovery`."""
        return Recovery.SEARCHABLE

    def prepare(self, order: Order) -> Prepared | Refused:
        """See `Connector.prepare`: a term has to fit, and orders are found by common name."""
        if not common_name(order, self.current.chain[0]):
            return Refused("Sectigo device certificates need exactly one common name")
        if not longest_term(self.options.terms, order.template.not_after, now()):
            shortest = min(self.options.terms)
            return Refused(f"the approved validity is shorter than the shortest term, {shortest} d")
        return Prepared()

    async def issue(self, order: Order, prepared: Prepared) -> Result:
        """See `Connector.issue`."""
        del prepared
        fields = [{"name": k, "value": v} for k, v in self.options.custom_fields.items()]
        body = {
            "orgId": self.options.org_id,
            "certType": self.options.cert_type,
            "term": longest_term(self.options.terms, order.template.not_after, now()),
            "csr": pem(order.csr, "CERTIFICATE REQUEST"),
            "comments": _tag(order),
            "customFields": fields,
        }
        answer = await self._call("POST", "/enroll", json=body)
        if answer.status == _NOT_FOUND:
            raise CaUnavailableError(f"the server has no device API: {_said(answer)}")
        if refuses(answer):
            if _code(answer) == _UNKNOWN_USER:
                raise CaUnavailableError("the CA does not accept customer_uri, login or password")
            return Refused(_said(answer))
        handle = identifier(read_object(answer).get("deviceCertId"))
        if not answer.ok or not handle:
            raise AnswerLostError(f"the answer ({answer.status}) contains no deviceCertId")
        return Pending(handle)

    async def find(self, order: Order, handle: str = "") -> Result | None:
        """See `Connector.find`: the certificate of the handle, or every one with the key."""
        if handle:
            if not identifier(handle):
                return UnknownOutcome("the recorded handle is not a certificate ID")
            return await self._result(order, handle, await self._details(handle))
        name = common_name(order, self.current.chain[0])
        ids = [each async for each in self._listed(commonName=name)]
        results: list[Result | None] = []
        for begin in range(0, len(ids), _READS):
            batch = ids[begin : begin + _READS]
            details = await asyncio.gather(*(self._details(each) for each in batch))
            results += [
                await self._result(order, each, found)
                for each, found in zip(batch, details, strict=True)
                if text(found, "comments").strip() == _tag(order)
            ]
        return merged(results)

    async def revoke(
        self, serial: str, ca: str, reason: RevocationReason, certificate: bytes = b""
    ) -> None:
        """See `Connector.revoke`."""
        del ca, certificate
        refuse_suspension(reason)
        digits = serial_digits(serial)
        body = {"reasonCode": _REASONS.get(reason, "0"), "reason": "revoked by scepstream"}
        answer = await self._call("POST", f"/revoke/serial/{digits}", json=body)
        if not answer.ok and not await self._is_revoked(digits):
            raise RevocationRefusedError(_said(answer))

    async def check(self) -> str:
        """See `Connector.check`: log in, and compare the profile's terms."""
        organization = {"organizationId": str(self.options.org_id)}
        answer = await self._call("GET", "/types", params=organization)
        if not answer.ok:
            raise CaUnavailableError(
                f"the login cannot list device certificate profiles: {_said(answer)}"
            )
        wanted = str(self.options.cert_type)
        listed = read_list(answer.json(), "profiles")
        profile = next((each for each in listed if identifier(each.get("id")) == wanted), None)
        if profile is None:
            raise CaUnavailableError(
                f"the organization {self.options.org_id} has no device certificate profile {wanted}"
            )
        terms = profile.get("terms")
        offered = set(terms) if isinstance(terms, list) and _are_numbers(terms) else set()
        if odd := set(self.options.terms) - offered:
            raise CaUnavailableError(
                f"the device certificate profile {wanted} has no term of {min(odd)} days"
            )
        return f"logged in; the device certificate profile {wanted} has the configured terms"

    async def close(self) -> None:
        """See `Connector.close`."""
        await self.http.close()

    async def _result(
        self, order: Order, handle: str, found: dict[str, Any] | None
    ) -> Result | None:
        """Return what became of a certificate with these details; None if there are none."""
        if found is None:
            return None
        status = text(found, "status").lower().replace(" ", "_")
        if status in _WAITING:
            return Pending(handle)
        if status in _REFUSED:
            return Refused(f"the request {handle} was {status} in Sectigo Certificate Manager")
        if status not in _MADE:
            return UnknownOutcome(f"the request {handle} has an unknown status")
        answer = await self._call("GET", f"/collect/{handle}", params={"format": "x509CO"})
        if refuses(answer):
            return Pending(handle)
        der = certificate_for(order, answer.content.decode("utf-8", "replace"))
        return Issued(der) if der else UnknownOutcome(f"the request {handle} is for another key")

    async def _details(self, handle: str) -> dict[str, Any] | None:
        answer = await self._call("GET", f"/{handle}")
        if answer.status == _NOT_FOUND:
            return None
        if not answer.ok:
            raise CaUnavailableError(f"the login cannot read certificates: {_said(answer)}")
        return read_object(answer)

    async def _listed(self, **filters: str) -> AsyncIterator[str]:
        """Yield the IDs of the profile's certificates that match."""
        position = 0
        while position < _MOST_LISTED:
            params = {"size": str(_PAGE), "position": str(position)} | filters
            params["certTypeId"] = str(self.options.cert_type)
            answer = await self._call("GET", "", params=params)
            if not answer.ok:
                raise CaUnavailableError(f"the login cannot list certificates: {_said(answer)}")
            page = read_list(answer.json(), "certificates")
            for each in page:
                if handle := identifier(each.get("id")):
                    yield handle
            if len(page) < _PAGE:
                return
            position += _PAGE
        raise CaUnavailableError(f"more than {_MOST_LISTED} certificates have this name")

    async def _is_revoked(self, serial: str) -> bool:
        async for handle in self._listed(serialNumber=serial):
            found = await self._details(handle)
            if found and same_serial(found.get("serialNumber"), serial):
                return text(found, "status").lower() == "revoked"
        return False

    async def _call(self, method: str, path: str, **parts: Any) -> Answer:
        return await self.http.call(method, f"{_API}{path}", **parts)


def _tag(order: Order) -> str:
    """Return the comments of an order's certificate."""
    return f"scepstream order {order.key}"


def _said(answer: Answer) -> str:
    """Return the description of an error in one line."""
    try:
        return one_line(answer, text(read_object(answer), "description"))
    except AnswerLostError:
        return one_line(answer, "")


def _code(answer: Answer) -> object:
    try:
        return read_object(answer).get("code")
    except AnswerLostError:
        return None


def _are_numbers(values: list[Any]) -> bool:
    return all(isinstance(each, int) for each in values)


def _build(configuration: Configuration, name: str, section: AnyIssuerSection) -> SectigoConnector:
    external = connector_section(name, section)
    options = read_options(SectigoOptions, name, external)
    http = http_client(configuration, name, options, external.lease)
    http.headers = {
        "customeruri": options.customer_uri,
        "login": options.login,
        "password": read_secret(configuration, options.password_path),
    }
    return SectigoConnector(
        read_pinned(configuration, section),
        external.lease,
        external.pending_limit,
        http,
        options,
    )


KIND: Final = ConnectorKind("sectigo", _build)
