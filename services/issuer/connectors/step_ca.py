"""`step-ca`: Smallstep's step-ca, with the key of a JWK provisioner (docs/issuers/step-ca.md).

Every call carries a token of its own (`ott`), which the issuer signs and the CA accepts once. The
approved certificate is in the token, in the claim `scepstream`: the provisioner's X.509 template
copies it from there. The CA has no way to ask for an order, so the recovery is `blind`.
"""

import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
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
    refuse_suspension,
)
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
from shared.config.load import SettingsError, read_secret_file
from shared.config.sections import AnyIssuerSection, Configuration
from shared.log.events.commands import RevocationReason
from shared.runtime.process import now
from shared.scep.asn1 import UTF8_STRING, Der
from shared.scep.errors import ScepError

_TOKEN_SECONDS: Final = 300
_PAGES: Final = 100
_BAD_REQUEST: Final = 400
_NOT_FOUND: Final = (404, 405)
_FORBIDDEN: Final = 403
_ALGORITHMS: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "RSA": "RS256"}
_PUBLIC: Final = ("kty", "crv", "x", "y", "n", "e")
_USAGES: Final = {"nonRepudiation": "contentCommitment", "keyCertSign": "certSign"}
_REASONS: Final = {
    RevocationReason.UNSPECIFIED: 0,
    RevocationReason.KEY_COMPROMISE: 1,
    RevocationReason.AFFILIATION_CHANGED: 3,
    RevocationReason.SUPERSEDED: 4,
    RevocationReason.CESSATION_OF_OPERATION: 5,
    RevocationReason.PRIVILEGE_WITHDRAWN: 9,
}


class StepCaOptions(HttpOptions):
    """`[issuers.NAME.options]` of `step-ca`."""

    provisioner: str = Field(min_length=1, max_length=255)
    """Name of the JWK provisioner."""
    provisioner_key_path: Path
    """The provisioner's private key as a JWK in JSON, not encrypted, mode 0600."""
    audience: CaUrl | None = None
    """URL by which the CA knows itself, if it is reached by another one [`url`]."""


@dataclass(frozen=True)
class Provisioner:
    """A JWK provisioner: `public` is its public key as a JWK, `sign` makes a JWT of claims."""

    name: str
    public: Mapping[str, str]
    sign: Callable[[dict[str, Any]], str] = field(repr=False)


@dataclass(frozen=True)
class Description:
    """The approved certificate as tokens describe it; `sans` are the names that the CA compares."""

    subject: str
    sans: tuple[str, ...]
    claim: dict[str, Any]


@dataclass(frozen=True)
class StepCaConnector(ExternalConnector):
    """See `Connector`."""

    http: HttpClient
    provisioner: Provisioner
    audience: str

    @property
    def recovery(self) -> Recovery:
        """See `Connector.recovery`."""
        return Recovery.BLIND

    def prepare(self, order: Order) -> Prepared | Refused:
        """See `Connector.prepare`: refuse what no template of step-ca could express."""
        try:
            return Prepared(content=_described(order, self.current.chain[0]))
        except ValueError as error:
            return Refused(f"step-ca cannot issue this certificate: {error}")

    async def issue(self, order: Order, prepared: Prepared) -> Result:
        """See `Connector.issue`: `sign`."""
        found = prepared.content
        if not isinstance(found, Description):
            found = _described(order, self.current.chain[0])
        claims = {"sub": found.subject, "sans": list(found.sans), "scepstream": found.claim}
        body = {
            "csr": pem(order.csr, "CERTIFICATE REQUEST"),
            "ott": self._token("sign", claims),
            "notBefore": _written(order.template.not_before),
            "notAfter": _written(order.template.not_after),
        }
        answer = await self.http.call("POST", "1.0/sign", json=body, answers=(_FORBIDDEN,))
        if answer.status in (_BAD_REQUEST, _FORBIDDEN):
            return Refused(_said(answer))
        _check_place(answer)
        try:
            return Issued(_der(_part(answer).get("crt")))
        except ValueError:
            raise AnswerLostError("the answer contains no certificate") from None

    async def find(self, order: Order, handle: str = "") -> None:
        """See `Connector.find`: never called, because no order has a handle."""
        del order, handle
        raise AnswerLostError("step-ca cannot be asked for an order")

    async def revoke(
        self, serial: str, ca: str, reason: RevocationReason, certificate: bytes = b""
    ) -> None:
        """See `Connector.revoke`: the CA takes any serial number, also one that it never used."""
        del ca, certificate
        refuse_suspension(reason)
        number = str(int(serial, 16))
        body = {
            "serial": number,
            "ott": self._token("revoke", {"sub": number}),
            "reasonCode": _REASONS[reason],
            "reason": str(reason),
            "passive": True,
        }
        answer = await self.http.call("POST", "1.0/revoke", json=body, answers=(_FORBIDDEN,))
        _check_place(answer)
        if answer.ok:
            return
        said = _said(answer)
        if answer.status != _BAD_REQUEST or "already" not in said:
            raise RevocationRefusedError(said)

    async def check(self) -> str:
        """See `Connector.check`: health, roots, and what the CA says of the provisioner."""
        try:
            health = await self._read("1.0/health")
            if health.get("status") != "ok":
                raise CaUnavailableError("the CA says that it is not healthy")
            await self._check_roots()
            await self._check_provisioner()
        except AnswerLostError as error:
            raise CaUnavailableError(str(error)) from error
        return "the CA is healthy; its root and the provisioner's key are those configured"

    async def close(self) -> None:
        """See `Connector.close`."""
        await self.http.close()

    async def _check_roots(self) -> None:
        shown = (await self._read("1.0/roots")).get("crts")
        try:
            roots = [_der(each) for each in shown] if isinstance(shown, list) else []
        except ValueError:
            raise CaUnavailableError("the CA's list of roots does not parse") from None
        if not any(is_from(root, self.current.chain[-1]) for root in roots):
            raise CaUnavailableError("no root of the CA has issued the chain of ca_cert_path")

    async def _check_provisioner(self) -> None:
        name, public = self.provisioner.name, self.provisioner.public
        found = [each async for each in self._provisioners() if _is_named(each, name)]
        if not found:
            raise CaUnavailableError(f'the CA has no JWK provisioner with the name "{name}"')
        ours = next((each for each in found if _is_key(each.get("key"), public)), None)
        if ours is None:
            raise CaUnavailableError(
                f'the key of provisioner_key_path is not that of the provisioner "{name}"'
            )
        claims, x509_options = _under(ours, "claims"), _under(_under(ours, "options"), "x509")
        if claims.get("disableSmallstepExtensions") is not True:
            raise CaUnavailableError(
                f'the provisioner "{name}" adds an extension that no device gets: '
                "set its claim disableSmallstepExtensions"
            )
        if not (x509_options.get("template") or x509_options.get("templateFile")):
            raise CaUnavailableError(
                f'the provisioner "{name}" has no X.509 template: see docs/issuers/step-ca.md'
            )

    async def _provisioners(self) -> AsyncIterator[dict[str, Any]]:
        cursor = ""
        for _ in range(_PAGES):
            params = {"limit": "100"} | ({"cursor": cursor} if cursor else {})
            page = await self._read("1.0/provisioners", params)
            listed = page.get("provisioners")
            for each in listed if isinstance(listed, list) else []:
                if isinstance(each, dict):
                    yield each
            cursor = str(page.get("nextCursor") or "")
            if not cursor:
                return

    async def _read(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        answer = await self.http.call("GET", path, params=params)
        _check_place(answer)
        return _part(answer)

    def _token(self, verb: str, claims: dict[str, Any]) -> str:
        """Return a token for one call; its ID makes it valid once."""
        at = int(now())
        root = self.current.chain[-1]
        return self.provisioner.sign(
            {
                "iss": self.provisioner.name,
                "aud": f"{self.audience}/1.0/{verb}",
                "iat": at,
                "nbf": at,
                "exp": at + _TOKEN_SECONDS,
                "jti": secrets.token_hex(16),
                "sha": x509.load_der_x509_certificate(root).fingerprint(hashes.SHA256()).hex(),
                **claims,
            }
        )


def _described(order: Order, ca: bytes) -> Description:
    """Return the approved certificate; raises ValueError for what a template cannot express."""
    try:
        asked = wanted(order.template, ca)
        subject = load_draft(order.template, ca).subject
    except ScepError as error:
        raise ValueError(str(error)) from None
    common = [str(each.value) for each in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    named = [_san(each) for each in asked.names]
    compared = tuple(san["value"] for san in named if not san["type"][0].isdigit())
    claim = {
        "subject": _subject(subject, common),
        "sans": named,
        "keyUsage": [_USAGES.get(usage, usage) for usage in asked.key_usages],
        "extKeyUsage": list(asked.extended_key_usages),
    }
    # Go takes the last of several common names for the name.
    return Description((*common[-1:], *compared, order.key)[0], compared, claim)


def _subject(subject: x509.Name, common: list[str]) -> dict[str, Any]:
    """Return a subject for a template: every attribute in its own RDN, in the approved order."""
    if any(len(list(rdn)) > 1 for rdn in subject.rdns):
        raise ValueError("its subject has an RDN with several attributes")
    if any(isinstance(each.value, bytes) for each in subject):
        raise ValueError("its subject has an attribute that is not text")
    names = [{"type": each.oid.dotted_string, "value": each.value} for each in subject]
    return ({"commonName": common[-1]} if common else {}) | {"extraNames": names}


def _san(name: x509.GeneralName) -> dict[str, str]:
    """Return a subjectAltName for a template; the type of an otherName is its OID."""
    match name:
        case x509.DNSName():
            return {"type": "dns", "value": name.value}
        case x509.RFC822Name():
            return {"type": "email", "value": name.value}
        case x509.UniformResourceIdentifier():
            return {"type": "uri", "value": name.value}
        case x509.IPAddress():
            return {"type": "ip", "value": str(name.value)}
        case x509.OtherName():
            return {"type": name.type_id.dotted_string, "value": f"utf8:{_text(name.value)}"}
        case _:
            raise ValueError(f"it has a subjectAltName of the kind {type(name).__name__}")


def _text(der: bytes) -> str:
    """Return the text of a UTF8String; raises ValueError for anything else."""
    try:
        tag, start, stop = Der(der).header()
    except ScepError:
        tag, start, stop = 0, 0, 0
    if tag != UTF8_STRING or stop != len(der):
        raise ValueError("it has an otherName that is not a UTF8String")
    return der[start:stop].decode("utf-8")


def _is_named(found: Mapping[str, Any], name: str) -> bool:
    return found.get("type") == "JWK" and found.get("name") == name


def _is_key(shown: object, public: Mapping[str, str]) -> bool:
    return isinstance(shown, dict) and all(
        shown.get(name) == public.get(name) for name in (*_PUBLIC, "kid")
    )


def _under(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = found.get(name)
    return part if isinstance(part, dict) else {}


def _check_place(answer: Answer) -> None:
    """Raise `CaUnavailableError` if the URL is not that of a step-ca."""
    if answer.status in _NOT_FOUND:
        raise CaUnavailableError(f"there is no step-ca at the URL ({answer.status}): check url")


def _part(answer: Answer) -> dict[str, Any]:
    """Return the answer's object; raises `AnswerLostError` if there is none."""
    found = answer.json() if answer.ok else None
    if not isinstance(found, dict):
        raise AnswerLostError(f"the CA's answer ({answer.status}) is not the expected one")
    return found


def _said(answer: Answer) -> str:
    """Return the CA's message; raises `CaUnavailableError` for a 403 of something before it."""
    found = answer.json() if answer.content[:1] == b"{" else None
    message = found.get("message") if isinstance(found, dict) else None
    if isinstance(message, str) and message:
        return Answer(answer.status, {}, message.encode("utf-8", "replace")).words()
    if answer.status == _FORBIDDEN:
        raise CaUnavailableError("something before the CA does not permit this call (403)")
    return answer.words() or f"status {answer.status}"


def _der(text: object) -> bytes:
    """Return a certificate in PEM as DER; raises ValueError."""
    if not isinstance(text, str):
        raise ValueError("no certificate")  # noqa: TRY004 - as for text that does not parse
    return x509.load_pem_x509_certificate(text.encode()).public_bytes(Encoding.DER)


def _written(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _read_provisioner(configuration: Configuration, options: StepCaOptions) -> Provisioner:
    """Read the provisioner's key; raises `SettingsError` without showing it."""
    try:
        from joserfc import jwk, jwt  # noqa: PLC0415 - needed for this kind only
    except ImportError:
        raise SettingsError('step-ca needs joserfc: pip install "scepstream[step-ca]"') from None
    path = configuration.path(options.provisioner_key_path)
    text = read_secret_file(path)
    try:
        found = json.loads(text)
        key = jwk.import_key(found)
    except Exception:  # noqa: BLE001 - of many kinds, and it may quote the key
        raise SettingsError(f"{path}: not a JWK in JSON") from None
    public = {k: str(v) for k, v in key.as_dict(private=False).items() if k in _PUBLIC}
    algorithm = _ALGORITHMS.get(public.get("crv", public["kty"]))
    if algorithm is None or not key.is_private:
        raise SettingsError(f"{path}: not the private key of an EC or RSA provisioner")
    public["kid"] = str(found.get("kid") or key.thumbprint())
    header = {"alg": algorithm, "kid": public["kid"]}

    def sign(claims: dict[str, Any]) -> str:
        return jwt.encode(header, claims, key, algorithms=[algorithm])

    return Provisioner(options.provisioner, public, sign)


def _build(configuration: Configuration, name: str, section: AnyIssuerSection) -> StepCaConnector:
    external = connector_section(name, section)
    options = read_options(StepCaOptions, name, external)
    http = http_client(configuration, name, options, external.lease)
    known_as = (options.audience or options.url).rstrip("/").split("://", 1)[1]
    return StepCaConnector(
        read_pinned(configuration, section),
        external.lease,
        external.pending_limit,
        http,
        _read_provisioner(configuration, options),
        f"https://{known_as}",  # step-ca speaks nothing else
    )


KIND: Final = ConnectorKind("step-ca", _build)
