"""A fake of step-ca's API, from its public sources: /1.0/sign, revoke, health, roots, provisioners.

It checks tokens and CSRs as the JWK provisioner does, and answers its errors. Instead of a Go
template it knows the one of docs/issuers/step-ca.md.
"""

import datetime as dt
import ipaddress
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.issuers.authority import FakeCa
from tests.support import pki

TEMPLATE: Final = """{
  "subject": {{ toJson .Token.scepstream.subject }},
  "sans": {{ toJson .Token.scepstream.sans }},
  "keyUsage": {{ toJson .Token.scepstream.keyUsage }},
  "unknownExtKeyUsage": {{ toJson .Token.scepstream.extKeyUsage }}
}"""
NAME: Final = "scepstream"
LONGEST: Final = dt.timedelta(hours=2400)
LEEWAY: Final = 60
SEE_LOGS: Final = "Please see the certificate authority logs for more info."
UNAUTHORIZED: Final = f"The request lacked necessary authorization to be completed. {SEE_LOGS}"
USAGES: Final = {
    "digitalSignature": "digital_signature",
    "contentCommitment": "content_commitment",
    "keyEncipherment": "key_encipherment",
    "dataEncipherment": "data_encipherment",
    "keyAgreement": "key_agreement",
}


class RenderedError(Exception):
    """An error as the CA answers it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        prefixes = {
            400: "The request could not be completed: ",
            403: "The request was forbidden by the certificate authority: ",
        }
        found = f"{prefixes[status]}{message}." if status in prefixes else message
        self.answer = JSONResponse({"status": status, "message": found}, status)


@dataclass
class FakeStepCa:
    """A CA with one JWK provisioner; `used` are the IDs of its tokens."""

    ca: FakeCa = field(default_factory=FakeCa)
    key: ECKey = field(
        default_factory=lambda: ECKey.generate_key("P-256", {"kid": secrets.token_hex(8)})
    )
    claims: dict[str, Any] = field(default_factory=lambda: {"disableSmallstepExtensions": True})
    options: dict[str, Any] = field(default_factory=lambda: {"x509": {"template": TEMPLATE}})
    used: set[str] = field(default_factory=set)
    tokens: list[dict[str, Any]] = field(default_factory=list)
    started: int = field(default_factory=lambda: int(time.time()))

    def app(self) -> Starlette:
        """The API under its versioned prefix."""
        return Starlette(
            routes=[
                Route("/1.0/health", self.health, methods=["GET"]),
                Route("/1.0/roots", self.roots, methods=["GET"]),
                Route("/1.0/provisioners", self.provisioners, methods=["GET"]),
                Route("/1.0/sign", rendered(self.sign), methods=["POST"]),
                Route("/1.0/revoke", rendered(self.revoke), methods=["POST"]),
            ]
        )

    async def health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def roots(self, _: Request) -> Response:
        return JSONResponse({"crts": [written(self.ca.certificate)]}, 201)

    async def provisioners(self, request: Request) -> Response:
        """Two pages: an ACME provisioner, then ours."""
        if not request.query_params.get("cursor"):
            found: dict[str, Any] = {"type": "ACME", "name": "acme"}
            return JSONResponse({"provisioners": [found], "nextCursor": "1"})
        public = self.key.as_dict(private=False) | {"use": "sig", "alg": "ES256"}
        found = {
            "type": "JWK", "name": NAME, "key": public,
            "claims": self.claims, "options": self.options,
        }  # fmt: skip
        return JSONResponse({"provisioners": [found], "nextCursor": ""})

    async def sign(self, body: dict[str, Any]) -> Response:
        csr = requested(body.get("csr"))
        token = self.authorized(body.get("ott"), "sign")
        sans = token.get("sans") or [token["sub"]]
        common = csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if common and common[0].value != token["sub"]:
            raise RenderedError(
                403,
                "certificate request does not contain the valid common name - "
                f"got {common[0].value}, want {token['sub']}",
            )
        compare(csr, sans)
        begins, ends = (when(body.get(name)) for name in ("notBefore", "notAfter"))
        if ends < dt.datetime.now(dt.UTC):
            raise RenderedError(400, f"notAfter cannot be in the past; na={ends}")
        if ends - begins > LONGEST + dt.timedelta(minutes=1):
            raise RenderedError(
                403,
                f"requested duration of {ends - begins} is more than the authorized maximum "
                f"certificate duration of {LONGEST}",
            )
        made = self.made(csr, token["scepstream"], begins, ends)
        chain = [written(made), written(self.ca.certificate)]
        return JSONResponse({"crt": chain[0], "ca": chain[1], "certChain": chain}, 201)

    async def revoke(self, body: dict[str, Any]) -> Response:
        """Like the CA, take any serial number."""
        if not isinstance(serial := body.get("serial"), str) or not serial.isdecimal():
            raise RenderedError(400, f"'{serial}' is not a valid serial number")
        if not 0 <= body["reasonCode"] <= 10:
            raise RenderedError(400, "reasonCode out of bounds")
        if body.get("passive") is not True:
            raise RenderedError(501, "non-passive revocation not implemented")
        self.authorized(body.get("ott"), "revoke")
        number = f"{int(serial):x}"
        if number in self.ca.revoked:
            raise RenderedError(
                400, f"certificate with serial number '{serial}' is already revoked"
            )
        self.ca.revoked[number] = str(body["reasonCode"])
        return JSONResponse({"status": "ok"})

    def authorized(self, token: object, verb: str) -> dict[str, Any]:
        """The claims of a token that is valid once, for this verb."""
        try:
            if not isinstance(token, str):
                raise RenderedError(400, "missing ott")
            found = jwt.decode(token, self.key, algorithms=["ES256"])
        except JoseError as error:
            raise RenderedError(401, UNAUTHORIZED) from error
        claims, at = found.claims, time.time()
        aud = urlsplit(str(claims.get("aud")))
        valid = (
            found.header.get("kid") == self.key.kid
            and claims.get("iss") == NAME
            and (aud.scheme, aud.hostname, aud.path) == ("https", "127.0.0.1", f"/1.0/{verb}")
            and claims["nbf"] - LEEWAY <= at <= claims["exp"] + LEEWAY
            and claims["exp"] - claims["iat"] <= 600
            and self.started <= claims["iat"] <= at + LEEWAY
            and bool(claims.get("sub"))
            and claims.get("sha") == self.ca.certificate.fingerprint(hashes.SHA256()).hex()
        )
        if not valid or claims["jti"] in self.used:
            raise RenderedError(401, UNAUTHORIZED)
        self.used.add(claims["jti"])
        self.tokens.append(claims)
        return claims

    def made(
        self,
        csr: x509.CertificateSigningRequest,
        asked: dict[str, Any],
        begins: dt.datetime,
        ends: dt.datetime,
    ) -> x509.Certificate:
        """Sign what the template makes of a token."""
        names = [
            x509.RelativeDistinguishedName(
                [x509.NameAttribute(x509.ObjectIdentifier(each["type"]), each["value"])]
            )
            for each in asked["subject"]["extraNames"]
        ]
        eku = [x509.ObjectIdentifier(oid) for oid in asked["extKeyUsage"]]
        usage = pki.key_usage(*(USAGES[name] for name in asked["keyUsage"]))
        builder = (
            x509.CertificateBuilder()
            .issuer_name(self.ca.certificate.subject)
            .subject_name(x509.Name(names))
            .public_key(csr.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage(eku), critical=False)
        )
        if asked["sans"]:
            sans = x509.SubjectAlternativeName([general(each) for each in asked["sans"]])
            builder = builder.add_extension(sans, critical=not names)
        made = builder.sign(self.ca.key, hashes.SHA256())
        self.ca.made[f"{made.serial_number:x}"] = pki.der(made)
        return made


def rendered(
    handle: Callable[[dict[str, Any]], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            return await handle(await request.json())
        except RenderedError as error:
            return error.answer

    return answer


def requested(text: object) -> x509.CertificateSigningRequest:
    if not isinstance(text, str):
        raise RenderedError(400, "missing csr")
    csr = x509.load_pem_x509_csr(text.encode())
    if not csr.is_signature_valid:
        raise RenderedError(400, "invalid csr")
    return csr


def compare(csr: x509.CertificateSigningRequest, sans: list[str]) -> None:
    """Compare the names of each kind one to one; a kind that the CSR lacks is not compared."""
    found = [e.value for e in csr.extensions if isinstance(e.value, x509.SubjectAlternativeName)]
    for kind, words in (
        (x509.DNSName, "DNS names"),
        (x509.RFC822Name, "email addresses"),
        (x509.IPAddress, "IP addresses"),
        (x509.UniformResourceIdentifier, "URIs"),
    ):
        got = {str(each.value) for names in found for each in names if isinstance(each, kind)}
        want = {san for san in sans if kind_of(san) is kind}
        if got and got != want:
            raise RenderedError(
                403,
                f"certificate request does not contain the valid {words} - got {got}, want {want}",
            )


def kind_of(san: str) -> type[x509.GeneralName]:
    """What the CA takes a name for."""
    try:
        ipaddress.ip_address(san)
    except ValueError:
        if urlsplit(san).scheme:
            return x509.UniformResourceIdentifier
        return x509.RFC822Name if "@" in san else x509.DNSName
    return x509.IPAddress


def general(san: dict[str, str]) -> x509.GeneralName:
    value = san["value"]
    match san["type"]:
        case "dns":
            return x509.DNSName(value)
        case "email":
            return x509.RFC822Name(value)
        case "uri":
            return x509.UniformResourceIdentifier(value)
        case "ip":
            return x509.IPAddress(ipaddress.ip_address(value))
        case oid:
            text = value.removeprefix("utf8:").encode()
            return x509.OtherName(x509.ObjectIdentifier(oid), bytes((12, len(text))) + text)


def when(value: object) -> dt.datetime:
    try:
        return dt.datetime.fromisoformat(str(value))
    except ValueError:
        raise RenderedError(400, "error reading request body") from None


def written(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
