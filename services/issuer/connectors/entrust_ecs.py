"""`entrust-ecs`: Entrust Certificate Services, enterprise API v2 (docs/issuers/entrust-ecs.md).

The order's key is sent as the certificate's tracking information. Lists cannot be searched by it,
so `find` reads the certificates with the common name. This is not the API of Entrust CA Gateway.
"""

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from cryptography import x509
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
    part,
    read_list,
    read_object,
    refuses,
    same_serial,
    serial_digits,
    text,
)
from services.issuer.connectors.wanted import pem, wanted
from shared.config.sections import AnyIssuerSection, Configuration
from shared.log.events.commands import RevocationReason
from shared.runtime.process import now
from shared.x509.usages import EXTENDED_KEY_USAGES

_NOT_FOUND: Final = 404
_PAGE: Final = 200
_MOST_LISTED: Final = 10_000
_READS: Final = 8  # at once, of certificates that a search looks at
# A date is a day in a time zone of North America: the certificate may end up to 12 h after it.
_ZONE: Final = 12 * 3600
_WAITING: Final = frozenset({"PENDING", "PENDING_QUORUM", "APPROVED", "READY"})
_MADE: Final = frozenset(
    {
        "ACTIVE",
        "DEACTIVATED",
        "EXPIRED",
        "READY",
        "REISSUED",
        "REISSUING",
        "RENEWED",
        "RENEWING",
        "REVOKED",
        "SUSPENDED",
    }
)
_USAGES: Final = {
    frozenset({EXTENDED_KEY_USAGES["clientAuth"]}): "CLIENT_AUTH",
    frozenset({EXTENDED_KEY_USAGES["serverAuth"]}): "SERVER_AUTH",
    frozenset(
        {EXTENDED_KEY_USAGES["clientAuth"], EXTENDED_KEY_USAGES["serverAuth"]}
    ): "SERVER_AND_CLIENT_AUTH",
}
_REASONS: Final = frozenset(
    {
        RevocationReason.KEY_COMPROMISE,
        RevocationReason.AFFILIATION_CHANGED,
        RevocationReason.SUPERSEDED,
        RevocationReason.CESSATION_OF_OPERATION,
    }
)
_Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,128}$")]


class EntrustEcsOptions(HttpOptions):
    """`[issuers.NAME.options]` of `entrust-ecs`."""

    url: CaUrl = "https://api.entrust.net/enterprise/v2"
    """Base URL of the API."""
    username: Annotated[str, Field(pattern=r"^[!-9;-~]{1,128}$")]
    """Name of the API user."""
    password_path: Path
    """File with the user's password or API key, mode 0600."""
    cert_type: Annotated[str, Field(pattern=r"^[A-Z0-9_]{1,64}$")] = "PRIVATE_SSL"
    """Type of the certificates."""
    client_id: Annotated[int, Field(ge=1)] = 1
    """ID of the client (organization) that orders."""
    requester_name: _Line
    """Who is named as the requester of all certificates."""
    requester_email: Annotated[str, Field(pattern=r"^[!-?A-~]{1,64}@[!-?A-~]{1,128}$")]
    """Address for notices about the certificates."""
    requester_phone: Annotated[str, Field(pattern=r"^[0-9 +().-]{3,32}$")]
    """Phone number that the API requires with them."""


@dataclass(frozen=True)
class EntrustEcsConnector(ExternalConnector):
    """See `Connector`."""

    http: HttpClient
    options: EntrustEcsOptions

    @property
    def recovery(self) -> Recovery:
        """See `Connector.recovery`."""
        return Recovery.SEARCHABLE

    def prepare(self, order: Order) -> Prepared | Refused:
        """See `Connector.prepare`: the API takes host names, whole days and three usages only."""
        ca = self.current.chain[0]
        if not common_name(order, ca):
            return Refused("Entrust needs exactly one common name in the subject")
        asked = wanted(order.template, ca)
        if not all(isinstance(name, x509.DNSName) for name in asked.names):
            return Refused("Entrust takes only host names as subjectAltNames")
        if frozenset(asked.extended_key_usages) not in _USAGES:
            return Refused("Entrust issues for clientAuth, serverAuth or both, and nothing else")
        if is_past(last_day(order.template.not_after, _ZONE), now()):
            return Refused("Entrust issues for whole days; the approved validity is too short")
        return Prepared()

    async def issue(self, order: Order, prepared: Prepared) -> Result:
        """See `Connector.issue`."""
        del prepared
        answer = await self._call("POST", "certificates", json=self._request(order))
        if answer.status == _NOT_FOUND:
            raise CaUnavailableError(f"the server has no such API: {listed_words(answer)}")
        if refuses(answer):
            return Refused(listed_words(answer))
        placed = read_object(answer)
        handle = identifier(placed.get("trackingId"))
        if not answer.ok or not handle:
            raise AnswerLostError(f"the answer ({answer.status}) contains no trackingId")
        der = certificate_for(order, placed.get("endEntityCert"))
        return Issued(der) if der else Pending(handle)

    async def find(self, order: Order, handle: str = "") -> Result | None:
        """See `Connector.find`: the certificate of the handle, or every one with the key."""
        if handle:
            if not identifier(handle):
                return UnknownOutcome("the recorded handle is not a tracking ID")
            return _result(order, handle, await self._details(handle))
        name = common_name(order, self.current.chain[0])
        ids = [identifier(row.get("trackingId")) async for row in self._listed(dn=f"con:{name}")]
        results: list[Result | None] = []
        for begin in range(0, len(ids), _READS):
            batch = [each for each in ids[begin : begin + _READS] if each]
            details = await asyncio.gather(*(self._details(each) for each in batch))
            results += [
                _result(order, each, found)
                for each, found in zip(batch, details, strict=True)
                if text(part(found, "tracking"), "trackingInfo").strip() == _tag(order)
            ]
        return merged(results)

    async def revoke(
        self, serial: str, ca: str, reason: RevocationReason, certificate: bytes = b""
    ) -> None:
        """See `Connector.revoke`: by the tracking ID, which the serial number leads to."""
        del ca, certificate
        refuse_suspension(reason)
        handle = ""
        async for row in self._listed(serialNumber=serial_digits(serial)):
            if same_serial(row.get("serialNumber"), serial):
                if text(row, "status") == "REVOKED":
                    return
                handle = identifier(row.get("trackingId")) or handle
        if not handle:
            raise RevocationRefusedError("Entrust has no certificate with this serial number")
        body = {
            "crlReason": str(reason if reason in _REASONS else RevocationReason.UNSPECIFIED),
            "revocationComment": "revoked by scepstream",
        }
        answer = await self._call("POST", f"certificates/{handle}/revocations", json=body)
        if not answer.ok:
            raise RevocationRefusedError(listed_words(answer))

    async def check(self) -> str:
        """See `Connector.check`: log in, and look for the client's approved organization."""
        answer = await self._call("GET", "organizations")
        if not answer.ok:
            raise CaUnavailableError(f"the user cannot list organizations: {listed_words(answer)}")
        wanted_id = str(self.options.client_id)
        approved = {
            identifier(each.get("clientId"))
            for each in read_list(read_object(answer).get("organizations"), "organizations")
            if text(each, "verificationStatus") == "APPROVED"
        }
        if wanted_id not in approved:
            raise CaUnavailableError(
                f"no organization of client {wanted_id} is approved: see client_id"
            )
        return f"logged in; an organization of client {wanted_id} is approved"

    async def close(self) -> None:
        """See `Connector.close`."""
        await self.http.close()

    def _request(self, order: Order) -> dict[str, Any]:
        asked = wanted(order.template, self.current.chain[0])
        return {
            "csr": pem(order.csr, "CERTIFICATE REQUEST"),
            "signingAlg": "SHA-2",
            "eku": _USAGES.get(frozenset(asked.extended_key_usages), "CLIENT_AUTH"),
            "subjectAltName": list(asked.dns_names),
            "clientId": self.options.client_id,
            "certType": self.options.cert_type,
            "certExpiryDate": last_day(order.template.not_after, _ZONE).isoformat(),
            "tracking": {
                "trackingInfo": _tag(order),
                "requesterName": self.options.requester_name,
                "requesterEmail": self.options.requester_email,
                "requesterPhone": self.options.requester_phone,
            },
        }

    async def _details(self, handle: str) -> dict[str, Any] | None:
        answer = await self._call("GET", f"certificates/{handle}")
        if answer.status == _NOT_FOUND:
            return None
        if not answer.ok:
            raise CaUnavailableError(f"the user cannot read certificates: {listed_words(answer)}")
        return read_object(answer)

    async def _listed(self, **filters: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the rows of the certificates that match."""
        offset = 0
        while offset < _MOST_LISTED:
            params = {"limit": str(_PAGE), "offset": str(offset)} | filters
            answer = await self._call("GET", "certificates", params=params)
            if not answer.ok:
                said = listed_words(answer)
                raise CaUnavailableError(f"the user cannot list certificates: {said}")
            page = read_list(read_object(answer).get("certificates"), "certificates")
            for row in page:
                yield row
            if len(page) < _PAGE:
                return
            offset += _PAGE
        raise CaUnavailableError(f"more than {_MOST_LISTED} certificates have this name")

    async def _call(self, method: str, path: str, **parts: Any) -> Answer:
        return await self.http.call(method, path, **parts)


def _result(order: Order, handle: str, found: dict[str, Any] | None) -> Result | None:
    """Return what became of a certificate with these details; None if there are none."""
    if found is None:
        return None
    status = text(found, "status")
    if status == "DECLINED":
        return Refused(f"the request {handle} was declined at Entrust")
    if status in _MADE and (der := certificate_for(order, found.get("endEntityCert"))):
        return Issued(der)
    if status in _WAITING and not found.get("endEntityCert"):
        return Pending(handle)
    return UnknownOutcome(f"the request {handle} has an unknown status, or another key")


def _tag(order: Order) -> str:
    """Return the tracking information of an order's certificate."""
    return f"scepstream order {order.key}"


def _basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode("ascii")


def _build(
    configuration: Configuration, name: str, section: AnyIssuerSection
) -> EntrustEcsConnector:
    external = connector_section(name, section)
    options = read_options(EntrustEcsOptions, name, external)
    http = http_client(configuration, name, options, external.lease)
    password = read_secret(configuration, options.password_path)
    http.headers = {"authorization": _basic(options.username, password)}
    return EntrustEcsConnector(
        read_pinned(configuration, section),
        external.lease,
        external.pending_limit,
        http,
        options,
    )


KIND: Final = ConnectorKind("entrust-ecs", _build)
