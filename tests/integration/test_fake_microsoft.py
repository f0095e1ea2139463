"""The fake of Microsoft's side, over real HTTPS: what it accepts, refuses, records and spoils."""

import base64
import datetime as dt
import hashlib
import json
import signal
import ssl
import stat
import subprocess
import sys
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from asn1crypto import csr as asn1_csr
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID

from cli.enroll.identity import make_csr, make_identity
from cli.fake_microsoft import faults, graph, judge
from cli.fake_microsoft.app import NAMES
from cli.fake_microsoft.fake import FakeMicrosoft
from cli.fake_microsoft.model import ALL_ROLES, CODES, ERROR_CODES
from tests.unit.cli.commands import command

KEY = rsa.generate_private_key(65537, 2048)
SMALL = rsa.generate_private_key(65537, 1024)
ENDPOINTS = "v1.0/servicePrincipals/appId=0000000a-0000-0000-c000-000000000000/endpoints"
SERVICE, REVOCATIONS = "ScepRequestValidationFEService", "PkiConnectorFEService"
MANAGED = "DeviceManagementManagedDevices.Read.All"
EKU = "1.3.6.1.5.5.7.3.2"


def csr(
    challenge: str | None,
    subject: str = "CN=device-1",
    key: rsa.RSAPrivateKey = KEY,
    sans: tuple[x509.GeneralName, ...] = (),
    usages: tuple[x509.ExtensionType, ...] = (),
) -> bytes:
    name = x509.Name.from_rfc4514_string(subject) if subject else x509.Name([])
    builder = x509.CertificateSigningRequestBuilder(name)
    if challenge is not None:
        builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, challenge.encode())
    for value in (*([x509.SubjectAlternativeName(sans)] if sans else []), *usages):
        builder = builder.add_extension(value, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


@dataclass
class Client:
    """A client of one tenant, as simple as can be."""

    fake: FakeMicrosoft
    tenant: str
    http: httpx.Client
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def token_url(self) -> str:
        return f"{self.fake.url}{self.fake.tenants[self.tenant].id}/oauth2/v2.0/token"

    def ask_token(self, of: str, **changes: str) -> httpx.Response:
        files = self.fake.tenants[self.tenant]
        form = {
            "client_id": files.client_id, "client_secret": files.secret_path.read_text(),
            "scope": f"{self.fake.url}{of}", "grant_type": "client_credentials",
        }  # fmt: skip
        form = {name: value for name, value in (form | changes).items() if value}
        return self.http.post(self.token_url, data=form)

    def token(self, scope: str) -> str:
        if scope not in self.tokens:
            self.tokens[scope] = self.ask_token(scope).raise_for_status().json()["access_token"]
        return self.tokens[scope]

    def graph(self, path: str, **query: str) -> httpx.Response:
        headers = {
            "Authorization": f"Bearer {self.token('.default')}",
            "client-request-id": str(uuid.uuid4()),
        }
        return self.http.get(path, params=query or None, headers=headers)

    def uri(self, service: str = SERVICE) -> str:
        entries = self.graph(ENDPOINTS).raise_for_status().json()["value"]
        return next(e["uri"] for e in entries if e["providerName"] == service).rstrip("/")

    def post(
        self, url: str, body: Any, version: str = "2018-02-20", **headers: str | None
    ) -> httpx.Response:
        given: dict[str, str | None] = {
            "authorization": f"Bearer {self.token('intune//.default')}",
            "client-request-id": str(uuid.uuid4()),
            "api-version": version,
            "content-type": "application/json",
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in given.items() if value is not None}
        return self.http.post(url, content=json.dumps(body), headers=sent)

    def validate(self, der: bytes, transaction: str = "t1", **headers: str | None) -> Any:
        members = {
            "transactionId": transaction, "certificateRequest": base64.b64encode(der).decode(),
            "callerInfo": "test/1",
        }  # fmt: skip
        url = f"{self.uri()}/ScepActions/validateRequest"
        return self.post(url, {"request": members}, **headers)

    def code(self, der: bytes, transaction: str = "t1") -> str:
        answer = self.validate(der, transaction).raise_for_status().json()
        assert answer["@odata.context"]
        return str(answer["code"])

    def notify(self, kind: str, der: bytes, transaction: str = "t1", **members: Any) -> Any:
        default: dict[str, Any] = {
            "transactionId": transaction, "certificateRequest": base64.b64encode(der).decode(),
            "callerInfo": "test/1",
        }  # fmt: skip
        if kind == "success":
            default |= {
                "certificateThumbprint": "AB" * 20, "certificateSerialNumber": "0A1B",
                "certificateExpirationDateUtc": "2030-06-11T16:11:20.0904778Z",
                "issuingCertificateAuthority": "CN=CA", "caConfiguration": "ca-1",
                "certificateAuthority": None,
            }  # fmt: skip
        else:
            default |= {"hResult": -2147467259, "errorDescription": "not issued"}
        body = {"notification": default | members}
        return self.post(f"{self.uri()}/ScepActions/{kind}Notification", body)

    def revocations(self, operation: str, body: Any) -> httpx.Response:
        url = f"{self.uri(REVOCATIONS)}/CertificateAuthorityRequests/{operation}"
        return self.post(url, body, "5019-05-05")

    def download(self, most: int = 500, issuer: str | None = None) -> list[dict[str, Any]]:
        body = {"downloadParameters": {"maxRequests": most, "issuerName": issuer}}
        answer = self.revocations("downloadRevocationRequests", body).raise_for_status()
        return list(answer.json()["value"])

    def upload(self, *results: dict[str, Any]) -> httpx.Response:
        return self.revocations("uploadRevocationResults", {"results": list(results)})


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeMicrosoft]:
    with FakeMicrosoft(tmp_path_factory.mktemp("microsoft")) as found:
        yield found


@pytest.fixture
def fake(running: FakeMicrosoft) -> FakeMicrosoft:
    running.reset()
    return running


@pytest.fixture(scope="module")
def http(running: FakeMicrosoft) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cafile=running.ca_path)
    with httpx.Client(verify=context, trust_env=False, base_url=running.url, timeout=30) as found:
        yield found


@pytest.fixture
def clients(fake: FakeMicrosoft, http: httpx.Client) -> dict[str, Client]:
    return {tenant: Client(fake, tenant, http) for tenant in fake.tenants}


@pytest.fixture
def client(clients: dict[str, Client]) -> Client:
    return clients["contoso"]


def test_the_files_are_what_a_client_is_configured_with(fake: FakeMicrosoft) -> None:
    section = tomllib.loads(fake.config_path.read_text())["intune"]
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in fake.directory.iterdir()}
    files = fake.tenants["fabrikam"]

    assert section["contoso"]["client_secret_path"] == str(fake.tenants["contoso"].secret_path)
    assert section["fabrikam"]["client_key_path"] == str(files.key_path)
    assert section["fabrikam"]["resource_url"] == f"{fake.url}intune/"
    assert {modes[f"{t}.{k}"] for t in fake.tenants for k in ("secret", "key")} == {0o600}
    assert modes["server.pem"] == 0o600


# Tokens


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_secret": ""}, 401, "invalid_client"),
        ({"client_id": str(uuid.UUID(int=1))}, 400, "unauthorized_client"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"scope": "https://graph.microsoft.com/.default"}, 400, "invalid_resource"),
    ],
)
def test_a_token_is_refused_in_the_form_of_entra(
    client: Client, changes: dict[str, str], status: int, error: str
) -> None:
    answer = client.ask_token(".default", **changes)
    body = answer.json()

    assert (answer.status_code, body["error"]) == (status, error)
    assert body["error_description"].startswith(f"AADSTS{body['error_codes'][0]}: ")


def test_a_token_carries_the_roles_of_its_resource_and_consent(client: Client) -> None:
    def claims(scope: str) -> dict[str, Any]:
        token = client.ask_token(scope).json()["access_token"]
        part = token.split(".")[1]
        return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))

    assert claims("intune//.default")["roles"] == ["scep_challenge_provider"]
    assert claims("intune/.default")["aud"] == f"{client.fake.url}intune/"
    assert claims(".default")["roles"] == list(ALL_ROLES[:-1])

    client.fake.consent("contoso", ["Application.Read.All"])

    assert "roles" not in claims("intune//.default")
    assert client.fake.counts["token:contoso:intune"] == 3
    assert client.fake.counts["token:contoso:graph"] == 1


def assertion(
    client: Client, algorithm: str = "PS256", head: dict[str, Any] | None = None, **changes: Any
) -> str:
    """A client assertion; `algorithm` also selects the thumbprint, as msal does."""
    files = client.fake.tenants[client.tenant]
    key = load_pem_private_key(files.key_path.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    der = x509.load_pem_x509_certificate(files.cert_path.read_bytes()).public_bytes(Encoding.DER)
    ps256 = algorithm == "PS256"
    scheme: Any = padding.PSS(padding.MGF1(hashes.SHA256()), 32) if ps256 else padding.PKCS1v15()
    name, digest = ("x5t#S256", hashlib.sha256) if ps256 else ("x5t", hashlib.sha1)
    header = {"alg": algorithm, "typ": "JWT", name: encode(digest(der).digest())}
    now = time.time()
    claims = {
        "aud": client.token_url, "iss": files.client_id, "sub": files.client_id,
        "jti": str(uuid.uuid4()), "iat": now, "exp": now + 600,
    } | changes  # fmt: skip
    parts = [encode(json.dumps(part).encode()) for part in (header | (head or {}), claims)]
    return ".".join([*parts, encode(key.sign(".".join(parts).encode(), scheme, hashes.SHA256()))])


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def ask_with(client: Client, signed: str) -> httpx.Response:
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    changes = {"client_secret": "", "client_assertion_type": kind, "client_assertion": signed}
    return client.ask_token(".default", **changes)


@pytest.mark.parametrize("algorithm", ["PS256", "RS256"])
def test_an_assertion_gets_a_token_once(client: Client, algorithm: str) -> None:
    signed = assertion(client, algorithm)

    assert ask_with(client, signed).status_code == 200
    assert "used before" in ask_with(client, signed).json()["error_description"]


@pytest.mark.parametrize(
    ("head", "changes"),
    [
        ({"alg": "RS256"}, {}),
        ({"alg": "none"}, {}),
        ({"x5t#S256": "AAAA"}, {}),
        ({}, {"aud": "https://login.microsoftonline.com/"}),
        ({}, {"iss": "someone"}),
        ({}, {"sub": "someone"}),
        ({}, {"exp": time.time() - 1}),
        ({}, {"exp": time.time() + 7200}),
        ({}, {"iat": time.time() + 3600, "exp": time.time() + 3700}),
        ({}, {"iat": "soon"}),
        ({}, {"iat": float("nan")}),
        ({}, {"jti": None}),
    ],
)
def test_a_wrong_assertion_gets_no_token(
    client: Client, head: dict[str, Any], changes: dict[str, Any]
) -> None:
    answer = ask_with(client, assertion(client, "PS256", head, **changes))

    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_an_assertion_with_a_changed_claim_gets_no_token(client: Client) -> None:
    head, _, signature = assertion(client).split(".")
    _, body, _ = assertion(client).split(".")

    assert ask_with(client, f"{head}.{body}.{signature}").status_code == 401


def test_a_rotated_secret_replaces_the_old_one_unless_both_are_kept(client: Client) -> None:
    old = client.fake.tenants["contoso"].secret
    client.fake.rotate_secret("contoso", keep=True)
    both = (
        client.ask_token(".default").status_code,
        client.ask_token(".default", client_secret=old).status_code,
    )
    client.fake.rotate_secret("contoso")

    assert both == (200, 200)
    assert client.ask_token(".default", client_secret=old).json()["error_codes"] == [7000222]
    assert client.ask_token(".default").status_code == 200


def test_a_token_expires_by_the_virtual_clock(client: Client) -> None:
    client.fake.set_token_lifetime("contoso", 2)
    before = client.graph(ENDPOINTS).status_code
    client.fake.advance(2.5)
    expired = client.graph(ENDPOINTS)
    client.tokens.clear()

    assert (before, expired.status_code) == (200, 401)
    assert expired.json()["error"]["code"] == "InvalidAuthenticationToken"
    assert client.graph(ENDPOINTS).status_code == 200


# Graph


@pytest.mark.parametrize(
    ("role", "path", "query"),
    [
        ("Application.Read.All", ENDPOINTS, {}),
        (MANAGED, "v1.0/deviceManagement/managedDevices/{id}", {}),
        (MANAGED, "v1.0/deviceManagement/managedDevices",
         {"$filter": "azureADDeviceId eq '{entra}'"}),
        ("Device.Read.All", "v1.0/devices(deviceId='{entra}')", {}),
        ("User.Read.All", "v1.0/users/ada@contoso.example", {}),
    ],
)  # fmt: skip
def test_each_route_of_graph_requires_its_role(
    client: Client, role: str, path: str, query: dict[str, str]
) -> None:
    device = client.fake.set_device("contoso")
    client.fake.set_user("contoso", "ada@contoso.example")
    path = path.format(id=device.id, entra=device.entra_id)
    query = {name: value.format(entra=device.entra_id) for name, value in query.items()}
    allowed = client.graph(path, **query).status_code
    client.fake.consent("contoso", [each for each in ALL_ROLES if each != role])
    before = client.graph(path, **query).status_code
    client.tokens.clear()
    denied = client.graph(path, **query)

    assert (allowed, before, denied.status_code) == (200, 200, 403)
    assert denied.json()["error"]["code"] == "Authorization_RequestDenied"


def test_devices_and_users_are_found_by_their_ids_and_selected(clients: dict[str, Client]) -> None:
    client, fake = clients["contoso"], clients["contoso"].fake
    device = fake.set_device("contoso", compliance_state="quarantined", sid="S-1-5-21-1")
    user = fake.set_user("contoso", "Ada@contoso.example", sid="S-1-5-21-2")
    managed = f"v1.0/deviceManagement/managedDevices/{device.id}"
    chosen = client.graph(managed, **{"$select": "id,complianceState"}).json()
    filters = {"$filter": f"azureADDeviceId eq '{device.entra_id}'"}
    listed = client.graph("v1.0/deviceManagement/managedDevices", **filters).json()["value"]
    entra = client.graph(f"v1.0/devices(deviceId='{device.entra_id}')").json()
    select = {"$select": "id,onPremisesSecurityIdentifier"}
    by_name = client.graph("v1.0/users/ada@CONTOSO.example", **select).json()
    by_id = client.graph(f"v1.0/users/{user.id}", **select).json()
    elsewhere = clients["fabrikam"].graph(managed).status_code
    fake.set_device("contoso", device.id, managed=False, registered=False)

    assert set(chosen) == {"@odata.context", "id", "complianceState"}
    assert chosen["complianceState"] == "quarantined"
    assert [each["id"] for each in listed] == [device.id]
    assert entra["onPremisesSecurityIdentifier"] == "S-1-5-21-1"
    assert by_name == by_id
    assert by_id["onPremisesSecurityIdentifier"] == "S-1-5-21-2"
    assert elsewhere == 404
    assert client.graph(managed).status_code == 404
    assert client.graph("v1.0/deviceManagement/managedDevices", **filters).json()["value"] == []


def test_the_list_of_services_has_pages_other_names_slashes_and_gaps(client: Client) -> None:
    client.fake.set_services("contoso", paged=True, service_name=True, trailing_slash=True)
    found, path = [], ENDPOINTS
    while path:
        page = client.graph(path).raise_for_status().json()
        found += page["value"]
        path = page.get("@odata.nextLink", "")
    client.fake.set_services("contoso", paged=False, uris={SERVICE: None})

    assert [e["serviceName"] for e in found][1:] == [SERVICE, REVOCATIONS]
    assert found[1]["uri"].endswith("/")
    assert SERVICE not in client.graph(ENDPOINTS).text


def test_a_moved_service_answers_only_under_its_new_uri(client: Client) -> None:
    old = client.uri()
    client.fake.move_service("contoso", old_status=410)

    assert client.uri() != old
    assert client.post(f"{old}/ScepActions/validateRequest", {}).status_code == 410
    assert client.code(csr(client.fake.mint("contoso", subject="CN=device-1"))) == "Success"


# Challenges and ScepActions


def usage(*names: str) -> x509.KeyUsage:
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: name in names for name in every})


CLIENT_AUTH = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
SERVER_AUTH = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
SIGNING = ("digital_signature",)
# Code, what the challenge says, what the CSR says.
JUDGED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("Success", {}, {}),
    ("Success", {"sans": ["dns:a.example"], "key_usage": SIGNING, "eku": [EKU]},
     {"sans": (x509.DNSName("a.example"),), "usages": (usage(*SIGNING), CLIENT_AUTH)}),
    ("Success", {"size": 16384}, {}),
    ("Success", {"sans": None, "key_bits": None},
     {"sans": (x509.DNSName("a.example"),), "key": SMALL}),
    ("ChallengeDecodingError", {"flaw": "base64"}, {}),
    ("ChallengeDecodingError", {"flaw": "cms"}, {}),
    ("SigningCertThumbprintMismatch", {"flaw": "signer"}, {}),
    ("SignatureValidationFailed", {"flaw": "signature"}, {}),
    ("ChallengeDecryptionError", {"flaw": "encryption"}, {}),
    ("ChallengeDeserializationError", {"flaw": "content"}, {}),
    ("ChallengeInvalidTimestamp", {"flaw": "future"}, {}),
    ("ChallengeExpired", {"lifetime": 0.001}, {}),
    ("BadCertificateRequestIdInChallenge", {"flaw": "request-id"}, {}),
    ("BadDeviceIdInChallenge", {"flaw": "device-id"}, {}),
    ("BadUserIdInChallenge", {"flaw": "user-id"}, {}),
    ("SubjectNameMissing", {}, {"subject": ""}),
    ("SubjectNameMismatch", {}, {"subject": "CN=device-2"}),
    ("SubjectNameMismatch", {}, {"subject": "CN=device-1,O=Contoso"}),
    ("SubjectNameMismatch", {"subject": "CN=a\\,b"}, {"subject": "CN=a\\,b"}),
    ("SubjectAltNameMissing", {"sans": ["dns:a.example"]}, {}),
    ("SubjectAltNameMismatch", {"sans": ["dns:a.example"]}, {"sans": (x509.DNSName("b.example"),)}),
    ("SubjectAltNameMismatch", {}, {"sans": (x509.DNSName("a.example"),)}),
    ("KeyUsageMismatch", {"key_usage": SIGNING}, {"usages": (usage("key_encipherment"),)}),
    ("KeyLengthMismatch", {}, {"key": SMALL}),
    ("EnhancedKeyUsageMissing", {"eku": [EKU]}, {}),
    ("EnhancedKeyUsageMismatch", {"eku": [EKU]}, {"usages": (SERVER_AUTH,)}),
    ("AadKeyIdentifierListMissing", {"registered_keys": []}, {}),
    ("RegisteredKeyMismatch", {"registered_keys": ["00" * 32]}, {}),
]  # fmt: skip
ELSEWHERE = {
    "Unknown", "CertificateRequestDecodingFailed", "ChallengePasswordMissing",
    "ScepProfileNoLongerTargetedToTheClient", "BadTenantIdInChallenge",
}  # fmt: skip


def test_every_code_is_returned_for_its_reason(client: Client) -> None:
    found = []
    for number, (_, says, asked) in enumerate(JUDGED):
        challenge = client.fake.mint("contoso", **({"subject": "CN=device-1"} | says))
        if says.get("lifetime"):
            client.fake.advance(1)
        found.append(client.code(csr(challenge, **asked), f"t{number}"))

    assert found == [code for code, _, _ in JUDGED]
    assert set(found) | ELSEWHERE == set(CODES)


def test_a_request_that_is_no_csr_or_has_no_challenge_is_refused(client: Client) -> None:
    assert client.code(b"\x30\x03\x02\x01\x00") == "CertificateRequestDecodingFailed"
    assert client.code(csr(None)) == "ChallengePasswordMissing"
    assert client.code(csr(" ")) == "ChallengePasswordMissing"


def test_a_registered_key_and_an_unassigned_profile_count(client: Client) -> None:
    spki = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    keys = [hashlib.sha256(spki).hexdigest()]
    challenge = client.fake.mint("contoso", subject="CN=device-1", registered_keys=keys)
    before = client.code(csr(challenge))
    client.fake.untarget()

    assert before == "Success"
    assert client.code(csr(challenge)) == "ScepProfileNoLongerTargetedToTheClient"


def test_a_csr_of_another_version_with_unsorted_attributes_is_read(client: Client) -> None:
    challenge = client.fake.mint("contoso", subject="CN=device-1", sans=["dns:a.example"])
    parsed = asn1_csr.CertificationRequest.load(csr(challenge, sans=(x509.DNSName("a.example"),)))
    info = parsed["certification_request_info"]
    attributes = sorted((a.dump() for a in info["attributes"]), reverse=True)
    rest = info["subject"].dump() + info["subject_pk_info"].dump()
    body = b"\x02\x01\x02" + rest + tlv(0xA0, b"".join(attributes))
    apple = tlv(0x30, tlv(0x30, body) + parsed["signature_algorithm"].dump()
                + parsed["signature"].dump())  # fmt: skip

    with pytest.raises(ValueError, match="InvalidSetOrdering"):
        x509.load_der_x509_csr(apple)
    assert client.code(apple) == "Success"


def tlv(tag: int, value: bytes) -> bytes:
    size = len(value).to_bytes(2, "big")
    return bytes((tag, 0x82)) + size + value


def test_a_csr_of_the_own_client_fits_its_challenge(client: Client) -> None:
    sans = ["dns:a.example", "upn:ada@contoso.example", "uri:IntuneDeviceId://1", "ip:192.0.2.1"]
    challenge = client.fake.mint("contoso", subject="CN=device-1", sans=sans)
    identity = make_identity(KEY, "device-1", time.time())

    assert client.code(make_csr(identity, challenge, sans)) == "Success"


def test_a_challenge_is_readable_by_nobody_else(client: Client) -> None:
    challenge = client.fake.mint("contoso", subject="CN=unlikely-name", size=4096)
    der = base64.b64decode(challenge, validate=True)

    assert 4096 <= len(challenge) < 4096 + 256
    assert b"unlikely-name" not in der
    assert "." not in challenge


def test_a_used_challenge_is_refused_only_in_one_time_mode(client: Client) -> None:
    der = csr(client.fake.mint("contoso", subject="CN=device-1"))
    twice = client.code(der, "t1"), client.code(der, "t2")
    client.fake.one_time = True

    assert twice == ("Success", "Success")
    assert client.code(der, "t3") == "BadCertificateRequestIdInChallenge"


def test_any_code_can_be_scripted(client: Client) -> None:
    der = csr(None)
    client.fake.answer("validate", "Success", "NeverHeardOf")
    client.fake.answer("special", None)
    found = [client.code(der, each) for each in ("t1", "t2", "t3")]

    assert found == ["Success", "NeverHeardOf", "NeverHeardOf"]
    assert "code" not in client.validate(der, "special").json()
    client.fake.answer("validate")
    assert client.code(der) == "ChallengePasswordMissing"


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"api_version": None}, 400),
        ({"api_version": "5019-05-05"}, 400),
        ({"content_type": "text/plain"}, 415),
        ({"client_request_id": None}, 400),
        ({"client_request_id": "not-a-guid"}, 400),
        ({"authorization": None}, 401),
        ({"authorization": "Bearer x"}, 401),
    ],
)
def test_a_request_with_wrong_headers_is_refused(
    client: Client, changes: dict[str, str | None], status: int
) -> None:
    answer = client.validate(csr(None), **changes)
    error = answer.json()["error"]

    assert answer.status_code == status
    assert json.loads(error["message"])["RetryAfter"] is None


def test_a_request_id_is_used_once_and_a_token_for_its_own_resource(client: Client) -> None:
    same = str(uuid.uuid4())
    first, second = (client.validate(csr(None), client_request_id=same) for _ in range(2))
    graph = client.validate(csr(None), authorization=f"Bearer {client.token('.default')}")

    assert (first.status_code, second.status_code, graph.status_code) == (200, 400, 401)


def test_consent_that_is_missing_is_a_403_until_a_new_token_is_issued(client: Client) -> None:
    client.fake.consent("contoso", ALL_ROLES[:-1])
    denied = client.validate(csr(None)).status_code
    client.fake.consent("contoso", ALL_ROLES)
    still = client.validate(csr(None)).status_code
    client.tokens.clear()

    assert (denied, still, client.validate(csr(None)).status_code) == (403, 403, 200)


@pytest.mark.parametrize(
    "members",
    [
        {"certificateRequest": "AA\r\nAA=="},
        {"certificateRequest": "AA_-"},
        {"transactionId": ""},
        {"transactionId": 7},
        {"callerInfo": None},
        {"extra": "x"},
    ],
)
def test_a_body_with_other_members_is_refused(client: Client, members: dict[str, Any]) -> None:
    right = {"transactionId": "t", "certificateRequest": "MAA=", "callerInfo": "x/1"}
    url = f"{client.uri()}/ScepActions/validateRequest"

    assert client.post(url, {"request": right}).status_code == 200
    assert client.post(url, {"request": right | members}).status_code == 400
    assert client.post(url, right).status_code == 400


# Notifications


def test_a_notification_needs_a_prior_success_of_the_same_request(client: Client) -> None:
    challenge = client.fake.mint("contoso", subject="CN=device-1")
    der = csr(challenge)
    early = client.notify("success", der).json()["code"]
    client.code(der)

    assert early == "Unknown"
    assert client.notify("success", csr(challenge, "CN=x")).json()["code"] == "Unknown"
    assert client.notify("success", der).json()["code"] == "Success"
    assert client.notify("success", der).json()["code"] == "Success"
    assert client.notify("failure", der).json()["code"] == "Unknown"
    assert [e.note for e in client.fake.journal("success", "failure")] == [
        "no prior Success for this transactionId",
        "another certificateRequest than the validated one",
        "", "repeated success", "failure after success",
    ]  # fmt: skip
    client.fake.switch(repeated_success="AlreadyRecorded")
    assert client.notify("success", der).json()["code"] == "AlreadyRecorded"


@pytest.mark.parametrize(
    ("kind", "members", "status"),
    [
        ("success", {"certificateThumbprint": "AB"}, 400),
        ("success", {"certificateSerialNumber": "0x1B"}, 400),
        ("success", {"certificateExpirationDateUtc": "2030-06-11 16:11:20"}, 400),
        ("success", {"issuingCertificateAuthority": ""}, 400),
        ("success", {"caConfiguration": None}, 200),
        ("failure", {"hResult": 2147549183}, 200),
        ("failure", {"hResult": "-1"}, 400),
        ("failure", {"hResult": 0}, 400),
        ("failure", {"errorDescription": "x" * 255}, 200),
        ("failure", {"errorDescription": "x" * 256}, 400),
        ("failure", {"errorDescription": ""}, 400),
    ],
)
def test_the_members_of_a_notification_are_checked(
    client: Client, kind: str, members: dict[str, Any], status: int
) -> None:
    der = csr(None)
    client.fake.answer("validate", "Success")
    client.code(der)

    assert client.notify(kind, der, **members).status_code == status


def test_a_certificate_is_compared_with_what_intune_was_notified_of(client: Client) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device-1")])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    certificate = x509.CertificateBuilder(
        name, name, KEY.public_key(), 0xABC, start, start + dt.timedelta(days=365)
    ).sign(KEY, hashes.SHA256())
    client.fake.answer("validate", "Success")
    der = csr(None)
    client.code(der)
    unheard = client.fake.discrepancies("contoso", certificate)
    members = {
        "certificateThumbprint": certificate.fingerprint(hashes.SHA1()).hex().upper(),
        "certificateSerialNumber": "0ABC",
        "certificateExpirationDateUtc": "2027-01-01T00:00:00.000Z",
    }
    client.notify("success", der, **members)
    (told,) = client.fake.notifications

    assert unheard == ["0 success notifications"]
    assert client.fake.discrepancies("contoso", certificate) == []
    assert client.fake.discrepancies("fabrikam", certificate) == ["0 success notifications"]
    client.notify("success", der, **members)
    assert client.fake.discrepancies("contoso", certificate) == ["2 success notifications"]
    assert judge.discrepancies(told, certificate) == []


# Revocation


def test_revocations_are_delivered_until_they_are_settled(client: Client) -> None:
    one, two = (client.fake.queue_revocation("contoso", each) for each in ("0A", "0B"))
    first, again = client.download(), client.download()
    done = {"requestContext": one.context, "succeeded": True, "errorCode": "None",
            "errorMessage": ""}  # fmt: skip
    busy = {"RequestContext": two.context, "Succeeded": False, "ErrorCode": "4102"}
    answer = client.upload(done, busy).json()

    assert first == again
    assert [each["serialNumber"] for each in first] == ["0A", "0B"]
    assert answer["value"] is True
    assert [each["requestContext"] for each in client.download()] == [two.context]
    assert [each.error_code for each in client.fake.uploaded("contoso")] == [
        "None", "ServiceTooBusyException",
    ]  # fmt: skip


def test_the_bugs_of_the_revocation_service_are_reproduced(client: Client) -> None:
    client.fake.queue_revocation("contoso", "0A", issuer="CN=CA", ca_configuration="other")
    client.fake.queue_revocation("contoso", "0B", issuer="CN=other", ca_configuration="CN=CA")

    assert [each["serialNumber"] for each in client.download(500, "CN=CA")] == ["0B"]
    assert client.download(1, "CN=CA") == []


@pytest.mark.parametrize("name", [each for each in ERROR_CODES if each != "None"])
def test_both_forms_of_an_error_code_are_accepted(client: Client, name: str) -> None:
    queued = client.fake.queue_revocation("contoso", "0A")
    for code in (name, ERROR_CODES[name]):
        result = {"requestContext": queued.context, "succeeded": False, "errorCode": code,
                  "errorMessage": "x"}  # fmt: skip
        assert client.upload(result).json()["value"] is True

    assert {each.error_code for each in client.fake.uploaded("contoso")} == {name}
    assert bool(client.fake.queued("contoso")) == ERROR_CODES[name].startswith("41")


@pytest.mark.parametrize(
    "result",
    [
        {"succeeded": True, "errorCode": "ConflictError"},
        {"succeeded": True, "errorCode": "None", "errorMessage": "but"},
        {"succeeded": False, "errorCode": "None"},
        {"succeeded": False, "errorCode": "Other"},
        {"succeeded": "yes", "errorCode": "None"},
    ],
)
def test_a_contradictory_result_is_refused(client: Client, result: dict[str, Any]) -> None:
    queued = client.fake.queue_revocation("contoso", "0A")

    assert client.upload({"requestContext": queued.context} | result).status_code == 400
    assert client.fake.queued("contoso") == [queued]


def test_odd_answers_of_the_revocation_service_can_be_switched_on(client: Client) -> None:
    queued = client.fake.queue_revocation("contoso", "0A")
    result = {"requestContext": queued.context, "succeeded": True, "errorCode": "None"}
    client.fake.switch(upload_answer=False, pascal_case=True)
    refused = client.upload(result).json()["value"]
    listed = client.download()
    client.fake.switch(upload_answer="true")

    assert (refused, [each["SerialNumber"] for each in listed]) == (False, ["0A"])
    assert client.upload(result).json()["value"] == "true"
    assert client.download() == []
    assert client.upload(result | {"requestContext": "unknown"}).json()["value"] is False


# Two tenants


def test_tenants_are_apart(clients: dict[str, Client]) -> None:
    contoso, fabrikam = clients["contoso"], clients["fabrikam"]
    fake = contoso.fake
    der = csr(fake.mint("fabrikam", subject="CN=device-1"))
    foreign = fabrikam.token("intune//.default")
    fake.queue_revocation("fabrikam", "0A")
    fake.fault("*", "status", -1, tenant="fabrikam", status=429)

    assert contoso.code(der) == "BadTenantIdInChallenge"
    assert contoso.validate(der, authorization=f"Bearer {foreign}").status_code == 401
    assert contoso.download() == []
    assert fabrikam.ask_token(".default").status_code == 429
    fake.clear_faults()
    assert fabrikam.code(der) == "Success"
    assert fabrikam.notify("success", der).json()["code"] == "Success"
    assert contoso.notify("success", der).json()["code"] == "Unknown"


# Faults


def test_the_journal_and_all_that_is_kept_of_it_hold_no_secret(client: Client) -> None:
    challenge = client.fake.mint("contoso", subject="CN=device-1")
    der = csr(challenge)
    client.code(der)
    client.notify("success", der)
    kept = repr(client.fake.journal()) + client.http.get("_fake/journal").text
    kept += repr(client.fake.notifications)
    secrets = [
        challenge, base64.b64encode(der).decode(), client.fake.tenants["contoso"].secret,
        *client.tokens.values(),
    ]  # fmt: skip

    assert [secret for secret in secrets if secret in kept] == []
    routes = [(each.route, each.status, each.code) for each in client.fake.journal()]
    assert [each for each in routes if each[0] in ("validate", "success")] == [
        ("validate", 200, "Success"), ("success", 200, "Success"),
    ]  # fmt: skip


def test_a_lost_answer_is_recorded_and_a_reset_request_is_not_carried_out(client: Client) -> None:
    der = csr(client.fake.mint("contoso", subject="CN=device-1"))
    for kind in ("reset", "lost"):
        client.fake.fault("validate", kind)
        with pytest.raises(httpx.TransportError):
            client.validate(der, kind)

    codes = [client.notify("success", der, each).json()["code"] for each in ("reset", "lost")]
    found = [(e.fault, e.status, e.code) for e in client.fake.journal("validate")]
    assert codes == ["Unknown", "Success"]
    assert found == [("reset", 0, ""), ("lost", 200, "Success")]


SPOILED: dict[str, tuple[dict[str, Any], Callable[[httpx.Response], bool]]] = {
    "truncated": ({}, lambda r: "code" not in r.text[-20:] and not r.text.endswith("}")),
    "wrong-type": ({}, lambda r: isinstance(r.json(), list)),
    "html": ({}, lambda r: r.status_code == 200 and "html" in r.headers["content-type"]),
    "redirect": ({}, lambda r: r.status_code == 307 and "127.0.0.1" not in r.headers["location"]),
    "huge": ({"size": 2**21}, lambda r: len(r.content) >= 2**21 and r.json()["code"] == "Success"),
    "gzip": ({"size": 2**20}, lambda r: r.headers.get("content-encoding") == "gzip"
             and len(r.content) > 2**20),
    "drip": ({"seconds": 0.001}, lambda r: r.json()["code"] == "Success"),
    "delay": ({"seconds": 0.2}, lambda r: r.elapsed.total_seconds() >= 0.2),
    "status": ({"status": 503, "retry_after": "2.128"},
               lambda r: (r.status_code, r.headers.get("retry-after")) == (503, "2.128")),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPOILED)
def test_an_answer_is_spoiled_as_often_as_asked(client: Client, kind: str) -> None:
    options, is_so = SPOILED[kind]
    der = csr(client.fake.mint("contoso", subject="CN=device-1"))
    client.fake.fault("validate", kind, 2, **options)
    first, second, third = (client.validate(der, f"t{n}") for n in range(3))

    assert [is_so(first), is_so(second)] == [True, True]
    assert not is_so(third) or kind == "drip"
    assert [each.fault for each in client.fake.journal("validate")] == [kind, kind, ""]


def test_every_kind_of_fault_is_tried_here() -> None:
    assert {*SPOILED, "lost", "reset"} == set(faults.KINDS)


def test_a_slow_answer_times_out_at_the_client(client: Client) -> None:
    client.token(".default")
    client.fake.fault("endpoints", "drip", seconds=1)
    with pytest.raises(httpx.ReadTimeout):
        client.http.get(
            ENDPOINTS, timeout=0.2,
            headers={"Authorization": f"Bearer {client.token('.default')}",
                     "client-request-id": str(uuid.uuid4())},
        )  # fmt: skip


@pytest.mark.parametrize("route", NAMES)
def test_every_route_can_be_spoiled(client: Client, route: str) -> None:
    client.fake.fault(route, "status", status=418)
    files = client.fake.tenants["contoso"]
    unit = client.fake.app("contoso").unit.id
    scep = f"{graph.SCEP_PATH}/{unit}/ScepActions"
    revocations = f"{graph.REVOCATION_PATH}/{unit}/CertificateAuthorityRequests"
    path = {
        "openid": f"{files.id}/v2.0/.well-known/openid-configuration",
        "token": f"{files.id}/oauth2/v2.0/token",
        "endpoints": ENDPOINTS,
        "managed-device": f"v1.0/deviceManagement/managedDevices/{uuid.UUID(int=1)}",
        "managed-devices": "v1.0/deviceManagement/managedDevices",
        "device": f"v1.0/devices(deviceId='{uuid.UUID(int=1)}')",
        "user": "v1.0/users/ada",
        "validate": f"{scep}/validateRequest",
        "success": f"{scep}/successNotification",
        "failure": f"{scep}/failureNotification",
        "download": f"{revocations}/downloadRevocationRequests",
        "upload": f"{revocations}/uploadRevocationResults",
    }[route]  # fmt: skip
    gets = {"openid", "endpoints", "managed-device", "managed-devices", "device", "user"}
    first, second = (client.http.request("GET" if route in gets else "POST", path) for _ in "ab")

    assert first.status_code == 418
    assert second.status_code in (200, 400, 401)


# Control


def test_a_fault_that_could_not_happen_is_refused(client: Client) -> None:
    with pytest.raises(ValueError, match="unknown route"):
        client.fake.fault("nowhere", "reset")
    with pytest.raises(ValueError, match="unknown fault"):
        client.fake.fault("token", "explode")
    with pytest.raises(ValueError, match="has no option"):
        client.fake.fault("token", "reset", seconds=1)


def test_another_process_controls_the_fake_by_json(client: Client) -> None:
    def control(name: str, **body: Any) -> Any:
        return client.http.post(f"_fake/{name}", json=body).raise_for_status().json()

    minted = control("challenges", tenant="contoso", subject="CN=device-1", sans=["dns:a.example"])
    control("faults", route="validate", kind="status", status=500)
    control("devices", tenant="contoso", id=minted["device_id"], compliance_state="noncompliant")
    user = control("users", tenant="contoso", upn="ada@contoso.example")
    control("revocations", tenant="contoso", serial="0A")
    control("answers", key="scripted", code="Other")
    control("switches", one_time=True)
    der = csr(minted["challenge"], sans=(x509.DNSName("a.example"),))
    managed = client.graph(f"v1.0/deviceManagement/managedDevices/{minted['device_id']}").json()

    assert client.validate(der).status_code == 500
    assert client.code(der) == "Success"
    assert client.code(der, "scripted") == "Other"
    assert managed["complianceState"] == "noncompliant"
    assert client.graph(f"v1.0/users/{user['id']}").status_code == 200
    assert [each["serialNumber"] for each in client.download()] == ["0A"]
    assert control("clock", seconds=4000)["time"] > time.time() + 3000
    assert client.graph(ENDPOINTS).status_code == 401
    client.tokens.clear()
    secret = control("secrets", tenant="contoso")["secret"]
    control("tenants", tenant="contoso", move=True, token_lifetime=5, roles=["User.Read.All"])
    answer = client.ask_token(".default", client_secret=secret).json()
    assert answer["expires_in"] == 5
    assert client.http.get("_fake/counts").json()["validate:contoso"] == 3
    assert client.http.get("_fake/tenants").json()["contoso"]["roles"] == ["User.Read.All"]


@pytest.mark.parametrize(
    ("name", "body", "complaint"),
    [
        ("challenges", {"tenant": "nobody", "subject": "CN=a"}, "unknown tenant"),
        ("challenges", {"tenant": "contoso", "subject": "nonsense"}, ""),
        ("challenges", {"tenant": "contoso"}, ""),
        ("challenges", {"subject": "CN=a"}, "missing: tenant"),
        ("faults", {"route": "token", "kind": "explode"}, "unknown fault"),
        ("devices", {"tenant": "contoso", "colour": "red"}, "colour"),
        ("tenants", {"tenant": "contoso", "roles": ["Everything"]}, "unknown role"),
        ("clock", [], "seconds"),
    ],
)
def test_a_wrong_control_request_says_what_is_wrong(
    client: Client, name: str, body: Any, complaint: str
) -> None:
    answer = client.http.post(f"_fake/{name}", json=body)

    assert answer.status_code == 400
    assert complaint in answer.json()["error"]


def test_the_command_serves_until_it_is_stopped_and_prints_challenges(tmp_path: Path) -> None:
    folder = tmp_path / "fake"
    arguments = ["-m", "cli", "fake-microsoft", "--directory", str(folder)]
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        url = process.stderr.readline().split()[1].rstrip(";")
        ca = ["--ca", str(folder / "ca.pem")]
        options = ["--url", url, "--subject", "CN=device-1", "--san", "dns:a.example"]
        made = command("fake-microsoft", "challenge", *options, *ca)
        distrusted = command("fake-microsoft", "challenge", *options)
        unknown = command("fake-microsoft", "challenge", *options, *ca, "--tenant", "nobody")
    finally:
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=20)

    assert base64.b64decode(made.stdout.strip(), validate=True)
    assert distrusted.returncode == unknown.returncode == 1
    assert set(tomllib.loads(output)["intune"]) == {"contoso", "fabrikam"}
    assert (process.returncode, errors) == (0, "")
