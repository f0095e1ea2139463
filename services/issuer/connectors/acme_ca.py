"""`acme`: a CA that speaks ACME, RFC 8555 (docs/issuers/acme.md).

Theory of operation. At an ACME CA only the request `finalize` makes a certificate. `issue` sends
`newOrder` and returns the URL of the ACME order as the handle, which the issuer records. `find`
takes the order further from there: it answers challenges if it is configured to, finalizes with the
device's CSR and downloads the certificate. So the CA makes no certificate that the log has no
handle for; what gets lost with an answer to `newOrder` is an order that nobody finalizes.

`find` without a CSR is for orders that are being settled: it looks, and advances nothing.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import Field, model_validator

from services.issuer.connectors.acme_account import (
    Account,
    account_key,
    b64url,
    binding,
    described,
    problem,
)
from services.issuer.connectors.connector import (
    AnswerLostError,
    ConnectorKind,
    Issued,
    Order,
    Pending,
    Prepared,
    Recovery,
    Refused,
    Result,
    RevocationRefusedError,
)
from services.issuer.connectors.http import Answer
from services.issuer.connectors.options import (
    CaUrl,
    HttpOptions,
    connector_section,
    http_client,
    read_options,
    read_secret,
)
from services.issuer.connectors.pinned import ExternalConnector, read_pinned
from services.issuer.connectors.wanted import wanted
from shared.config.load import read_secret_file
from shared.config.sections import AnyIssuerSection, Configuration
from shared.log.events.commands import RevocationReason
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError
from shared.x509.names import read_name

_PAUSES: Final = (0.05, 0.1, 0.2)  # seconds between the steps of one `find`
_MOST_NAMES: Final = 100
_GONE: Final = (404, 410)
_CLIENT_ERRORS: Final = range(400, 500)
_NOT_OURS: Final = ("unauthorized",)  # another account ordered the certificate (s7.6)
_CHALLENGES: Final = ("dns-01", "http-01")
_CHAIN: Final = "application/pem-certificate-chain"
_REASONS: Final = {
    RevocationReason.UNSPECIFIED: 0,
    RevocationReason.KEY_COMPROMISE: 1,
    RevocationReason.AFFILIATION_CHANGED: 3,
    RevocationReason.SUPERSEDED: 4,
    RevocationReason.CESSATION_OF_OPERATION: 5,
    RevocationReason.PRIVILEGE_WITHDRAWN: 9,
}


class AcmeOptions(HttpOptions):
    """`[issuers.NAME.options]` of `acme`."""

    url: CaUrl
    """URL of the CA's ACME directory, https; http only on loopback."""
    account_key_path: Path
    """Private key of the ACME account, PEM, mode 0600: EC P-256 or P-384, or RSA."""
    contact: tuple[Annotated[str, Field(pattern=r"^mailto:[!-~]+$", max_length=255)], ...] = ()
    """Contacts of the account, such as "mailto:pki@example.org"."""
    agree_to_terms: bool = False
    """Agree to the CA's terms of service when the account is registered."""
    eab_key_id: Annotated[str, Field(pattern=r"^[!-~]{1,255}$")] | None = None
    """Key ID of the External Account Binding, if the CA wants one."""
    eab_hmac_path: Path | None = None
    """File with its HMAC key in base64url, mode 0600."""
    send_not_after: bool = True
    """Ask for the approved end of validity. Some CAs refuse orders with one."""
    answer_challenges: bool = False
    """Tell the CA that challenges are ready, for CAs that validate by their own means."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.eab_key_id is None) != (self.eab_hmac_path is None):
            raise ValueError("eab_key_id and eab_hmac_path belong together")
        return self


@dataclass(frozen=True)
class AcmeConnector(ExternalConnector):
    """See `Connector`."""

    account: Account
    options: AcmeOptions

    @property
    def recovery(self) -> Recovery:
        """See `Connector.recovery`: only `find` finalizes."""
        return Recovery.DEFERRED

    def prepare(self, order: Order) -> Prepared | Refused:
        """See `Connector.prepare`: ACME knows DNS names and IP addresses, and no subject."""
        try:
            identifiers = self._identifiers(order)
            subject = read_name(order.template.subject)
        except (ValueError, ScepError) as error:
            return Refused(str(error))
        if not 0 < len(identifiers) <= _MOST_NAMES:
            return Refused(f"ACME needs 1 to {_MOST_NAMES} subjectAltNames")
        names = {each["value"] for each in identifiers}
        if subject and not (
            [kind for kind, _ in subject] == ["CN"] and subject[0][1].lower() in names
        ):
            return Refused("ACME certificates have no subject but a CN that is a subjectAltName")
        return Prepared()

    async def issue(self, order: Order, prepared: Prepared) -> Result:
        """See `Connector.issue`: place the ACME order, which makes no certificate yet."""
        del prepared
        payload: dict[str, Any] = {"identifiers": self._identifiers(order)}
        if self.options.send_not_after:
            payload["notAfter"] = _written(order.template.not_after)
        answer = await self.account.call("newOrder", payload)
        if not answer.ok:
            return _refusal(answer)
        url = answer.headers.get("location", "")
        if not self.account.owns(url):
            raise AnswerLostError("the CA's answer names no order of its own")
        return Pending(url)

    async def find(self, order: Order, handle: str = "") -> Result | None:
        """See `Connector.find`: take the ACME order a few steps further."""
        if not self.account.owns(handle):
            return None
        result = await self._advance(order, handle)
        for pause in _PAUSES:
            if not isinstance(result, Pending):
                break
            await asyncio.sleep(pause)
            result = await self._advance(order, handle)
        return result

    async def revoke(
        self, serial: str, ca: str, reason: RevocationReason, certificate: bytes = b""
    ) -> None:
        """See `Connector.revoke`: by the account that ordered the certificate (s7.6)."""
        del serial, ca
        if reason not in _REASONS:
            raise RevocationRefusedError("ACME cannot suspend a certificate, only revoke it")
        if not certificate:
            raise RevocationRefusedError(
                "ACME revokes a certificate and not a serial number, and the log does not have "
                "the certificate: revoke it at the CA"
            )
        payload = {"certificate": b64url(certificate), "reason": _REASONS[reason]}
        answer = await self.account.call("revokeCert", payload, answers=_NOT_OURS)
        said = problem(answer)
        if not answer.ok and said.kind != "alreadyRevoked":
            raise RevocationRefusedError(said.words or f"the CA answered {answer.status}")

    async def check(self) -> str:
        """See `Connector.check`: register the account, or find it."""
        await self.account.register()
        return "the ACME account is valid; ACME does not show which CA signs"

    async def close(self) -> None:
        """See `Connector.close`."""
        await self.account.http.close()

    def _identifiers(self, order: Order) -> list[dict[str, str]]:
        """Return the names as ACME's identifiers (s7.1.3, RFC 8738); ValueError for others."""
        return [_identifier(name) for name in wanted(order.template, self.current.chain[0]).names]

    async def _advance(self, order: Order, url: str) -> Result | None:
        """Read an order and do the next step of it (s7.1.6)."""
        answer = await self.account.call(url)
        if answer.status in _GONE:
            return None
        found = _object(answer)
        match found.get("status"):
            case "pending" | "ready" as status:
                step = self._authorize if status == "pending" else self._finalize
                return await step(order, found, url) if order.csr else None
            case "processing":
                return Pending(url)
            case "valid":
                return await self._download(order, found)
            case "invalid":
                return await self._failure(found)
            case _:
                raise AnswerLostError("the order has no status that RFC 8555 knows")

    async def _authorize(self, order: Order, found: dict[str, Any], url: str) -> Result:
        """Tell the CA to validate what is not authorized yet, if that is configured (s7.5.1)."""
        del order
        for place in self._authorizations(found):
            authorization = _object(await self.account.call(place))
            if authorization.get("status") != "pending":
                continue
            name = _value(authorization)
            if not self.options.answer_challenges:
                return Refused(
                    f"the CA wants a challenge answered for {name}: authorize the account for it "
                    "at the CA, or see answer_challenges"
                )
            challenges = _challenges(authorization)
            if any(each.get("status") == "processing" for each in challenges):
                continue
            chosen = next((c["url"] for c in challenges if self._answerable(c)), None)
            if chosen is None:
                return Refused(f"the CA offers neither dns-01 nor http-01 for {name}")
            answer = await self.account.call(chosen, {})
            if not answer.ok:
                return _refusal(answer)
        return Pending(url)

    async def _finalize(self, order: Order, found: dict[str, Any], url: str) -> Result:
        """Send the CSR (s7.4); the CA makes one certificate, however often it gets one."""
        place = found.get("finalize")
        if not self.account.owns(place):
            raise AnswerLostError("the order has no URL for its CSR")
        answer = await self.account.call(str(place), {"csr": b64url(order.csr)})
        if answer.ok or problem(answer).kind == "orderNotReady":
            return Pending(url)
        return _refusal(answer)

    async def _download(self, order: Order, found: dict[str, Any]) -> Result | None:
        """Return the certificate; None if it is another device's.

        A CA may answer `newOrder` with an open order for the same names. Then another enrollment
        finalized it.
        """
        place = found.get("certificate")
        if not self.account.owns(place):
            raise AnswerLostError("the order has no URL of its certificate")
        der = _first(await self.account.call(str(place), accept=_CHAIN))
        return Issued(der) if read_certificate(der).spki == order.template.spki else None

    async def _failure(self, found: dict[str, Any]) -> Refused | None:
        """Return why an order is invalid; None if it has only expired."""
        said = described(found.get("error")).words
        for place in () if said else self._authorizations(found):
            authorization = _object(await self.account.call(place))
            if authorization.get("status") == "invalid":
                errors = (described(c.get("error")).words for c in _challenges(authorization))
                what = next(filter(None, errors), "no reason given")
                said = f"{_value(authorization)} could not be validated: {what}"
                break
        return Refused(said) if said else None

    def _authorizations(self, found: dict[str, Any]) -> list[str]:
        places = found.get("authorizations")
        if not isinstance(places, list) or not all(map(self.account.owns, places)):
            raise AnswerLostError("the order has no list of authorizations")
        return places[:_MOST_NAMES]

    def _answerable(self, challenge: dict[str, Any]) -> bool:
        return (
            challenge.get("type") in _CHALLENGES
            and challenge.get("status") == "pending"
            and self.account.owns(challenge.get("url"))
        )


def _identifier(name: x509.GeneralName) -> dict[str, str]:
    match name:
        case x509.DNSName():
            return {"type": "dns", "value": name.value.lower()}
        case x509.IPAddress():
            return {"type": "ip", "value": str(name.value)}
        case _:
            raise ValueError("ACME certificates name only hosts and IP addresses")


def _refusal(answer: Answer) -> Refused:
    """Return the CA's refusal; raises `AnswerLostError` for an answer that is none."""
    said = problem(answer)
    if answer.status in _CLIENT_ERRORS and said.kind and said.kind != "serverInternal":
        return Refused(said.words)
    raise AnswerLostError(f"the CA answered {answer.status} without a reason")


def _object(answer: Answer) -> dict[str, Any]:
    found = answer.json()
    if not answer.ok or not isinstance(found, dict):
        raise AnswerLostError(f"the CA does not show the object ({answer.status})")
    return found


def _challenges(authorization: dict[str, Any]) -> list[dict[str, Any]]:
    found = authorization.get("challenges")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _value(authorization: dict[str, Any]) -> str:
    """Return the name that an authorization is about, as one printable line."""
    found = authorization.get("identifier")
    value = found.get("value") if isinstance(found, dict) else None
    return Answer(0, {}, str(value).encode()).words()


def _first(answer: Answer) -> bytes:
    """Return the first certificate of a chain as DER: the device's (s7.4.2)."""
    try:
        found = x509.load_pem_x509_certificates(answer.content) if answer.ok else []
    except ValueError:
        found = []
    if not found:
        raise AnswerLostError(f"the CA's answer ({answer.status}) contains no certificate")
    return found[0].public_bytes(Encoding.DER)


def _written(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _build(configuration: Configuration, name: str, section: AnyIssuerSection) -> AcmeConnector:
    external = connector_section(name, section)
    options = read_options(AcmeOptions, name, external)
    key_path = configuration.path(options.account_key_path)
    bound = None
    if options.eab_key_id and options.eab_hmac_path:
        where = str(configuration.path(options.eab_hmac_path))
        bound = binding(
            options.eab_key_id, read_secret(configuration, options.eab_hmac_path), where
        )
    registration: dict[str, Any] = {"contact": list(options.contact)} if options.contact else {}
    if options.agree_to_terms:
        registration["termsOfServiceAgreed"] = True
    account = Account(
        http_client(configuration, name, options, external.lease),
        options.url,
        account_key(read_secret_file(key_path), str(key_path)),
        registration,
        bound,
    )
    return AcmeConnector(
        read_pinned(configuration, section),
        external.lease,
        external.pending_limit,
        account,
        options,
    )


KIND: Final = ConnectorKind("acme", _build)
