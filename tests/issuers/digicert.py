"""A fake of DigiCert's Services API v2, written from its public documents."""

import datetime as dt
import itertools
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

KEY: Final = "dc-ap1-key-of-the-lab"
PRODUCT: Final = "private_ssl_flex"
ORGANIZATION: Final = 112233
REASONS: Final = (
    "unspecified", "key_compromise", "affiliation_changed", "superseded", "cessation_of_operation",
)  # fmt: skip


def error(status: int, code: str, message: str) -> FakeError:
    return FakeError(status, {"errors": [{"code": code, "message": message}]})


@dataclass
class FakeOrder:
    """One order of CertCentral; `certificate_id` is 0 until there is a certificate."""

    id: int
    alternative: str
    body: dict[str, Any]
    status: str
    certificate_id: int = 0
    der: bytes = b""


@dataclass
class FakeDigicert:
    """`administrator` says that the key may skip approvals; `at_once` that it issues at once."""

    ca: FakeCa = field(default_factory=FakeCa)
    administrator: bool = True
    at_once: bool = False
    orders: dict[int, FakeOrder] = field(default_factory=dict)
    numbers: Any = field(default_factory=lambda: itertools.count(1001))

    @property
    def app(self) -> Starlette:
        v2 = "/services/v2"
        return Starlette(
            routes=[
                Route(f"{v2}/user/me", self.user),
                Route(f"{v2}/product/{{name}}", self.product),
                Route(f"{v2}/order/alternate/{{key}}", self.alternate),
                Route(f"{v2}/order/certificate/{{name}}", self.place, methods=["POST"]),
                Route(f"{v2}/order/certificate/{{name}}", self.info, methods=["GET"]),
                Route(f"{v2}/certificate/{{name}}/download/format/pem_all", self.download),
                Route(f"{v2}/certificate/{{name}}/revoke", self.revoke, methods=["PUT"]),
            ],
            exception_handlers={FakeError: on_error},
        )

    def known(self, request: Request) -> None:
        if request.headers.get("x-dc-devkey") != KEY:
            raise error(401, "access_denied|invalid_api_key", "The API key is not valid.")

    async def user(self, request: Request) -> Response:
        self.known(request)
        role = "Administrator" if self.administrator else "Standard User"
        return JSONResponse({"id": 1, "access_roles": [{"id": 1, "name": role}]})

    async def product(self, request: Request) -> Response:
        self.known(request)
        if request.path_params["name"] != PRODUCT:
            raise error(404, "not_found|product", "The specified product was not found.")
        return JSONResponse({"name_id": PRODUCT, "allowed_ca_certs": [{"ca_cert_id": "10A1"}]})

    async def place(self, request: Request) -> Response:
        self.known(request)
        if request.path_params["name"] != PRODUCT:
            raise error(404, "not_found|product", "The specified product was not found.")
        body = await request.json()
        self.check(body)
        number = next(self.numbers)
        placed = FakeOrder(number, body["alternative_order_id"], body, "needs_approval")
        self.orders[number] = placed
        if self.administrator:
            self.approve(number)
        answer: dict[str, Any] = {"id": number, "requests": [{"id": 7, "status": "pending"}]}
        if self.at_once and placed.der:
            chain = [placed.der, pki.der(self.ca.certificate)]
            answer["certificate_id"] = placed.certificate_id
            answer["certificate_chain"] = [{"pem": pem_of(der)} for der in chain]
        return JSONResponse(answer, 201)

    def check(self, body: Any) -> None:
        optional = {"container", "comments", "disable_renewal_notifications", "skip_approval"}
        wrong = only(
            body, {"certificate", "organization", "order_validity", "alternative_order_id"},
            optional,
        ) or only(
            body["certificate"], {"common_name", "csr", "signature_hash"},
            {"dns_names", "ca_cert_id"},
        )  # fmt: skip
        if wrong:
            raise error(400, "bad_request_format", wrong)
        if body["organization"] != {"id": ORGANIZATION}:
            raise error(400, "invalid_organization", "The organization is not valid.")
        if len(body["alternative_order_id"]) > 64:
            raise error(400, "invalid_alternative_order_id", "The ID is too long.")
        days = (self.end(body) - dt.datetime.now(dt.UTC)).days
        if not 0 < days <= 1200:
            raise error(400, "invalid_custom_expiration_date", "The date is out of range.")

    def end(self, body: dict[str, Any]) -> dt.datetime:
        day = dt.date.fromisoformat(body["order_validity"]["custom_expiration_date"])
        return dt.datetime.combine(day, dt.time(23, 59, 59), dt.UTC)

    def approve(self, number: int) -> None:
        """Issue for an order, for the names of the request; those of the CSR do not count."""
        placed = self.orders[number]
        if placed.der:
            return
        asked = placed.body["certificate"]
        csr = x509.load_pem_x509_csr(asked["csr"].encode())
        names = dict.fromkeys((asked["common_name"], *asked.get("dns_names", [])))
        sans = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, asked["common_name"])])
        placed.der = self.ca.sign(_Asked(csr, subject, sans), self.end(placed.body))  # type: ignore[arg-type]
        placed.certificate_id = next(self.numbers)
        placed.status = "issued"

    def found(self, name: str) -> FakeOrder:
        for each in self.orders.values():
            if str(each.id) == name or (each.der and hex_serial(each.der) == name):
                return each
        raise error(404, "not_found|order", "The specified order was not found.")

    async def alternate(self, request: Request) -> Response:
        self.known(request)
        listed = [o for o in self.orders.values() if o.alternative == request.path_params["key"]]
        rows = [
            {"order_id": o.id, "certificate_id": o.certificate_id, "status": o.status}
            for o in listed
        ]
        page = {"total": len(rows), "limit": 1000, "offset": 0}
        return JSONResponse({"orders": rows, "page": page})

    async def info(self, request: Request) -> Response:
        self.known(request)
        placed = self.found(request.path_params["name"])
        certificate: dict[str, Any] = {"common_name": placed.body["certificate"]["common_name"]}
        if placed.der:
            serial = hex_serial(placed.der)
            revoked = f"{int(serial, 16):x}" in self.ca.revoked
            certificate |= {
                "id": placed.certificate_id, "serial_number": serial.lower(),
                "status": "revoked" if revoked else "approved",
            }  # fmt: skip
        row = {"id": placed.id, "status": placed.status, "certificate": certificate}
        return JSONResponse(row | {"alternative_order_id": placed.alternative})

    async def download(self, request: Request) -> Response:
        self.known(request)
        for each in self.orders.values():
            if each.der and str(each.certificate_id) == request.path_params["name"]:
                return PlainTextResponse(pem_of(each.der) + pem_of(pki.der(self.ca.certificate)))
        raise error(404, "not_found|certificate", "The certificate was not found.")

    async def revoke(self, request: Request) -> Response:
        self.known(request)
        placed = self.found(request.path_params["name"])
        body = await request.json()
        if wrong := only(body, set(), {"comments", "skip_approval", "revocation_reason"}):
            raise error(400, "bad_request_format", wrong)
        if body.get("revocation_reason", "unspecified") not in REASONS:
            raise error(400, "invalid_revocation_reason", "The reason is not valid.")
        serial = f"{int(hex_serial(placed.der), 16):x}"
        if serial in self.ca.revoked:
            raise error(400, "invalid_certificate", "The certificate cannot be revoked now.")
        if not (body.get("skip_approval") and self.administrator):
            return JSONResponse({"id": 1, "type": "revoke", "status": "pending"}, 201)
        self.ca.revoked[serial] = body.get("revocation_reason", "unspecified")
        return Response(status_code=204)


@dataclass
class _Asked:
    """What `FakeCa.sign` reads of a CSR, with the request's names."""

    csr: x509.CertificateSigningRequest
    subject: x509.Name
    sans: x509.SubjectAlternativeName

    def public_key(self) -> Any:
        return self.csr.public_key()

    @property
    def extensions(self) -> x509.Extensions:
        oid = x509.SubjectAlternativeName.oid
        return x509.Extensions([x509.Extension(oid, critical=False, value=self.sans)])


def connector(
    folder: Path, ca: x509.Certificate, url: str, key: str = KEY, **changes: Any
) -> Connector:
    """The connector with an API key."""
    path = secret_file(folder, f"{len(key)}.key", key)
    options = {
        "url": url, "api_key_path": path, "product": PRODUCT, "organization_id": ORGANIZATION,
        "ca_cert_id": "10A1",
    }  # fmt: skip
    return build(folder, "digicert", ca, options | changes)


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Lab]:
    """See `Lab`; `folder` has a configuration, scepstream.toml."""
    fake = FakeDigicert()
    ca = fake.ca.certificate
    place = rf"^POST .*/order/certificate/{PRODUCT}$"
    async with serving(fake.app) as port, proxied(port, place) as proxy:
        found = connector(folder, ca, proxy.url)
        denied = connector(folder, ca, proxy.url, "dc-of-nobody")
        long = order(ca, not_after=int(ca.not_valid_after_utc.timestamp()))

        async def approve(handle: str) -> None:
            fake.approve(int(handle))

        yield Lab(
            found, fake.ca.everything, fake.ca.is_revoked, proxy, refused=long, denied=denied,
            approve=approve, secrets=(KEY, "dc-of-nobody"),
        )  # fmt: skip
        await found.close()
        await denied.close()
