"""`google-cas`: Google Certificate Authority Service (docs/issuers/google-cas.md).

The issuer chooses the certificate's ID from the order's key. In pools of the Enterprise tier, a
location has one certificate of an ID, and it can be read by its ID (`Recovery.NAMED`). The DevOps
tier stores no certificates and ignores the ID, so nothing is ordered before the tier is known.

Certificates are described to the API; the device's CSR is not sent. `requestId` is not used: the
lifetime that is asked for differs from one placement to the next, and the ID suffices.
"""

import base64
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import Field

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
from services.issuer.connectors.google_credentials import GoogleCredentials, google_credentials
from services.issuer.connectors.http import Answer, HttpClient
from services.issuer.connectors.options import (
    CaUrl,
    HttpOptions,
    connector_section,
    http_client,
    read_options,
)
from services.issuer.connectors.pinned import ExternalConnector, read_pinned
from services.issuer.connectors.wanted import pem, wanted
from services.issuer.received import is_from, load_draft
from shared.config.sections import AnyIssuerSection, Configuration
from shared.log.events.commands import RevocationReason
from shared.runtime.process import now
from shared.scep.certificate import read_certificate

_CLOCKS: Final = (
    300  # seconds by which Google's clock may be ahead: a certificate ends that earlier
)
_NOT_FOUND: Final = 404
_MOST_PAGES: Final = 8
_MOST_NAMES: Final = 1024  # of certificates that were issued last, by serial number
_UTF8_STRING: Final = b"\x0c"
_FIELDS: Final = {
    "2.5.4.3": ("commonName", "COMMON_NAME"),
    "2.5.4.6": ("countryCode", "COUNTRY_CODE"),
    "2.5.4.10": ("organization", "ORGANIZATION"),
    "2.5.4.11": ("organizationalUnit", "ORGANIZATIONAL_UNIT"),
    "2.5.4.7": ("locality", "LOCALITY"),
    "2.5.4.8": ("province", "PROVINCE"),
    "2.5.4.9": ("streetAddress", "STREET_ADDRESS"),
    "2.5.4.17": ("postalCode", "POSTAL_CODE"),
}
_USAGES: Final = {
    "nonRepudiation": "contentCommitment",
    "keyCertSign": "certSign",
    "cRLSign": "crlSign",
}
_PURPOSES: Final = {
    "1.3.6.1.5.5.7.3.1": "serverAuth",
    "1.3.6.1.5.5.7.3.2": "clientAuth",
    "1.3.6.1.5.5.7.3.3": "codeSigning",
    "1.3.6.1.5.5.7.3.4": "emailProtection",
    "1.3.6.1.5.5.7.3.8": "timeStamping",
    "1.3.6.1.5.5.7.3.9": "ocspSigning",
}
_REASONS: Final = {
    RevocationReason.UNSPECIFIED: "REVOCATION_REASON_UNSPECIFIED",
    RevocationReason.KEY_COMPROMISE: "KEY_COMPROMISE",
    RevocationReason.AFFILIATION_CHANGED: "AFFILIATION_CHANGED",
    RevocationReason.SUPERSEDED: "SUPERSEDED",
    RevocationReason.CESSATION_OF_OPERATION: "CESSATION_OF_OPERATION",
    RevocationReason.PRIVILEGE_WITHDRAWN: "PRIVILEGE_WITHDRAWN",
}
_Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,63}$")]


class GoogleCasOptions(HttpOptions):
    """`[issuers.NAME.options]` of `google-cas`."""

    url: CaUrl = "https://privateca.googleapis.com"
    """Base URL of the API."""
    project: Annotated[str, Field(pattern=r"^([a-z0-9.-]{1,63}:)?[a-z0-9-]{1,63}$")]
    """ID or number of the project."""
    location: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}$")]
    """Location of the pool."""
    pool: _Id
    """ID of the CA pool, which must be of the Enterprise tier."""
    authority: _Id
    """ID of the CA in the pool that issues: the one of ca_cert_path."""
    template: _Id | None = None
    """ID of a certificate template of the location [none]."""
    credentials_path: Path | None = None
    """Key of a service account, JSON, mode 0600 [Application Default Credentials]."""


@dataclass(frozen=True)
class GoogleCasConnector(ExternalConnector):
    """See `Connector`; what it remembers of pools and certificates saves calls, no more."""

    http: HttpClient
    credentials: GoogleCredentials
    options: GoogleCasOptions
    _enterprise: set[str] = field(default_factory=set, init=False, repr=False)
    _names: dict[int, str] = field(default_factory=dict, init=False, repr=False)

    @property
    def recovery(self) -> Recovery:
        """See `Connector.recovery`."""
        return Recovery.NAMED

    @property
    def needs_csr(self) -> bool:
        """See `Connector.needs_csr`: the API takes the key and the names by themselves."""
        return False

    def prepare(self, order: Order) -> Prepared | Refused:
        """See `Connector.prepare`: refuse names that the API cannot express."""
        config = _config(order, self.current.chain[0])
        return config if isinstance(config, Refused) else Prepared()

    async def issue(self, order: Order, prepared: Prepared) -> Result:
        """See `Connector.issue`: create the certificate of this ID, or return the one there is."""
        del prepared
        config = _config(order, self.current.chain[0])
        lifetime = _lifetime(order)
        if isinstance(config, Refused):
            return config
        if lifetime <= 0:
            return Refused("the approved validity ends before Google could issue")
        await self._ensure_stored()
        body = {"lifetime": f"{lifetime}s", **config}
        if self.options.template is not None:
            place = f"projects/{self.options.project}/locations/{self.options.location}"
            body["certificateTemplate"] = f"{place}/certificateTemplates/{self.options.template}"
        answer = await self._call(
            "POST",
            f"{self._pool}/certificates",
            json=body,
            params={
                "certificateId": _name(order),
                "issuingCertificateAuthorityId": self.options.authority,
            },
        )
        if answer.ok:
            return Issued(self._read(order, answer.json()))
        return await self._rejected(order, answer)

    async def find(self, order: Order, handle: str = "") -> Result | None:
        """See `Connector.find`: by the certificate's ID."""
        del handle
        await self._ensure_stored()
        answer = await self._call("GET", f"{self._pool}/certificates/{_name(order)}")
        if answer.status == _NOT_FOUND:
            return None
        if not answer.ok:
            raise AnswerLostError(f"the certificate cannot be read: {_said(answer)[1]}")
        return Issued(self._read(order, answer.json()))

    async def revoke(
        self, serial: str, ca: str, reason: RevocationReason, certificate: bytes = b""
    ) -> None:
        """See `Connector.revoke`: the certificate is searched by its serial number.

        Google's reason `CERTIFICATE_HOLD` cannot be released, so it is not used.
        """
        del certificate
        said = _REASONS.get(reason)
        if said is None:
            raise RevocationRefusedError("this CA cannot suspend a certificate, only revoke it")
        found = await self._by_serial(serial, ca)
        if found is None:
            raise RevocationRefusedError(f"the pool {self.options.pool} has no such certificate")
        name, revoked = found
        if revoked:
            return
        answer = await self._call("POST", f"v1/{name}:revoke", json={"reason": said})
        if answer.ok:
            return
        again = await self._by_serial(serial, ca)  # another issuer may have been faster
        if again is None or not again[1]:
            raise RevocationRefusedError(_said(answer)[1])

    async def check(self) -> str:
        """See `Connector.check`: the CA is enabled, pinned, and of the Enterprise tier."""
        about = await self._authority()
        if about.get("state") not in ("ENABLED", "STAGED"):
            state = Answer(0, {}, str(about.get("state", "unknown")).encode()).words()
            raise CaUnavailableError(f"the CA {self.options.authority} is not enabled but {state}")
        chain = about.get("pemCaCertificates")
        ca = _der(chain[0]) if isinstance(chain, list) and chain else None
        if ca is None or read_certificate(ca).spki != read_certificate(self.current.chain[0]).spki:
            raise CaUnavailableError(f"{self.options.authority} is not the CA of ca_cert_path")
        return "the credentials are accepted; the CA is enabled and the pinned one"

    async def close(self) -> None:
        """See `Connector.close`."""
        await self.http.close()

    @property
    def _pool(self) -> str:
        options = self.options
        place = f"projects/{options.project}/locations/{options.location}"
        return f"v1/{place}/caPools/{options.pool}"

    async def _ensure_stored(self) -> None:
        """Ask for the pool's tier, once: without Enterprise an ID identifies nothing."""
        if not self._enterprise:
            await self._authority()

    async def _authority(self) -> dict[str, Any]:
        """Return the CA as the API describes it; raises `CaUnavailableError`."""
        path = f"{self._pool}/certificateAuthorities/{self.options.authority}"
        try:
            answer = await self._call("GET", path)
            about = answer.json()
        except AnswerLostError as error:  # reading orders nothing
            raise CaUnavailableError(str(error)) from error
        if not answer.ok or not isinstance(about, dict):
            detail = _said(answer)[1]
            raise CaUnavailableError(
                f"Google does not show the CA: check project, location, pool, authority: {detail}"
            )
        if about.get("tier") != "ENTERPRISE":
            raise CaUnavailableError(
                f"the pool {self.options.pool} is not of the Enterprise tier: orders in it could "
                "not be found again"
            )
        self._enterprise.add(self.options.pool)
        return about

    async def _rejected(self, order: Order, answer: Answer) -> Result:
        """Return what an error of the creating call means for the order."""
        status, words = _said(answer)
        if status == "ALREADY_EXISTS":
            found = await self._existing(order)
            if found is None:
                raise AnswerLostError("a certificate of this ID exists, and cannot be read")
            return found
        if status in ("INVALID_ARGUMENT", "OUT_OF_RANGE"):
            return Refused(words)
        if status in ("FAILED_PRECONDITION", "NOT_FOUND"):
            raise CaUnavailableError(f"the CA cannot issue now: {words}")
        raise AnswerLostError(f"the answer ({answer.status}) says nothing of the order: {words}")

    async def _existing(self, order: Order) -> Result | None:
        """Find an order that certainly is there, whatever keeps it from being read now."""
        try:
            return await self.find(order)
        except CaUnavailableError as error:
            raise AnswerLostError(str(error)) from error

    def _read(self, order: Order, resource: Any) -> bytes:
        """Return the certificate (DER) of a resource; raises `AnswerLostError` for another one."""
        about = resource if isinstance(resource, dict) else {}
        if str(about.get("name", "")).rpartition("/")[2] != _name(order):
            raise AnswerLostError("the answer is not about the certificate of this ID")
        der = _der(about.get("pemCertificate"))
        if der is None or read_certificate(der).spki != order.template.spki:
            raise AnswerLostError("the answer contains no certificate for the device's key")
        while len(self._names) >= _MOST_NAMES:
            self._names.pop(next(iter(self._names)))
        self._names[x509.load_der_x509_certificate(der).serial_number] = _name(order)
        return der

    async def _by_serial(self, serial: str, ca: str) -> tuple[str, bool] | None:
        """Return the name of the certificate with a serial number, and whether it is revoked."""
        pinned = self.pinned(ca)
        if pinned is None:
            return None
        number = int(serial, 16)
        for about in await self._candidates(number):
            der, name = _der(about.get("pemCertificate")), str(about.get("name", ""))
            if der is None or not is_from(pinned.chain[0], der):
                continue
            loaded = x509.load_der_x509_certificate(der)
            if loaded.serial_number == number and _is_name(name):
                return name, "revocationDetails" in about
        return None

    async def _candidates(self, number: int) -> list[dict[str, Any]]:
        """Return the certificates that may have a serial number.

        One that was just issued may not be in searches yet; it is read by its ID.
        """
        if name := self._names.get(number):
            answer = await self._call("GET", f"{self._pool}/certificates/{name}")
            about = answer.json()
            if answer.ok and isinstance(about, dict):
                return [about]
        even = f"{number:x}".zfill((number.bit_length() + 7) // 8 * 2)
        spellings = dict.fromkeys((even, f"{number:x}"))
        return [about for written in spellings for about in await self._listed(written)]

    async def _listed(self, serial: str) -> list[dict[str, Any]]:
        """Return the pool's certificates with a serial number, as hex without a sign octet."""
        field_name = "certificate_description.subject_description.hex_serial_number"
        params = {"filter": f'{field_name}="{serial}"', "pageSize": "100"}
        found: list[dict[str, Any]] = []
        for _ in range(_MOST_PAGES):
            answer = await self._call("GET", f"{self._pool}/certificates", params=params)
            page = answer.json()
            if not answer.ok or not isinstance(page, dict):
                detail = _said(answer)[1]
                raise CaUnavailableError(f"the pool cannot be searched: {detail}")
            listed = page.get("certificates")
            found += [e for e in listed if isinstance(e, dict)] if isinstance(listed, list) else []
            token = page.get("nextPageToken")
            if not token:
                break
            params["pageToken"] = str(token)
        return found

    async def _call(self, method: str, path: str, **parts: Any) -> Answer:
        headers = await self.credentials.headers()
        try:
            return await self.http.call(method, path, headers=headers, **parts)
        except CaUnavailableError:
            self.credentials.forget()
            raise


def _config(order: Order, ca: bytes) -> dict[str, Any] | Refused:
    """Return the template as the API's `config`, with its mode of subjects."""
    asked = wanted(order.template, ca)
    names = _names(asked.names)
    if names is None:
        return Refused("a subjectAltName is of a kind that Google does not take")
    mode, subject = _subject(load_draft(order.template, ca).subject)
    others = [oid for oid in asked.extended_key_usages if oid not in _PURPOSES]
    known = (_PURPOSES[oid] for oid in asked.extended_key_usages if oid in _PURPOSES)
    key = pem(order.template.spki, "PUBLIC KEY").encode()
    return {
        "subjectMode": mode,
        "config": {
            "publicKey": {"format": "PEM", "key": base64.b64encode(key).decode()},
            "subjectConfig": {"subject": subject, "subjectAltName": names},
            "x509Config": {
                "caOptions": {"isCa": False},
                "keyUsage": {
                    "baseKeyUsage": {_USAGES.get(n, n): True for n in asked.key_usages},
                    "extendedKeyUsage": dict.fromkeys(known, True),
                    "unknownExtendedKeyUsages": [_oid(oid) for oid in others],
                },
            },
        },
    }


def _subject(subject: x509.Name) -> tuple[str, dict[str, Any]]:
    """Return the mode and the fields; a list of RDNs where the named fields do not suffice."""
    oids = [attribute.oid.dotted_string for attribute in subject]
    if len(set(oids)) == len(oids) == len(subject.rdns) and _FIELDS.keys() >= set(oids):
        return "DEFAULT", {_FIELDS[a.oid.dotted_string][0]: str(a.value) for a in subject}
    rdns = [{"attributes": [_attribute(each) for each in rdn]} for rdn in subject.rdns]
    return "RDN_SEQUENCE", {"rdnSequence": rdns}


def _attribute(attribute: x509.NameAttribute[Any]) -> dict[str, Any]:
    oid = attribute.oid.dotted_string
    kind = {"type": _FIELDS[oid][1]} if oid in _FIELDS else {"objectId": _oid(oid)}
    return {**kind, "value": str(attribute.value)}


def _names(names: tuple[x509.GeneralName, ...]) -> dict[str, Any] | None:
    """Return the subjectAltNames by kind; None if the API has no place for one."""
    found: dict[str, Any] = {}
    for name in names:
        match name:
            case x509.DNSName():
                found.setdefault("dnsNames", []).append(name.value)
            case x509.UniformResourceIdentifier():
                found.setdefault("uris", []).append(name.value)
            case x509.RFC822Name():
                found.setdefault("emailAddresses", []).append(name.value)
            case x509.IPAddress():
                found.setdefault("ipAddresses", []).append(str(name.value))
            case x509.OtherName() if name.value[:1] == _UTF8_STRING:
                value = base64.b64encode(name.value).decode()
                other = {"objectId": _oid(name.type_id.dotted_string), "value": value}
                found.setdefault("customSans", []).append(other)
            case _:
                return None
    return found


def _oid(dotted: str) -> dict[str, list[int]]:
    return {"objectIdPath": [int(part) for part in dotted.split(".")]}


def _lifetime(order: Order) -> int:
    """Return the lifetime to ask for, in seconds: Google adds it to the time of its own clock."""
    left = order.template.not_after - int(now())
    return left - max(1, min(_CLOCKS, left // 10))


def _name(order: Order) -> str:
    """Return the ID of the order's certificate."""
    return f"scep-{order.key}"


def _is_name(name: str) -> bool:
    return re.fullmatch(r"projects/[^/?#\s]+(/[A-Za-z]+/[A-Za-z0-9_-]+){3}", name) is not None


def _der(text: object) -> bytes | None:
    try:
        return x509.load_pem_x509_certificate(str(text).encode()).public_bytes(Encoding.DER)
    except ValueError:
        return None


def _said(answer: Answer) -> tuple[str, str]:
    """Return the status and the sentence of an error of Google's APIs."""
    found = answer.json() if answer.content[:1] == b"{" else None
    error = found.get("error") if isinstance(found, dict) else None
    if not isinstance(error, dict):
        return "", answer.words() or f"status {answer.status}"
    words = Answer(answer.status, {}, str(error.get("message", "")).encode()).words()
    status = str(error.get("status", ""))
    return status, words or Answer(0, {}, status.encode()).words() or f"status {answer.status}"


def _build(
    configuration: Configuration, name: str, section: AnyIssuerSection
) -> GoogleCasConnector:
    external = connector_section(name, section)
    options = read_options(GoogleCasOptions, name, external)
    return GoogleCasConnector(
        read_pinned(configuration, section),
        external.lease,
        external.pending_limit,
        http_client(configuration, name, options, external.lease),
        google_credentials(configuration, name, options.credentials_path, external.lease),
        options,
    )


KIND: Final = ConnectorKind("google-cas", _build)
