"""GlobalSign Atlas: what only this connector does, on the fake of its API."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from services.issuer.connectors.connector import (
    AnswerLostError,
    CaUnavailableError,
    Connector,
    Issued,
    Pending,
    Prepared,
    Refused,
    UnknownOutcome,
)
from services.issuer.received import validity
from shared.config.load import SettingsError
from shared.log.events.commands import RevocationReason
from shared.log.events.enrollment import TemplateExtension
from shared.scep.certificate import read_certificate
from tests.issuers.globalsign_atlas import SECRET, FakeAtlas, connector
from tests.issuers.orders import CHALLENGE, again, order
from tests.issuers.serving import serving
from tests.support import pki
from tests.unit.shared import configurations

SAN: Final = "2.5.29.17"
UPN: Final = "1.3.6.1.4.1.311.20.2.3"


@pytest.fixture
def folder(tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey) -> Path:
    configurations.write_all(tmp_path, rsa_key, ec_key)
    return tmp_path


@pytest.fixture
def fake() -> FakeAtlas:
    return FakeAtlas()


@pytest.fixture
async def atlas(folder: Path, fake: FakeAtlas) -> AsyncIterator[Connector]:
    async with serving(fake.app) as port:
        found = connector(folder, fake.ca.certificate, f"http://127.0.0.1:{port}")
        yield found
        await found.close()


def subject(*attributes: tuple[x509.ObjectIdentifier, str]) -> bytes:
    return x509.Name([x509.NameAttribute(*each) for each in attributes]).public_bytes()


def with_names(fake: FakeAtlas, *names: x509.GeneralName) -> Any:
    """An order with other subjectAltNames."""
    kept = tuple(e for e in order(fake.ca.certificate).template.extensions if e.oid != SAN)
    value = x509.SubjectAlternativeName(names).public_bytes()
    new = TemplateExtension(oid=SAN, critical=False, value=value)
    return order(fake.ca.certificate, extensions=(*kept, new))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "https://emea.api.hvca.globalsign.com:8443/v2"}, "tls_cert_path and tls_key_path"),
        ({"api_key": ""}, "options.api_key: "),
        ({"api_secret": SECRET}, "options.api_secret: no such option"),
    ],
)
def test_options_that_do_not_fit_are_named(
    folder: Path, fake: FakeAtlas, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError) as error:
        connector(folder, fake.ca.certificate, **({"url": "http://127.0.0.1:1"} | options))

    assert said in str(error.value)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("delay", [0, 2])
async def test_the_certificate_is_asked_for_until_it_is_ready(
    fake: FakeAtlas, atlas: Connector, delay: int
) -> None:
    fake.delay = delay
    wanted = order(fake.ca.certificate)
    placed = await atlas.issue(wanted, Prepared())
    assert isinstance(placed, Pending)
    for _ in range(delay):
        assert await atlas.find(again(wanted), placed.handle) == placed

    assert await atlas.find(again(wanted), placed.handle) == Issued(*fake.ca.made.values())


async def test_a_serial_number_that_the_ca_does_not_show_yet_is_not_given_up(
    fake: FakeAtlas, atlas: Connector
) -> None:
    assert await atlas.find(order(fake.ca.certificate), "4711") == Pending("4711")


async def test_only_a_serial_number_is_a_handle(fake: FakeAtlas, atlas: Connector) -> None:
    for handle in ("", "../login", "12 34"):
        assert isinstance(await atlas.find(order(fake.ca.certificate), handle), UnknownOutcome)


async def test_a_certificate_of_another_device_is_not_taken_for_it(
    fake: FakeAtlas, atlas: Connector
) -> None:
    fake.delay = 0
    placed = await atlas.issue(order(fake.ca.certificate), Prepared())
    assert isinstance(placed, Pending)

    assert isinstance(await atlas.find(order(fake.ca.certificate), placed.handle), UnknownOutcome)


async def test_an_answer_without_a_serial_number_is_lost(
    fake: FakeAtlas, atlas: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "sign", lambda _: "not-hex")
    with pytest.raises(AnswerLostError, match="no serial number"):
        await atlas.issue(order(fake.ca.certificate), Prepared())


async def test_the_validity_is_what_the_verdict_and_the_policy_permit(
    fake: FakeAtlas, atlas: Connector
) -> None:
    wanted = order(fake.ca.certificate)
    await atlas.issue(wanted, Prepared())
    _, ends = validity(*fake.ca.made.values())

    assert ends == wanted.template.not_after
    asked = fake.requests[0]["validity"]
    assert asked["not_after"] - asked["not_before"] <= 90 * 86400


async def test_what_the_policy_fixes_is_not_sent_and_has_to_be_what_was_approved(
    fake: FakeAtlas, atlas: Connector
) -> None:
    fake.policy["subject_dn"]["organization"] = {"presence": "STATIC", "format": "Example"}
    fake.policy["extended_key_usages"]["ekus"] |= {"static": True, "list": [pki.CLIENT_AUTH]}
    name = (NameOID.COMMON_NAME, "a.example")
    fits = order(fake.ca.certificate, subject=subject(name, (NameOID.ORGANIZATION_NAME, "Example")))
    assert isinstance(await atlas.issue(fits, Prepared()), Pending)
    assert fake.requests[0]["subject_dn"] == {"common_name": "a.example"}
    assert "extended_key_usages" not in fake.requests[0]

    for odd in (subject(name), subject(name, (NameOID.ORGANIZATION_NAME, "Another"))):
        refused = await atlas.issue(order(fake.ca.certificate, subject=odd), Prepared())
        assert isinstance(refused, Refused)
        assert "organization" in refused.detail
    assert len(fake.requests) == 1


async def test_the_policy_decides_whether_the_csr_is_sent(
    fake: FakeAtlas, atlas: Connector
) -> None:
    fake.policy["public_key"]["key_format"] = "PKCS8"
    await atlas.issue(order(fake.ca.certificate), Prepared())

    assert fake.requests[0]["public_key"].startswith("-----BEGIN PUBLIC KEY-----")
    assert CHALLENGE not in str(fake.requests)


async def test_a_policy_that_wants_signed_keys_cannot_be_satisfied(
    fake: FakeAtlas, atlas: Connector
) -> None:
    fake.policy["public_key"]["key_format"] = "PKCS8"
    fake.policy["public_key_signature"] = "REQUIRED"
    with pytest.raises(CaUnavailableError, match="PKCS10"):
        await atlas.check()

    assert isinstance(await atlas.issue(order(fake.ca.certificate), Prepared()), Refused)


async def test_names_are_written_by_kind(fake: FakeAtlas, atlas: Connector) -> None:
    upn = x509.OtherName(x509.ObjectIdentifier(UPN), b"\x0c\x03a@b")
    names = (x509.UniformResourceIdentifier("urn:device:7"), upn)
    refused = await atlas.issue(with_names(fake, *names), Prepared())

    assert fake.requests[0]["san"] == {
        "uris": ["urn:device:7"],
        "other_names": [{"type": UPN, "value": "a@b"}],
    }
    assert isinstance(refused, Refused)
    assert "other_names: not permitted" in refused.detail


@pytest.mark.parametrize(
    "name",
    [
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
        x509.OtherName(x509.ObjectIdentifier(UPN), b"\x04\x01a"),
        x509.OtherName(x509.ObjectIdentifier(UPN), b"\x0c\x01\xff"),
    ],
)
async def test_names_that_the_api_cannot_carry_are_refused(
    fake: FakeAtlas, atlas: Connector, name: x509.GeneralName
) -> None:
    assert isinstance(await atlas.issue(with_names(fake, name), Prepared()), Refused)
    assert fake.requests == []


async def test_a_token_that_has_ended_is_replaced(fake: FakeAtlas, atlas: Connector) -> None:
    await atlas.check()
    fake.tokens.clear()
    with pytest.raises(CaUnavailableError):
        await atlas.check()

    assert await atlas.check()


async def test_every_reason_is_passed_on(fake: FakeAtlas, atlas: Connector) -> None:
    await atlas.issue(order(fake.ca.certificate), Prepared())
    serial = read_certificate(*fake.ca.made.values()).serial.hex()
    await atlas.revoke(serial, "", RevocationReason.PRIVILEGE_WITHDRAWN)

    assert list(fake.ca.revoked.values()) == ["privilegeWithdrawn"]


async def test_another_issuing_ca_is_noticed(folder: Path, fake: FakeAtlas) -> None:
    other = FakeAtlas().ca.certificate
    async with serving(fake.app) as port:
        found = connector(folder, other, f"http://127.0.0.1:{port}")
        with pytest.raises(CaUnavailableError, match="ca_cert_path"):
            await found.check()
        await found.close()
