"""An API server with Kubernetes' certificate requests and those of cert-manager, and their signers.

Written from the public API documents: paths, names, required fields, Status objects, conditions.
"""

import asyncio
import base64
import datetime as dt
import re
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.issuers.authority import FakeCa
from tests.support import pki

TOKEN: Final = "eyJhbGciOiJSUzI1NiJ9.service-acc0unt.signature"
ACCOUNT: Final = "system:serviceaccount:pki:scepstream"
SIGNER: Final = "example.org/devices"
ISSUER: Final = {"name": "devices", "kind": "Issuer", "group": "cert-manager.io"}
NAMESPACE: Final = "pki"
DENIED: Final = "denied.example"
MINUTES: Final = 60
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_KEY_USAGES: Final = {
    "signing": "digital_signature", "digital signature": "digital_signature",
    "content commitment": "content_commitment", "key encipherment": "key_encipherment",
    "data encipherment": "data_encipherment", "key agreement": "key_agreement",
    "cert sign": "key_cert_sign", "crl sign": "crl_sign", "encipher only": "encipher_only",
    "decipher only": "decipher_only",
}  # fmt: skip
_PURPOSES: Final = {
    "any": "2.5.29.37.0", "server auth": "1.3.6.1.5.5.7.3.1", "client auth": pki.CLIENT_AUTH,
    "code signing": "1.3.6.1.5.5.7.3.3", "email protection": "1.3.6.1.5.5.7.3.4",
    "s/mime": "1.3.6.1.5.5.7.3.4", "ipsec end system": "1.3.6.1.5.5.7.3.5",
    "ipsec tunnel": "1.3.6.1.5.5.7.3.6", "ipsec user": "1.3.6.1.5.5.7.3.7",
    "timestamping": "1.3.6.1.5.5.7.3.8", "ocsp signing": "1.3.6.1.5.5.7.3.9",
    "microsoft sgc": "1.3.6.1.4.1.311.10.3.3", "netscape sgc": "2.16.840.1.113730.4.1",
}  # fmt: skip


class FailureError(Exception):
    """A Status object, as answers have it."""

    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.body = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "details": details, "code": code,
        }  # fmt: skip


@dataclass
class FakeCluster:
    """A cluster; `allowed` are the verbs of the account, `automatic` says that all is approved.

    `denies` is a common name that the approver denies. `forbids` is what admission answers (403) to
    each new object, from its "forbidden: " on or as a whole.
    """

    authority: FakeCa = field(default_factory=FakeCa)
    automatic: bool = True
    allowed: set[str] = field(default_factory=lambda: {"create", "get"})
    has_cert_manager: bool = True
    forbids: str = ""
    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    _version: int = 1000

    @property
    def app(self) -> Starlette:
        """The API server."""
        signing = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
        managed = "/apis/cert-manager.io/v1/namespaces/{namespace}/certificaterequests"
        reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        routes = [Route(reviews, self.review, methods=["POST"])]
        for path in (signing, managed) if self.has_cert_manager else (signing,):
            routes.append(Route(path, self.create, methods=["POST"]))
            routes.append(Route(f"{path}/{{name}}", self.get, methods=["GET"]))
        handlers: Any = {FailureError: _failed, 404: _no_page}
        return Starlette(routes=routes, exception_handlers=handlers)

    async def review(self, request: Request) -> Response:
        """SelfSubjectAccessReview, which every account may create."""
        self._authenticate(request)
        body = await request.json()
        _require(body, "authorization.k8s.io/v1", "SelfSubjectAccessReview")
        asked = body["spec"]["resourceAttributes"]
        assert set(asked) <= {"group", "resource", "verb", "namespace"}
        assert (asked["resource"] == "certificaterequests") == ("namespace" in asked)
        body["status"] = {"allowed": asked["verb"] in self.allowed}
        return JSONResponse(body, 201)

    async def create(self, request: Request) -> Response:
        """Create an object; the controllers act later."""
        resource = self._resource(request)
        self._authorize(request, "create", resource)
        if request.headers.get("content-type") != "application/json":
            raise FailureError(
                415, "UnsupportedMediaType", "the body of the request was in an unknown format"
            )
        body = await request.json()
        kind = "CertificateRequest" if "namespace" in request.path_params else (
            "CertificateSigningRequest"
        )  # fmt: skip
        _require(body, f"{_group(resource)}/v1", kind)
        name = body.get("metadata", {}).get("name", "")
        if len(name) > 253 or not _NAME.fullmatch(name):
            raise FailureError(
                422, "Invalid", f'{kind} "{name}" is invalid: metadata.name', name=name
            )
        if "resourceVersion" in body["metadata"]:
            raise FailureError(
                400, "BadRequest", "resourceVersion should not be set on objects to be created"
            )
        if self.forbids:  # before the API server looks for an object of the name
            prefix = f'{resource}.{_group(resource)} "{name}" is '
            said = prefix + self.forbids if self.forbids.startswith("forbidden") else self.forbids
            raise FailureError(403, "Forbidden", said, name=name, kind=resource)
        if (resource, name) in self.objects:
            said = f'{resource}.{_group(resource)} "{name}" already exists'
            raise FailureError(409, "AlreadyExists", said, name=name, kind=resource)
        if problem := _invalid(resource, body["spec"]):
            quoted = _go_bytes(str(body["spec"].get("request", "")))
            said = f'{kind} "{name}" is invalid: spec.request: Invalid value: {quoted}: {problem}'
            if resource == "certificaterequests":
                hook = "webhook.cert-manager.io"
                raise FailureError(
                    406, "NotAcceptable", f'admission webhook "{hook}" denied the request: {said}'
                )
            raise FailureError(422, "Invalid", said, name=name, kind=kind)
        self._version += 1
        metadata = {
            **body["metadata"], "uid": f"uid-{self._version}",
            "resourceVersion": str(self._version),
            "creationTimestamp": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }  # fmt: skip
        created = self.objects[resource, name] = {**body, "metadata": metadata, "status": {}}
        asyncio.get_running_loop().call_later(0.01, self._approve, resource, name)
        return JSONResponse(created, 201)

    async def get(self, request: Request) -> Response:
        """Read an object."""
        resource, name = self._resource(request), request.path_params["name"]
        self._authorize(request, "get", resource)
        if (resource, name) not in self.objects:
            said = f'{resource}.{_group(resource)} "{name}" not found'
            details = {"name": name, "group": _group(resource), "kind": resource}
            raise FailureError(404, "NotFound", said, **details)
        return JSONResponse(self.objects[resource, name])

    def collect(self, name: str) -> None:
        """Delete an object, as the garbage collector does."""
        self.objects = {key: value for key, value in self.objects.items() if key[1] != name}

    def approve(self, name: str) -> None:
        """Approve an object and sign it."""
        resource = next(key[0] for key in self.objects if key[1] == name)
        found = self.objects[resource, name]
        _condition(found, "Approved", "True", "Approved", "approved by an operator")
        spec = found["spec"]
        if resource == "certificatesigningrequests":
            der = self._sign(spec, spec["expirationSeconds"])
            found["status"]["certificate"] = _chain(der, self.authority.certificate)
            return
        der = self._sign(spec, int(spec["duration"].removesuffix("s")))
        found["status"]["certificate"] = _chain(der)
        found["status"]["ca"] = _chain(pki.der(self.authority.certificate))
        _condition(found, "Ready", "True", "Issued", "Certificate fetched from issuer successfully")

    def _approve(self, resource: str, name: str) -> None:
        """Decide as the approver does: deny a name, and approve the others if it is automatic."""
        found = self.objects.get((resource, name))
        if found is None:
            return
        csr = _csr(found["spec"]["request"])
        if DENIED in [
            each.value for each in csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        ]:
            _condition(found, "Denied", "True", "Policy", "no policy allows this name")
            if resource == "certificaterequests":
                _condition(found, "Ready", "False", "Denied", "The request was denied")
        elif self.automatic:
            self.approve(name)

    def _sign(self, spec: dict[str, Any], seconds: int) -> bytes:
        ends = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(seconds=seconds)
        usages = spec["usages"]
        return self.authority.sign(
            _csr(spec["request"]), ends,
            key_usage=pki.key_usage(*(_KEY_USAGES[u] for u in usages if u in _KEY_USAGES)),
            extended=tuple(_PURPOSES[u] for u in usages if u in _PURPOSES),
        )  # fmt: skip

    def _resource(self, request: Request) -> str:
        if request.path_params.get("namespace", NAMESPACE) != NAMESPACE:
            raise FailureError(404, "NotFound", "namespaces not found", name="", kind="namespaces")
        managed = "namespace" in request.path_params
        return "certificaterequests" if managed else "certificatesigningrequests"

    def _authorize(self, request: Request, verb: str, resource: str) -> None:
        self._authenticate(request)
        if verb not in self.allowed:
            said = (
                f'{resource}.{_group(resource)} is forbidden: User "{ACCOUNT}" cannot {verb} '
                f'resource "{resource}" in API group "{_group(resource)}" at the cluster scope'
            )
            raise FailureError(403, "Forbidden", said, kind=resource, group=_group(resource))

    def _authenticate(self, request: Request) -> None:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            raise FailureError(401, "Unauthorized", "Unauthorized")


async def _failed(_: Request, error: Exception) -> Response:
    assert isinstance(error, FailureError)
    return JSONResponse(error.body, error.code)


async def _no_page(_: Request, __: Exception) -> Response:
    return PlainTextResponse("404 page not found\n", 404)


def _require(body: Any, version: str, kind: str) -> None:
    if body.get("apiVersion") != version or body.get("kind") != kind:
        raise FailureError(
            400, "BadRequest", "the object's version or kind is not that of the path"
        )


def _invalid(resource: str, spec: dict[str, Any]) -> str:
    """What is wrong with a specification; fields that the API does not know are an error here."""
    usages = spec.get("usages", [])
    if unknown := [u for u in usages if u not in _KEY_USAGES and u not in _PURPOSES]:
        return f"unsupported usage {unknown[0]}"
    if not usages or len(set(usages)) != len(usages):
        return "usages are required, each once"
    try:
        csr = _csr(spec["request"])
    except (KeyError, ValueError):
        return "unable to parse csr: PEM block type must be CERTIFICATE REQUEST"
    if not csr.is_signature_valid:
        return "the signature of the csr is invalid"
    if resource == "certificatesigningrequests":
        return _invalid_signing_request(spec)
    return _invalid_managed_request(spec, csr)


def _invalid_signing_request(spec: dict[str, Any]) -> str:
    if set(spec) != {"request", "usages", "signerName", "expirationSeconds"}:
        return "unknown or missing field"
    if spec["signerName"].count("/") != 1:
        return "signerName must be a fully qualified domain and path"
    seconds = spec["expirationSeconds"]
    return "" if isinstance(seconds, int) and 600 <= seconds < 2**31 else "expirationSeconds"


def _invalid_managed_request(spec: dict[str, Any], csr: x509.CertificateSigningRequest) -> str:
    if set(spec) != {"request", "usages", "issuerRef", "duration"}:
        return "unknown or missing field"
    if not set(spec["issuerRef"]) <= {"name", "kind", "group"} or "name" not in spec["issuerRef"]:
        return "issuerRef"
    if not re.fullmatch(r"[0-9]+s", spec["duration"]):
        return "time: invalid duration"
    asked = _usages_of(csr)
    if asked and asked != {u.replace("signing", "digital signature", 1) for u in spec["usages"]}:
        return "csr key usages do not match specified usages, these should match if both are set"
    return ""


def _usages_of(csr: x509.CertificateSigningRequest) -> set[str]:
    found = set()
    for extension in csr.extensions:
        match extension.value:
            case x509.KeyUsage() as usage:
                plain = {k: v for k, v in _KEY_USAGES.items() if k != "signing" and "only" not in k}
                found |= {name for name, field in plain.items() if getattr(usage, field)}
            case x509.ExtendedKeyUsage() as purposes:
                oids = {purpose.dotted_string for purpose in purposes}
                found |= {name for name, oid in _PURPOSES.items() if oid in oids}
    return found


def _csr(request: str) -> x509.CertificateSigningRequest:
    return x509.load_pem_x509_csr(base64.b64decode(request, validate=True))


def _chain(*every: bytes | x509.Certificate) -> str:
    loaded = (x509.load_der_x509_certificate(c) if isinstance(c, bytes) else c for c in every)
    return base64.b64encode(b"".join(c.public_bytes(Encoding.PEM) for c in loaded)).decode()


def _condition(found: dict[str, Any], kind: str, status: str, reason: str, message: str) -> None:
    condition = {"type": kind, "status": status, "reason": reason, "message": message}
    found["status"].setdefault("conditions", []).append(condition)


def _group(resource: str) -> str:
    return "cert-manager.io" if resource == "certificaterequests" else "certificates.k8s.io"


def _go_bytes(text: str) -> str:
    """Bytes as Go prints them in messages about invalid values."""
    return "[]byte{" + ", ".join(f"0x{byte:x}" for byte in base64.b64decode(text)) + "}"
