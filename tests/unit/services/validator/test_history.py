from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from services.validator.facts import DecryptedRequest, History, KnownCertificate
from services.validator.history import gather
from shared.log.envelope import EventSigner
from shared.log.events.certificates import (
    CertificateStatus,
    CertificateStatusChanged,
    KeyCompromised,
)
from shared.log.events.commands import RevocationReason
from shared.log.subjects import certificate_issued, certificate_status, key_compromised, key_issued
from shared.x509.csr import read_csr
from tests.fakes.memory_bus import MemoryBus
from tests.support.messages import Identity, device_csr
from tests.support.world import (
    ISSUER,
    ISSUING,
    NOW,
    OPERATOR,
    PIN,
    PROFILE,
    REQUEST_SHA256,
    SERIAL,
    STRANGER,
    TRUSTED_ISSUERS,
    VALIDATOR,
    append_signed,
    counted,
    facts,
    memory_bus,
)
from tests.unit.services.validator.records import record

KEY = "11" * 32
NEWER = "41" * 16
BY_SERIAL = certificate_issued(ISSUER, SERIAL)
BY_KEY = key_issued(KEY, ISSUER, SERIAL)
REVOKED = certificate_status(ISSUER, SERIAL, 0)
MARKED = key_compromised(KEY, 0)
REVOCATION = CertificateStatusChanged(
    request_sha256=REQUEST_SHA256,
    serial=SERIAL,
    ca_spki_sha256=PIN,
    status=CertificateStatus.REVOKED,
    reason=RevocationReason.SUPERSEDED,
    command=1,
    revoked_at=NOW,
    operator="op",
)
MARK = KeyCompromised(request_sha256=REQUEST_SHA256, serial=SERIAL)
Put = Callable[..., Awaitable[None]]


@pytest.fixture
def bus() -> MemoryBus:
    return memory_bus()


@pytest.fixture
def put(bus: MemoryBus) -> Put:
    async def append(subject: str, event: Any, by: EventSigner = ISSUING) -> None:
        await append_signed(bus, subject, event, by)

    return append


@pytest.fixture
def known_to(bus: MemoryBus, device: Identity) -> Callable[..., Awaitable[History]]:
    """What the log knows of a request; `renews` is the serial of its signer's certificate."""
    asked = read_csr(device_csr(device))

    async def gathered(renews: str = "") -> History:
        opened = DecryptedRequest(asked, facts(spki_sha256=KEY), renews=renews)
        return await gather(bus, ISSUER, opened, TRUSTED_ISSUERS)

    return gathered


Known = Callable[..., Awaitable[History]]


async def test_of_a_new_key_the_log_knows_nothing(known_to: Known) -> None:
    assert await known_to() == History()
    assert await known_to(SERIAL) == History()


async def test_the_last_certificate_of_a_key_is_its_live_one(put: Put, known_to: Known) -> None:
    await put(BY_KEY, record())
    newer = record("other", serial=NEWER)
    await put(key_issued(KEY, ISSUER, NEWER), newer)

    live = KnownCertificate("other", newer, revoked=False)
    assert await known_to() == History(live=live)


async def test_a_renewal_is_about_the_signers_certificate(put: Put, known_to: Known) -> None:
    await put(BY_SERIAL, record())

    assert await known_to(SERIAL) == History(KnownCertificate(PROFILE, record(), revoked=False))
    assert await known_to(NEWER) == History()


async def test_a_renewal_with_the_same_key_has_no_live_certificate(
    put: Put, known_to: Known
) -> None:
    """Else it would be answered with what it renews."""
    await put(BY_SERIAL, record())
    await put(BY_KEY, record())

    assert await known_to(SERIAL) == History(KnownCertificate(PROFILE, record(), revoked=False))


@pytest.mark.parametrize("renews", ["", SERIAL])
async def test_a_revocation_is_known(put: Put, known_to: Known, renews: str) -> None:
    await put(BY_SERIAL, record())
    await put(BY_KEY, record())
    await put(REVOKED, REVOCATION)
    found = await known_to(renews)
    known = found.renewed if renews else found.live

    assert known == KnownCertificate(PROFILE, record(), revoked=True)
    assert not found.key_compromised


@pytest.mark.parametrize("renews", ["", SERIAL])
async def test_a_compromise_is_known(put: Put, known_to: Known, renews: str) -> None:
    await put(BY_SERIAL, record())
    await put(BY_KEY, record())
    await put(MARKED, MARK)

    assert (await known_to(renews)).key_compromised


async def test_a_certificate_of_another_issuer_is_not_what_is_renewed(
    put: Put, known_to: Known
) -> None:
    await put(certificate_issued("elsewhere", SERIAL), record())

    assert await known_to(SERIAL) == History()


async def test_a_released_certificate_is_good_again(put: Put, known_to: Known) -> None:
    await put(BY_SERIAL, record())
    for number, status in enumerate((CertificateStatus.HELD, CertificateStatus.RELEASED)):
        event = msgspec.structs.replace(REVOCATION, status=status, command=number)
        await put(certificate_status(ISSUER, SERIAL, number), event)

    assert await known_to(SERIAL) == History(KnownCertificate(PROFILE, record(), revoked=False))


# What is no issuer's word: it makes no certificate known, and takes no mark away


@pytest.mark.parametrize("by", [STRANGER, VALIDATOR, OPERATOR], ids=["stranger", "own", "operator"])
@pytest.mark.parametrize("forged", [BY_SERIAL, BY_KEY])
async def test_a_record_that_another_key_signed_is_reported_and_none(
    put: Put, known_to: Known, by: EventSigner, forged: str
) -> None:
    for subject in (BY_SERIAL, BY_KEY):
        await put(subject, record(), by if subject == forged else ISSUING)
    before = counted("security_events", stage="certificate")

    assert await known_to(SERIAL if forged == BY_SERIAL else "") == History()
    assert counted("security_events", stage="certificate") == before + 1


@pytest.mark.parametrize("by", [STRANGER, VALIDATOR, OPERATOR], ids=["stranger", "own", "operator"])
async def test_a_mark_that_another_key_signed_is_reported_and_bars_nobody(
    put: Put, known_to: Known, by: EventSigner
) -> None:
    """Else whoever holds an issuer's bus key could bar any device for ever."""
    for subject, event in ((BY_SERIAL, record()), (BY_KEY, record())):
        await put(subject, event)
    await put(REVOKED, REVOCATION, by)
    await put(MARKED, MARK, by)
    before = counted("security_events", stage="certificate")
    found = await known_to()

    assert found.live is not None
    assert not found.live.revoked
    assert not found.key_compromised
    assert counted("security_events", stage="certificate") >= before + 2


@pytest.mark.parametrize("planted", [(0,), (0, 1, 2), (2, 1), (5, 10**9)])
async def test_marks_planted_around_a_signed_one_do_not_hide_it(
    put: Put, known_to: Known, planted: tuple[int, ...]
) -> None:
    for subject, event in ((BY_SERIAL, record()), (BY_KEY, record())):
        await put(subject, event)
    before, after = [n for n in planted if n < 2], [n for n in planted if n >= 2]
    free = next(n for n in range(3) if n not in before)
    released = msgspec.structs.replace(REVOCATION, status=CertificateStatus.RELEASED)
    for number in before:
        await put(certificate_status(ISSUER, SERIAL, number), released, STRANGER)
        await put(key_compromised(KEY, number), MARK, STRANGER)
    await put(certificate_status(ISSUER, SERIAL, free), REVOCATION)
    await put(key_compromised(KEY, free), MARK)
    for number in (n for n in after if n != free):
        await put(certificate_status(ISSUER, SERIAL, number), released, STRANGER)
        await put(key_compromised(KEY, number), MARK, STRANGER)
    found = await known_to()

    assert found.live is not None
    assert found.live.revoked
    assert found.key_compromised


async def test_a_record_planted_under_a_key_does_not_hide_its_certificate(
    put: Put, known_to: Known
) -> None:
    await put(BY_KEY, record())
    await put(key_issued(KEY, ISSUER, NEWER), record(serial=NEWER), STRANGER)

    assert await known_to() == History(live=KnownCertificate(PROFILE, record(), revoked=False))


@pytest.mark.parametrize("place", [BY_SERIAL, BY_KEY])
async def test_a_record_from_another_place_is_none(
    bus: MemoryBus, known_to: Known, place: str
) -> None:
    """Signed by an issuer, but for another serial or key."""
    elsewhere = await append_signed(bus, f"cert.{ISSUER}.{NEWER}.issued", record(), ISSUING)
    del bus.streams["CERTS"].messages[elsewhere.sequence]
    moved = elsewhere.__class__(place, elsewhere.payload, elsewhere.headers, 9, 1)
    bus.streams["CERTS"].messages[9] = moved

    assert await known_to(SERIAL if place == BY_SERIAL else "") == History()


async def test_an_event_of_another_kind_is_no_record(put: Put, known_to: Known) -> None:
    await put(BY_SERIAL, REVOCATION)

    assert await known_to(SERIAL) == History()
