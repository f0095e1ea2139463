"""CA chains with the CAs before and after: what is believed of them."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.issuer.chains import publish_chains
from services.issuer.connectors.local import LocalCa, LocalConnector
from shared.ca.chains import Chain, ChainBook, UntrustedChainError, read_chain
from shared.log.envelope import Stored, decode, encode
from shared.log.events.certificates import CaChain
from shared.log.streams import CA_CHAINS
from shared.log.subjects import chain_subject
from tests.fakes.memory_bus import MemoryBus
from tests.support import pki
from tests.support.messages import BMP, COMMON_NAME, PRINTABLE, UTF8, name
from tests.support.world import ISSUER, memory_bus, until
from tests.unit.services.issuer import issuers

OLD = pki.local_ca(ec.derive_private_key(61, ec.SECP256R1()), "Old CA")
CA = pki.local_ca(ec.derive_private_key(62, ec.SECP256R1()), "CA")
NEXT = pki.local_ca(ec.derive_private_key(63, ec.SECP256R1()), "Next CA")
LEAF_KEY = ec.derive_private_key(64, ec.SECP256R1()).public_key()
NEXT_SIGNED = CA.sign_next(NEXT.chain)


def read(*pins: str, **changes: Any) -> Chain:
    values: dict[str, Any] = {"certificates": CA.chain, "previous": OLD.chain}
    message = encode(CaChain(**(values | changes)))
    return read_chain(Stored(chain_subject(ISSUER), message.payload, message.headers, 1, 1), pins)


def leaf(ca: LocalCa, issuer: str) -> bytes:
    return pki.der(pki.make_certificate(LEAF_KEY, ca.key, issuer=issuer))


# The pins


def test_the_current_ca_must_be_pinned() -> None:
    assert read(CA.pin).ca == CA.certificate
    for pins in ((), (OLD.pin,), (NEXT.pin, OLD.pin)):
        with pytest.raises(UntrustedChainError, match="not pinned"):
            read(*pins)


def test_a_rollover_to_a_ca_that_is_pinned_beforehand_is_believed() -> None:
    assert read(OLD.pin, CA.pin).ca == CA.certificate
    assert read(CA.pin, OLD.pin).ca == CA.certificate


def test_previous_cas_count_as_far_as_they_are_pinned() -> None:
    previous = (OLD.chain[0], NEXT.chain[0])

    assert read(CA.pin, previous=previous).previous == ()
    assert read(CA.pin, OLD.pin, previous=previous).previous == OLD.chain
    assert read(CA.pin, OLD.pin, NEXT.pin, previous=previous).previous == previous


@pytest.mark.parametrize("previous", [(b"",), (b"\x30\x00",), (b"junk", OLD.chain[0])])
def test_a_previous_ca_that_is_no_certificate_spoils_the_chain(previous: tuple[bytes, ...]) -> None:
    with pytest.raises(UntrustedChainError):
        read(CA.pin, OLD.pin, previous=previous)


# What it issued, and who is meant


def test_certificates_of_current_and_previous_ca_are_its_own() -> None:
    found = read(CA.pin, OLD.pin)

    assert found.issued(leaf(CA, "CA"))
    assert found.issued(leaf(OLD, "Old CA"))
    assert not found.issued(leaf(NEXT, "Next CA"))
    assert not found.issued(leaf(NEXT, "CA"))
    assert not found.issued(leaf(OLD, "CA"))


def test_certificates_of_a_previous_ca_that_is_not_pinned_are_strangers() -> None:
    assert not read(CA.pin).issued(leaf(OLD, "Old CA"))


def test_a_ca_is_found_by_its_name_however_that_is_encoded() -> None:
    found = read(CA.pin, OLD.pin)
    for tag, text in (
        (UTF8, b"Old CA"),
        (PRINTABLE, b"Old CA"),
        (BMP, "Old CA".encode("utf-16-be")),
    ):
        assert found.ca_named(name((COMMON_NAME, tag, text))) == OLD.chain[0]
    assert found.ca_named(CA.name) == CA.chain[0]
    assert found.ca_named(NEXT.name) is None


def test_of_cas_of_one_name_the_current_one_is_meant() -> None:
    namesake = pki.local_ca(ec.derive_private_key(65, ec.SECP256R1()), "CA")
    found = read(CA.pin, namesake.pin, previous=namesake.chain)

    assert found.ca_named(CA.name) == CA.chain[0]
    assert found.ca_pinned(namesake.pin) == namesake.chain[0]


def test_a_ca_is_found_by_its_pin() -> None:
    found = read(CA.pin, OLD.pin)

    assert found.ca_pinned("") == found.ca_pinned(CA.pin) == CA.chain[0]
    assert found.ca_pinned(OLD.pin) == OLD.chain[0]
    assert found.ca_pinned(NEXT.pin) is None


# The next CA


def test_the_answer_to_get_next_ca_cert_is_passed_on_where_the_ca_signed_it() -> None:
    assert read(CA.pin, next_signed=NEXT_SIGNED).next_signed == NEXT_SIGNED
    assert read(CA.pin).next_signed == b""


@pytest.mark.parametrize(
    "next_signed",
    [
        OLD.sign_next(NEXT.chain),
        NEXT.sign_next(NEXT.chain),
        NEXT_SIGNED[:-1] + bytes((NEXT_SIGNED[-1] ^ 1,)),
        NEXT_SIGNED[:-1],
        b"junk",
    ],
    ids=["by the previous CA", "by the next CA itself", "altered", "cut short", "junk"],
)
def test_a_next_ca_that_the_current_one_did_not_sign_spoils_the_chain(next_signed: bytes) -> None:
    """Devices would come to trust it."""
    with pytest.raises(UntrustedChainError):
        read(CA.pin, OLD.pin, next_signed=next_signed)


# As issuers publish it


async def published(authorities: LocalConnector) -> CaChain:
    bus = memory_bus()
    await publish_chains(bus, issuers.settings(authorities))
    (stored,) = bus.streams[CA_CHAINS].messages.values()
    assert stored.subject == chain_subject(ISSUER)
    event = decode(stored.payload, stored.headers)
    assert isinstance(event, CaChain)
    return event


async def test_an_issuer_publishes_its_chain_and_the_cas_around_it() -> None:
    event = await published(LocalConnector(CA, (OLD,), NEXT))

    assert (event.certificates, event.previous) == (CA.chain, OLD.chain)
    assert read(CA.pin, next_signed=event.next_signed).next_signed == event.next_signed


async def test_an_issuer_without_other_cas_publishes_none() -> None:
    assert await published(LocalConnector(CA)) == CaChain(certificates=CA.chain)


# The book


WIDE = (CA.pin, OLD.pin)
NARROW = (CA.pin,)


async def book_of(*pins: str) -> tuple[MemoryBus, ChainBook]:
    """A log that holds both CAs, and a book that has read it."""
    bus = memory_bus()
    event = CaChain(certificates=CA.chain, previous=OLD.chain)
    await bus.put(chain_subject(ISSUER), encode(event))
    book = ChainBook.of(bus, [(ISSUER, pins)])
    await book._read(ISSUER, pins)
    return bus, book


def previous(book: ChainBook, pins: tuple[str, ...]) -> tuple[bytes, ...] | None:
    found = book.get(ISSUER, pins)
    return None if found is None else found.previous


async def test_a_book_looks_for_new_pins_as_soon_as_they_are_wanted() -> None:
    _, book = await book_of(*NARROW)
    await book.start()
    book.set_wanted([(ISSUER, WIDE)])
    await until(lambda: previous(book, WIDE) == OLD.chain)
    book.stop()

    assert book.missing() == []


async def test_while_the_log_is_away_what_is_still_pinned_is_served_under_new_pins() -> None:
    """A reload must not stop enrollment."""
    bus, book = await book_of(*NARROW)
    bus.connected = False
    book.set_wanted([(ISSUER, WIDE)])

    assert book.missing() == []
    assert previous(book, WIDE) == ()


async def test_a_ca_whose_pin_was_taken_away_is_not_served_under_new_pins() -> None:
    _, book = await book_of(*WIDE)
    book.set_wanted([(ISSUER, (OLD.pin,))])

    assert book.missing() == [ISSUER]


async def test_a_previous_ca_whose_pin_was_taken_away_counts_no_more() -> None:
    """At once, and not when the log is back: its key may be in other hands."""
    bus, book = await book_of(*WIDE)
    assert previous(book, WIDE) == OLD.chain
    bus.connected = False
    book.set_wanted([(ISSUER, NARROW)])

    assert previous(book, NARROW) == ()
