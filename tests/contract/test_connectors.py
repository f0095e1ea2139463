"""What every connector promises the issuer, by those that there are."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.issuer.connectors.connector import Connector, Issued, Order, Prepared, Refused
from services.issuer.connectors.local import LocalConnector
from services.issuer.connectors.pinned import PinnedCa, PinnedCas
from services.issuer.received import misissued, validity
from shared.log.events.commands import RevocationReason
from shared.scep.certificate import read_certificate
from tests.plugins.registry_ca.scepstream_registry_ca import Register, RegistryConnector
from tests.support import pki
from tests.support.templates import template
from tests.support.world import NOW

ATTEMPT = "enroll.0.corp.transaction.csr.0"


@dataclass
class Subject:
    """A connector, and an order for its CA."""

    connector: Connector
    order: Order

    async def issue(self) -> bytes:
        prepared = self.connector.prepare(self.order)
        assert isinstance(prepared, Prepared)
        result = await self.connector.issue(self.order, prepared)
        assert isinstance(result, Issued)
        return result.certificate


@pytest.fixture(params=["local", "registry-ca"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    key = ec.derive_private_key(11, ec.SECP256R1())
    ca = pki.local_ca(key)
    order = Order(ATTEMPT, template(ca.certificate), "ab" * 32)
    if request.param == "local":
        return Subject(LocalConnector(ca), order)
    cas = PinnedCas(PinnedCa(ca.chain, ca.ceilings))
    return Subject(RegistryConnector(cas, 60.0, Register(tmp_path / "register.db"), key), order)


async def test_the_certificate_is_the_one_that_was_ordered(subject: Subject) -> None:
    der = await subject.issue()
    current, template_ = subject.connector.current, subject.order.template

    assert misissued(template_, current.ceilings, current.chain[0], der, NOW) == ""
    assert validity(der) == (template_.not_before, template_.not_after)


async def test_an_order_that_is_placed_twice_gives_one_certificate(subject: Subject) -> None:
    """ECDSA signs the same content differently each time."""
    first, again = read_certificate(await subject.issue()), read_certificate(await subject.issue())

    assert (first.serial, first.subject, first.spki) == (again.serial, again.subject, again.spki)


async def test_another_attempt_gets_another_certificate(subject: Subject) -> None:
    first = await subject.issue()
    subject.order = replace(subject.order, enrollment=ATTEMPT[:-1] + "1")
    second = await subject.issue()

    assert read_certificate(first).serial != read_certificate(second).serial


async def test_a_serial_number_that_was_named_before_is_that_of_the_certificate(
    subject: Subject,
) -> None:
    prepared = subject.connector.prepare(subject.order)
    assert isinstance(prepared, Prepared)
    serial = read_certificate(await subject.issue()).serial

    assert prepared.serial in (b"", serial)


async def test_what_was_never_ordered_is_not_found(subject: Subject) -> None:
    assert await subject.connector.find(subject.order) is None


async def test_what_was_ordered_is_found_unless_its_serial_number_was_named(
    subject: Subject,
) -> None:
    """Then it is on the log, and issuing again gives the same certificate."""
    der = await subject.issue()
    prepared = subject.connector.prepare(subject.order)
    assert isinstance(prepared, Prepared)
    found = await subject.connector.find(subject.order)

    assert prepared.serial or found == Issued(der)


def test_nothing_is_issued_by_preparing(subject: Subject) -> None:
    first, again = (subject.connector.prepare(subject.order) for _ in range(2))

    assert first == again
    assert not isinstance(first, Refused)


def test_its_chain_begins_with_the_ca_that_signs(subject: Subject) -> None:
    current = subject.connector.current

    assert subject.connector.ca_chain().certificates == current.chain
    assert subject.connector.pinned(current.pin) == current
    assert subject.connector.pinned("00" * 32) is None


async def test_a_certificate_can_be_revoked_twice(subject: Subject) -> None:
    serial = read_certificate(await subject.issue()).serial.hex()
    for reason in (RevocationReason.SUPERSEDED, RevocationReason.KEY_COMPROMISE):
        await subject.connector.revoke(serial, subject.connector.current.pin, reason)


def test_an_order_has_one_name_for_each_attempt_and_verdict(subject: Subject) -> None:
    order = subject.order
    names = {
        order.key,
        replace(order, verdict_sha256="cd" * 32).key,
        replace(order, enrollment="enroll.0.a.b.c.1").key,
    }

    assert order.key == replace(order).key
    assert len(names) == 3
    assert all(len(name) == 32 and name.isascii() and name.isalnum() for name in names)
