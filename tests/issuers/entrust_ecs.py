"""A fake of Entrust Certificate Services' enterprise API v2, from public documents and clients."""

import base64
import datetime as dt
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
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

USER: Final = "ecs-user"
PASSWORD: Final = "ecs-p4ssword-of-the-lab"
SERVER_AUTH: Final = "1.3.6.1.5.5.7.3.1"
USAGES: Final = {
    "CLIENT_AUTH": (pki.CLIENT_AUTH,),
    "SERVER_AUTH": (SERVER_AUTH,),
    "SERVER_AND_CLIENT_AUTH": (SERVER_AUTH, pki.CLIENT_AUTH),
}
REASONS: Final = (
    "unspecified", "keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation",
)  # fmt: skip
HIDDEN: Final = ("APPROVED", "DECLINED")  # not in lists


def error(status: int, message: str) -> FakeError:
    return FakeError(status, {"status": status, "errors": [{"message": message}]})


@dataclass
class FakeRow:
    """One certificate by tracking ID."""

    id: int
    csr: x509.CertificateSigningRequest
    body: dict[str, Any]
    status: str = "PENDING"
    der: bytes = b""

    @property
    def dn(self) -> str:
        return self.csr.subject.rfc4514_string()


@dataclass
class FakeEntrust:
    """`approves` says that requests are not queued for approval."""

    ca: FakeCa = field(default_factory=FakeCa)
    approves: bool = True
    rows: dict[int, FakeRow] = field(default_factory=dict)
    numbers: Any = field(default_factory=lambda: itertools.count(500))

    @property
    def app(self) -> Starlette:
        v2 = "/enterprise/v2"
        return Starlette(
            routes=[
                Route(f"{v2}/organizations", self.organizations),
                Route(f"{v2}/certificates", self.enroll, methods=["POST"]),
                Route(f"{v2}/certificates", self.listing),
                Route(f"{v2}/certificates/{{id:int}}", self.details),
                Route(f"{v2}/certificates/{{id:int}}/revocations", self.revoke, methods=["POST"]),
            ],
            exception_handlers={FakeError: on_error},
        )

    def known(self, request: Request) -> None:
        expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {expected}":
            raise error(401, "Access denied due to invalid credentials")

    async def organizations(self, request: Request) -> Response:
        self.known(request)
        rows = [
            {"name": "Example", "clientId": 1, "verificationStatus": "APPROVED"},
            {"name": "Example Two", "clientId": 2, "verificationStatus": "PENDING"},
        ]
        return JSONResponse({"organizations": rows})

    async def enroll(self, request: Request) -> Response:
        self.known(request)
        body = await request.json()
        needed = {"csr", "certType", "tracking", "certExpiryDate"}
        if wrong := only(
            body, needed, {"signingAlg", "eku", "subjectAltName", "clientId", "queueForApproval"}
        ) or only(
            body["tracking"],
            {"requesterName", "requesterEmail", "requesterPhone"},
            {"trackingInfo"},
        ):
            raise error(400, wrong)
        if body.get("clientId", 1) != 1 or body["certType"] != "PRIVATE_SSL":
            raise error(403, "The inventory has no such certificate")
        days = (self.end(body) - dt.datetime.now(dt.UTC)).days
        if not 0 < days <= 1200:
            raise error(400, "Invalid certExpiryDate")
        csr = x509.load_pem_x509_csr(body["csr"].encode())
        row = FakeRow(next(self.numbers), csr, body)
        self.rows[row.id] = row
        if not self.approves:
            return JSONResponse({"trackingId": row.id}, 202)
        self.approve(row.id)
        chain = [pem_of(pki.der(self.ca.certificate))]
        answer = {"trackingId": row.id, "endEntityCert": pem_of(row.der), "chainCerts": chain}
        return JSONResponse(answer, 201)

    def end(self, body: dict[str, Any]) -> dt.datetime:
        """The last second of the day in UTC-5."""
        day = dt.date.fromisoformat(body["certExpiryDate"])
        return dt.datetime.combine(day, dt.time(23, 59, 59), dt.UTC) + dt.timedelta(hours=5)

    def approve(self, number: int) -> None:
        """Issue for a request that waits."""
        row = self.rows[number]
        if not row.der:
            usages = USAGES[row.body.get("eku", "SERVER_AND_CLIENT_AUTH")]
            row.der = self.ca.sign(row.csr, self.end(row.body), extended=usages)
            row.status = "ACTIVE"

    def shown(self, row: FakeRow) -> dict[str, Any]:
        answer = {"trackingId": row.id, "dn": row.dn, "status": row.status}
        answer["certType"] = row.body["certType"]
        if row.der:
            answer["serialNumber"] = hex_serial(row.der)
            if is_revoked(self.ca, row):
                answer["status"] = "REVOKED"
        return answer

    async def listing(self, request: Request) -> Response:
        self.known(request)
        asked = request.query_params
        if odd := set(asked) - {"limit", "offset", "dn", "serialNumber"}:
            raise error(400, f"Unknown parameter {odd}")
        found = [self.shown(row) for row in self.rows.values() if row.status not in HIDDEN]
        if dn := asked.get("dn"):
            part = dn.removeprefix("con:")
            found = [row for row in found if part in row["dn"]]
        if serial := asked.get("serialNumber"):
            found = [row for row in found if row.get("serialNumber") == serial]
        offset, limit = int(asked.get("offset", 0)), int(asked.get("limit", 20))
        summary = {"offset": offset, "limit": limit, "total": len(found)}
        page = found[offset : offset + limit]
        return JSONResponse({"summary": summary, "certificates": page})

    def row(self, request: Request) -> FakeRow:
        if row := self.rows.get(request.path_params["id"]):
            return row
        raise error(404, "No certificate with this tracking ID")

    async def details(self, request: Request) -> Response:
        self.known(request)
        row = self.row(request)
        answer = self.shown(row) | {"tracking": row.body["tracking"]}
        if row.der:
            answer["endEntityCert"] = pem_of(row.der)
        return JSONResponse(answer)

    async def revoke(self, request: Request) -> Response:
        self.known(request)
        row = self.row(request)
        body = await request.json()
        if wrong := only(body, {"crlReason"}, {"revocationComment"}):
            raise error(400, wrong)
        if body["crlReason"] not in REASONS:
            raise error(400, "Invalid crlReason")
        if not row.der or is_revoked(self.ca, row):
            raise error(400, "The certificate cannot be revoked in its status")
        self.ca.revoked[f"{int(hex_serial(row.der), 16):x}"] = body["crlReason"]
        return JSONResponse({})


def is_revoked(ca: FakeCa, row: FakeRow) -> bool:
    return f"{int(hex_serial(row.der), 16):x}" in ca.revoked


def connector(
    folder: Path, ca: x509.Certificate, url: str, password: str = PASSWORD, **changes: Any
) -> Connector:
    """The connector with a password."""
    path = secret_file(folder, f"{len(password)}.password", password)
    options = {
        "url": f"{url}/enterprise/v2", "username": USER, "password_path": path,
        "requester_name": "PKI team", "requester_email": "pki@example.com",
        "requester_phone": "+1 555 0100",
    }  # fmt: skip
    return build(folder, "entrust-ecs", ca, options | changes)


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Lab]:
    """See `Lab`; `folder` has a configuration, scepstream.toml."""
    fake = FakeEntrust()
    ca = fake.ca.certificate
    async with serving(fake.app) as port, proxied(port, r"^POST .*/certificates$") as proxy:
        found = connector(folder, ca, proxy.url)
        denied = connector(folder, ca, proxy.url, "ecs-p4ssword-of-nobody")
        long = order(ca, not_after=int(ca.not_valid_after_utc.timestamp()))

        async def approve(handle: str) -> None:
            fake.approve(int(handle))

        yield Lab(
            found, fake.ca.everything, fake.ca.is_revoked, proxy, refused=long, denied=denied,
            approve=approve, secrets=(PASSWORD, "ecs-p4ssword-of-nobody"),
        )  # fmt: skip
        await found.close()
        await denied.close()
