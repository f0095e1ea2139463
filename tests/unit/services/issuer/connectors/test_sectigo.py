"""Sectigo device certificates: what only this connector does, on the fake of its API."""

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
    UnknownOutcome,
)
from services.issuer.connectors.vendors import longest_term, same_serial, serial_digits
from services.issuer.received import validity
from shared.config.load import SettingsError
from shared.log.events.commands import RevocationReason
from shared.scep.certificate import read_certificate
from tests.issuers.orders import again, order
from tests.issuers.sectigo import PASSWORD, FakeSectigo, connector
from tests.issuers.serving import serving
from tests.unit.shared import configurations

DAY: Final = 86400


@pytest.fixture
def folder(tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey) -> Path:
    configurations.write_all(tmp_path, rsa_key, ec_key)
    return tmp_path


@pytest.fixture
def fake() -> FakeSectigo:
    return FakeSectigo()


@pytest.fixture
async def sectigo(folder: Path, fake: FakeSectigo) -> AsyncIterator[Connector]:
    async with serving(fake.app) as port:
        found = connector(folder, fake.ca.certificate, f"http://127.0.0.1:{port}")
        yield found
        await found.close()


async def placed(fake: FakeSectigo, sectigo: Connector, **changes: Any) -> tuple[Order, str]:
    wanted = order(fake.ca.certificate, **changes)
    result = await sectigo.issue(wanted, Prepared())
    assert isinstance(result, Pending)
    return again(wanted), result.handle


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"terms": []}, "options.terms: "),
        ({"terms": [0]}, "options.terms.0: "),
        ({"org_id": -1}, "options.org_id: "),
        ({"login": "two words"}, "options.login: "),
        ({"secret": PASSWORD}, "options.secret: no such option"),
    ],
)
def test_options_that_do_not_fit_are_named(
    folder: Path, fake: FakeSectigo, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError) as error:
        connector(folder, fake.ca.certificate, "http://127.0.0.1:1", **options)

    assert said in str(error.value)
    assert PASSWORD not in str(error.value)


async def test_a_request_waits_for_its_approval(fake: FakeSectigo, sectigo: Connector) -> None:
    fake.approves = False
    wanted, handle = await placed(fake, sectigo)
    for status in ("Requested", "Approved", "Applied"):
        fake.rows[int(handle)].status = status
        assert await sectigo.find(wanted, handle) == Pending(handle)
        assert await sectigo.find(wanted) == Pending(handle)
    fake.approve(int(handle))

    assert isinstance(await sectigo.find(wanted, handle), Issued)


@pytest.mark.parametrize("status", ["Declined", "Rejected"])
async def test_a_request_that_is_turned_down_is_refused(
    fake: FakeSectigo, sectigo: Connector, status: str
) -> None:
    wanted, handle = await placed(fake, sectigo)
    fake.rows[int(handle)].status = status
    found = await sectigo.find(wanted, handle)

    assert isinstance(found, Refused)
    assert status.lower() in found.detail


async def test_a_certificate_that_cannot_be_collected_yet_is_pending(
    fake: FakeSectigo, sectigo: Connector
) -> None:
    fake.approves = False
    wanted, handle = await placed(fake, sectigo)
    fake.rows[int(handle)].status = "Issued"

    assert await sectigo.find(wanted, handle) == Pending(handle)


async def test_odd_answers_leave_the_outcome_open(fake: FakeSectigo, sectigo: Connector) -> None:
    wanted, handle = await placed(fake, sectigo)
    other, _ = await placed(fake, sectigo)
    assert isinstance(await sectigo.find(other, handle), UnknownOutcome)
    assert isinstance(await sectigo.find(wanted, "../1"), UnknownOutcome)
    fake.rows[int(handle)].status = "Invalid"

    assert isinstance(await sectigo.find(wanted, handle), UnknownOutcome)


async def test_others_with_the_same_name_are_not_found(
    fake: FakeSectigo, sectigo: Connector
) -> None:
    first = order(fake.ca.certificate, "same.example")
    second = order(fake.ca.certificate, "same.example")
    await sectigo.issue(first, Prepared())

    assert isinstance(await sectigo.find(again(first)), Issued)
    assert await sectigo.find(again(second)) is None


async def test_a_search_reads_every_page(
    fake: FakeSectigo, sectigo: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.issuer.connectors.sectigo._PAGE", 2)
    orders = [order(fake.ca.certificate, "same.example") for _ in range(5)]
    for each in orders:
        await sectigo.issue(each, Prepared())

    for each in orders:
        assert isinstance(await sectigo.find(again(each)), Issued)


async def test_the_longest_term_that_ends_in_time_is_ordered(
    fake: FakeSectigo, sectigo: Connector
) -> None:
    wanted, _ = await placed(fake, sectigo)
    _, ends = validity(*fake.ca.made.values())

    assert [row.body["term"] for row in fake.rows.values()] == [30]
    assert ends <= wanted.template.not_after


def test_an_order_that_no_term_fits_is_refused(fake: FakeSectigo, sectigo: Connector) -> None:
    begins = order(fake.ca.certificate).template.not_before
    short = order(fake.ca.certificate, not_after=begins + 30 * DAY)

    refused = sectigo.prepare(short)
    assert isinstance(refused, Refused)
    assert "30 d" in refused.detail


def test_an_order_without_a_common_name_could_not_be_found_again(
    fake: FakeSectigo, sectigo: Connector
) -> None:
    nameless = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, "7")]).public_bytes()

    assert isinstance(sectigo.prepare(order(fake.ca.certificate, subject=nameless)), Refused)


@pytest.mark.parametrize(
    ("reason", "sent"),
    [
        (RevocationReason.KEY_COMPROMISE, "1"),
        (RevocationReason.SUPERSEDED, "4"),
        (RevocationReason.PRIVILEGE_WITHDRAWN, "0"),
    ],
)
async def test_a_reason_is_the_nearest_that_the_api_has(
    fake: FakeSectigo, sectigo: Connector, reason: RevocationReason, sent: str
) -> None:
    await placed(fake, sectigo)
    await sectigo.revoke(read_certificate(*fake.ca.made.values()).serial.hex(), "", reason)

    assert list(fake.ca.revoked.values()) == [sent]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cert_type": 9}, "no device certificate profile 9"),
        ({"org_id": 9}, "organization 9"),
        ({"terms": [30, 90]}, "no term of 90 days"),
    ],
)
async def test_the_check_names_what_is_not_there(
    folder: Path, fake: FakeSectigo, options: dict[str, Any], said: str
) -> None:
    async with serving(fake.app) as port:
        url = f"http://127.0.0.1:{port}"
        found = connector(folder, fake.ca.certificate, url, **options)
        with pytest.raises(CaUnavailableError, match=said):
            await found.check()
        await found.close()


def test_serial_numbers_are_compared_however_they_are_written() -> None:
    assert serial_digits("00b7") == "B7"
    assert serial_digits("00") == "00"
    assert same_serial("00:B7 01", "00b701")
    assert not same_serial("", "00")
    assert not same_serial(7, "07")


def test_a_term_may_be_rounded_up_to_the_end_of_a_day() -> None:
    assert longest_term((1, 2, 3), 3 * DAY, 0) == 2
    assert longest_term((3,), 3 * DAY, 0) == 0
