"""A fake of the device certificate API of Sectigo Certificate Manager, from its documents."""

import datetime as dt
import itertools
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from services.issuer.connectors.connector import Connector
from tests.issuers.authority import FakeCa
from tests.issuers.building import build, secret_file
from tests.issuers.fake_rest import FakeError, hex_serial, on_error, only, pem_of
from tests.issuers.lab import Lab
from tests.issuers.orders import order
from tests.issuers.proxy import proxied
from tests.issuers.serving import serving
from tests.support import pki

CUSTOMER: Final = "cst-of-the-lab"
LOGIN: Final = "api-admin"
PASSWORD: Final = "p4ssword-of-the-lab"
ORGANIZATION: Final = 1980
PROFILE: Final = 1781
TERMS: Final = (30, 365)
REASONS: Final = ("0", "1", "3", "4", "5")


def error(status: int, code: int, description: str) -> FakeError:
    return FakeError(status, {"code": code, "description": description})


@dataclass
class FakeRow:
    """One device certificate."""

    id: int
    csr: x509.CertificateSigningRequest
    body: dict[str, Any]
    status: str = "Requested"
    der: bytes = b""

    @property
    def name(self) -> str:
        found = self.csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(found[0].value) if found else ""


@dataclass
class FakeSectigo:
    """`approves` says that the profile approves requests by itself."""

    ca: FakeCa = field(default_factory=FakeCa)
    approves: bool = True
    rows: dict[int, FakeRow] = field(default_factory=dict)
    numbers: Any = field(default_factory=lambda: itertools.count(84))

    @property
    def app(self) -> Starlette:
        v1 = "/api/device/v1"
        return Starlette(
            routes=[
                Route(v1, self.listing),
                Route(f"{v1}/types", self.types),
                Route(f"{v1}/enroll", self.enroll, methods=["POST"]),
                Route(f"{v1}/collect/{{id:int}}", self.collect),
                Route(f"{v1}/revoke/serial/{{serial}}", self.revoke, methods=["POST"]),
                Route(f"{v1}/{{id:int}}", self.details),
            ],
            exception_handlers={FakeError: on_error},
        )

    def known(self, request: Request) -> None:
        sent = tuple(request.headers.get(n) for n in ("customeruri", "login", "password"))
        if sent != (CUSTOMER, LOGIN, PASSWORD):
            raise error(401, -16, "Unknown user")

    async def types(self, request: Request) -> Response:
        self.known(request)
        if request.query_params.get("organizationId") != str(ORGANIZATION):
            return JSONResponse([])
        profile = {"id": PROFILE, "name": "Devices", "terms": list(TERMS), "term": TERMS[0]}
        return JSONResponse([profile | {"eku": [pki.CLIENT_AUTH]}])

    async def enroll(self, request: Request) -> Response:
        self.known(request)
        body = await request.json()
        optional = {"comments", "customFields", "optionalFields"}
        if wrong := only(body, {"orgId", "csr", "certType", "term"}, optional):
            raise error(400, -1, wrong)
        if (body["orgId"], body["certType"]) != (ORGANIZATION, PROFILE):
            raise error(400, -111, "The certificate profile is not available")
        if body["term"] not in TERMS:
            raise error(400, -112, "The term is not available for the profile")
        if len(body.get("comments", "")) > 1024:
            raise error(400, -1, "comments: maximum length is 1024 characters")
        csr = x509.load_pem_x509_csr(body["csr"].encode())
        row = FakeRow(next(self.numbers), csr, body)
        if not re.fullmatch(r"[a-z0-9.-]+", row.name):
            raise error(400, -10, "The common name is not valid")
        self.rows[row.id] = row
        if self.approves:
            self.approve(row.id)
        answer = {"deviceCertId": row.id, "status": "APPROVED", "backendCertId": "5360"}
        return JSONResponse(answer | {"orderNumber": row.id})

    def approve(self, number: int) -> None:
        """Issue, as the profile does by itself if `approves`."""
        row = self.rows[number]
        if row.der:
            return
        today = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        ends = today + dt.timedelta(days=row.body["term"] + 1, seconds=-1)
        row.der = self.ca.sign(row.csr, ends)
        row.status = "Issued"

    def serial(self, row: FakeRow) -> str:
        return hex_serial(row.der) if row.der else ""

    def status(self, row: FakeRow) -> str:
        revoked = row.der and f"{int(self.serial(row), 16):x}" in self.ca.revoked
        return "Revoked" if revoked else row.status

    async def listing(self, request: Request) -> Response:
        self.known(request)
        asked = request.query_params
        if odd := set(asked) - {"size", "position", "commonName", "serialNumber", "certTypeId"}:
            raise error(400, -1, f"unknown filter {odd}")
        found = [
            row
            for row in self.rows.values()
            if asked.get("commonName", "") in row.name
            and asked.get("serialNumber", "") in self.serial(row)
            and asked.get("certTypeId", str(PROFILE)) == str(PROFILE)
        ]
        begin, size = int(asked.get("position", 0)), int(asked.get("size", 200))
        if not 0 <= size <= 200:
            raise error(400, -1, "size: must be at most 200")
        page = [
            {"id": row.id, "status": self.status(row).upper(), "certificateDetails": {}}
            for row in found[begin : begin + size]
        ]
        return JSONResponse(page, headers={"x-total-count": str(len(found))})

    def row(self, request: Request) -> FakeRow:
        if row := self.rows.get(request.path_params["id"]):
            return row
        raise error(404, -105, "The certificate does not exist")

    async def details(self, request: Request) -> Response:
        self.known(request)
        row = self.row(request)
        answer = {
            "id": row.id, "commonName": row.name, "orgId": ORGANIZATION,
            "status": self.status(row), "serialNumber": self.serial(row).lower(),
            "comments": row.body.get("comments", ""), "certificateDetails": {},
        }  # fmt: skip
        return JSONResponse(answer)

    async def collect(self, request: Request) -> Response:
        self.known(request)
        row = self.row(request)
        if request.query_params.get("format") != "x509CO":
            raise error(400, -1, "this fake has the format x509CO only")
        if not row.der:
            raise error(400, 0, "Being processed by Sectigo")
        return PlainTextResponse(pem_of(row.der))

    async def revoke(self, request: Request) -> Response:
        self.known(request)
        body = await request.json()
        if wrong := only(body, {"reason"}, {"reasonCode"}):
            raise error(400, -1, wrong)
        if body.get("reasonCode", "0") not in REASONS or not body["reason"]:
            raise error(400, -1, "reasonCode: not supported")
        for row in self.rows.values():
            if row.der and self.serial(row) == request.path_params["serial"]:
                if self.status(row) == "Revoked":
                    raise error(400, -102, "The certificate is in an invalid state")
                self.ca.revoked[f"{int(self.serial(row), 16):x}"] = body["reasonCode"]
                return Response(status_code=204)
        raise error(404, -105, "The certificate does not exist")


def connector(
    folder: Path, ca: x509.Certificate, url: str, password: str = PASSWORD, **changes: Any
) -> Connector:
    """The connector with a password."""
    path = secret_file(folder, f"{len(password)}.password", password)
    options = {
        "url": url, "customer_uri": CUSTOMER, "login": LOGIN, "password_path": path,
        "org_id": ORGANIZATION, "cert_type": PROFILE, "terms": list(TERMS),
    }  # fmt: skip
    return build(folder, "sectigo", ca, options | changes)


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Lab]:
    """See `Lab`; `folder` has a configuration, scepstream.toml."""
    fake = FakeSectigo()
    ca = fake.ca.certificate
    async with serving(fake.app) as port, proxied(port, r"^POST .*/enroll$") as proxy:
        found = connector(folder, ca, proxy.url)
        denied = connector(folder, ca, proxy.url, "p4ssword-of-nobody")

        async def approve(handle: str) -> None:
            fake.approve(int(handle))

        yield Lab(
            found, fake.ca.everything, fake.ca.is_revoked, proxy,
            refused=order(ca, "Not A Device Name!"), denied=denied, approve=approve,
            secrets=(PASSWORD, "p4ssword-of-nobody"),
        )  # fmt: skip
        await found.close()
        await denied.close()
