"""What is particular to AD CS: logins, its pages, pending requests, and options."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.issuer.connectors.adcs import AdcsConnector
from services.issuer.connectors.adcs_auth import Negotiation, channel_binding
from services.issuer.connectors.adcs_pages import Disposition, newest_ca, read_page
from services.issuer.connectors.connector import (
    AnswerLostError,
    CaUnavailableError,
    Issued,
    Pending,
    Prepared,
    Refused,
    RevocationRefusedError,
)
from shared.config.load import SettingsError
from shared.log.events.commands import RevocationReason
from tests.issuers.adcs import PASSWORD, PLACING, USER, WRONG, connector
from tests.issuers.adcs_ntlm import TLS, Served, served
from tests.issuers.authority import FakeCa
from tests.issuers.fake_adcs import Basic, FakeAdcs, Ntlm
from tests.issuers.orders import order
from tests.issuers.proxy import Proxy, proxied
from tests.issuers.serving import serving
from tests.support import pki
from tests.unit.shared import configurations


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    configurations.write_all(tmp_path, rsa.generate_private_key(65537, 2048), key)
    return tmp_path


@pytest.fixture
async def fake() -> FakeAdcs:
    return FakeAdcs()


@pytest.fixture
async def proxy(fake: FakeAdcs) -> AsyncIterator[Proxy]:
    async with (
        serving(Basic(fake.app(), f"{USER}:{PASSWORD}")) as port,
        proxied(port, PLACING) as found,
    ):
        yield found


@pytest.fixture
async def made(folder: Path, fake: FakeAdcs, proxy: Proxy) -> AsyncIterator[AdcsConnector]:
    found = connector(folder, fake, proxy.url)
    yield found
    await found.close()


@pytest.fixture
async def web(folder: Path) -> AsyncIterator[Served]:
    async with served(folder, FakeAdcs()) as found:
        yield found


def ntlm(folder: Path, web: Served, **options: Any) -> AdcsConnector:
    return connector(folder, web.fake, web.url, **{"auth": "ntlm", "tls_ca_path": TLS, **options})


# Options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"template": "Device\r\nSAN:upn=admin"}, "template"),
        ({"template": "Device:x"}, "template"),
        ({"template": ""}, "template"),
        ({"template": None}, "template: required"),
        ({"username": None, "password_path": None}, "auth basic needs username"),
        ({"auth": "ntlm", "username": None, "password_path": None}, "auth ntlm needs username"),
        ({"password_path": None}, "belong together"),
        ({"auth": "digest"}, "auth"),
        ({"pass_word": "secret"}, "no such option"),
    ],
)
def test_options_that_do_not_fit_are_named(
    folder: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        connector(folder, FakeAdcs(), "https://ca.example", **options)


def test_a_password_that_others_can_read_is_not_used(folder: Path) -> None:
    (folder / "open.txt").write_text("secret")
    (folder / "open.txt").chmod(0o644)
    with pytest.raises(SettingsError, match=r"open\.txt"):
        connector(folder, FakeAdcs(), "https://ca.example", password_path="open.txt")


def test_a_missing_package_is_named_with_its_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.issuer.connectors.adcs.find_spec", lambda _: None)
    for auth, extra in (("ntlm", "adcs"), ("kerberos", "adcs-kerberos")):
        with pytest.raises(SettingsError, match=rf"scepstream\[{extra}\]"):
            connector(folder, FakeAdcs(), "https://ca.example", auth=auth)


async def test_a_password_file_that_vanished_orders_nothing(
    folder: Path, fake: FakeAdcs, made: AdcsConnector
) -> None:
    next(folder.glob(f"{len(PASSWORD)}.txt")).unlink()
    with pytest.raises(CaUnavailableError, match=r"\.txt"):
        await made.issue(order(fake.ca.certificate), Prepared())
    assert fake.requests == {}


# Orders


@pytest.mark.parametrize("language", ["en", "de"])
async def test_a_request_that_waits_is_pending_until_somebody_decides(
    made: AdcsConnector, fake: FakeAdcs, language: str
) -> None:
    fake.language, fake.approval = language, True
    first, second = order(fake.ca.certificate), order(fake.ca.certificate)

    assert await made.issue(first, Prepared()) == Pending("41")
    assert await made.issue(second, Prepared()) == Pending("42")
    assert await made.find(first, "41") == Pending("41")
    await fake.approve("41")
    fake.deny("42")
    assert await made.find(first, "41") == Issued(*fake.ca.made.values())
    refused = await made.find(second, "42")
    assert isinstance(refused, Refused)
    assert "0x80094800" in refused.detail


@pytest.mark.parametrize("language", ["en", "de"])
async def test_a_template_that_the_ca_does_not_know_is_refused(
    folder: Path, fake: FakeAdcs, proxy: Proxy, language: str
) -> None:
    fake.language = language
    found = connector(folder, fake, proxy.url, template="Nobody")
    refused = await found.issue(order(fake.ca.certificate), Prepared())
    await found.close()

    assert isinstance(refused, Refused)
    assert refused.detail.startswith(fake.words("unsupported"))


async def test_a_certificate_that_does_not_arrive_is_asked_for_later(
    made: AdcsConnector, fake: FakeAdcs, proxy: Proxy
) -> None:
    for fault in ("lost", "cut", "failed", "busy", "garbage"):
        proxy.matches, proxy.spoil = r"^GET /certsrv/certnew\.cer", fault
        asked = order(fake.ca.certificate)
        result = await made.issue(asked, Prepared())
        assert isinstance(result, Pending)
        assert proxy.spoil == ""
        assert isinstance(await made.find(asked, result.handle), Issued)


async def test_a_request_for_another_key_is_never_used(made: AdcsConnector, fake: FakeAdcs) -> None:
    await made.issue(order(fake.ca.certificate), Prepared())
    with pytest.raises(AnswerLostError, match="another key"):
        await made.find(order(fake.ca.certificate), "41")


async def test_a_request_that_the_ca_does_not_have_is_not_refused(
    made: AdcsConnector, fake: FakeAdcs
) -> None:
    with pytest.raises(AnswerLostError):
        await made.find(order(fake.ca.certificate), "4711")


@pytest.mark.parametrize("handle", ["", "CACert", "1&x=2", "\u0661"])
async def test_a_handle_that_is_no_request_id_is_not_asked_for(
    made: AdcsConnector, fake: FakeAdcs, proxy: Proxy, handle: str
) -> None:
    with pytest.raises(AnswerLostError):
        await made.find(order(fake.ca.certificate), handle)
    assert proxy.calls == []


@pytest.mark.parametrize("language", ["en", "de"])
async def test_a_ca_behind_the_web_server_that_is_down_has_not_got_the_order(
    made: AdcsConnector, fake: FakeAdcs, language: str
) -> None:
    fake.language, fake.reachable = language, False
    with pytest.raises(CaUnavailableError, match="web server cannot call"):
        await made.issue(order(fake.ca.certificate), Prepared())


async def test_a_csr_that_the_ca_cannot_read_is_refused(
    made: AdcsConnector, fake: FakeAdcs
) -> None:
    asked = order(fake.ca.certificate)
    object.__setattr__(asked, "csr", b"nonsense")
    assert isinstance(await made.issue(asked, Prepared()), Refused)


async def test_an_approved_end_of_validity_is_asked_for(
    folder: Path, fake: FakeAdcs, proxy: Proxy
) -> None:
    fake.heeds_end_date, fake.lifetime = True, dt.timedelta(days=365)
    found = connector(folder, fake, proxy.url, send_end_date=True)
    asked = order(fake.ca.certificate)
    result = await found.issue(asked, Prepared())
    await found.close()

    assert isinstance(result, Issued)
    ends = x509.load_der_x509_certificate(result.certificate).not_valid_after_utc
    assert int(ends.timestamp()) == asked.template.not_after


async def test_the_order_is_all_that_the_ca_is_asked_for(
    made: AdcsConnector, fake: FakeAdcs
) -> None:
    await made.issue(order(fake.ca.certificate), Prepared())
    assert fake.requests[41].attributes == {"CertificateTemplate": "ScepDevice"}


@pytest.mark.parametrize(
    ("reason", "number"),
    [
        ("keyCompromise", "1"),
        ("certificateHold", "6"),
        ("removeFromCRL", "-1"),
        ("superseded", "4"),
    ],
)
async def test_a_revocation_says_what_to_run_at_the_ca(
    made: AdcsConnector, reason: str, number: str
) -> None:
    with pytest.raises(RevocationRefusedError, match=f"certutil -revoke 1aff {number} and"):
        await made.revoke("001aff", made.current.pin, RevocationReason(reason))


def test_every_reason_has_a_number(folder: Path) -> None:
    made = connector(folder, FakeAdcs(), "https://ca.example")
    for reason in RevocationReason:
        with pytest.raises(RevocationRefusedError):
            asyncio.run(made.revoke("01", "", reason))


async def test_a_ca_with_another_key_does_not_pass_the_check(
    made: AdcsConnector, fake: FakeAdcs
) -> None:
    fake.ca = FakeCa()
    with pytest.raises(CaUnavailableError, match="another key"):
        await made.check()


async def test_a_server_without_web_enrollment_does_not_pass_the_check(
    folder: Path, fake: FakeAdcs
) -> None:
    async def other(_: Request) -> Response:
        return Response("<html>IIS</html>", media_type="text/html")

    for app, said in (
        (Starlette(), r"does not serve certsrv/certcarc\.asp \(404\)"),
        (Starlette(routes=[Route("/{path:path}", other)]), "not the page of web enrollment"),
    ):
        async with serving(app) as port:
            found = connector(folder, fake, f"http://127.0.0.1:{port}")
            with pytest.raises(CaUnavailableError, match=said):
                await found.check()
            await found.close()


# NTLM and Kerberos


async def test_ntlm_proves_the_tls_connection_that_it_is_used_on(folder: Path, web: Served) -> None:
    found = ntlm(folder, web)
    orders = [order(web.fake.ca.certificate) for _ in range(8)]
    results = await asyncio.gather(*(found.issue(each, Prepared()) for each in orders))

    assert all(isinstance(each, Issued) for each in results)
    assert web.guard.logins == 16
    assert web.guard.early == []


async def test_ntlm_for_another_server_is_not_accepted(folder: Path, web: Served) -> None:
    """As if somebody in between passed the login on to the real server."""
    web.guard.bound = channel_binding(pki.der(web.fake.ca.certificate))
    with pytest.raises(CaUnavailableError, match="credentials"):
        await ntlm(folder, web).check()


async def test_ntlm_is_spoken_under_the_name_of_negotiate_too(folder: Path) -> None:
    async with served(folder, FakeAdcs(), "Negotiate") as web:
        assert "logged in" in await ntlm(folder, web).check()


async def test_a_wrong_password_orders_nothing(folder: Path, web: Served) -> None:
    found = connector(folder, web.fake, web.url, WRONG, auth="ntlm", tls_ca_path=TLS)
    with pytest.raises(CaUnavailableError, match="credentials"):
        await found.issue(order(web.fake.ca.certificate), Prepared())
    assert web.fake.requests == {}
    assert web.guard.early == []


async def test_a_scheme_that_the_server_does_not_offer_is_named(folder: Path) -> None:
    fake = FakeAdcs()
    async with serving(Basic(fake.app(), f"{USER}:{PASSWORD}")) as port:
        found = connector(folder, fake, f"http://127.0.0.1:{port}", auth="ntlm")
        with pytest.raises(CaUnavailableError, match="does not offer NTLM or Negotiate"):
            await found.issue(order(fake.ca.certificate), Prepared())


async def test_a_server_that_asks_nobody_who_they_are_gets_no_order(folder: Path) -> None:
    async def welcome(_: Request) -> Response:
        return Response("<html>welcome</html>")

    fake = FakeAdcs()
    async with serving(
        Starlette(routes=[Route("/{path:path}", welcome, methods=["GET", "POST"])])
    ) as port:
        found = connector(folder, fake, f"http://127.0.0.1:{port}", auth="ntlm")
        with pytest.raises(CaUnavailableError, match="anonymous access"):
            await found.issue(order(fake.ca.certificate), Prepared())


async def test_a_login_that_breaks_off_has_ordered_nothing(folder: Path) -> None:
    fake = FakeAdcs()
    async with (
        serving(Ntlm(fake.app())) as port,
        proxied(port, PLACING) as proxy,
    ):
        for fault in ("lost", "failed", "busy", "endless"):
            proxy.spoil = fault
            with pytest.raises(CaUnavailableError):
                await connector(folder, fake, proxy.url, auth="ntlm").issue(
                    order(fake.ca.certificate), Prepared()
                )
            assert proxy.spoil == ""
    assert fake.requests == {}


class Ticket:
    """A login that is complete with its first message, as Kerberos is."""

    complete = False

    def __init__(self, bound: bytes) -> None:
        self.bound = bound

    def step(self, in_token: bytes | None = None) -> bytes:
        assert in_token is None
        self.complete = True
        return b"ticket for " + self.bound


async def call(handler: Any, negotiation: Negotiation) -> httpx.Response:
    async with httpx.AsyncClient(
        transport=httpx.MockTransport(handler), auth=negotiation, base_url="https://ca.example"
    ) as client:
        return await client.post("/", content=b"csr")


async def test_a_ticket_is_sent_with_the_content() -> None:
    seen: list[tuple[str, bytes]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append((request.headers.get("authorization", ""), request.content))
        if "authorization" in request.headers:
            return httpx.Response(200)
        return httpx.Response(401, headers=[("www-authenticate", "Negotiate, NTLM")])

    negotiation = Negotiation(("Negotiate",), Ticket, 1.0)
    assert (await call(handler, negotiation)).status_code == 200
    assert seen == [("", b""), ("Negotiate dGlja2V0IGZvciA=", b"csr")]
    assert negotiation.sent


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(401, headers={"www-authenticate": "NTLM"}),
        httpx.Response(401, headers={"www-authenticate": "NTLM !!"}),
        httpx.Response(401),
        httpx.Response(200, headers={"www-authenticate": "NTLM TlRMTQ=="}),
        httpx.Response(401, headers={"www-authenticate": "NTLM TlRMTQ=="}),
        httpx.Response(401, headers={"www-authenticate": "NTLM"}, content=b"x" * 70_000),
    ],
)
async def test_a_server_that_does_not_continue_a_login_gets_no_content(
    answer: httpx.Response,
) -> None:
    class Endless(Ticket):
        def step(self, in_token: bytes | None = None) -> bytes:
            del in_token
            return b"again"

    def handler(request: httpx.Request) -> httpx.Response:
        assert request.content == b""
        if "authorization" in request.headers:
            return httpx.Response(answer.status_code, headers=answer.headers)
        return httpx.Response(401, headers={"www-authenticate": "NTLM"}, content=answer.content)

    negotiation = Negotiation(("NTLM",), Endless, 1.0)
    with pytest.raises(CaUnavailableError):
        await call(handler, negotiation)
    assert not negotiation.sent


async def test_a_kdc_that_does_not_answer_is_not_awaited_for_long() -> None:
    class Slow(Ticket):
        def step(self, in_token: bytes | None = None) -> bytes:
            asyncio.run(asyncio.sleep(0.2))
            return super().step(in_token)

    def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(401, headers={"www-authenticate": "Negotiate"})

    with pytest.raises(CaUnavailableError, match="KDC"):
        await call(handler, Negotiation(("Negotiate",), Slow, 0.02))


def test_the_channel_binding_has_the_hash_of_the_certificates_signature() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    for used, length in ((hashes.SHA256(), 32), (hashes.SHA384(), 48), (hashes.SHA512(), 64)):
        name = pki.name("web")
        made = x509.CertificateBuilder(name, name, key.public_key(), 7, pki.START, pki.END).sign(
            key, used
        )
        digest = channel_binding(made.public_bytes(Encoding.DER)).removeprefix(
            b"tls-server-end-point:"
        )
        assert digest == made.fingerprint(used)
        assert len(digest) == length
    edwards = ed25519.Ed25519PrivateKey.generate()
    unhashed = x509.CertificateBuilder(
        name, name, edwards.public_key(), 7, pki.START, pki.END
    ).sign(edwards, None)
    assert channel_binding(pki.der(unhashed)).endswith(unhashed.fingerprint(hashes.SHA256()))
    assert channel_binding(b"") == b""


# Pages


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('<a href="certnew.cer?ReqID=7&amp;Enc=b64">', "7"),
        ('location="certnew.cer?ReqID=7&"+getEnc(); x="certnew.p7b?ReqID=7&"', "7"),
        ('"certnew.cer?ReqID=7&" "certnew.cer?ReqID=8&"', ""),
        ("certnew.cer?ReqID=7", ""),
        ("Your Request Id is 12.", "12"),
        ("<p>Id 3<p ID=locPageTitle>Your <b>Request Id</b> is 12. Valid until 2030.", "12"),
        ("Ihre Anforderungs-ID lautet 12.", "12"),
        ("L'ID de votre demande est 12.", "12"),
        ("要求 ID は 12 です。", "12"),
        ("Id 12, or Id 13", ""),
        ("valid 12", ""),
        ("the name is invalid 0x80094800 id 0x80094800", ""),
        ("<script>Request Id is 12</script><!-- Request Id is 13 -->", ""),
        ("Request Id is 123456789012", ""),
        ("", ""),
    ],
)
def test_a_request_id_counts_if_there_is_one_and_no_other(text: str, found: str) -> None:
    assert read_page(text.encode()).request_id == found


def test_a_disposition_is_a_number_beside_its_label() -> None:
    page = b"<DL><DT ID=locDispLabel>Disposition 2:</DT><DD>\n5 <i>-</i> (x)</DD></DL> 6"
    assert read_page(page).disposition is Disposition.UNDER_SUBMISSION
    for odd in (b"<DT ID=locDispLabel><DD>(never set)", b"<DT ID=locDispLabel><DD>-1", b"5", b""):
        assert read_page(odd).disposition is None


def test_what_the_ca_says_is_one_printable_line() -> None:
    said = read_page(b"<DT ID=locDispMsgLabel><DD>a\x00\x1b[2J\n\tb &lt;i&gt;" + b"x" * 900).words
    assert said.isprintable()
    assert len(said) <= 310


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"<", b"<dt id", b"<!--", b"<![CDATA[", b"\0" * 9]
)
def test_any_bytes_are_a_page(content: bytes) -> None:
    page = read_page(content)
    assert (page.request_id, page.disposition, page.result) == ("", None, "")


def test_the_number_of_the_newest_ca_certificate_is_found() -> None:
    assert newest_ca(b"var nRenewals=3;") == "3"
    assert newest_ca(b"var nRenewals=x;") == ""
