"""What every connector of an external CA promises, on its CA or on a fake of its API."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.issuer.connectors.connector import (
    AnswerLostError,
    CaUnavailableError,
    Issued,
    Order,
    Pending,
    Prepared,
    Recovery,
    Refused,
    Result,
    RevocationRefusedError,
    UnknownOutcome,
)
from services.issuer.received import misissued
from shared.log.events.commands import RevocationReason
from shared.scep.certificate import read_certificate
from tests.issuers.lab import Lab
from tests.issuers.orders import CHALLENGE, again
from tests.unit.shared import configurations

ALL: Final = (
    "openbao", "ejbca", "step_ca", "adcs", "adcs_ntlm", "aws_pca", "google_cas", "digicert",
    "sectigo", "entrust_ca_gateway", "entrust_ecs", "globalsign_atlas", "acme_ca", "command",
    "kubernetes", "cert_manager",
)  # fmt: skip
LABS: Final = tuple(filter(None, os.environ.get("LABS", "").split(","))) or ALL
COMPROMISE: Final = RevocationReason.KEY_COMPROMISE


Keys = tuple[rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey]


@pytest.fixture(scope="module")
def keys() -> Keys:
    return rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(params=LABS)
async def lab(request: pytest.FixtureRequest, tmp_path: Path, keys: Keys) -> AsyncIterator[Lab]:
    configurations.write_all(tmp_path, *keys)
    async with import_module(f"tests.issuers.{request.param}").lab(tmp_path) as found:
        yield found


async def place(lab: Lab, order: Order) -> Result:
    prepared = lab.connector.prepare(order)
    assert isinstance(prepared, Prepared)
    try:
        return await lab.connector.issue(order, prepared)
    except AnswerLostError as error:
        return UnknownOutcome(str(error))


async def issued(lab: Lab, order: Order) -> bytes:
    """The certificate of an order, which an approver lets pass if it has to wait."""
    result = await place(lab, order)
    if isinstance(result, Pending):
        handle = result.handle
        await lab.approve(handle)
        async with asyncio.timeout(30):
            while isinstance(result, Pending | UnknownOutcome | None):
                result = await lab.connector.find(order, handle) or UnknownOutcome()
                handle = result.handle or handle if isinstance(result, Pending) else handle
    assert isinstance(result, Issued), result
    assert result.others == ()
    return result.certificate


def serial(der: bytes) -> str:
    return read_certificate(der).serial.hex()


async def test_the_certificate_is_the_one_that_was_ordered(lab: Lab) -> None:
    order = lab.order()
    der = await issued(lab, order)
    current = lab.connector.current
    approved_at = order.template.not_before + 600

    assert misissued(order.template, current.ceilings, current.chain[0], der, approved_at) == ""
    assert await lab.made() == [der]


async def test_what_was_never_ordered_is_not_found(lab: Lab) -> None:
    if lab.connector.recovery in (Recovery.NAMED, Recovery.SEARCHABLE):
        assert await lab.connector.find(again(lab.order())) is None


async def test_two_orders_give_two_certificates(lab: Lab) -> None:
    first, second = lab.order(), lab.order()
    ders = [await issued(lab, first), await issued(lab, second)]

    assert serial(ders[0]) != serial(ders[1])
    if lab.connector.recovery in (Recovery.NAMED, Recovery.SEARCHABLE):
        assert await lab.connector.find(again(first)) == Issued(ders[0])
        assert await lab.connector.find(again(second)) == Issued(ders[1])


@pytest.mark.parametrize("fault", ["lost", "cut"])
async def test_an_answer_that_is_lost_is_an_unknown_outcome(lab: Lab, fault: str) -> None:
    """The CA has acted; what is found afterwards is what it has made."""
    if lab.proxy is None:
        return
    order = lab.order()
    lab.proxy.spoil = fault
    result = await place(lab, order)
    assert isinstance(result, UnknownOutcome)
    assert lab.proxy.spoil == ""
    if lab.connector.recovery is Recovery.NAMED or (
        lab.connector.recovery is Recovery.SEARCHABLE and not lab.pends
    ):
        found: Result | None = UnknownOutcome()
        handle = ""
        async with asyncio.timeout(30):
            while isinstance(found, Pending | UnknownOutcome):
                found = await lab.connector.find(again(order), handle)
                if isinstance(found, Pending):
                    handle = found.handle
                    await lab.approve(handle)
        assert isinstance(found, Issued)
        assert await lab.made() == [found.certificate]


@pytest.mark.parametrize("fault", ["failed", "garbage", "endless"])
async def test_an_answer_that_says_nothing_is_an_unknown_outcome(lab: Lab, fault: str) -> None:
    if lab.proxy is None:
        return
    lab.proxy.spoil = fault

    assert isinstance(await place(lab, lab.order()), UnknownOutcome)
    assert lab.proxy.spoil == ""


@pytest.mark.parametrize(("fault", "wish"), [("busy", 7.0), ("away", 7.0), ("redirect", 0.0)])
async def test_a_ca_that_does_not_act_is_unavailable(lab: Lab, fault: str, wish: float) -> None:
    if lab.proxy is None:
        return
    lab.proxy.spoil = fault
    with pytest.raises(CaUnavailableError) as raised:
        await place(lab, lab.order())

    assert raised.value.retry_after == wish
    assert await lab.made() == []


async def test_an_order_that_repeats_a_lost_one_is_found_beside_it(lab: Lab) -> None:
    """A CA with names or tokens makes no second certificate; a search finds both."""
    if lab.proxy is None or lab.pends:
        return
    order = lab.order()
    lab.proxy.spoil = "lost"
    await place(lab, order)
    der = await issued(lab, order)
    made = await lab.made()
    match lab.connector.recovery:
        case Recovery.NAMED | Recovery.SHORT_TOKEN:
            assert made == [der]
        case Recovery.SEARCHABLE:
            found = await lab.connector.find(again(order))
            assert isinstance(found, Issued)
            assert {found.certificate, *found.others} == set(made)
            assert len(made) == 2
        case Recovery.BLIND:
            assert len(made) == 2


async def test_what_the_ca_refuses_is_refused_in_its_words(lab: Lab) -> None:
    if lab.refused is None:
        return
    result = await place(lab, lab.refused)
    if isinstance(result, Pending):
        found: Result | None = result
        async with asyncio.timeout(30):
            while isinstance(found, Pending):
                found = await lab.connector.find(again(lab.refused), result.handle)
        assert found is not None
        result = found

    assert isinstance(result, Refused)
    assert result.detail.isprintable()
    assert len(result.detail) > 5
    assert CHALLENGE not in result.detail


async def test_a_certificate_can_be_revoked_twice(lab: Lab) -> None:
    der = await issued(lab, lab.order())
    found = serial(der)
    assert not await lab.is_revoked(found)
    if not lab.revokes:
        with pytest.raises(RevocationRefusedError, match="revoke"):
            await lab.connector.revoke(found, lab.connector.current.pin, COMPROMISE)
        return
    for _ in range(2):
        await lab.connector.revoke(found, lab.connector.current.pin, COMPROMISE, der)

    assert await lab.is_revoked(found)


async def test_a_certificate_is_suspended_or_the_connector_says_that_it_cannot(lab: Lab) -> None:
    found, pin = serial(await issued(lab, lab.order())), lab.connector.current.pin
    hold, release = RevocationReason.CERTIFICATE_HOLD, RevocationReason.REMOVE_FROM_CRL
    if not lab.holds:
        with pytest.raises(RevocationRefusedError):
            await lab.connector.revoke(found, pin, hold)
        assert not await lab.is_revoked(found)
        return
    await lab.connector.revoke(found, pin, hold)
    assert await lab.is_revoked(found)
    await lab.connector.revoke(found, pin, release)
    assert not await lab.is_revoked(found)


async def test_a_serial_number_that_the_ca_does_not_know_is_refused(lab: Lab) -> None:
    if not lab.knows_serials:
        return
    with pytest.raises((RevocationRefusedError, CaUnavailableError)):
        await lab.connector.revoke("4711", lab.connector.current.pin, COMPROMISE)


async def test_a_ca_that_works_passes_the_check(lab: Lab) -> None:
    before = await lab.made()

    assert len(await lab.connector.check()) > 5
    assert await lab.made() == before


async def test_credentials_that_the_ca_does_not_accept_are_named(lab: Lab) -> None:
    if lab.denied is None:
        return
    with pytest.raises(CaUnavailableError) as checked:
        await lab.denied.check()
    order = lab.order()
    with pytest.raises(CaUnavailableError) as ordered:
        await lab.denied.issue(order, Prepared())

    for said in (str(checked.value), str(ordered.value)):
        assert len(said) > 20
        assert not any(secret in said for secret in lab.secrets)
    assert await lab.made() == []


async def test_a_connector_shows_no_secret(lab: Lab) -> None:
    order = lab.order()
    with suppress(Exception):
        await issued(lab, order)
    shown = repr(lab.connector) + repr(order) + repr(lab.denied)

    assert not any(secret in shown for secret in (*lab.secrets, CHALLENGE))


async def test_a_ca_that_is_not_there_is_unavailable(lab: Lab) -> None:
    if lab.proxy is None:
        return
    await lab.connector.close()
    lab.proxy.spoil = ""
    await lab.proxy.stop()
    with pytest.raises(CaUnavailableError, match="cannot be reached"):
        await lab.connector.issue(lab.order(), Prepared())
    with pytest.raises(CaUnavailableError):
        await lab.connector.check()
    gc.collect()


def test_every_built_in_connector_is_tested() -> None:
    from services.issuer.connectors.registry import BUILT_IN  # noqa: PLC0415

    assert set(ALL) >= set(BUILT_IN.values()) - {"local"}


async def test_its_chain_begins_with_the_ca_that_signs(lab: Lab) -> None:
    current = lab.connector.current

    assert lab.connector.ca_chain().certificates == current.chain
    assert lab.connector.pinned(current.pin) == current
    assert lab.connector.pinned("00" * 32) is None
    assert x509.load_der_x509_certificate(current.chain[0]) == lab.ca
