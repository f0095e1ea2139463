"""Entrust Certificate Services: what only this connector does, on the fake of its API."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.issuer.connectors.connector import (
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
from tests.issuers.entrust_ecs import PASSWORD, SERVER_AUTH, FakeEntrust, connector
from tests.issuers.orders import again, order
from tests.issuers.serving import serving
from tests.support import pki
from tests.unit.shared import configurations

DAY: Final = 86400
EKU: Final = "2.5.29.37"
SAN: Final = "2.5.29.17"


@pytest.fixture
def folder(tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey) -> Path:
    configurations.write_all(tmp_path, rsa_key, ec_key)
    return tmp_path


@pytest.fixture
def fake() -> FakeEntrust:
    return FakeEntrust()


@pytest.fixture
async def entrust(folder: Path, fake: FakeEntrust) -> AsyncIterator[Connector]:
    async with serving(fake.app) as port:
        found = connector(folder, fake.ca.certificate, f"http://127.0.0.1:{port}")
        yield found
        await found.close()


def with_extension(fake: FakeEntrust, oid: str, value: x509.ExtensionType) -> Any:
    """An order with another extension in place of its own."""
    kept = tuple(e for e in order(fake.ca.certificate).template.extensions if e.oid != oid)
    new = TemplateExtension(oid=oid, critical=False, value=value.public_bytes())
    return order(fake.ca.certificate, extensions=(*kept, new))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"username": "a:b"}, "options.username: "),
        ({"cert_type": "private ssl"}, "options.cert_type: "),
        ({"requester_email": "nobody"}, "options.requester_email: "),
        ({"requester_name": "two\nlines"}, "options.requester_name: "),
        ({"secret": PASSWORD}, "options.secret: no such option"),
    ],
)
def test_options_that_do_not_fit_are_named(
    folder: Path, fake: FakeEntrust, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError) as error:
        connector(folder, fake.ca.certificate, "http://127.0.0.1:1", **options)

    assert said in str(error.value)
    assert PASSWORD not in str(error.value)


async def test_a_request_that_is_queued_is_found_when_it_is_approved(
    fake: FakeEntrust, entrust: Connector
) -> None:
    fake.approves = False
    wanted = order(fake.ca.certificate)
    placed = await entrust.issue(wanted, Prepared())

    assert isinstance(placed, Pending)
    for status in ("PENDING", "PENDING_QUORUM", "APPROVED"):
        fake.rows[int(placed.handle)].status = status
        assert await entrust.find(again(wanted), placed.handle) == placed
    fake.rows[int(placed.handle)].status = "PENDING"
    assert await entrust.find(again(wanted)) == placed
    fake.approve(int(placed.handle))
    assert isinstance(await entrust.find(again(wanted), placed.handle), Issued)


async def test_a_request_that_is_declined_is_refused(fake: FakeEntrust, entrust: Connector) -> None:
    fake.approves = False
    wanted = order(fake.ca.certificate)
    placed = await entrust.issue(wanted, Prepared())
    assert isinstance(placed, Pending)
    fake.rows[int(placed.handle)].status = "DECLINED"

    assert isinstance(await entrust.find(again(wanted), placed.handle), Refused)


async def test_odd_answers_leave_the_outcome_open(fake: FakeEntrust, entrust: Connector) -> None:
    fake.approves = False
    wanted, other = order(fake.ca.certificate), order(fake.ca.certificate)
    placed = await entrust.issue(wanted, Prepared())
    assert isinstance(placed, Pending)
    fake.rows[int(placed.handle)].status = "NA"
    assert isinstance(await entrust.find(again(wanted), placed.handle), UnknownOutcome)
    fake.approve(int(placed.handle))

    assert isinstance(await entrust.find(again(other), placed.handle), UnknownOutcome)
    assert isinstance(await entrust.find(again(wanted), "1?x=2"), UnknownOutcome)


async def test_others_with_the_same_name_are_not_found(
    fake: FakeEntrust, entrust: Connector
) -> None:
    first = order(fake.ca.certificate, "same.example")
    second = order(fake.ca.certificate, "same.example")
    await entrust.issue(first, Prepared())

    assert isinstance(await entrust.find(again(first)), Issued)
    assert await entrust.find(again(second)) is None


async def test_a_search_reads_every_page(
    fake: FakeEntrust, entrust: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.issuer.connectors.entrust_ecs._PAGE", 2)
    orders = [order(fake.ca.certificate, "same.example") for _ in range(5)]
    for each in orders:
        await entrust.issue(each, Prepared())

    for each in orders:
        assert isinstance(await entrust.find(again(each)), Issued)


async def test_a_day_in_any_time_zone_of_north_america_ends_in_time(
    fake: FakeEntrust, entrust: Connector
) -> None:
    wanted = order(fake.ca.certificate)
    await entrust.issue(wanted, Prepared())
    _, ends = validity(*fake.ca.made.values())

    assert 0 <= wanted.template.not_after - ends < 2 * DAY


@pytest.mark.parametrize(
    ("oids", "sent"),
    [
        ((pki.CLIENT_AUTH,), "CLIENT_AUTH"),
        ((SERVER_AUTH,), "SERVER_AUTH"),
        ((pki.CLIENT_AUTH, SERVER_AUTH), "SERVER_AND_CLIENT_AUTH"),
    ],
)
async def test_usages_are_named_as_the_api_names_them(
    fake: FakeEntrust, entrust: Connector, oids: tuple[str, ...], sent: str
) -> None:
    usages = x509.ExtendedKeyUsage([x509.ObjectIdentifier(oid) for oid in oids])
    wanted = with_extension(fake, EKU, usages)
    assert entrust.prepare(wanted) == Prepared()
    await entrust.issue(wanted, Prepared())

    assert [row.body["eku"] for row in fake.rows.values()] == [sent]


def test_what_the_api_cannot_carry_is_refused_before_anything_is_ordered(
    fake: FakeEntrust, entrust: Connector
) -> None:
    usages = x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.3.6.1.5.5.7.3.17")])
    names = x509.SubjectAlternativeName([x509.RFC822Name("device@example.com")])
    begins = order(fake.ca.certificate).template.not_before
    short = order(fake.ca.certificate, not_after=begins + DAY)

    for odd in (with_extension(fake, EKU, usages), with_extension(fake, SAN, names), short):
        assert isinstance(entrust.prepare(odd), Refused)


@pytest.mark.parametrize(
    ("reason", "sent"),
    [
        (RevocationReason.AFFILIATION_CHANGED, "affiliationChanged"),
        (RevocationReason.PRIVILEGE_WITHDRAWN, "unspecified"),
    ],
)
async def test_a_reason_is_the_nearest_that_the_api_has(
    fake: FakeEntrust, entrust: Connector, reason: RevocationReason, sent: str
) -> None:
    await entrust.issue(order(fake.ca.certificate), Prepared())
    await entrust.revoke(read_certificate(*fake.ca.made.values()).serial.hex(), "", reason)

    assert list(fake.ca.revoked.values()) == [sent]


@pytest.mark.parametrize("client", [2, 3])
async def test_the_check_wants_an_approved_organization(
    folder: Path, fake: FakeEntrust, client: int
) -> None:
    async with serving(fake.app) as port:
        url = f"http://127.0.0.1:{port}"
        found = connector(folder, fake.ca.certificate, url, client_id=client)
        with pytest.raises(CaUnavailableError, match=f"client {client} is approved"):
            await found.check()
        await found.close()
