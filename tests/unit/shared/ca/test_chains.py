from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.core import BusUnavailableError
from shared.ca.chains import Chain, ChainBook, UntrustedChainError, read_chain
from shared.log.envelope import Message, Stored, encode
from shared.log.events.certificates import CaChain
from shared.log.streams import CA_CHAINS
from shared.log.subjects import chain_subject
from tests.fakes.memory_bus import MemoryBus
from tests.support import golden, pki
from tests.support.world import ISSUER, memory_bus, until

CA_KEY = ec.derive_private_key(5, ec.SECP256R1())
TOP_KEY = ec.derive_private_key(6, ec.SECP256R1())
ROOT = pki.make_root(CA_KEY)
TOP = pki.make_root(TOP_KEY, "Top")
SUB = pki.make_certificate(
    CA_KEY.public_key(), TOP_KEY, subject="Test CA", issuer="Top", usage=("key_cert_sign",), ca=True
)
PIN = pki.pin(ROOT)


def chain(*certificates: x509.Certificate) -> CaChain:
    return CaChain(certificates=tuple(pki.der(c) for c in certificates))


def read(event: Any, *pins: str) -> Chain:
    message = event if isinstance(event, Message) else encode(event)
    return read_chain(
        Stored(chain_subject(ISSUER), message.payload, message.headers, 1, 1), pins or (PIN,)
    )


def test_a_pinned_ca_is_believed_with_what_stands_above_it() -> None:
    assert read(chain(ROOT)).ca == ROOT
    assert read(chain(SUB, TOP)).certificates == (SUB, TOP)
    assert read(chain(SUB, TOP)).der == (pki.der(SUB), pki.der(TOP))


def altered(before: str, after: str) -> bytes:
    """The root with other bytes (hex) in the place of these."""
    der = pki.der(ROOT)
    assert der.count(bytes.fromhex(before)) == 1
    return der.replace(bytes.fromhex(before), bytes.fromhex(after))


UNKNOWN_VERSION = altered("a003020102", "a003020105")
UNKNOWN_KEY = altered("06072a8648ce3d0201", "06072a8648ce3d0279")


@pytest.mark.parametrize(
    "event",
    [
        chain(),
        chain(TOP),
        chain(TOP, SUB),
        chain(SUB, ROOT),
        chain(ROOT, TOP),
        CaChain(certificates=(b"\x30\x00",)),
        CaChain(certificates=(UNKNOWN_VERSION,)),
        CaChain(certificates=(pki.der(ROOT), UNKNOWN_VERSION)),
        CaChain(certificates=(UNKNOWN_KEY,)),
        CaChain(certificates=(pki.der(ROOT), UNKNOWN_KEY)),
        golden.EVENTS["DeadLetter", 1][1],
        Message(b"{", {}),
    ],
    ids=["nothing", "another CA", "turned round", "not its issuer", "unrelated", "no certificate",
         "version 6", "version 6 above", "an unknown key", "an unknown key above",
         "another event", "no event"],
)  # fmt: skip
def test_any_other_chain_is_refused(event: Any) -> None:
    with pytest.raises(UntrustedChainError):
        read(event)


@given(
    position=st.integers(0, len(pki.der(SUB)) - 1), byte=st.integers(0, 255), upper=st.booleans()
)
def test_an_altered_certificate_is_refused_or_another_one(
    position: int, byte: int, *, upper: bool
) -> None:
    """Whatever is wrong with a chain is one error: whoever reads it must know it."""
    der = bytearray(pki.der(TOP if upper else SUB))
    der[position % len(der)] = byte
    with suppress(UntrustedChainError):
        read(CaChain(certificates=(pki.der(SUB), bytes(der)) if upper else (bytes(der),)))


def test_a_ca_with_a_negative_serial_number_is_read_without_a_warning() -> None:
    """`cryptography` warns of it; what a service prints is for its own events."""
    serial = ROOT.serial_number.to_bytes((ROOT.serial_number.bit_length() + 8) // 8, "big")
    der = pki.der(ROOT)
    assert der.count(serial) == 1
    negative = der.replace(serial, b"\x80" + serial[1:])

    with suppress(UntrustedChainError):
        read(CaChain(certificates=(negative,)))


def test_a_chain_knows_what_its_ca_issued() -> None:
    leaf_key = ec.derive_private_key(7, ec.SECP256R1()).public_key()
    found = read(chain(ROOT))

    assert found.issued(pki.der(pki.make_certificate(leaf_key, CA_KEY)))
    assert not found.issued(pki.der(pki.make_certificate(leaf_key, TOP_KEY)))
    assert not found.issued(b"")


@pytest.fixture
async def bus() -> MemoryBus:
    return memory_bus()


@pytest.fixture
async def book(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ChainBook]:
    monkeypatch.setattr("shared.ca.chains._RETRY_SECONDS", 0.001)
    monkeypatch.setattr("shared.ca.chains._REFRESH_SECONDS", 60)
    found = ChainBook.of(bus, [(ISSUER, (PIN,))])
    await found.start()
    yield found
    found.stop()


async def test_a_chain_is_missing_until_it_was_read(bus: MemoryBus, book: ChainBook) -> None:
    assert book.missing() == [ISSUER]
    assert book.get(ISSUER, (PIN,)) is None

    await bus.put(chain_subject(ISSUER), encode(chain(ROOT)))
    await until(lambda: not book.missing())
    found = book.get(ISSUER, (PIN,))
    assert found is not None
    assert found.ca == ROOT


async def test_a_hint_has_the_chain_read_again(bus: MemoryBus, book: ChainBook) -> None:
    await bus.put(chain_subject(ISSUER), encode(chain(ROOT)))
    first = await until(lambda: book.get(ISSUER, (PIN,)))
    await bus.put(chain_subject(ISSUER), encode(chain(SUB, TOP)))
    await bus.hint(f"chain.{ISSUER}", Message(b"never looked at", {}))
    await until(lambda: book.get(ISSUER, (PIN,)) != first)

    found = book.get(ISSUER, (PIN,))
    assert found is not None
    assert found.ca == SUB


@pytest.mark.parametrize("bad", [encode(chain(TOP)), Message(b"", {})])
async def test_a_chain_that_was_read_is_kept_where_a_bad_one_follows(
    bus: MemoryBus, book: ChainBook, bad: Message
) -> None:
    await bus.put(chain_subject(ISSUER), encode(chain(ROOT)))
    first = await until(lambda: book.get(ISSUER, (PIN,)))
    await bus.put(chain_subject(ISSUER), bad)
    await book._read(ISSUER, (PIN,))
    bus.connected = False
    await book._read(ISSUER, (PIN,))

    assert book.get(ISSUER, (PIN,)) is first
    assert bus.streams[CA_CHAINS].messages


async def test_an_error_that_nobody_foresaw_does_not_end_the_watch(
    bus: MemoryBus, book: ChainBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def broken(stored: Stored, pins: tuple[str, ...]) -> Chain:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise KeyError("a bug")
        return read_chain(stored, pins)

    monkeypatch.setattr("shared.ca.chains.read_chain", broken)
    await bus.put(chain_subject(ISSUER), encode(chain(ROOT)))

    await until(lambda: book.get(ISSUER, (PIN,)))


async def test_a_chain_that_cannot_be_read_again_is_no_word_about_a_new_ca(
    bus: MemoryBus, book: ChainBook
) -> None:
    """Else a certificate of a CA that has just taken over is called forged in an outage."""
    await bus.put(chain_subject(ISSUER), encode(chain(ROOT)))
    await until(lambda: book.get(ISSUER, (PIN,)))
    bus.connected = False

    with pytest.raises(BusUnavailableError):
        await book.reread(ISSUER, (PIN,))
