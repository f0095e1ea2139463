"""A fake of EJBCA's REST API, from its public documents and the open source of its resources."""

import base64
import datetime as dt
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

from cryptography import x509
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from services.issuer.connectors.connector import Connector
from tests.issuers.authority import FakeCa
from tests.issuers.building import build, secret_file
from tests.issuers.lab import Lab
from tests.issuers.orders import order
from tests.issuers.proxy import proxied
from tests.issuers.serving import serving
from tests.issuers.tls_front import SUBJECT
from tests.support import pki

API: Final = "/ejbca/ejbca-rest-api"
CA_NAME: Final = "DeviceCA"
PROFILE: Final = "scep-device"
END_ENTITY_PROFILE: Final = "scep-devices"
LIFETIME: Final = dt.timedelta(days=30)  # of the certificate profile
CLIENT: Final = "scepstream-issuer"
CLIENT_SECRET: Final = "cl1ent-s3cret-of-the-issuer"
PASSWORD_SECRET: Final = "s3cret-for-one-time-passw0rds-of-end-entities"
_FIELDS: Final = {
    "certificate_request", "certificate_profile_name", "end_entity_profile_name",
    "certificate_authority_name", "username", "password", "account_binding_id", "include_chain",
    "email", "response_format", "start_time", "end_time",
}  # fmt: skip
_PROPERTIES: Final = {
    "QUERY", "END_ENTITY_PROFILE", "CERTIFICATE_PROFILE", "EXTERNAL_ACCOUNT_BINDING_ID", "CA",
    "STATUS", "ISSUED_DATE", "EXPIRE_DATE", "REVOCATION_DATE", "UPDATE_TIME",
}  # fmt: skip
_REASONS: Final = {
    "NOT_REVOKED", "UNSPECIFIED", "KEY_COMPROMISE", "CA_COMPROMISE", "AFFILIATION_CHANGED",
    "SUPERSEDED", "CESSATION_OF_OPERATION", "CERTIFICATE_HOLD", "REMOVE_FROM_CRL",
    "PRIVILEGES_WITHDRAWN", "AA_COMPROMISE",
}  # fmt: skip
_RELEASES: Final = ("REMOVE_FROM_CRL", "NOT_REVOKED")


class EjbcaError(Exception):
    """An error that EJBCA answers in its own format."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class EndEntity:
    """An end entity: its request, its password, and whether it is still NEW."""

    asked: dict[str, Any]
    password: str
    new: bool = True


@dataclass
class FakeEjbca:
    """EJBCA with one CA. `approvals`: enrollments wait for an approval. `clients` are subjects.

    `new_keys` is the CA's setting "Enforce key renewal". `requests` are approval requests by ID.
    """

    ca: FakeCa = field(default_factory=FakeCa)
    approvals: bool = False
    new_keys: bool = False
    clients: tuple[str, ...] = ()
    token: str = "eyJ-access-t0ken"
    ca_name: str = CA_NAME
    end_entities: dict[str, EndEntity] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    requests: dict[int, tuple[str, str]] = field(default_factory=dict)
    bodies: list[Any] = field(default_factory=list)

    @property
    def dn(self) -> str:
        """The CA's subject DN."""
        return self.ca.certificate.subject.rfc4514_string()

    @property
    def app(self) -> Starlette:
        """The application."""
        certificate = f"{API}/v1/certificate"
        return Starlette(
            routes=[
                Route("/idp/token", self.give_token, methods=["POST"]),
                Route(f"{API}/v1/ca", self.answering(self.cas), methods=["GET"]),
                Route(
                    f"{API}/v1/ca/{{dn}}/certificate/download",
                    self.answering(self.download), methods=["GET"],
                ),
                Route(
                    f"{certificate}/pkcs10enroll", self.answering(self.enroll), methods=["POST"]
                ),
                Route(
                    f"{certificate}/{{number:int}}/finalize",
                    self.answering(self.finalize), methods=["POST"],
                ),
                Route(
                    f"{API}/v2/certificate/search",
                    self.answering(self.search), methods=["POST"],
                ),
                Route(
                    f"{certificate}/{{dn}}/{{serial}}/revoke",
                    self.answering(self.revoke), methods=["PUT"],
                ),
                Route(
                    f"{certificate}/{{dn}}/{{serial}}/revocationstatus",
                    self.answering(self.status), methods=["GET"],
                ),
            ]
        )  # fmt: skip

    async def give_token(self, request: Request) -> Response:
        """The OAuth provider."""
        form = {key: found[0] for key, found in parse_qs((await request.body()).decode()).items()}
        wanted = {
            "grant_type": "client_credentials", "client_id": CLIENT,
            "client_secret": CLIENT_SECRET, "scope": "ejbca",
        }  # fmt: skip
        if form != wanted:
            return JSONResponse({"error": "invalid_client"}, 401)
        made = {"access_token": self.token, "token_type": "Bearer", "expires_in": 300}
        return JSONResponse(made)

    def answering(self, method: Any) -> Any:
        """An endpoint that lets authenticated calls pass and answers errors as EJBCA does."""

        async def endpoint(request: Request) -> Response:
            try:
                self.authenticate(request)
                body = await self.body(request)
                return await method(request, body)  # type: ignore[no-any-return]
            except EjbcaError as said:
                message = {"error_code": said.status, "error_message": str(said)}
                return JSONResponse(message, said.status)

        return endpoint

    async def body(self, request: Request) -> Any:
        """The body of a request, JSON if there is one."""
        text = await request.body()
        if text and request.headers.get("content-type") != "application/json":
            raise EjbcaError(415, "HTTP 415 Unsupported Media Type")
        self.bodies.append(json.loads(text) if text else {})
        return self.bodies[-1]

    def authenticate(self, request: Request) -> None:
        """An access token, or a client certificate that a role knows."""
        if request.headers.get("authorization") == f"Bearer {self.token}":
            return
        if request.headers.get(SUBJECT) not in self.clients:
            raise EjbcaError(403, "Authentication failed")

    async def cas(self, request: Request, body: Any) -> Response:
        """`GET /v1/ca`."""
        del request, body
        ends = self.ca.certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
        shown = {
            "id": 1652389506, "name": self.ca_name, "subject_dn": self.dn, "issuer_dn": self.dn,
            "expiration_date": ends,
        }  # fmt: skip
        return JSONResponse({"certificate_authorities": [shown]})

    async def download(self, request: Request, body: Any) -> Response:
        """`GET /v1/ca/{subject_dn}/certificate/download`."""
        del body
        self.know(request.path_params["dn"])
        pem = self.ca.certificate.public_bytes(pki.Encoding.PEM).decode()
        text = f"Subject: {self.dn}\nIssuer: {self.dn}\n{pem}"
        return PlainTextResponse(text, media_type="application/octet-stream")

    def know(self, dn: str) -> None:
        """The DN is the CA's."""
        if dn != self.dn:
            raise EjbcaError(404, f"CA '{dn}' does not exist.")

    async def enroll(self, request: Request, body: Any) -> Response:
        """`POST /v1/certificate/pkcs10enroll`."""
        del request
        self.judge(body)
        # An end entity that exists is edited, and is NEW again.
        username = body["username"]
        self.end_entities[username] = EndEntity(body, body["password"])
        if self.approvals:
            number = 1000 + len(self.requests)
            self.requests[number] = (username, "waiting")
            return self.waiting(number, "The request has been submitted and awaits approval")
        return self.issue(username)

    def judge(self, body: Any) -> None:
        """Refuse an enrollment that names what is not there or does not fit the profiles."""
        if unknown := set(body) - _FIELDS:
            raise EjbcaError(400, f"Unrecognized field {min(unknown)}")
        there = {
            "certificate_authority_name": self.ca_name, "certificate_profile_name": PROFILE,
            "end_entity_profile_name": END_ENTITY_PROFILE,
        }  # fmt: skip
        for name, value in there.items():
            if body[name] != value:
                raise EjbcaError(404, f"{name} {body[name]} does not exist")
        if body.get("response_format", "DER") not in ("DER", "PKCS7"):
            raise EjbcaError(400, "Invalid input. Response format can only be DER or PKCS7")
        csr = x509.load_pem_x509_csr(body["certificate_request"].encode())
        name = csr.subject.rfc4514_string()
        if not re.fullmatch(r"CN=device-[0-9]+\.example", name):
            raise EjbcaError(400, f"Field CN is not valid for the end entity profile: {name}")
        known = (self.key(der) for der in self.ca.made.values())
        if self.new_keys and csr.public_key() in known:
            raise EjbcaError(400, "Certificate for this key already exists for the user")

    @staticmethod
    def key(der: bytes) -> Any:
        """The public key of a certificate."""
        return x509.load_der_x509_certificate(der).public_key()

    @staticmethod
    def waiting(number: int, message: str) -> Response:
        """What waits for an approval."""
        link = f"https://localhost:8443{API}/v1/certificate/{number}/finalize"
        return JSONResponse({"status_code": 202, "info_message": message, "link": link}, 202)

    def issue(self, username: str) -> Response:
        """Sign for an end entity that is NEW; it is GENERATED then."""
        entity = self.end_entities[username]
        ends = dt.datetime.now(dt.UTC).replace(microsecond=0) + LIFETIME
        if asked := entity.asked.get("end_time"):
            ends = dt.datetime.fromisoformat(f"{asked}+00:00")
        csr = x509.load_pem_x509_csr(entity.asked["certificate_request"].encode())
        der = self.ca.sign(csr, ends)
        entity.new = False
        self.names[f"{x509.load_der_x509_certificate(der).serial_number:x}"] = username
        made = {
            "certificate": base64.b64encode(der).decode(),
            "serial_number": f"{x509.load_der_x509_certificate(der).serial_number:X}",
            "response_format": "DER",
        }
        return JSONResponse(made, 201)

    async def finalize(self, request: Request, body: Any) -> Response:
        """`POST /v1/certificate/{request_id}/finalize`."""
        number = request.path_params["number"]
        if set(body) != {"response_format", "password"} or body["response_format"] != "DER":
            raise EjbcaError(400, "Invalid parameter: response_format")
        username, state = self.requests.get(number, ("", ""))
        if not username:
            raise EjbcaError(400, f"Could not find request with Id '{number}'")
        if state == "waiting":
            return self.waiting(number, f"Request with Id '{number}' is still waiting for approval")
        if state != "approved":
            raise EjbcaError(400, f"Request with Id '{number}' {state}")
        if not self.end_entities[username].new:
            raise EjbcaError(400, f"Enrollment with Id '{number}' has already been finalized")
        if body["password"] != self.end_entities[username].password:
            raise EjbcaError(403, "Wrong username or password")
        return self.issue(username)

    async def search(self, request: Request, body: Any) -> Response:
        """`POST /v2/certificate/search`."""
        del request
        page = body.get("pagination") or {}
        if not 1 <= page.get("page_size", 0) <= 1000 or page.get("current_page", 0) < 1:
            raise EjbcaError(400, "Invalid pagination")
        criteria = body.get("criteria")
        if not criteria:
            raise EjbcaError(400, "Malformed request.")
        given = {}
        for each in criteria:
            if each["property"] not in _PROPERTIES or each["operation"] != "EQUAL":
                raise EjbcaError(400, "Invalid search criteria content.")
            given[each["property"]] = each["value"]
        known = {
            "CA": self.ca_name, "END_ENTITY_PROFILE": END_ENTITY_PROFILE,
            "CERTIFICATE_PROFILE": PROFILE,
        }  # fmt: skip
        for name, value in known.items():
            if given.get(name, value) != value:
                thing = name.lower().replace("_", " ")
                raise EjbcaError(400, f"Invalid search criteria content, unknown {thing}.")
        found = [
            self.shown(serial) for serial, name in self.names.items() if name == given["QUERY"]
        ]
        summary = {"page_size": page["page_size"], "current_page": 1, "total_certs": len(found)}
        return JSONResponse({"certificates": found, "pagination_summary": summary})

    def shown(self, serial: str) -> dict[str, Any]:
        """A certificate as a search shows it: encoded in base64 twice, with its CSR."""
        once = base64.b64encode(self.ca.made[serial])
        name = self.names[serial]
        return {
            "username": name, "serialNumber": serial.upper(), "issuerDN": self.dn,
            "status": 40 if serial in self.ca.revoked else 20,
            "base64Cert": base64.b64encode(once).decode(),
            "certificateRequest": self.end_entities[name].asked["certificate_request"],
        }  # fmt: skip

    async def revoke(self, request: Request, body: Any) -> Response:
        """`PUT /v1/certificate/{issuer_dn}/{serial}/revoke?reason=`."""
        del body
        serial, reason = self.known(request), request.query_params.get("reason", "")
        if reason not in _REASONS:
            raise EjbcaError(400, "Invalid revocation reason.")
        now = self.ca.revoked.get(serial)
        if reason in _RELEASES:
            if now != "CERTIFICATE_HOLD":
                raise EjbcaError(409, f"Certificate with serial number {serial} is not on hold.")
            del self.ca.revoked[serial]
        elif now is not None and (now != "CERTIFICATE_HOLD" or reason == now):
            raise EjbcaError(409, f"Certificate with serial number {serial} is already revoked.")
        else:
            self.ca.revoked[serial] = reason
        return JSONResponse(self.state(serial) | {"message": "Successfully revoked"})

    async def status(self, request: Request, body: Any) -> Response:
        """`GET /v1/certificate/{issuer_dn}/{serial}/revocationstatus`."""
        del body
        return JSONResponse(self.state(self.known(request)))

    def known(self, request: Request) -> str:
        """The serial number of a certificate that the CA made."""
        self.know(request.path_params["dn"])
        serial = f"{int(request.path_params['serial'], 16):x}"
        if serial not in self.ca.made:
            raise EjbcaError(404, f"Certificate with serial number '{serial}' was not found")
        return serial

    def state(self, serial: str) -> dict[str, Any]:
        """The status of a certificate."""
        reason = self.ca.revoked.get(serial, "NOT_REVOKED")
        return {
            "issuer_dn": self.dn, "serial_number": serial, "revocation_reason": reason,
            "revoked": reason != "NOT_REVOKED",
        }  # fmt: skip


def options(folder: Path, port: int, secret: str = CLIENT_SECRET) -> dict[str, Any]:
    """The options of a connector that authenticates with OAuth."""
    return {
        "url": f"http://127.0.0.1:{port}{API}",
        "ca_name": CA_NAME,
        "certificate_profile": PROFILE,
        "end_entity_profile": END_ENTITY_PROFILE,
        "password_secret_path": secret_file(folder, "password.secret", PASSWORD_SECRET),
        "auth": "oauth",
        "token_url": f"http://127.0.0.1:{port}/idp/token",
        "client_id": CLIENT,
        "client_secret_path": secret_file(folder, f"{secret[:6]}.secret", secret),
        "scope": "ejbca",
    }


def connector(folder: Path, fake: FakeEjbca, chosen: dict[str, Any]) -> Connector:
    """The connector of a fake."""
    return build(folder, "ejbca", fake.ca.certificate, chosen)


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Lab]:
    """See `Lab`; `folder` has a configuration, scepstream.toml."""
    fake = FakeEjbca()
    wrong = "wrong-s3cret-of-nobody"
    async with serving(fake.app) as port, proxied(port, r"^POST .*/pkcs10enroll") as proxy:
        found = connector(folder, fake, options(folder, proxy.port))
        denied = connector(folder, fake, options(folder, proxy.port, wrong))
        yield Lab(
            found, fake.ca.everything, fake.ca.is_revoked, proxy,
            refused=order(fake.ca.certificate, "printer.example"), denied=denied, holds=True,
            secrets=(CLIENT_SECRET, PASSWORD_SECRET, fake.token, wrong),
        )  # fmt: skip
        await found.close()
        await denied.close()
