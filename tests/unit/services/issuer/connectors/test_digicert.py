"""DigiCert CertCentral: what only this connector does, on the fake of its API."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from services.issuer.connectors.connector import (
    CaUnavailableError,
    Connector,
    Issued,
    Order,
    Pending,
    Prepared,
    Refused,
    RevocationRefusedError,
    UnknownOutcome,
)
from services.issuer.received import validity
from shared.config.load import SettingsError
from shared.log.events.commands import RevocationReason
from shared.log.events.enrollment import TemplateExtension
from shared.scep.certificate import read_certificate
from tests.issuers.digicert import KEY, FakeDigicert, connector
from tests.issuers.orders import again, order
from tests.issuers.serving import serving
from tests.unit.shared import configurations

DAY: Final = 86400


@pytest.fixture
def folder(tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey) -> Path:
    configurations.write_all(tmp_path, rsa_key, ec_key)
    return tmp_path


@pytest.fixture
def fake() -> FakeDigicert:
    return FakeDigicert()


@pytest.fixture
async def digicert(folder: Path, fake: FakeDigicert) -> AsyncIterator[Connector]:
    async with serving(fake.app) as port:
        found = connector(folder, fake.ca.certificate, f"http://127.0.0.1:{port}")
        yield found
        await found.close()


def asked(fake: FakeDigicert, **changes: Any) -> Order:
    return order(fake.ca.certificate, **changes)


def subject(*attributes: tuple[x509.ObjectIdentifier, str]) -> bytes:
    return x509.Name([x509.NameAttribute(*each) for each in attributes]).public_bytes()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"product": "Private SSL"}, "options.product: "),
        ({"organization_id": 0}, "options.organization_id: "),
        ({"ca_cert_id": "../10A1"}, "options.ca_cert_id: "),
        ({"url": "http://www.digicert.com"}, "options.url: "),
        ({"api_key": KEY}, "options.api_key: no such option"),
    ],
)
def test_options_that_do_not_fit_are_named(
    folder: Path, fake: FakeDigicert, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError) as error:
        connector(folder, fake.ca.certificate, **({"url": "http://127.0.0.1:1"} | options))

    assert said in str(error.value)
    assert KEY not in str(error.value)


async def test_an_order_waits_for_its_approval(fake: FakeDigicert, digicert: Connector) -> None:
    fake.administrator = False
    wanted = asked(fake)
    placed = await digicert.issue(wanted, Prepared())

    assert isinstance(placed, Pending)
    assert await digicert.find(again(wanted), placed.handle) == placed
    assert await digicert.find(again(wanted)) == placed
    fake.approve(int(placed.handle))
    assert isinstance(await digicert.find(again(wanted), placed.handle), Issued)


async def test_a_certificate_that_comes_at_once_is_taken(
    fake: FakeDigicert, digicert: Connector
) -> None:
    fake.at_once = True

    assert await digicert.issue(asked(fake), Prepared()) == Issued(*fake.ca.made.values())


@pytest.mark.parametrize("status", ["rejected", "canceled"])
async def test_an_order_that_is_turned_down_is_refused(
    fake: FakeDigicert, digicert: Connector, status: str
) -> None:
    wanted = asked(fake)
    placed = await digicert.issue(wanted, Prepared())
    assert isinstance(placed, Pending)
    fake.orders[int(placed.handle)].status = status
    found = await digicert.find(again(wanted), placed.handle)

    assert isinstance(found, Refused)
    assert status in found.detail


async def test_a_status_that_nobody_knows_leaves_the_outcome_open(
    fake: FakeDigicert, digicert: Connector
) -> None:
    wanted = asked(fake)
    placed = await digicert.issue(wanted, Prepared())
    assert isinstance(placed, Pending)
    fake.orders[int(placed.handle)].status = "lost_in_space"

    assert isinstance(await digicert.find(again(wanted), placed.handle), UnknownOutcome)


async def test_an_order_of_another_device_is_not_taken_for_it(
    fake: FakeDigicert, digicert: Connector
) -> None:
    placed = await digicert.issue(asked(fake), Prepared())
    assert isinstance(placed, Pending)

    assert isinstance(await digicert.find(again(asked(fake)), placed.handle), UnknownOutcome)


async def test_only_a_number_is_a_handle(fake: FakeDigicert, digicert: Connector) -> None:
    assert isinstance(await digicert.find(asked(fake), "1/../2"), UnknownOutcome)
    assert await digicert.find(asked(fake), "4711") is None


async def test_the_certificate_ends_with_the_last_whole_day(
    fake: FakeDigicert, digicert: Connector
) -> None:
    wanted = asked(fake)
    await digicert.issue(wanted, Prepared())
    _, ends = validity(*fake.ca.made.values())

    assert 0 <= wanted.template.not_after - ends < DAY
    assert (ends + 1) % DAY == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": subject((NameOID.ORGANIZATION_NAME, "Example"))},
        {"subject": subject((NameOID.COMMON_NAME, "a"), (NameOID.COMMON_NAME, "b"))},
        {"subject": subject((NameOID.COMMON_NAME, "a"), (NameOID.SERIAL_NUMBER, "7"))},
    ],
)
def test_a_subject_that_the_api_cannot_carry_is_refused_before_anything_is_ordered(
    fake: FakeDigicert, digicert: Connector, changes: dict[str, Any]
) -> None:
    assert isinstance(digicert.prepare(asked(fake, **changes)), Refused)


def test_names_that_the_api_cannot_carry_are_refused(
    fake: FakeDigicert, digicert: Connector
) -> None:
    uri = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("urn:device:7")])
    wanted = asked(fake)
    others = tuple(e for e in wanted.template.extensions if e.oid != "2.5.29.17")
    san = TemplateExtension(oid="2.5.29.17", critical=False, value=uri.public_bytes())

    assert isinstance(digicert.prepare(asked(fake, extensions=(*others, san))), Refused)


def test_less_than_a_day_is_refused(fake: FakeDigicert, digicert: Connector) -> None:
    wanted = asked(fake).template

    short = asked(fake, not_after=wanted.not_before + DAY // 2)
    assert isinstance(digicert.prepare(short), Refused)
    assert digicert.prepare(asked(fake, not_after=wanted.not_before + 3 * DAY)) == Prepared()


async def test_a_revocation_that_waits_for_an_administrator_is_no_revocation(
    fake: FakeDigicert, digicert: Connector
) -> None:
    await digicert.issue(asked(fake), Prepared())
    fake.administrator = False
    serial = read_certificate(*fake.ca.made.values()).serial.hex()
    with pytest.raises(RevocationRefusedError, match="administrator"):
        await digicert.revoke(serial, "", RevocationReason.SUPERSEDED)

    assert not fake.ca.revoked


@pytest.mark.parametrize(
    ("reason", "sent"),
    [
        (RevocationReason.KEY_COMPROMISE, "key_compromise"),
        (RevocationReason.CESSATION_OF_OPERATION, "cessation_of_operation"),
        (RevocationReason.PRIVILEGE_WITHDRAWN, "unspecified"),
    ],
)
async def test_a_reason_is_the_nearest_that_the_api_has(
    fake: FakeDigicert, digicert: Connector, reason: RevocationReason, sent: str
) -> None:
    await digicert.issue(asked(fake), Prepared())
    await digicert.revoke(read_certificate(*fake.ca.made.values()).serial.hex(), "", reason)

    assert list(fake.ca.revoked.values()) == [sent]


@pytest.mark.parametrize(
    ("options", "said"),
    [({"product": "ssl_plus"}, "no product ssl_plus"), ({"ca_cert_id": "FFFF"}, "ca_cert_id")],
)
async def test_the_check_names_a_product_that_cannot_be_ordered(
    folder: Path, fake: FakeDigicert, options: dict[str, Any], said: str
) -> None:
    async with serving(fake.app) as port:
        url = f"http://127.0.0.1:{port}"
        found = connector(folder, fake.ca.certificate, url, **options)
        with pytest.raises(CaUnavailableError, match=said):
            await found.check()
        await found.close()
