"""`ejbca`: the REST API of EJBCA (docs/issuers/ejbca.md).

Each order is an end entity of its own, named after the order's key. EJBCA does not refuse a second
request for an end entity: it edits the end entity, sets it back to NEW and issues again, also if it
was GENERATED. So the name finds every certificate of an order, but does not keep the CA from making
two, and the recovery is `searchable`, not `named`.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import quote, urlencode

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
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
from services.issuer.connectors.wanted import pem
from shared.config.load import SettingsError
from shared.config.sections import AnyIssuerSection, Configuration
from shared.log.events.commands import RevocationReason
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError

_ACCEPTED: Final = 202
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_REFUSALS: Final = (400, 409, 413, 422)
_PAGE: Final = 100  # an end entity has one certificate, or one for each time it was placed
_FRESH: Final = 0.66  # share of a token's lifetime after which another one is fetched
_LIFETIME: Final = 60.0  # seconds, of a token that says nothing of it
_SECRET_CHARACTERS: Final = 32
_DER_IN_BASE64: Final = b"MII"
_NUMBER: Final = re.compile(r"[0-9]{1,20}")
_FINALIZE: Final = re.compile(r"/([0-9]{1,20})/finalize/?$")
_GONE: Final = re.compile("could not find request", re.IGNORECASE)
_DENIED: Final = re.compile("has been rejected|has expired|could not be executed", re.IGNORECASE)
_REVOKED: Final = 40  # the status of a certificate in EJBCA's database
_HELD: Final = "CERTIFICATE_HOLD"
_REASONS: Final = {
    RevocationReason.UNSPECIFIED: "UNSPECIFIED",
    RevocationReason.KEY_COMPROMISE: "KEY_COMPROMISE",
    RevocationReason.AFFILIATION_CHANGED: "AFFILIATION_CHANGED",
    RevocationReason.SUPERSEDED: "SUPERSEDED",
    RevocationReason.CESSATION_OF_OPERATION: "CESSATION_OF_OPERATION",
    RevocationReason.CERTIFICATE_HOLD: _HELD,
    RevocationReason.REMOVE_FROM_CRL: "REMOVE_FROM_CRL",
    RevocationReason.PRIVILEGE_WITHDRAWN: "PRIVILEGES_WITHDRAWN",
}
_Name = Annotated[str, Field(min_length=1, max_length=200)]


class EjbcaOptions(HttpOptions):
    """`[issuers.NAME.options]` of `ejbca`; `url` ends in `/ejbca/ejbca-rest-api`."""

    ca_name: _Name
    """Name of the CA in EJBCA."""
    certificate_profile: _Name
    """Name of the certificate profile."""
    end_entity_profile: _Name
    """Name of the end entity profile."""
    password_secret_path: Path
    """File with a secret of at least 32 characters, mode 0600, the same for all issuers of this CA.

    The end entities' one-time passwords are derived from it.
    """
    username_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,32}$")] = "scepstream-"
    """Beginning of the end entities' names; the order's key follows."""
    end_time: bool = True
    """Ask for the approved end of validity; false leaves it to the certificate profile."""
    issuer_dn: Annotated[str, Field(max_length=1000)] | None = None
    """The CA's subject DN as EJBCA writes it [from the CA's certificate]."""
    auth: Literal["tls", "oauth"] = "tls"
    """How the issuer authenticates: a TLS client certificate, or OAuth 2.0 client credentials."""
    token_url: CaUrl | None = None
    """For `oauth`: the provider's token endpoint."""
    token_tls_ca_path: Path | None = None
    """For `oauth`: CAs of the endpoint's TLS certificate, PEM [the system's]."""
    client_id: str | None = None
    """For `oauth`: the client's ID."""
    client_secret_path: Path | None = None
    """For `oauth`: file with the client's secret, mode 0600."""
    scope: str | None = None
    """For `oauth`: scopes to ask for, separated by spaces."""
    audience: str | None = None
    """For `oauth`: audience to ask for, if the provider wants one."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {
            "tls": ("tls_cert_path", "tls_key_path"),
            "oauth": ("token_url", "client_id", "client_secret_path"),
        }[self.auth]
        if missing := [key for key in needed if getattr(self, key) is None]:
            raise ValueError(f"auth {self.auth} needs {' and '.join(missing)}")
        return self


@dataclass
class Bearer:
    """The current access token: fetched when needed, one request at a time.

    `http` is None if a client certificate in the TLS connection authenticates.
    """

    options: EjbcaOptions
    configuration: Configuration = field(repr=False)
    http: HttpClient | None = None
    _token: str = field(default="", init=False, repr=False)
    _until: float = field(default=0.0, init=False)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)

    async def headers(self) -> dict[str, str]:
        """Return the headers of an authenticated call; raises `CaUnavailableError`."""
        if self.http is None:
            return {}
        async with self._lock:
            if not self._token or time.monotonic() >= self._until:
                try:
                    await self._fetch(self.http)
                except AnswerLostError as error:  # a token orders nothing
                    raise CaUnavailableError(f"the token endpoint: {error}") from error
            return {"authorization": f"Bearer {self._token}"}

    def forget(self) -> None:
        """Fetch another token before the next call: the server may not accept this one."""
        self._token = ""

    async def close(self) -> None:
        """Close the connections to the provider."""
        if self.http is not None:
            await self.http.close()

    async def _fetch(self, http: HttpClient) -> None:
        options = self.options
        assert options.token_url is not None
        assert options.client_secret_path is not None
        form = {
            "grant_type": "client_credentials",
            "client_id": options.client_id,
            "client_secret": read_secret(self.configuration, options.client_secret_path),
            "scope": options.scope,
            "audience": options.audience,
        }
        answer = await http.call(
            "POST",
            options.token_url.rpartition("/")[2],
            content=urlencode({key: value for key, value in form.items() if value}).encode(),
            headers={"content-type": "application/x-www-form-urlencoded"},
        )
        found = answer.json() if answer.ok else {}
        token = found.get("access_token") if isinstance(found, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise CaUnavailableError(
                f"the token endpoint gave no token ({answer.status}): "
                "check client_id, client_secret_path and scope"
            )
        seconds = found.get("expires_in")
        lifetime = float(seconds) if isinstance(seconds, int) and seconds > 0 else _LIFETIME
        self._token, self._until = token, time.monotonic() + lifetime * _FRESH


@dataclass(frozen=True)
class EjbcaConnector(ExternalConnector):
    """See `Connector`."""

    http: HttpClient
    bearer: Bearer
    options: EjbcaOptions
    password_secret: bytes = field(repr=False)

    @property
    def recovery(self) -> Recovery:
        """See `Connector.recovery`: two requests for one end entity give two certificates."""
        return Recovery.SEARCHABLE

    async def issue(self, order: Order, prepared: Prepared) -> Result:
        """See `Connector.issue`: `pkcs10enroll`, for an end entity of the order's own."""
        del prepared
        options = self.options
        body = {
            "certificate_request": pem(order.csr, "CERTIFICATE REQUEST"),
            "certificate_profile_name": options.certificate_profile,
            "end_entity_profile_name": options.end_entity_profile,
            "certificate_authority_name": options.ca_name,
            "username": self._username(order),
            "password": self._password(order),
            "include_chain": False,
            "response_format": "DER",
        }
        if options.end_time:
            body["end_time"] = _written(order.template.not_after)
        answer = await self._call("POST", "v1/certificate/pkcs10enroll", json=body)
        if answer.status == _ACCEPTED:
            return Pending(_request_id(answer))
        if answer.ok:
            return Issued(_certificate(answer.json(), "certificate"))
        if answer.status in _REFUSALS:
            return await self._refused(order, answer)
        raise CaUnavailableError(
            f"{_said(answer)} ({answer.status}): check url, ca_name, certificate_profile and "
            "end_entity_profile"
        )

    async def find(self, order: Order, handle: str = "") -> Result | None:
        """See `Connector.find`: the end entity's certificates, or the end of its approval."""
        found = await self._certificates(order)
        if found:
            return Issued(found[0], tuple(found[1:]))
        return await self._finalized(order, handle) if handle else None

    async def revoke(
        self, serial: str, ca: str, reason: RevocationReason, certificate: bytes = b""
    ) -> None:
        """See `Connector.revoke`; EJBCA refuses to revoke twice, so its status is read then."""
        del certificate
        place = f"v1/certificate/{self._issuer(ca)}/{serial}"
        answer = await self._call("PUT", f"{place}/revoke", params={"reason": _REASONS[reason]})
        if answer.status == _ACCEPTED:
            raise CaUnavailableError("the revocation waits for an approval in EJBCA")
        if answer.ok:
            return
        if answer.status != _CONFLICT or not await self._has_status(place, reason):
            raise RevocationRefusedError(_said(answer))

    async def check(self) -> str:
        """See `Connector.check`: compare the CA, and search as after a lost answer."""
        try:
            await self._compare()
            await self._search(f"{self.options.username_prefix}check")
        except AnswerLostError as error:
            raise CaUnavailableError(str(error)) from error
        return f"authenticated with {self.options.auth}; the CA is the pinned one"

    async def close(self) -> None:
        """See `Connector.close`."""
        await self.http.close()
        await self.bearer.close()

    async def _compare(self) -> None:
        """Raise `CaUnavailableError` if EJBCA's CA of this name is not the pinned one."""
        answer = await self._call("GET", "v1/ca")
        listed = _listed(answer, "certificate_authorities")
        name = self.options.ca_name
        dn = next((str(ca.get("subject_dn")) for ca in listed if ca.get("name") == name), None)
        if dn is None:
            raise CaUnavailableError(
                f"EJBCA shows no CA {name!r} to these credentials: check ca_name and their roles"
            )
        answer = await self._call("GET", f"v1/ca/{quote(dn, safe='')}/certificate/download")
        if _spki(answer) != read_certificate(self.current.chain[0]).spki:
            raise CaUnavailableError(f"the CA {name!r} is not the CA of ca_cert_path")

    async def _refused(self, order: Order, answer: Answer) -> Result:
        """Return a refusal, unless the CA has made a certificate for the order all the same.

        It refuses an order that is placed again if it wants a new key for every certificate.
        """
        try:
            found = await self._certificates(order)
        except CaUnavailableError as error:
            raise AnswerLostError(f"{_said(answer)}; then: {error}") from error
        return Issued(found[0], tuple(found[1:])) if found else Refused(_said(answer))

    async def _finalized(self, order: Order, handle: str) -> Result | None:
        """Return what became of an order that waited for an approval."""
        if not _NUMBER.fullmatch(handle):
            raise AnswerLostError("the handle is not a request ID of EJBCA")
        body = {"response_format": "DER", "password": self._password(order)}
        answer = await self._call("POST", f"v1/certificate/{handle}/finalize", json=body)
        if answer.status == _ACCEPTED:
            return Pending(handle)
        if answer.ok:
            return Issued(_certificate(answer.json(), "certificate"))
        said = _said(answer)
        if _GONE.search(said):
            return None
        if _DENIED.search(said):
            return Refused(said)
        raise AnswerLostError(f"{said} ({answer.status})")

    async def _certificates(self, order: Order) -> list[bytes]:
        """Return the certificates of an order: the first one first, revoked ones last."""
        name = self._username(order)
        found: list[tuple[bool, float, int, bytes]] = []
        for entry in await self._search(name):
            if entry.get("username") == name:
                der = _certificate(entry, "base64Cert")
                if read_certificate(der).spki == order.template.spki:
                    found.append((entry.get("status") == _REVOKED, *_begins(der), der))
        return [der for *_, der in sorted(found)]

    async def _search(self, name: str) -> list[dict[str, Any]]:
        """Return what EJBCA has for an end entity.

        It leaves out what the credentials may not see, but refuses a CA or profile that they may
        not see.
        """
        criteria = {
            "QUERY": name,
            "CA": self.options.ca_name,
            "END_ENTITY_PROFILE": self.options.end_entity_profile,
            "CERTIFICATE_PROFILE": self.options.certificate_profile,
        }
        body = {
            "pagination": {"page_size": _PAGE, "current_page": 1},
            "criteria": [
                {"property": key, "value": value, "operation": "EQUAL"}
                for key, value in criteria.items()
            ],
        }
        return _listed(await self._call("POST", "v2/certificate/search", json=body), "certificates")

    async def _has_status(self, place: str, reason: RevocationReason) -> bool:
        """Return whether a certificate already has the status that was asked for."""
        answer = await self._call("GET", f"{place}/revocationstatus")
        found = answer.json() if answer.ok else None
        if not isinstance(found, dict) or not isinstance(found.get("revoked"), bool):
            raise CaUnavailableError(f"the status of the certificate: {_said(answer)}")
        if reason is RevocationReason.REMOVE_FROM_CRL:
            return not found["revoked"]
        held = found.get("revocation_reason") == _HELD
        return bool(found["revoked"]) and held == (reason is RevocationReason.CERTIFICATE_HOLD)

    def _username(self, order: Order) -> str:
        return f"{self.options.username_prefix}{order.key}"

    def _password(self, order: Order) -> str:
        """Return the end entity's password: the same in every process, on no log."""
        name = self._username(order).encode()
        return hmac.new(self.password_secret, name, hashlib.sha256).hexdigest()

    def _issuer(self, pin: str) -> str:
        """Return the DN of one of the CAs, for a path."""
        ca = self.pinned(pin) or self.current
        dn = self.options.issuer_dn if ca == self.current else None
        return quote(dn or _subject(ca.chain[0]), safe="")

    async def _call(self, method: str, path: str, **parts: Any) -> Answer:
        headers = {"accept": "application/json", **await self.bearer.headers()}
        try:
            return await self.http.call(method, path, headers=headers, **parts)
        except CaUnavailableError:
            self.bearer.forget()
            raise


def _request_id(answer: Answer) -> str:
    """Return the ID of the approval request that an answer names, itself or in a link."""
    found = answer.json()
    if isinstance(found, dict):
        number = found.get("request_id")
        if isinstance(number, int) and 0 < number < 10**20:
            return str(number)
        if link := _FINALIZE.search(str(found.get("link"))):
            return link[1]
    raise AnswerLostError("the order waits for an approval that the answer does not name")


def _certificate(found: Any, name: str) -> bytes:
    """Return a certificate in a field of the answer; searches encode in base64 twice."""
    try:
        der = base64.b64decode(found[name], validate=True)
        if der.startswith(_DER_IN_BASE64):
            der = base64.b64decode(der, validate=True)
        read_certificate(der)
    except (KeyError, TypeError, ValueError, binascii.Error, ScepError):
        raise AnswerLostError("the answer contains no certificate") from None
    return der


def _listed(answer: Answer, name: str) -> list[dict[str, Any]]:
    """Return a list of objects in the answer to a call that changes nothing."""
    if not answer.ok:
        if answer.status in (*_REFUSALS, _NOT_FOUND):
            raise CaUnavailableError(
                f"{_said(answer)} ({answer.status}): check url, ca_name, certificate_profile, "
                "end_entity_profile and the roles of the credentials"
            )
        raise AnswerLostError(f"{_said(answer)} ({answer.status})")
    found = answer.json()
    entries = found.get(name) if isinstance(found, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise AnswerLostError(f"the answer has no {name}")
    return entries


def _said(answer: Answer) -> str:
    """Return EJBCA's error message in one line; nothing else, as answers may contain a CSR."""
    found: Any = None
    if answer.content[:1] == b"{":
        found = answer.json()
    said = found.get("error_message") if isinstance(found, dict) else None
    if not isinstance(said, str) or not said.strip():
        return f"EJBCA answered {answer.status}"
    return Answer(answer.status, {}, said.encode("utf-8", "replace")).words()


def _spki(answer: Answer) -> bytes:
    """Return the key of the first certificate of a PEM file."""
    try:
        first = x509.load_pem_x509_certificate(answer.content)
        return read_certificate(first.public_bytes(Encoding.DER)).spki
    except (ValueError, ScepError):
        raise CaUnavailableError("EJBCA's answer contains no CA certificate") from None


def _begins(der: bytes) -> tuple[float, int]:
    loaded = x509.load_der_x509_certificate(der)
    return loaded.not_valid_before_utc.timestamp(), loaded.serial_number


def _subject(der: bytes) -> str:
    return x509.load_der_x509_certificate(der).subject.rfc4514_string()


def _written(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _token_client(
    configuration: Configuration, name: str, options: EjbcaOptions, timeout: float
) -> HttpClient | None:
    """Return the client for the token endpoint's folder; None without OAuth."""
    if options.auth != "oauth":
        return None
    assert options.client_secret_path is not None
    assert options.token_url is not None
    read_secret(configuration, options.client_secret_path)
    folder = options.token_url.rpartition("/")[0]
    endpoint = HttpOptions(url=f"{folder}/", tls_ca_path=options.token_tls_ca_path)
    return http_client(configuration, name, endpoint, timeout)


def _build(configuration: Configuration, name: str, section: AnyIssuerSection) -> EjbcaConnector:
    external = connector_section(name, section)
    options = read_options(EjbcaOptions, name, external)
    secret = read_secret(configuration, options.password_secret_path)
    if len(secret) < _SECRET_CHARACTERS:
        raise SettingsError(
            f"{options.password_secret_path}: shorter than {_SECRET_CHARACTERS} characters"
        )
    return EjbcaConnector(
        read_pinned(configuration, section),
        external.lease,
        external.pending_limit,
        http_client(configuration, name, options, external.lease),
        Bearer(options, configuration, _token_client(configuration, name, options, external.lease)),
        options,
        secret.encode(),
    )


KIND: Final = ConnectorKind("ejbca", _build)
