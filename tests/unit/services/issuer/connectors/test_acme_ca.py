import base64
import datetime as dt
import ipaddress
import json
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jwk, jws

from services.issuer.connectors.acme_account import account_key
from services.issuer.connectors.acme_ca import AcmeConnector
from services.issuer.connectors.connector import (
    AnswerLostError,
    CaUnavailableError,
    Issued,
    Order,
    Pending,
    Prepared,
    Recovery,
    Refused,
    RevocationRefusedError,
)
from services.issuer.connectors.http import Answer
from shared.config.load import SettingsError
from shared.log.events.commands import RevocationReason
from shared.log.events.enrollment import TemplateExtension
from tests.issuers.authority import FakeCa
from tests.issuers.building import build, secret_file
from tests.issuers.orders import CHALLENGE, order
from tests.support import pki
from tests.unit.shared import configurations

SITE: Final = "https://ca.example"
ORDER: Final = f"{SITE}/order/1"
PROBLEM: Final = "urn:ietf:params:acme:error:"
DIRECTORY: Final = {
    name: f"{SITE}/{name}" for name in ("newNonce", "newAccount", "newOrder", "revokeCert")
}


@dataclass
class Server:
    """What an ACME server answers, by URL; `bodies` are the payloads that it got."""

    registry: jws.JWSRegistry
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    bodies: list[tuple[str, Any]] = field(default_factory=list)
    headers: list[dict[str, Any]] = field(default_factory=list)
    nonces: int = 0
    key: Any = None

    def says(self, url: str, *bodies: Any, status: int = 200, **headers: str) -> None:
        """Answer a URL with these, one after another; the last one from then on."""
        raw = [b if isinstance(b, bytes) else json.dumps(b).encode() for b in bodies]
        self.answers[url] = [Answer(status, headers, content) for content in raw]

    def refuses(
        self, url: str, kind: str, detail: str = "so it is", status: int = 400, **members: Any
    ) -> None:
        kind = kind if ":" in kind else PROBLEM + kind
        self.says(url, {"type": kind, "detail": detail, **members}, status=status)

    async def call(
        self,
        method: str,
        url: str,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        answers: Container[int] = (),
    ) -> Answer:
        self.nonces += 1
        nonce = {"replay-nonce": f"nonce-{self.nonces}"}
        if method == "GET":
            return Answer(200, {}, json.dumps(DIRECTORY).encode())
        if method == "HEAD":
            return Answer(200, nonce, b"")
        assert headers is not None
        assert headers["content-type"] == "application/jose+json"
        self._read(url, json.loads(content or b""))
        left = self.answers[url]
        answer = left.pop(0) if len(left) > 1 else left[0]
        if answer.status == 403 and answer.status not in answers:
            raise CaUnavailableError("the CA does not permit this call (403)")
        return replace(answer, headers={**nonce, **answer.headers})

    async def close(self) -> None:
        return None

    def _read(self, url: str, sent: Any) -> None:
        header = json.loads(base64.urlsafe_b64decode(sent["protected"] + "=="))
        assert header["url"] == url
        assert ("jwk" in header) != ("kid" in header)
        self.key = jwk.ECKey.import_key(header["jwk"]) if "jwk" in header else self.key
        payload = jws.deserialize_json(sent, self.key, registry=self.registry).payload
        self.headers.append(header)
        self.bodies.append((url, json.loads(payload) if payload else None))


@pytest.fixture
def authority() -> FakeCa:
    return FakeCa()


@pytest.fixture
def server() -> Server:
    made = Server(jws.JWSRegistry(algorithms=["ES256"], strict_check_header=False))
    made.says(DIRECTORY["newAccount"], {"status": "valid"}, location=f"{SITE}/account/7")
    made.says(DIRECTORY["newOrder"], {"status": "pending"}, status=201, location=ORDER)
    return made


@pytest.fixture
def folder(tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey) -> Path:
    configurations.write_all(tmp_path, rsa_key, ec_key)
    pki.write_key(tmp_path / "account.key", ec.generate_private_key(ec.SECP256R1()))
    return tmp_path


def connect(folder: Path, authority: FakeCa, server: Any, **options: Any) -> AcmeConnector:
    values = {"url": f"{SITE}/directory", "account_key_path": "account.key", **options}
    made = build(folder, "acme", authority.certificate, values)
    assert isinstance(made, AcmeConnector)
    if server is not None:
        made.account.http = server
    return made


@pytest.fixture
def connector(folder: Path, authority: FakeCa, server: Server) -> AcmeConnector:
    return connect(folder, authority, server)


@pytest.fixture
def asked(authority: FakeCa) -> Order:
    return order(authority.certificate)


def signed(authority: FakeCa, order: Order) -> bytes:
    """A chain in PEM that begins with the order's certificate."""
    csr = x509.load_der_x509_csr(order.csr)
    der = authority.sign(csr, ends(order))
    leaf = x509.load_der_x509_certificate(der)
    return leaf.public_bytes(Encoding.PEM) + authority.certificate.public_bytes(Encoding.PEM)


def ends(order: Order) -> dt.datetime:
    return dt.datetime.fromtimestamp(order.template.not_after, dt.UTC)


def shows(server: Server, *statuses: str, **members: Any) -> None:
    """The order's states, one after another."""
    fixed = {"authorizations": [f"{SITE}/authz/1"], "finalize": f"{SITE}/finalize/1", **members}
    server.says(ORDER, *({"status": status, **fixed} for status in statuses))


def challenged(server: Server, *challenges: dict[str, Any], status: str = "pending") -> None:
    identifier = {"type": "dns", "value": "device.example"}
    body = {"status": status, "identifier": identifier, "challenges": list(challenges)}
    server.says(f"{SITE}/authz/1", body)


async def test_no_certificate_is_made_before_the_handle_is_known(
    connector: AcmeConnector, server: Server, asked: Order
) -> None:
    assert connector.recovery is Recovery.DEFERRED
    assert await connector.issue(asked, Prepared()) == Pending(ORDER)

    url, body = server.bodies[-1]
    assert url == DIRECTORY["newOrder"]
    assert body["identifiers"][0]["type"] == "dns"
    assert body["notAfter"].endswith("Z")
    assert server.headers[-1]["kid"] == f"{SITE}/account/7"


async def test_an_order_is_finalized_and_downloaded(
    connector: AcmeConnector, server: Server, authority: FakeCa, asked: Order
) -> None:
    shows(server, "ready", "processing", "valid", certificate=f"{SITE}/cert/1")
    server.says(f"{SITE}/finalize/1", {"status": "processing"})
    server.says(f"{SITE}/cert/1", signed(authority, asked))

    result = await connector.find(asked, ORDER)
    assert result == Issued(*authority.made.values())
    sent = dict(server.bodies)[f"{SITE}/finalize/1"]["csr"]
    assert base64.urlsafe_b64decode(sent + "==") == asked.csr


async def test_an_order_that_is_settled_is_not_finalized(
    connector: AcmeConnector, server: Server, asked: Order
) -> None:
    for status in ("pending", "ready"):
        shows(server, status)
        assert await connector.find(replace(asked, csr=b""), ORDER) is None
    assert [url for url, _ in server.bodies if url != ORDER] == [DIRECTORY["newAccount"]]


async def test_a_certificate_for_another_key_is_not_the_orders(
    connector: AcmeConnector, server: Server, authority: FakeCa, asked: Order
) -> None:
    """A CA may answer newOrder with an open order for the same names."""
    shows(server, "valid", certificate=f"{SITE}/cert/1")
    server.says(f"{SITE}/cert/1", signed(authority, order(authority.certificate)))

    assert await connector.find(asked, ORDER) is None


async def test_an_order_that_the_ca_forgot_is_not_found(
    connector: AcmeConnector, server: Server, asked: Order
) -> None:
    server.refuses(ORDER, "malformed", status=404)
    assert await connector.find(asked, ORDER) is None
    assert await connector.find(asked, "https://elsewhere.example/order/1") is None


async def test_an_order_is_pending_while_the_ca_works(
    connector: AcmeConnector, server: Server, asked: Order
) -> None:
    shows(server, "processing")
    assert await connector.find(asked, ORDER) == Pending(ORDER)


async def test_an_invalid_order_says_why(
    connector: AcmeConnector, server: Server, asked: Order
) -> None:
    shows(server, "invalid", error={"type": f"{PROBLEM}caa", "detail": "no CAA"})
    assert await connector.find(asked, ORDER) == Refused("no CAA (caa)")

    shows(server, "invalid")
    challenged(server, {"type": "dns-01", "error": {"detail": "no TXT"}}, status="invalid")
    result = await connector.find(asked, ORDER)
    assert result == Refused("device.example could not be validated: no TXT")


async def test_an_order_that_only_expired_is_not_found(
    connector: AcmeConnector, server: Server, asked: Order
) -> None:
    shows(server, "invalid")
    challenged(server, status="expired")
    assert await connector.find(asked, ORDER) is None


async def test_a_challenge_is_the_operators_problem(
    connector: AcmeConnector, server: Server, asked: Order
) -> None:
    shows(server, "pending")
    challenged(server, {"type": "dns-01", "status": "pending", "url": f"{SITE}/chall/1"})
    result = await connector.find(asked, ORDER)

    assert isinstance(result, Refused)
    assert "device.example" in result.detail


async def test_a_challenge_is_answered_once_if_that_is_configured(
    folder: Path, authority: FakeCa, server: Server, asked: Order
) -> None:
    connector = connect(folder, authority, server, answer_challenges=True)
    shows(server, "pending")
    offered = {"type": "dns-01", "status": "pending", "url": f"{SITE}/chall/2"}
    challenged(server, {**offered, "type": "tls-alpn-01", "url": f"{SITE}/chall/1"}, offered)
    server.says(f"{SITE}/chall/2", {"status": "processing"})
    server.answers[f"{SITE}/authz/1"].append(
        Answer(200, {}, json.dumps({
            "status": "pending", "challenges": [{**offered, "status": "processing"}],
        }).encode())
    )  # fmt: skip

    assert await connector.find(asked, ORDER) == Pending(ORDER)
    assert [body for url, body in server.bodies if url == f"{SITE}/chall/2"] == [{}]


async def test_without_a_suitable_challenge_the_order_is_refused(
    folder: Path, authority: FakeCa, server: Server, asked: Order
) -> None:
    connector = connect(folder, authority, server, answer_challenges=True)
    shows(server, "pending")
    challenged(server, {"type": "dns-01", "status": "pending", "url": "https://other.example/"})
    assert isinstance(await connector.find(asked, ORDER), Refused)


async def test_a_csr_that_the_ca_does_not_take_is_refused_without_quoting_it(
    connector: AcmeConnector, server: Server, asked: Order
) -> None:
    shows(server, "ready")
    quoted = base64.b64encode(asked.csr).decode()
    server.refuses(f"{SITE}/finalize/1", "badCSR", f"wrong names in {quoted}")

    result = await connector.find(asked, ORDER)
    assert result == Refused("wrong names in ... (badCSR)")
    assert CHALLENGE not in repr(result)


async def test_an_order_that_another_issuer_finalized_is_followed(
    connector: AcmeConnector, server: Server, authority: FakeCa, asked: Order
) -> None:
    shows(server, "ready", "valid", certificate=f"{SITE}/cert/1")
    server.refuses(f"{SITE}/finalize/1", "orderNotReady", status=403)
    server.says(f"{SITE}/cert/1", signed(authority, asked))

    assert isinstance(await connector.find(asked, ORDER), Issued)


NAMED: Final = {"subproblems": [{"identifier": {"type": "dns", "value": "device.example"}}]}
FOREIGN: Final = "https://ca.example/errors/policy"


@pytest.mark.parametrize("status", [400, 403])
@pytest.mark.parametrize(
    ("kind", "members"),
    [
        ("rejectedIdentifier", {}),
        ("caa", {}),
        ("badCSR", {}),
        ("unauthorized", NAMED),
        (FOREIGN, {}),
    ],
)
async def test_a_problem_of_the_order_is_refused_in_the_cas_words(
    connector: AcmeConnector,
    server: Server,
    asked: Order,
    kind: str,
    members: dict[str, Any],
    status: int,
) -> None:
    server.refuses(DIRECTORY["newOrder"], kind, "not this name", status, **members)
    assert await connector.issue(asked, Prepared()) == Refused(f"not this name ({kind})")

    shows(server, "ready")
    server.refuses(f"{SITE}/finalize/1", kind, "not this name", status, **members)
    assert await connector.find(asked, ORDER) == Refused(f"not this name ({kind})")


@pytest.mark.parametrize("status", [400, 403])
@pytest.mark.parametrize(
    ("kind", "members"),
    [
        ("unauthorized", {}),
        ("userActionRequired", {}),
        ("externalAccountRequired", {}),
        ("badSignatureAlgorithm", {}),
        ("rateLimited", NAMED),
    ],
)
async def test_a_problem_of_the_account_refuses_no_order(
    connector: AcmeConnector,
    server: Server,
    asked: Order,
    kind: str,
    members: dict[str, Any],
    status: int,
) -> None:
    server.refuses(DIRECTORY["newOrder"], kind, "read the new terms", status, **members)
    with pytest.raises(CaUnavailableError, match="read the new terms"):
        await connector.issue(asked, Prepared())

    shows(server, "ready")
    server.refuses(f"{SITE}/finalize/1", kind, "read the new terms", status, **members)
    with pytest.raises(CaUnavailableError, match="read the new terms"):
        await connector.find(asked, ORDER)


@pytest.mark.parametrize("body", [b"blocked", {"type": "about:blank", "title": "Forbidden"}, {}])
async def test_an_answer_403_without_a_reason_refuses_no_order(
    connector: AcmeConnector, server: Server, asked: Order, body: Any
) -> None:
    server.says(DIRECTORY["newOrder"], body, status=403)
    with pytest.raises(CaUnavailableError, match="403"):
        await connector.issue(asked, Prepared())
    server.says(DIRECTORY["newAccount"], body, status=403)
    with pytest.raises(CaUnavailableError, match="registered"):
        await connector.check()


async def test_a_rate_limit_tells_how_long_to_wait(
    connector: AcmeConnector, server: Server, asked: Order
) -> None:
    body = {"type": f"{PROBLEM}rateLimited", "detail": "too many"}
    server.says(DIRECTORY["newOrder"], body, status=403, **{"retry-after": "7"})
    with pytest.raises(CaUnavailableError) as raised:
        await connector.issue(asked, Prepared())
    assert raised.value.retry_after == 7


async def test_a_nonce_that_is_rejected_is_replaced(
    connector: AcmeConnector, server: Server, asked: Order
) -> None:
    bad = {"type": f"{PROBLEM}badNonce", "detail": "stale"}
    good = server.answers[DIRECTORY["newOrder"]]
    server.says(DIRECTORY["newOrder"], bad, status=400)
    server.answers[DIRECTORY["newOrder"]] += good
    assert await connector.issue(asked, Prepared()) == Pending(ORDER)
    nonces = [header["nonce"] for header in server.headers]
    assert len(set(nonces)) == len(nonces)

    server.says(DIRECTORY["newOrder"], bad, status=400)
    with pytest.raises(CaUnavailableError, match="nonce"):
        await connector.issue(asked, Prepared())


async def test_an_account_that_the_ca_forgot_is_registered_again(
    connector: AcmeConnector, server: Server, asked: Order
) -> None:
    good = server.answers[DIRECTORY["newOrder"]]
    server.refuses(DIRECTORY["newOrder"], "accountDoesNotExist")
    with pytest.raises(CaUnavailableError, match="account"):
        await connector.issue(asked, Prepared())
    server.answers[DIRECTORY["newOrder"]] = good
    assert await connector.issue(asked, Prepared()) == Pending(ORDER)
    assert [url for url, _ in server.bodies].count(DIRECTORY["newAccount"]) == 2


async def test_a_new_account_is_bound(folder: Path, authority: FakeCa, server: Server) -> None:
    secret_file(folder, "hmac", base64.urlsafe_b64encode(b"h" * 32).decode().rstrip("="))
    connector = connect(
        folder, authority, server, eab_key_id="kid-1", eab_hmac_path="hmac",
        contact=["mailto:pki@example.org"], agree_to_terms=True,
    )  # fmt: skip
    good = server.answers[DIRECTORY["newAccount"]]
    server.refuses(DIRECTORY["newAccount"], "accountDoesNotExist")
    server.answers[DIRECTORY["newAccount"]] += good
    await connector.check()

    (_, first), (_, second) = server.bodies
    assert first == {"onlyReturnExisting": True}
    assert second["termsOfServiceAgreed"] is True
    assert second["contact"] == ["mailto:pki@example.org"]
    bound = jws.deserialize_json(
        second["externalAccountBinding"],
        jwk.OctKey.import_key(b"h" * 32),
        registry=jws.JWSRegistry(algorithms=["HS256"], strict_check_header=False),
    )
    assert json.loads(bound.payload) == server.headers[0]["jwk"]
    assert "d" not in server.headers[0]["jwk"]


async def test_a_deactivated_account_is_named(connector: AcmeConnector, server: Server) -> None:
    server.says(DIRECTORY["newAccount"], {"status": "deactivated"}, location=f"{SITE}/account/7")
    with pytest.raises(CaUnavailableError, match="deactivated"):
        await connector.check()


@pytest.mark.parametrize("location", ["", "http://ca.example/1", "https://ca.example.evil/1"])
async def test_an_order_of_another_server_is_an_odd_answer(
    connector: AcmeConnector, server: Server, asked: Order, location: str
) -> None:
    server.says(DIRECTORY["newOrder"], {}, status=201, location=location)
    with pytest.raises(AnswerLostError):
        await connector.issue(asked, Prepared())


@pytest.mark.parametrize(
    "shown",
    [
        {"status": "odd"},
        {"status": "ready", "finalize": "https://other.example/finalize"},
        {"status": "valid", "certificate": None},
        {"status": "pending", "authorizations": "none"},
        ["ready"],
    ],
)
async def test_an_odd_order_is_no_answer(
    connector: AcmeConnector, server: Server, asked: Order, shown: Any
) -> None:
    server.says(ORDER, shown)
    with pytest.raises(AnswerLostError):
        await connector.find(asked, ORDER)


async def test_the_end_of_validity_can_be_left_to_the_ca(
    folder: Path, authority: FakeCa, server: Server, asked: Order
) -> None:
    connector = connect(folder, authority, server, send_not_after=False)
    await connector.issue(asked, Prepared())
    assert "notAfter" not in server.bodies[-1][1]


def named(authority: FakeCa, subject: x509.Name, *names: x509.GeneralName) -> Order:
    made = order(authority.certificate)
    sans = x509.SubjectAlternativeName(names).public_bytes() if names else b""
    extensions = tuple(
        TemplateExtension(oid=e.oid, critical=False, value=sans) if e.oid == "2.5.29.17" else e
        for e in made.template.extensions
        if names or e.oid != "2.5.29.17"
    )
    template = msgspec.structs.replace(
        made.template, subject=subject.public_bytes(), extensions=extensions
    )
    return replace(made, template=template)


@pytest.mark.parametrize(
    ("subject", "names"),
    [
        (pki.name("a.example"), ()),
        (pki.name("b.example"), (x509.DNSName("a.example"),)),
        (x509.Name([]), (x509.RFC822Name("a@a.example"),)),
        (x509.Name([]), (x509.DNSName("a.example"), x509.UniformResourceIdentifier("a:b"))),
        (x509.Name.from_rfc4514_string("CN=a.example,O=Lab"), (x509.DNSName("a.example"),)),
    ],
)
def test_what_acme_cannot_name_is_refused(
    connector: AcmeConnector, authority: FakeCa, subject: x509.Name, names: Any
) -> None:
    result = connector.prepare(named(authority, subject, *names))
    assert isinstance(result, Refused)
    assert "ACME" in result.detail


async def test_addresses_are_identifiers_too(
    connector: AcmeConnector, authority: FakeCa, server: Server
) -> None:
    names = x509.IPAddress(ipaddress.ip_address("2001:db8::1")), x509.DNSName("A.example")
    asked = named(authority, x509.Name([]), *names)
    assert isinstance(connector.prepare(asked), Prepared)
    await connector.issue(asked, Prepared())
    assert server.bodies[-1][1]["identifiers"] == [
        {"type": "ip", "value": "2001:db8::1"},
        {"type": "dns", "value": "a.example"},
    ]


async def test_a_revocation_sends_the_certificate_and_the_reason(
    connector: AcmeConnector, server: Server
) -> None:
    server.says(DIRECTORY["revokeCert"], b"")
    await connector.revoke("01", "", RevocationReason.SUPERSEDED, b"certificate")

    sent = dict(server.bodies)[DIRECTORY["revokeCert"]]
    assert base64.urlsafe_b64decode(sent["certificate"] + "==") == b"certificate"
    assert sent["reason"] == 4


async def test_a_ca_that_refuses_a_revocation_says_why(
    connector: AcmeConnector, server: Server
) -> None:
    server.refuses(DIRECTORY["revokeCert"], "alreadyRevoked")
    await connector.revoke("01", "", RevocationReason.UNSPECIFIED, b"certificate")
    server.refuses(DIRECTORY["revokeCert"], "badRevocationReason", "not that one")
    with pytest.raises(RevocationRefusedError, match="not that one"):
        await connector.revoke("01", "", RevocationReason.KEY_COMPROMISE, b"certificate")


async def test_a_certificate_that_another_account_ordered_is_not_revoked(
    connector: AcmeConnector, server: Server
) -> None:
    """RFC 8555 s7.6 shows this answer; trying again would not change it."""
    server.refuses(DIRECTORY["revokeCert"], "unauthorized", "not yours", 403)
    with pytest.raises(RevocationRefusedError, match="not yours"):
        await connector.revoke("01", "", RevocationReason.SUPERSEDED, b"certificate")


async def test_without_a_certificate_nothing_can_be_revoked(
    connector: AcmeConnector, server: Server
) -> None:
    with pytest.raises(RevocationRefusedError, match="revoke it at the CA"):
        await connector.revoke("4711", "", RevocationReason.SUPERSEDED)
    assert server.bodies == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"eab_key_id": "kid-1"}, "belong together"),
        ({"contact": ["pki@example.org"]}, "contact"),
        ({"account_key_path": "scepstream.toml"}, "scepstream.toml"),
        ({"url": "http://ca.example/directory"}, "url"),
    ],
)
def test_options_that_do_not_fit_are_named(
    folder: Path, authority: FakeCa, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        connect(folder, authority, None, **options)


def test_account_keys_are_on_usual_curves_or_long_enough() -> None:
    assert account_key(pki.private_pem(ec.generate_private_key(ec.SECP384R1())), "").algorithm == (
        "ES384"
    )
    for key in (ec.generate_private_key(ec.SECP256K1()), ed25519.Ed25519PrivateKey.generate()):
        with pytest.raises(SettingsError, match=r"account\.key"):
            account_key(pki.private_pem(key), "account.key")
