"""A fake of GlobalSign Atlas HVCA, API v2, from public documents and GlobalSign's own client."""

import datetime as dt
import itertools
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.issuer.connectors.connector import Connector
from tests.issuers.authority import FakeCa
from tests.issuers.building import build, secret_file
from tests.issuers.fake_rest import FakeError, on_error, only, pem_of
from tests.issuers.lab import Lab
from tests.issuers.orders import order
from tests.issuers.proxy import proxied
from tests.issuers.serving import serving
from tests.support import pki

KEY: Final = "e510e289e6cd8947"
SECRET: Final = "a477a8393d17a55ecb2ba6a61f58feb84770b621"
REASONS: Final = (
    "unspecified", "affiliationChanged", "keyCompromise", "superseded", "cessationOfOperation",
    "privilegeWithdrawn",
)  # fmt: skip
NAMES: Final = {
    "common_name": NameOID.COMMON_NAME,
    "organization": NameOID.ORGANIZATION_NAME,
    "country": NameOID.COUNTRY_NAME,
    "serial_number": NameOID.SERIAL_NUMBER,
}


def policy() -> dict[str, Any]:
    """A validation policy for devices, at most 90 days."""
    return {
        "validity": {
            "secondsmin": 3600, "secondsmax": 90 * 86400,
            "not_before_negative_skew": 120, "not_before_positive_skew": 3600,
        },
        "subject_dn": {"common_name": {"presence": "REQUIRED", "format": "^[a-z0-9.-]+$"}},
        "san": {
            "dns_names": {"static": False, "list": [".*"], "mincount": 0, "maxcount": 5},
            "uris": {"static": False, "list": [".*"], "mincount": 0, "maxcount": 1},
        },
        "extended_key_usages": {
            "ekus": {
                "static": False, "list": ["^1.3.6.1.5.5.7.3.[1-3]$"], "mincount": 1, "maxcount": 3,
            },
            "critical": False,
        },
        "signature": {
            "algorithm": {"presence": "OPTIONAL", "list": ["ECDSA"]},
            "hash_algorithm": {"presence": "REQUIRED", "list": ["SHA-384", "SHA-256"]},
        },
        "public_key": {"key_type": "ECDSA", "allowed_lengths": [256], "key_format": "PKCS10"},
        "public_key_signature": "FORBIDDEN",
    }  # fmt: skip


def error(status: int, description: str, **errors: str) -> FakeError:
    return FakeError(status, {"description": description, "errors": errors})


@dataclass
class FakeAtlas:
    """`delay` is how often a certificate is not ready when it is asked for."""

    ca: FakeCa = field(default_factory=FakeCa)
    policy: dict[str, Any] = field(default_factory=policy)
    delay: int = 1
    tokens: set[str] = field(default_factory=set)
    asked: dict[str, int] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    numbers: Any = field(default_factory=itertools.count)

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v2/login", self.login, methods=["POST"]),
                Route("/v2/validationpolicy", self.validation_policy),
                Route("/v2/trustchain", self.trust_chain),
                Route("/v2/certificates", self.order, methods=["POST"]),
                Route("/v2/certificates/{serial}", self.certificate),
                Route("/v2/certificates/{serial}", self.revoke, methods=["PATCH"]),
            ],
            exception_handlers={FakeError: on_error},
        )

    async def login(self, request: Request) -> Response:
        if await request.json() != {"api_key": KEY, "api_secret": SECRET}:
            raise error(401, "Unauthorized")
        token = f"t0ken-of-the-lab-{next(self.numbers)}"
        self.tokens.add(token)
        return JSONResponse({"access_token": token})

    def known(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or token not in self.tokens:
            raise error(401, "Unauthorized")

    async def validation_policy(self, request: Request) -> Response:
        self.known(request)
        return JSONResponse(self.policy)

    async def trust_chain(self, request: Request) -> Response:
        self.known(request)
        return JSONResponse([pem_of(pki.der(self.ca.certificate))])

    async def order(self, request: Request) -> Response:
        self.known(request)
        body = await request.json()
        self.requests.append(body)
        needed = {"validity", "public_key"}
        if wrong := only(body, needed, {"subject_dn", "san", "extended_key_usages", "signature"}):
            raise error(400, "Bad Request", body=wrong)
        self.check_validity(body["validity"])
        self.check_parts(body)
        serial = self.sign(body)
        self.asked[serial] = 0
        return Response(
            status_code=201, headers={"location": f"https://atlas.example/v2/certificates/{serial}"}
        )

    def check_validity(self, asked: dict[str, int]) -> None:
        limits = self.policy["validity"]
        early = time.time() - asked["not_before"]
        seconds = asked["not_after"] - asked["not_before"]
        if (
            early > limits["not_before_negative_skew"]
            or -early > limits["not_before_positive_skew"]
        ):
            raise error(422, "Unprocessable Entity", not_before="out of range")
        if not limits["secondsmin"] <= seconds <= limits["secondsmax"]:
            raise error(422, "Unprocessable Entity", not_after="the validity is out of range")

    def check_parts(self, body: dict[str, Any]) -> None:
        self.check_subject(body.get("subject_dn", {}))
        ekus = self.policy["extended_key_usages"]["ekus"]
        for oid in body.get("extended_key_usages", []):
            if ekus["static"] or not any(re.search(each, oid) for each in ekus["list"]):
                raise error(422, "Unprocessable Entity", extended_key_usages="not permitted")
        for name in body.get("san", {}):
            if name not in self.policy["san"] or self.policy["san"][name]["static"]:
                raise error(422, "Unprocessable Entity", **{name: "not permitted"})
        if body.get("signature", {}).get("hash_algorithm") != "SHA-256":
            raise error(422, "Unprocessable Entity", signature="hash_algorithm is required")

    def check_subject(self, asked: dict[str, Any]) -> None:
        for name, value in asked.items():
            rule = self.policy["subject_dn"].get(name, {"presence": "FORBIDDEN"})
            if rule["presence"] in ("FORBIDDEN", "STATIC"):
                raise error(422, "Unprocessable Entity", **{name: "not permitted"})
            if not re.search(rule["format"], value):
                raise error(422, "Unprocessable Entity", **{name: "does not match the policy"})

    def sign(self, body: dict[str, Any]) -> str:
        text = body["public_key"].encode()
        pkcs10 = self.policy["public_key"]["key_format"] == "PKCS10"
        key: Any = (
            x509.load_pem_x509_csr(text).public_key() if pkcs10 else load_pem_public_key(text)
        )
        subject = [(NAMES[name], value) for name, value in body.get("subject_dn", {}).items()]
        for name, rule in self.policy["subject_dn"].items():
            if rule["presence"] == "STATIC":
                subject.append((NAMES[name], rule["format"]))
        san = body.get("san", {})
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in san.get("dns_names", [])]
        names += [x509.UniformResourceIdentifier(uri) for uri in san.get("uris", [])]
        rule = self.policy["extended_key_usages"]["ekus"]
        ekus = rule["list"] if rule["static"] else body["extended_key_usages"]
        asked = _Asked(
            key, x509.Name([x509.NameAttribute(*each) for each in subject]),
            x509.SubjectAlternativeName(names),
        )  # fmt: skip
        ends = dt.datetime.fromtimestamp(body["validity"]["not_after"], dt.UTC)
        der = self.ca.sign(asked, ends, extended=tuple(ekus))  # type: ignore[arg-type]
        return f"{x509.load_der_x509_certificate(der).serial_number:X}"

    def made(self, request: Request) -> tuple[str, bytes]:
        serial = request.path_params["serial"]
        if der := self.ca.made.get(serial.lower()):
            return serial, der
        raise error(404, "Not Found")

    async def certificate(self, request: Request) -> Response:
        self.known(request)
        serial, der = self.made(request)
        self.asked[serial] += 1
        if self.asked[serial] <= self.delay:
            return Response(status_code=202)
        status = "REVOKED" if serial.lower() in self.ca.revoked else "ISSUED"
        answer = {"certificate": pem_of(der), "status": status, "updated_at": int(time.time())}
        return JSONResponse(answer)

    async def revoke(self, request: Request) -> Response:
        self.known(request)
        serial, _ = self.made(request)
        body = await request.json()
        wrong = only(body, {"revocation_reason"}, {"revocation_time", "key_compromise_attestation"})
        if wrong or body["revocation_reason"] not in REASONS:
            raise error(422, "Unprocessable Entity", revocation_reason=wrong or "not supported")
        if serial.lower() in self.ca.revoked:
            raise error(422, "Unprocessable Entity", certificate="already revoked")
        self.ca.revoked[serial.lower()] = body["revocation_reason"]
        return Response(status_code=204)


@dataclass
class _Asked:
    """What `FakeCa.sign` reads of a CSR, with the request's names."""

    key: Any
    subject: x509.Name
    sans: x509.SubjectAlternativeName

    def public_key(self) -> Any:
        return self.key

    @property
    def extensions(self) -> x509.Extensions:
        oid = x509.SubjectAlternativeName.oid
        return x509.Extensions([x509.Extension(oid, critical=False, value=self.sans)])


def connector(
    folder: Path, ca: x509.Certificate, url: str, secret: str = SECRET, **changes: Any
) -> Connector:
    """The connector with an API secret."""
    path = secret_file(folder, f"{len(secret)}.secret", secret)
    options = {"url": f"{url}/v2", "api_key": KEY, "api_secret_path": path}
    return build(folder, "globalsign-atlas", ca, options | changes)


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Lab]:
    """See `Lab`; `folder` has a configuration, scepstream.toml."""
    fake = FakeAtlas()
    ca = fake.ca.certificate
    async with serving(fake.app) as port, proxied(port, r"^POST .*/v2/certificates$") as proxy:
        found = connector(folder, ca, proxy.url)
        denied = connector(folder, ca, proxy.url, "s3cret-of-nobody")
        long = order(ca, not_after=int(time.time()) + 91 * 86400)
        yield Lab(
            found, fake.ca.everything, fake.ca.is_revoked, proxy, refused=long, denied=denied,
            secrets=(SECRET, "s3cret-of-nobody", "t0ken-of-the-lab"),
        )  # fmt: skip
        await found.close()
        await denied.close()
