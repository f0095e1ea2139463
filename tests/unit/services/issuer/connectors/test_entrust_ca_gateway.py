import base64
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from services.issuer.connectors import entrust_ca_gateway
from services.issuer.connectors.connector import (
    AnswerLostError,
    CaUnavailableError,
    Issued,
    Order,
    Prepared,
    Recovery,
    Refused,
    RevocationRefusedError,
)
from services.issuer.connectors.http import Answer
from shared.config.load import SettingsError
from shared.log.events.commands import RevocationReason
from shared.log.events.enrollment import TemplateExtension
from shared.runtime.process import now
from shared.scep.certificate import read_certificate
from tests.issuers.entrust_ca_gateway import (
    CA_ID,
    PROFILE,
    FakeGateway,
    behind_tls,
    connector,
    options,
)
from tests.issuers.orders import CHALLENGE, order
from tests.issuers.serving import serving
from tests.issuers.tls_front import TlsFiles
from tests.support.templates import EKU, KEY_USAGE
from tests.unit.shared import configurations


@pytest.fixture
def folder(tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey) -> Path:
    configurations.write_all(tmp_path, rsa_key, ec_key)
    return tmp_path


@pytest.fixture
def fake() -> FakeGateway:
    return FakeGateway(clients=("CN=issuer",))


@pytest.fixture
async def found(folder: Path, fake: FakeGateway) -> AsyncIterator[Any]:
    """The connector of a fake that runs."""
    files = TlsFiles(folder)
    async with serving(fake.app) as target, behind_tls(target, files) as proxy:
        made = connector(folder, fake, options(proxy.port, files.issue("issuer")))
        yield made
        await made.close()


def named(ca: x509.Certificate, subject: x509.Name, *names: x509.GeneralName) -> Order:
    """An order for a subject and subjectAltNames."""
    sans = x509.SubjectAlternativeName(names)
    san = TemplateExtension(oid="2.5.29.17", critical=False, value=sans.public_bytes())
    extensions = (KEY_USAGE, EKU, san)
    return order(ca, subject=subject.public_bytes(), extensions=extensions)


def subject(*attributes: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


DEVICE = subject((NameOID.COUNTRY_NAME, "DE"), (NameOID.COMMON_NAME, "device"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tls_cert_path": None, "tls_key_path": None}, "tls_cert_path and tls_key_path"),
        ({"tls_key_path": None}, "belong together"),
        ({"profile_id": None}, "profile_id: required"),
        ({"ca_id": ""}, "ca_id"),
        ({"properties": {"a": 7}}, "properties.a"),
        ({"url": "http://cagw.example/cagw"}, "url"),
    ],
)
def test_options_that_do_not_fit_are_named(
    folder: Path, fake: FakeGateway, changes: dict[str, Any], said: str
) -> None:
    chosen = options(9, TlsFiles(folder).issue("issuer")) | changes
    with pytest.raises(SettingsError, match=said):
        connector(folder, fake, {k: v for k, v in chosen.items() if v is not None})


async def test_something_on_this_machine_may_present_the_certificate(
    folder: Path, fake: FakeGateway
) -> None:
    chosen = {"url": "http://127.0.0.1:9/cagw", "ca_id": CA_ID, "profile_id": PROFILE}

    assert connector(folder, fake, chosen).recovery is Recovery.BLIND


async def test_the_names_are_those_that_were_approved(found: Any, fake: FakeGateway) -> None:
    names = (
        x509.DNSName("device.example"),
        x509.RFC822Name("device@example.com"),
        x509.UniformResourceIdentifier("urn:device:7"),
        x509.IPAddress(ip_address("192.0.2.7")),
        x509.DirectoryName(DEVICE),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4")),
    )
    asked = named(fake.ca.certificate, DEVICE, *names)
    assert found.prepare(asked) == Prepared()
    issued = await found.issue(asked, Prepared())

    assert fake.bodies[-1]["subjectAltNames"] == [
        {"type": "dNSName", "value": "device.example"},
        {"type": "rfc822Name", "value": "device@example.com"},
        {"type": "uniformResourceIdentifier", "value": "urn:device:7"},
        {"type": "iPAddress", "value": "192.0.2.7"},
        {"type": "directoryName", "value": "CN=device,C=DE"},
        {"type": "registeredID", "value": "1.2.3.4"},
    ]
    assert fake.bodies[-1]["optionalCertificateRequestDetails"]["subjectDn"] == "CN=device,C=DE"
    loaded = x509.load_der_x509_certificate(issued.certificate)
    assert loaded.subject == DEVICE


def test_an_attribute_without_a_short_name_is_written_by_its_keyword(
    folder: Path, fake: FakeGateway
) -> None:
    chosen = {"url": "http://127.0.0.1:9/cagw", "ca_id": CA_ID, "profile_id": PROFILE}
    made: Any = connector(folder, fake, chosen)
    name = subject((NameOID.SERIAL_NUMBER, "S7"), (NameOID.COMMON_NAME, "a,b"))
    asked = named(fake.ca.certificate, name)

    assert made._subject(asked).rfc4514_string(entrust_ca_gateway._KEYWORDS) == (
        "CN=a\\,b,serialNumber=S7"
    )
    assert made.prepare(asked) == Prepared()


def test_names_that_the_api_does_not_have_are_refused_before_anything_is_sent(
    folder: Path, fake: FakeGateway
) -> None:
    chosen = {"url": "http://127.0.0.1:9/cagw", "ca_id": CA_ID, "profile_id": PROFILE}
    made = connector(folder, fake, chosen)
    upn = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x01a")
    odd = subject((NameOID.PSEUDONYM, "p"), (NameOID.COMMON_NAME, "device"))
    for asked, said in (
        (named(fake.ca.certificate, DEVICE, upn), "OtherName"),
        (named(fake.ca.certificate, odd), "2.5.4.65"),
    ):
        refused = made.prepare(asked)
        assert isinstance(refused, Refused)
        assert said in refused.detail


async def test_the_validity_ends_in_time_even_if_the_ca_takes_the_whole_lease(
    found: Any, fake: FakeGateway
) -> None:
    asked = order(fake.ca.certificate)
    before = now()
    issued = await found.issue(asked, Prepared())
    seconds = int(fake.bodies[-1]["optionalCertificateRequestDetails"]["validityPeriod"][2:-1])

    assert before + seconds + found.lease <= asked.template.not_after
    ends = x509.load_der_x509_certificate(issued.certificate).not_valid_after_utc
    assert asked.template.not_after - 60 < ends.timestamp() <= asked.template.not_after


async def test_an_order_whose_validity_is_over_is_not_sent(found: Any, fake: FakeGateway) -> None:
    late = order(fake.ca.certificate, not_after=int(now()) + 30)

    assert isinstance(await found.issue(late, Prepared()), Refused)
    assert fake.bodies == []


async def test_properties_go_with_every_enrollment(folder: Path, fake: FakeGateway) -> None:
    files = TlsFiles(folder)
    properties = {"tracking.requesterName": "Device team"}
    async with serving(fake.app) as target, behind_tls(target, files) as proxy:
        chosen = options(proxy.port, files.issue("issuer")) | {"properties": properties}
        made = connector(folder, fake, chosen)
        assert isinstance(await made.issue(order(fake.ca.certificate), Prepared()), Issued)
        await made.close()

    assert fake.bodies[-1]["properties"] == properties


async def test_an_enrollment_without_a_certificate_is_an_unknown_outcome(
    found: Any, fake: FakeGateway
) -> None:
    fake.silent = "PENDING"
    with pytest.raises(AnswerLostError, match="no certificate"):
        await found.issue(order(fake.ca.certificate), Prepared())
    fake.silent = "REJECTED"

    assert isinstance(await found.issue(order(fake.ca.certificate), Prepared()), Refused)


@pytest.mark.parametrize("content", [b"{}", b"[]", b'{"enrollment": 7}'])
def test_an_answer_without_an_enrollment_is_an_unknown_outcome(content: bytes) -> None:
    with pytest.raises(AnswerLostError, match="no enrollment"):
        entrust_ca_gateway._enrolled(Answer(200, {}, content))


@pytest.mark.parametrize("text", [None, 7, "%", base64.b64encode(b"no certificate").decode()])
def test_what_is_no_certificate_is_an_unknown_outcome(text: Any) -> None:
    with pytest.raises(AnswerLostError, match="no certificate"):
        entrust_ca_gateway._decoded(text)


def test_an_error_is_quoted_without_its_details() -> None:
    content = (
        b'{"type": "ErrorResponse", "error": {"code": "c", "message": "m\\u0007", "details": '
        b'[{"message": "the request"}]}}'
    )
    assert entrust_ca_gateway._said(Answer(400, {}, content)) == "c: m\\x07"
    assert entrust_ca_gateway._said(Answer(400, {}, b"<html>")) == "the gateway answered 400"


@pytest.mark.parametrize("reason", RevocationReason)
async def test_every_reason_has_an_action(
    found: Any, fake: FakeGateway, reason: RevocationReason
) -> None:
    issued = await found.issue(order(fake.ca.certificate), Prepared())
    made = read_certificate(issued.certificate).serial.hex()
    for _ in range(2):
        await found.revoke(made, found.current.pin, reason)

    assert await fake.ca.is_revoked(made) == (reason is not RevocationReason.REMOVE_FROM_CRL)


async def test_an_action_that_the_ca_rejects_is_refused(found: Any, fake: FakeGateway) -> None:
    issued = await found.issue(order(fake.ca.certificate), Prepared())
    made = read_certificate(issued.certificate).serial.hex()
    fake.action_status = "REJECTED"
    with pytest.raises(RevocationRefusedError):
        await found.revoke(made, found.current.pin, RevocationReason.SUPERSEDED)
    fake.action_status = "WHATEVER"
    with pytest.raises(AnswerLostError):
        await found.revoke(made, found.current.pin, RevocationReason.SUPERSEDED)


@pytest.mark.parametrize("changes", [{"ca_id": "Other"}, {"profile_id": "other"}])
async def test_ids_that_the_gateway_does_not_have_are_settings_to_check(
    folder: Path, fake: FakeGateway, changes: dict[str, str]
) -> None:
    files = TlsFiles(folder)
    async with serving(fake.app) as target, behind_tls(target, files) as proxy:
        made = connector(folder, fake, options(proxy.port, files.issue("issuer")) | changes)
        for call in (made.issue(order(fake.ca.certificate), Prepared()), made.check()):
            with pytest.raises(CaUnavailableError, match=f"check.*{next(iter(changes))}"):
                await call
        await made.close()


async def test_another_ca_fails_the_check(found: Any, fake: FakeGateway) -> None:
    fake.ca.certificate = FakeGateway().ca.certificate
    with pytest.raises(CaUnavailableError, match="not the CA of ca_cert_path"):
        await found.check()


async def test_a_client_certificate_of_another_ca_fails_the_check(
    folder: Path, fake: FakeGateway
) -> None:
    (folder / "other").mkdir()
    files, other = TlsFiles(folder), TlsFiles(folder / "other")
    given = {k: f"other/{v}" for k, v in other.issue("issuer").items()}
    async with serving(fake.app) as target, behind_tls(target, files) as proxy:
        chosen = options(proxy.port, given | {"tls_ca_path": files.ca})
        made = connector(folder, fake, chosen)
        with pytest.raises(CaUnavailableError):
            await made.check()
        await made.close()


async def test_nothing_shows_the_challenge(found: Any, fake: FakeGateway) -> None:
    asked = order(fake.ca.certificate, "printer.example")
    refused = await found.issue(asked, Prepared())

    assert CHALLENGE not in repr(found) + repr(asked) + refused.detail
