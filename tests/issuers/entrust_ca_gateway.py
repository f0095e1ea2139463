"""A fake of Entrust CA Gateway's REST API, from the public documents and the vendor's scripts.

It stands behind mutual TLS, with the proxy in between.
"""

import asyncio
import base64
import datetime as dt
import json
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.issuer.connectors.connector import Connector
from tests.issuers.authority import FakeCa
from tests.issuers.building import build
from tests.issuers.lab import Lab
from tests.issuers.orders import order
from tests.issuers.proxy import Proxy
from tests.issuers.serving import serving
from tests.issuers.tls_front import SUBJECT, TlsFiles, fronted, port

BASE: Final = "/cagw"
CA_ID: Final = "CA~1"
PROFILE: Final = "mdmws-digital-signature-key-encipherment-clientauth"
_FIELDS: Final = {
    "profileId", "requiredFormat", "csr", "subjectVariables", "subjectAltNames", "properties",
    "optionalCertificateRequestDetails", "includeCa", "previousSubjectDn",
}  # fmt: skip
_DETAILS: Final = {
    "subjectDn", "extensions", "validityPeriod", "privateKeyUsagePercentage", "encodedPublicKey",
    "encodedPrivateKey", "forceIssuance", "useSANFromCSR", "performPOP",
}  # fmt: skip
_NAMES: Final = {
    "dNSName": x509.DNSName,
    "rfc822Name": x509.RFC822Name,
    "uniformResourceIdentifier": x509.UniformResourceIdentifier,
    "iPAddress": lambda value: x509.IPAddress(ip_address(value)),
    "directoryName": lambda value: x509.DirectoryName(x509.Name.from_rfc4514_string(value)),
    "registeredID": lambda value: x509.RegisteredID(x509.ObjectIdentifier(value)),
}
_REASONS: Final = {
    "unspecified", "keyCompromise", "caCompromise", "affiliationChanged", "superseded",
    "cessationOfOperation", "certificateHold", "privilegeWithdrawn",
}  # fmt: skip
HELD: Final = "held"


class GatewayError(Exception):
    """An error that the gateway answers in its own format."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass
class Asked:
    """What `FakeCa.sign` reads of a CSR; names are those of the call, not of the CSR."""

    subject: x509.Name
    key: Any
    extensions: list[x509.Extension[Any]]

    def public_key(self) -> Any:
        """The device's key."""
        return self.key


@dataclass
class FakeGateway:
    """A gateway with one CA and one profile. `clients` are the subjects that may call it.

    `silent` is the status of enrollments that the CA takes without a certificate.
    """

    ca: FakeCa = field(default_factory=FakeCa)
    clients: tuple[str, ...] = ()
    silent: str = ""
    action_status: str = "COMPLETED"
    bodies: list[Any] = field(default_factory=list)

    @property
    def app(self) -> Starlette:
        """The application."""
        ca = f"{BASE}/v1/certificate-authorities/{{ca_id}}"
        return Starlette(
            routes=[
                Route(ca, self.answering(self.show), methods=["GET"]),
                Route(f"{ca}/profiles/{{id}}", self.answering(self.profile), methods=["GET"]),
                Route(f"{ca}/enrollments", self.answering(self.enroll), methods=["POST"]),
                Route(
                    f"{ca}/certificates/{{serial}}/actions",
                    self.answering(self.act), methods=["POST"],
                ),
            ]
        )  # fmt: skip

    def answering(self, method: Any) -> Any:
        """An endpoint that lets known clients pass and answers errors as the gateway does."""

        async def endpoint(request: Request) -> Response:
            try:
                body = await self.admit(request)
                return JSONResponse(await method(request, body))
            except GatewayError as said:
                error = {
                    "code": said.code, "message": str(said), "target": "request",
                    "details": [{"code": "detail", "message": "a detail of the backend"}],
                }  # fmt: skip
                return JSONResponse({"type": "ErrorResponse", "error": error}, said.status)

        return endpoint

    async def admit(self, request: Request) -> Any:
        """The body of a call by a known client, to the CA that there is."""
        if request.headers.get(SUBJECT) not in self.clients:
            raise GatewayError(403, "client_not_authorized", "The client is not authorized.")
        if request.path_params["ca_id"] != CA_ID:
            raise GatewayError(404, "ca_not_found", "The CA was not found.")
        text = await request.body()
        if text and request.headers.get("content-type") != "application/json":
            raise GatewayError(415, "unsupported_media_type", "Unsupported media type.")
        self.bodies.append(json.loads(text) if text else {})
        return self.bodies[-1]

    async def show(self, request: Request, body: Any) -> Any:
        """`GET /v1/certificate-authorities/{caId}`: the certificate only if it is asked for."""
        del body
        shown: dict[str, Any] = {"id": CA_ID, "name": "Device CA", "properties": {}, "chain": []}
        if "ca.certificate" in request.query_params.get("$fields", "").split(","):
            der = self.ca.certificate.public_bytes(Encoding.DER)
            shown["certificate"] = {"certificateData": base64.b64encode(der).decode()}
        return {"type": "CAResponse", "ca": shown}

    async def profile(self, request: Request, body: Any) -> Any:
        """`GET .../profiles/{profileId}`."""
        del body
        if request.path_params["id"] != PROFILE:
            raise GatewayError(404, "profile_not_found", "The profile was not found.")
        shown = {"id": PROFILE, "name": PROFILE, "properties": {}, "requestedProperties": []}
        return {"type": "ProfileResponse", "profile": shown}

    async def enroll(self, request: Request, body: Any) -> Any:
        """`POST .../enrollments`."""
        del request
        details = self.judge(body)
        ends = dt.datetime.now(dt.UTC) + dt.timedelta(
            seconds=int(details["validityPeriod"].removeprefix("PT").removesuffix("S"))
        )
        enrollment = {"id": str(uuid.uuid4()), "properties": {}, "status": self.silent}
        if not self.silent:
            der = self.ca.sign(self.asked(body), ends.replace(microsecond=0))  # type: ignore[arg-type]
            enrollment |= {"status": "ACCEPTED", "body": base64.b64encode(der).decode()}
        message = {"message": "Enrollment request processed.", "details": []}
        return {"type": "EnrollmentResponse", "enrollment": enrollment, "message": message}

    def judge(self, body: Any) -> Any:
        """The optional details of an enrollment, if all of it fits."""
        details = body.get("optionalCertificateRequestDetails", {})
        unknown = (set(body) - _FIELDS) | (set(details) - _DETAILS)
        if unknown or body.get("requiredFormat") != {"format": "X509"}:
            raise GatewayError(400, "malformed_request", f"Malformed request. {unknown}")
        if body.get("profileId") != PROFILE:
            raise GatewayError(404, "profile_not_found", "The profile was not found.")
        if not re.fullmatch("PT[0-9]+S", details["validityPeriod"]):
            raise GatewayError(400, "invalid_validity", "The validity period is invalid.")
        if details["subjectDn"].lower().endswith("printer.example"):
            raise GatewayError(400, "policy_violation", "The policy does not permit the subject.")
        return details

    @staticmethod
    def asked(body: Any) -> Asked:
        """Only the key of the CSR counts, whose signature is checked."""
        csr = x509.load_der_x509_csr(base64.b64decode(body["csr"], validate=True))
        if not csr.is_signature_valid:
            raise GatewayError(400, "pop_failed", "Proof of possession failed.")
        names = [_NAMES[name["type"]](name["value"]) for name in body["subjectAltNames"]]
        sans = x509.SubjectAlternativeName(names)
        subject = x509.Name.from_rfc4514_string(
            body["optionalCertificateRequestDetails"]["subjectDn"]
        )
        return Asked(subject, csr.public_key(), [x509.Extension(sans.oid, False, sans)])

    async def act(self, request: Request, body: Any) -> Any:
        """`POST .../certificates/{serial}/actions`."""
        serial = f"{int(request.path_params['serial'], 16):x}"
        if serial not in self.ca.made:
            raise GatewayError(404, "certificate_not_found", "The certificate was not found.")
        action = body["action"]
        if action["reason"] not in _REASONS:
            raise GatewayError(400, "invalid_reason", "The reason is invalid.")
        match action["type"]:
            case "HoldAction":
                self.ca.revoked.setdefault(serial, HELD)
            case "UnholdAction" if self.ca.revoked.get(serial, HELD) == HELD:
                self.ca.revoked.pop(serial, None)
            case "RevokeAction":
                self.ca.revoked[serial] = action["reason"]
            case _:
                raise GatewayError(400, "invalid_action", "The action is invalid.")
        done = {
            "id": str(uuid.uuid4()), "properties": {}, "status": self.action_status,
            "succeedIfAlreadyInRequestedState": True,
        }  # fmt: skip
        return {"type": "ActionResponse", "action": action | done}


@dataclass
class FrontedProxy(Proxy):
    """The proxy between the TLS front and the gateway; stopping it stops both."""

    front: asyncio.Server | None = None

    async def stop(self) -> None:
        """See `Proxy.stop`."""
        assert self.front is not None
        self.front.close()
        await super().stop()


@asynccontextmanager
async def behind_tls(
    target: int, files: TlsFiles, matches: str = ".*"
) -> AsyncIterator[FrontedProxy]:
    """Run a TLS front, and a proxy behind it, in front of a port of this machine."""
    proxy = FrontedProxy(target, matches)
    proxy.server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    try:
        async with fronted(port(proxy.server), files) as proxy.front:
            proxy.port = port(proxy.front)
            yield proxy
            await proxy.stop()
    finally:
        proxy.server.close()


def options(address: int, credentials: dict[str, str]) -> dict[str, Any]:
    """The options of a connector with a client certificate."""
    return {
        "url": f"https://127.0.0.1:{address}{BASE}",
        "ca_id": CA_ID,
        "profile_id": PROFILE,
        **credentials,
    }


def connector(folder: Path, fake: FakeGateway, chosen: dict[str, Any]) -> Connector:
    """The connector of a fake."""
    return build(folder, "entrust-ca-gateway", fake.ca.certificate, chosen)


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Lab]:
    """See `Lab`; `folder` has a configuration, scepstream.toml."""
    files = TlsFiles(folder)
    fake = FakeGateway(clients=("CN=issuer",))
    async with (
        serving(fake.app) as target,
        behind_tls(target, files, "^POST .*/enrollments") as proxy,
    ):
        found = connector(folder, fake, options(proxy.port, files.issue("issuer")))
        denied = connector(folder, fake, options(proxy.port, files.issue("stranger")))
        yield Lab(
            found, fake.ca.everything, fake.ca.is_revoked, proxy,
            refused=order(fake.ca.certificate, "printer.example"), denied=denied, holds=True,
            secrets=((folder / "issuer.key").read_text(),),
        )  # fmt: skip
        await found.close()
        await denied.close()
