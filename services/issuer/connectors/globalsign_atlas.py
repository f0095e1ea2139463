"""`globalsign-atlas`: GlobalSign Atlas HVCA, API v2 (docs/issuers/globalsign-atlas.md).

The CA answers an order with the serial number of the certificate that it is about to issue, which
is the order's handle. Without it, an order cannot be found: nothing of the client's is stored.

The account's validation policy says which parts of a request are fixed. It is read before ordering:
a fixed part must not be sent, and has to be what was approved.
"""

import asyncio
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from pydantic import Field, model_validator

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
    one_line,
    part,
    read_object,
    refuses,
    subject,
    text,
)
from services.issuer.connectors.wanted import Wanted, pem, wanted
from shared.config.sections import AnyIssuerSection, Configuration
from shared.log.events.commands import RevocationReason
from shared.runtime.process import now
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError

_ACCEPTED: Final = 202
_NOT_FOUND: Final = 404
_TOKEN_SECONDS: Final = 480.0  # of the ten minutes that a token is valid
_POLICY_SECONDS: Final = 600.0
_SKEW: Final = 30  # seconds that clocks may differ
_HASH: Final = "SHA-256"
_SERIAL: Final = re.compile(r"[0-9A-Fa-f]{1,40}")
_UTF8: Final = 0x0C
_SHORT: Final = 0x80
_DN: Final = {
    NameOID.COUNTRY_NAME: "country",
    NameOID.STATE_OR_PROVINCE_NAME: "state",
    NameOID.LOCALITY_NAME: "locality",
    NameOID.STREET_ADDRESS: "street_address",
    NameOID.ORGANIZATION_NAME: "organization",
    NameOID.COMMON_NAME: "common_name",
    NameOID.SERIAL_NUMBER: "serial_number",
    NameOID.EMAIL_ADDRESS: "email",
}
_UNITS: Final = "organizational_unit"
_SANS: Final = ("dns_names", "emails", "uris", "ip_addresses")


class _UnfitError(Exception):
    """Raised if an order cannot be written as a request; the message says why."""


class GlobalsignAtlasOptions(HttpOptions):
    """`[issuers.NAME.options]` of `globalsign-atlas`."""

    url: CaUrl = "https://emea.api.hvca.globalsign.com:8443/v2"
    """Base URL of the API in the account's region."""
    api_key: Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]
    """The API key."""
    api_secret_path: Path
    """File with the API secret, mode 0600."""

    @model_validator(mode="after")
    def _mutual(self) -> Self:
        if self.url.startswith("https:") and self.tls_cert_path is None:
            raise ValueError("Atlas needs tls_cert_path and tls_key_path")
        return self


@dataclass
class Session:
    """The access token and the validation policy: read when needed, one reader at a time."""

    http: HttpClient
    options: GlobalsignAtlasOptions
    configuration: Configuration = field(repr=False)
    _token: str = field(default="", init=False, repr=False)
    _until: float = field(default=0.0, init=False)
    _policy: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    _policy_until: float = field(default=0.0, init=False)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)

    async def call(self, method: str, path: str, **parts: Any) -> Answer:
        """Send an authenticated call; raises what a call raises."""
        headers = {"authorization": f"Bearer {await self._current()}"}
        try:
            return await self.http.call(method, path, headers=headers, **parts)
        except CaUnavailableError:
            self._token = ""
            raise

    async def policy(self, *, fresh: bool = False) -> dict[str, Any]:
        """Return the account's validation policy; raises `CaUnavailableError`."""
        if fresh or time.monotonic() >= self._policy_until:
            try:
                answer = await self.call("GET", "validationpolicy")
                if not answer.ok:
                    raise CaUnavailableError(f"no validation policy: {_said(answer)}")
                self._policy = read_object(answer)
            except AnswerLostError as error:  # reading orders nothing
                raise CaUnavailableError(str(error)) from error
            self._policy_until = time.monotonic() + _POLICY_SECONDS
        return self._policy

    async def _current(self) -> str:
        async with self._lock:
            if not self._token or time.monotonic() >= self._until:
                try:
                    self._token = await self._login()
                except AnswerLostError as error:  # a login orders nothing
                    raise CaUnavailableError(str(error)) from error
                self._until = time.monotonic() + _TOKEN_SECONDS
            return self._token

    async def _login(self) -> str:
        secret = read_secret(self.configuration, self.options.api_secret_path)
        body = {"api_key": self.options.api_key, "api_secret": secret}
        answer = await self.http.call("POST", "login", json=body)
        if not answer.ok:
            raise CaUnavailableError(f"the login failed: {_said(answer)}")
        token = text(read_object(answer), "access_token")
        if not token.isascii() or not token.isprintable() or not token:
            raise CaUnavailableError("the login gave no access token")
        return token


@dataclass(frozen=True)
class GlobalsignAtlasConnector(ExternalConnector):
    """See `Connector`."""

    session: Session

    @property
    def recovery(self) -> Recovery:
        """See `Connector.recovery`."""
        return Recovery.BLIND

    async def issue(self, order: Order, prepared: Prepared) -> Result:
        """See `Connector.issue`."""
        del prepared
        policy = await self.session.policy()
        try:
            request = _request(order, self.current.chain[0], policy, int(now()))
        except _UnfitError as error:
            return Refused(str(error))
        answer = await self.session.call("POST", "certificates", json=request)
        if answer.status == _NOT_FOUND:
            raise CaUnavailableError("the server has no certificates: check the URL, which has /v2")
        if refuses(answer):
            return Refused(_said(answer))
        handle = answer.headers.get("location", "").rstrip("/").rpartition("/")[2]
        if not answer.ok or not _SERIAL.fullmatch(handle):
            raise AnswerLostError(f"the answer ({answer.status}) contains no serial number")
        return Pending(handle)

    async def find(self, order: Order, handle: str = "") -> Result | None:
        """See `Connector.find`: a serial number that the CA has given out is never forgotten."""
        if not _SERIAL.fullmatch(handle):
            return UnknownOutcome("the recorded handle is not a serial number")
        answer = await self.session.call("GET", f"certificates/{handle}")
        if answer.status in (_ACCEPTED, _NOT_FOUND):
            return Pending(handle)
        if not answer.ok:
            raise CaUnavailableError(f"the credentials cannot read certificates: {_said(answer)}")
        der = certificate_for(order, read_object(answer).get("certificate"))
        return Issued(der) if der else UnknownOutcome(f"{handle} is for another key")

    async def revoke(
        self, serial: str, ca: str, reason: RevocationReason, certificate: bytes = b""
    ) -> None:
        """See `Connector.revoke`."""
        del ca, certificate
        refuse_suspension(reason)
        path = f"certificates/{int(serial, 16):X}"
        answer = await self.session.call("PATCH", path, json={"revocation_reason": str(reason)})
        if not answer.ok and not await self._is_revoked(path):
            raise RevocationRefusedError(_said(answer))

    async def check(self) -> str:
        """See `Connector.check`: log in, read the policy, and compare the issuing CA."""
        policy = await self.session.policy(fresh=True)
        if fault := _unusable(policy):
            raise CaUnavailableError(fault)
        answer = await self.session.call("GET", "trustchain")
        chain = answer.json() if answer.ok else None
        if not isinstance(chain, list) or not chain:
            raise CaUnavailableError("the account has no trust chain")
        if not _is_same_ca(chain[0], self.current.chain[0]):
            raise CaUnavailableError("the account's issuing CA is not the CA of ca_cert_path")
        return "logged in; the account's issuing CA is the pinned CA"

    async def close(self) -> None:
        """See `Connector.close`."""
        await self.session.http.close()

    async def _is_revoked(self, path: str) -> bool:
        answer = await self.session.call("GET", path)
        return answer.ok and text(read_object(answer), "status").upper() == "REVOKED"


def _request(order: Order, ca: bytes, policy: dict[str, Any], at: int) -> dict[str, Any]:
    """Return the body of an order; raises `_UnfitError`."""
    if fault := _unusable(policy):
        raise _UnfitError(fault)
    asked = wanted(order.template, ca)
    ekus = part(policy, "extended_key_usages")
    body: dict[str, Any] = {
        "validity": _validity(order, policy, at),
        "subject_dn": _subject(subject(order, ca), part(policy, "subject_dn")),
        "san": _names(asked, part(policy, "san")),
        "extended_key_usages": _unfixed(
            "extended key usages", asked.extended_key_usages, part(ekus, "ekus")
        ),
        "signature": _signature(part(policy, "signature")),
        "public_key": _public_key(order, policy),
    }
    return {name: value for name, value in body.items() if value}


def _unusable(policy: dict[str, Any]) -> str:
    """Return why no order can satisfy the policy, "" if one can."""
    signed = policy.get("public_key_signature") == "REQUIRED"
    if signed and _key_format(policy) != "PKCS10":
        return "the validation policy wants keys signed by themselves: have it take PKCS10"
    return ""


def _key_format(policy: dict[str, Any]) -> str:
    return text(part(policy, "public_key"), "key_format") or "PKCS10"


def _public_key(order: Order, policy: dict[str, Any]) -> str:
    if _key_format(policy) == "PKCS10":
        return pem(order.csr, "CERTIFICATE REQUEST")
    return pem(order.template.spki, "PUBLIC KEY")


def _validity(order: Order, policy: dict[str, Any], at: int) -> dict[str, int]:
    """Return the validity: begins as early as both the verdict and the policy permit."""
    limits = part(policy, "validity")
    ends = order.template.not_after
    begins = [order.template.not_before]
    if (skew := _number(limits, "not_before_negative_skew")) is not None:
        begins.append(at - max(0, skew - _SKEW))
    if longest := _number(limits, "secondsmax"):
        begins.append(ends - longest)
    return {"not_before": min(max(begins), at), "not_after": ends}


def _number(value: dict[str, Any], name: str) -> int | None:
    found = value.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _subject(name: x509.Name, policy: dict[str, Any]) -> dict[str, Any]:
    """Return the subject's attributes that the policy does not fix."""
    values, extra = _attributes(name)
    written: dict[str, Any] = {}
    for key in _DN.values():
        if value := _single(key, values.get(key, []), part(policy, key)):
            written[key] = value
    units, rule = values.get(_UNITS, []), part(policy, _UNITS)
    if left := _unfixed("organizational units", units, rule):
        written[_UNITS] = left
    return written | ({"extra_attributes": extra} if extra else {})


def _attributes(name: x509.Name) -> tuple[dict[str, list[str]], list[dict[str, str]]]:
    """Return the subject's values by the API's names, and those that it has no names for."""
    values: dict[str, list[str]] = {}
    extra: list[dict[str, str]] = []
    for attribute in name:
        if not isinstance(attribute.value, str):
            raise _UnfitError("Atlas takes only text in the subject")
        unit = attribute.oid == NameOID.ORGANIZATIONAL_UNIT_NAME
        if key := _UNITS if unit else _DN.get(attribute.oid):
            values.setdefault(key, []).append(attribute.value)
        else:
            extra.append({"type": attribute.oid.dotted_string, "value": attribute.value})
    return values, extra


def _single(key: str, found: list[str], rule: dict[str, Any]) -> str:
    """Return the value to send: none if the policy fixes it, which has to be to this one."""
    if len(found) > 1:
        raise _UnfitError(f"Atlas takes one {key} in the subject, not {len(found)}")
    if rule.get("presence") != "STATIC":
        return found[0] if found else ""
    if found != [rule.get("format")]:
        raise _UnfitError(f"the validation policy fixes another {key} in the subject")
    return ""


def _names(asked: Wanted, policy: dict[str, Any]) -> dict[str, Any]:
    """Return the subjectAltNames that the policy does not fix."""
    found: dict[str, list[str]] = {}
    others: list[dict[str, str]] = []
    for name in asked.names:
        match name:
            case x509.DNSName(value=value):
                found.setdefault("dns_names", []).append(value)
            case x509.RFC822Name(value=value):
                found.setdefault("emails", []).append(value)
            case x509.UniformResourceIdentifier(value=value):
                found.setdefault("uris", []).append(value)
            case x509.IPAddress(value=address):
                found.setdefault("ip_addresses", []).append(str(address))
            case x509.OtherName() as other:
                others.append({"type": other.type_id.dotted_string, "value": _utf8(other.value)})
            case _:
                raise _UnfitError(f"Atlas does not accept {type(name).__name__} as subjectAltName")
    written: dict[str, Any] = {
        key: left
        for key in _SANS
        if (left := _unfixed(key.replace("_", " "), found.get(key, []), part(policy, key)))
    }
    return written | ({"other_names": others} if others else {})


def _utf8(der: bytes) -> str:
    """Return the text of a short UTF8String (DER)."""
    head = 2
    if len(der) < head or der[0] != _UTF8 or der[1] >= _SHORT or len(der) != head + der[1]:
        raise _UnfitError("Atlas takes only short UTF8Strings as otherName")
    try:
        return der[head:].decode("utf-8")
    except UnicodeDecodeError:
        raise _UnfitError("an otherName is not UTF-8") from None


def _unfixed(what: str, values: Iterable[str], rule: dict[str, Any]) -> list[str]:
    """Return the values to send: none if the policy fixes them, which has to be to these."""
    asked = list(values)
    if rule.get("static") is not True:
        return asked
    fixed = rule.get("list")
    if not isinstance(fixed, list) or set(map(str, fixed)) != set(asked):
        raise _UnfitError(f"the validation policy fixes other {what} than were approved")
    return []


def _signature(rule: dict[str, Any]) -> dict[str, str]:
    """Return the algorithms that the policy wants to be told."""
    chosen: dict[str, str] = {}
    for name in ("algorithm", "hash_algorithm"):
        wish = part(rule, name)
        listed = wish.get("list")
        offered = [v for v in listed if isinstance(v, str)] if isinstance(listed, list) else []
        if wish.get("presence") == "REQUIRED" and offered:
            chosen[name] = _HASH if _HASH in offered else offered[0]
    return chosen


def _said(answer: Answer) -> str:
    """Return the description of a problem, and the fields that are wrong, in one line."""
    try:
        found = read_object(answer)
    except AnswerLostError:
        return one_line(answer, "")
    fields = (f"{k}: {v}" for k, v in part(found, "errors").items() if isinstance(v, str))
    return one_line(answer, "; ".join(filter(None, (text(found, "description"), *fields))))


def _is_same_ca(pem_text: object, ca: bytes) -> bool:
    if not isinstance(pem_text, str):
        return False
    try:
        loaded = x509.load_pem_x509_certificate(pem_text.encode("utf-8", "replace"))
        key = read_certificate(loaded.public_bytes(Encoding.DER)).spki
    except (ValueError, ScepError):
        return False
    return key == read_certificate(ca).spki


def _build(
    configuration: Configuration, name: str, section: AnyIssuerSection
) -> GlobalsignAtlasConnector:
    external = connector_section(name, section)
    options = read_options(GlobalsignAtlasOptions, name, external)
    read_secret(configuration, options.api_secret_path)
    http = http_client(configuration, name, options, external.lease)
    return GlobalsignAtlasConnector(
        read_pinned(configuration, section),
        external.lease,
        external.pending_limit,
        Session(http, options, configuration),
    )


KIND: Final = ConnectorKind("globalsign-atlas", _build)
