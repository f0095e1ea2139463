"""Google Certificate Authority Service's REST API v1, written from its public documents.

It knows one pool with one CA, and the token endpoint of one service account.
"""

import base64
import datetime as dt
import ipaddress
import json
import re
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import parse_qsl

import google.auth.exceptions
import google.auth.jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.issuers.authority import FakeCa
from tests.support import pki

PLACE: Final = "projects/example-project/locations/europe-west3"
POOL: Final = f"{PLACE}/caPools/devices"
AUTHORITY: Final = f"{POOL}/certificateAuthorities/ca-1"
ACCOUNT: Final = "issuer@example-project.iam.gserviceaccount.com"
TOKEN: Final = "ya29.t0ken-of-the-issuer"
SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
AUDIENCE: Final = "https://oauth2.googleapis.com/token"  # whatever the key's token_uri is
FILTER: Final = re.compile(
    r'certificate_description\.subject_description\.hex_serial_number="([0-9a-f]+)"'
)
NAMED: Final = {
    "commonName": "2.5.4.3", "countryCode": "2.5.4.6", "organization": "2.5.4.10",
    "organizationalUnit": "2.5.4.11", "locality": "2.5.4.7", "province": "2.5.4.8",
    "streetAddress": "2.5.4.9", "postalCode": "2.5.4.17",
}  # fmt: skip
TYPES: Final = {
    "COMMON_NAME": "2.5.4.3", "COUNTRY_CODE": "2.5.4.6", "ORGANIZATION": "2.5.4.10",
    "ORGANIZATIONAL_UNIT": "2.5.4.11", "LOCALITY": "2.5.4.7", "PROVINCE": "2.5.4.8",
    "STREET_ADDRESS": "2.5.4.9", "POSTAL_CODE": "2.5.4.17",
}  # fmt: skip
USAGES: Final = {
    "digital_signature": "digitalSignature", "content_commitment": "contentCommitment",
    "key_encipherment": "keyEncipherment", "data_encipherment": "dataEncipherment",
    "key_agreement": "keyAgreement", "key_cert_sign": "certSign", "crl_sign": "crlSign",
    "encipher_only": "encipherOnly", "decipher_only": "decipherOnly",
}  # fmt: skip
PURPOSES: Final = {
    "serverAuth": "1.3.6.1.5.5.7.3.1", "clientAuth": "1.3.6.1.5.5.7.3.2",
    "codeSigning": "1.3.6.1.5.5.7.3.3", "emailProtection": "1.3.6.1.5.5.7.3.4",
    "timeStamping": "1.3.6.1.5.5.7.3.8", "ocspSigning": "1.3.6.1.5.5.7.3.9",
}  # fmt: skip
REASONS: Final = {
    "REVOCATION_REASON_UNSPECIFIED", "KEY_COMPROMISE", "CERTIFICATE_AUTHORITY_COMPROMISE",
    "AFFILIATION_CHANGED", "SUPERSEDED", "CESSATION_OF_OPERATION", "CERTIFICATE_HOLD",
    "PRIVILEGE_WITHDRAWN", "ATTRIBUTE_AUTHORITY_COMPROMISE",
}  # fmt: skip


class GoogleError(Exception):
    """An error as Google's APIs answer it."""

    def __init__(self, code: int, status: str, message: str) -> None:
        super().__init__(status)
        self.code, self.status, self.message = code, status, message


@cache
def account_key(number: int) -> rsa.RSAPrivateKey:
    """Keys of service accounts, by number."""
    del number
    return rsa.generate_private_key(65537, 2048)


def key_file(token_uri: str, number: int = 0) -> str:
    """The JSON key of the service account; only number 0 is the right one."""
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "example-project",
            "private_key_id": "0123456789abcdef",
            "private_key": pki.private_pem(account_key(number)).decode(),
            "client_email": ACCOUNT,
            "token_uri": token_uri,
        },
        indent=2,
    )


@dataclass
class FakeGoogleCas:
    """`answers` are errors for the next creating calls; `tokens` are those that are valid."""

    ca: FakeCa = field(default_factory=FakeCa)
    tier: str = "ENTERPRISE"
    state: str = "ENABLED"
    tokens: list[str] = field(default_factory=list)
    token_calls: int = 0
    answers: list[GoogleError] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    certificates: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/token", self.token, methods=["POST"]),
                Route("/v1/{rest:path}", self.answer, methods=["GET", "POST"]),
            ]
        )

    async def token(self, request: Request) -> Response:
        """RFC 7523, as of oauth2.googleapis.com/token."""
        sent = dict(parse_qsl((await request.body()).decode()))
        self.token_calls += 1
        try:
            assert sent["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
            public = pki.public_pem(account_key(0).public_key())
            claims = google.auth.jwt.decode(sent["assertion"], certs=public, audience=AUDIENCE)
            assert (claims["iss"], claims["scope"]) == (ACCOUNT, SCOPE)
        except (ValueError, google.auth.exceptions.GoogleAuthError):
            said = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
            return JSONResponse(said, 400)
        self.tokens.append(f"{TOKEN}-{self.token_calls}")
        return JSONResponse(
            {"access_token": self.tokens[-1], "expires_in": 3599, "token_type": "Bearer"}
        )

    async def answer(self, request: Request) -> Response:
        try:
            self.authenticate(request)
            body = json.loads(await request.body()) if request.method == "POST" else None
            return JSONResponse(self.carry_out(request, body))
        except GoogleError as error:
            said = {"code": error.code, "message": error.message, "status": error.status}
            return JSONResponse({"error": said}, error.code)

    def authenticate(self, request: Request) -> None:
        sent = request.headers.get("authorization", "")
        if sent.removeprefix("Bearer ") not in self.tokens:
            raise GoogleError(401, "UNAUTHENTICATED", "Invalid authentication credentials")

    def carry_out(self, request: Request, body: Any) -> dict[str, Any]:
        path, query = request.path_params["rest"], dict(request.query_params)
        match request.method, path.removeprefix(f"{POOL}/").split("/"):
            case "GET", ["certificateAuthorities", "ca-1"]:
                return self.authority()
            case "POST", ["certificates"]:
                return self.create(query, body)
            case "GET", ["certificates"]:
                return self.listed(query)
            case "GET", ["certificates", name] if name in self.certificates:
                return self.certificates[name]
            case "POST", ["certificates", verb] if verb.endswith(":revoke"):
                return self.revoke(verb.removesuffix(":revoke"), body)
        raise GoogleError(404, "NOT_FOUND", f"Resource '{path}' was not found")

    def authority(self) -> dict[str, Any]:
        text = self.ca.certificate.public_bytes(Encoding.PEM).decode()
        return {
            "name": AUTHORITY, "type": "SELF_SIGNED", "tier": self.tier, "state": self.state,
            "pemCaCertificates": [text],
        }  # fmt: skip

    def create(self, query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        if self.answers:
            raise self.answers.pop(0)
        self.asked.append(body)
        only(query, "certificateId", "issuingCertificateAuthorityId", "requestId", "validateOnly")
        only(body, "lifetime", "config", "subjectMode", "certificateTemplate", "labels")
        name = query.get("certificateId", "")
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,63}", name):
            raise invalid("certificate_id is required in this tier")
        if query.get("issuingCertificateAuthorityId") != "ca-1":
            raise GoogleError(404, "NOT_FOUND", "No such CA in the pool")
        if name in self.certificates:
            raise GoogleError(409, "ALREADY_EXISTS", f"Resource '{name}' already exists")
        if self.state not in ("ENABLED", "STAGED"):
            raise GoogleError(400, "FAILED_PRECONDITION", "The CA is not enabled")
        lifetime = re.fullmatch(r"([1-9][0-9]*)s", body["lifetime"])
        if lifetime is None:
            raise invalid("lifetime")
        now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        ends = now + dt.timedelta(seconds=int(lifetime[1]) - 1)
        der = self.sign(body, min(ends, self.ca.certificate.not_valid_after_utc))
        made = x509.load_der_x509_certificate(der)
        serial = f"{made.serial_number:x}"
        serial = serial.zfill(len(serial) + len(serial) % 2)
        self.certificates[name] = {
            "name": f"{POOL}/certificates/{name}",
            "issuerCertificateAuthority": AUTHORITY,
            "lifetime": body["lifetime"],
            "config": body["config"],
            "pemCertificate": made.public_bytes(Encoding.PEM).decode(),
            "pemCertificateChain": [self.ca.certificate.public_bytes(Encoding.PEM).decode()],
            "certificateDescription": {"subjectDescription": {"hexSerialNumber": serial}},
        }
        return self.certificates[name]

    def sign(self, body: dict[str, Any], ends: dt.datetime) -> bytes:
        config = body["config"]
        only(config, "publicKey", "subjectConfig", "x509Config")
        only(config["publicKey"], "key", "format")
        only(config["subjectConfig"], "subject", "subjectAltName")
        only(config["x509Config"], "keyUsage", "caOptions")
        if config["publicKey"]["format"] != "PEM":
            raise invalid("public_key.format")
        try:
            key = load_pem_public_key(base64.b64decode(config["publicKey"]["key"], validate=True))
        except ValueError:
            raise invalid("public_key.key") from None
        subject = read_subject(config["subjectConfig"]["subject"], body["subjectMode"])
        names = read_names(config["subjectConfig"]["subjectAltName"])
        if any(".forbidden." in str(name.value) for name in names):
            raise invalid("The subject or SANs do not satisfy the CEL expression of the pool")
        usage = config["x509Config"]["keyUsage"]
        only(usage, "baseKeyUsage", "extendedKeyUsage", "unknownExtendedKeyUsages")
        only(usage["baseKeyUsage"], *USAGES.values())
        only(usage["extendedKeyUsage"], *PURPOSES)
        sans = [SimpleNamespace(value=x509.SubjectAlternativeName(names))] if names else []
        wanted = SimpleNamespace(subject=subject, public_key=lambda: key, extensions=sans)
        base = {k: usage["baseKeyUsage"].get(v, False) for k, v in USAGES.items()}
        purposes = [PURPOSES[name] for name, on in usage["extendedKeyUsage"].items() if on]
        purposes += [dotted(each) for each in usage["unknownExtendedKeyUsages"]]
        return self.ca.sign(wanted, ends, key_usage=x509.KeyUsage(**base), extended=tuple(purposes))

    def listed(self, query: dict[str, str]) -> dict[str, Any]:
        """Pages of one, to be followed."""
        only(query, "filter", "pageSize", "pageToken")
        found = FILTER.fullmatch(query.get("filter", ""))
        if found is None:
            raise invalid("filter")
        every = [
            each
            for each in self.certificates.values()
            if each["certificateDescription"]["subjectDescription"]["hexSerialNumber"] == found[1]
        ]
        start = int(query.get("pageToken", "0"))
        page: dict[str, Any] = {"certificates": every[start : start + 1]} if every else {}
        return page | ({"nextPageToken": str(start + 1)} if len(every) > start + 1 else {})

    def revoke(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        only(body, "reason", "requestId")
        found = self.certificates.get(name)
        if found is None:
            raise GoogleError(404, "NOT_FOUND", f"Resource '{name}' was not found")
        if body["reason"] not in REASONS:
            raise invalid("reason")
        if "revocationDetails" in found:
            raise GoogleError(400, "FAILED_PRECONDITION", "The certificate is already revoked")
        serial = found["certificateDescription"]["subjectDescription"]["hexSerialNumber"]
        self.ca.revoked[f"{int(serial, 16):x}"] = body["reason"]
        found["revocationDetails"] = {
            "revocationState": body["reason"], "revocationTime": "2030-01-01T00:00:00Z",
        }  # fmt: skip
        return found


def invalid(message: str) -> GoogleError:
    return GoogleError(400, "INVALID_ARGUMENT", message)


def only(found: dict[str, Any], *allowed: str) -> None:
    if unknown := set(found) - set(allowed):
        raise invalid(f'Invalid JSON payload received. Unknown name "{min(unknown)}"')


def dotted(oid: dict[str, Any]) -> str:
    only(oid, "objectIdPath")
    return ".".join(str(part) for part in oid["objectIdPath"])


def read_subject(subject: dict[str, Any], mode: str) -> x509.Name:
    only(subject, "rdnSequence", *NAMED)
    if mode not in ("DEFAULT", "RDN_SEQUENCE"):
        raise invalid("subject_mode")
    if (mode == "RDN_SEQUENCE") != ("rdnSequence" in subject):
        raise invalid("subject_mode does not fit the subject")
    if mode == "DEFAULT":
        named = ((NAMED[k], v) for k, v in subject.items())
        return x509.Name(x509.NameAttribute(x509.ObjectIdentifier(k), v) for k, v in named)
    return x509.Name(
        x509.RelativeDistinguishedName(
            x509.NameAttribute(
                x509.ObjectIdentifier(TYPES[a["type"]] if "type" in a else dotted(a["objectId"])),
                a["value"],
            )
            for a in rdn["attributes"]
        )
        for rdn in subject["rdnSequence"]
    )


def read_names(sans: dict[str, Any]) -> list[x509.GeneralName]:
    only(sans, "dnsNames", "uris", "emailAddresses", "ipAddresses", "customSans")
    return [
        *(x509.DNSName(each) for each in sans.get("dnsNames", [])),
        *(x509.UniformResourceIdentifier(each) for each in sans.get("uris", [])),
        *(x509.RFC822Name(each) for each in sans.get("emailAddresses", [])),
        *(x509.IPAddress(ipaddress.ip_address(each)) for each in sans.get("ipAddresses", [])),
        *(
            x509.OtherName(
                x509.ObjectIdentifier(dotted(each["objectId"])), base64.b64decode(each["value"])
            )
            for each in sans.get("customSans", [])
        ),
    ]
