"""`audit keys`: which certificates of the log share a prime, and what operators are told."""

from dataclasses import replace
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cli import audit_keys
from services.audit.commands.context import OperatorContext
from shared.log.events.enrollment import CertificateIssued, IssuanceFailed
from shared.log.reasons import FAIL_INFO, Reason
from shared.log.stages import Stage
from shared.log.subjects import EnrollmentId
from tests.fakes.memory_bus import MemoryBus
from tests.support import pki
from tests.support.operator_api import settings
from tests.support.world import (
    ISSUER,
    ISSUING,
    NOW,
    REQUEST_SHA256,
    STRANGER,
    TRUSTED_ISSUERS,
    append_signed,
    memory_bus,
)

CA_KEY = ec.derive_private_key(5, ec.SECP256R1())


@pytest.fixture(scope="module")
def primes() -> list[int]:
    """Six primes of 1024 bits."""
    keys = (rsa.generate_private_key(65537, 2048).private_numbers() for _ in range(3))
    return [prime for key in keys for prime in (key.p, key.q)]


def public(p: int, q: int) -> rsa.RSAPublicKey:
    return rsa.RSAPublicNumbers(65537, p * q).public_key()


async def issue(bus: MemoryBus, name: str, key: Any, by: Any = ISSUING) -> None:
    made = pki.make_certificate(key, CA_KEY, subject=name)
    event = CertificateIssued(
        request_sha256=REQUEST_SHA256,
        issuer=ISSUER,
        serial=f"{name:0>32}",
        certificate=pki.der(made),
        not_after=NOW + 86400,
    )
    await append_signed(
        bus, EnrollmentId("0", "corp", name, "c", 0).subject(Stage.OUTCOME), event, by
    )


async def shared(bus: MemoryBus) -> tuple[int, list[str]]:
    told = replace(settings(), streams=("ENROLL_0", "CERTS"))
    context = OperatorContext(bus, told, cast("Any", None), {}, TRUSTED_ISSUERS, "somebody")
    count, found = await audit_keys._shared(context)
    return count, audit_keys.report(found)


async def test_every_certificate_with_a_shared_prime_is_named(primes: list[int]) -> None:
    p, q, r, s, t, u = primes
    bus = memory_bus()
    await issue(bus, "first", public(p, q))
    await issue(bus, "sound", public(s, t))
    await issue(bus, "second", public(p, r))
    await issue(bus, "renewed", public(p, r))
    await issue(bus, "elliptic", CA_KEY.public_key())
    await issue(bus, "forged", public(s, u), STRANGER)
    await failed(bus)
    count, lines = await shared(bus)

    assert count == 3
    assert [line.partition(":")[0] for line in lines[:-1]] == [
        "CN=first",
        "CN=renewed",
        "CN=second",
    ]
    assert lines[0] == f"CN=first: serial {'first':0>32}, issuer local, until 2026-01-02"
    assert lines[-1].startswith("3 certificates with a key that shares a prime with another one")
    assert lines[-1].endswith("scepstream ca revoke SERIAL --reason keyCompromise")


async def failed(bus: MemoryBus) -> None:
    event = IssuanceFailed(
        request_sha256=REQUEST_SHA256,
        reason=Reason.CA_REFUSED,
        fail_info=FAIL_INFO[Reason.CA_REFUSED],
        detail="no",
    )
    place = EnrollmentId("0", "corp", "failed", "c", 0).subject(Stage.OUTCOME)
    await append_signed(bus, place, event, ISSUING)


async def test_sound_keys_are_no_finding(primes: list[int]) -> None:
    p, q, r, s, *_ = primes
    bus = memory_bus()
    await issue(bus, "one", public(p, q))
    await issue(bus, "two", public(r, s))

    assert await shared(bus) == (2, [])
    assert await shared(memory_bus()) == (0, [])
