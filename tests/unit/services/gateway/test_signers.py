"""Signers with a key of their own, as macOS has: whom they may ask for, and who reads the reply."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from shared.scep.certrep import CertRep, PkiStatus
from shared.scep.envelope import read_envelope
from shared.scep.errors import FailInfo
from tests.support import pki
from tests.support.messages import (
    EcIdentity,
    Identity,
    challenge,
    csr,
    device_csr,
    enveloped,
    identity,
    recipient,
)
from tests.support.signing import ec_device, ecdsa_sign
from tests.support.world import certified, pki_message
from tests.unit.services.gateway.gateways import World, make_world
from tests.unit.services.gateway.test_passwords import ECDSA, by_ec, ec_csr, opened, to_password

PASSWORD = "s3cret"
OTHER_CA = ec.derive_private_key(43, ec.SECP256R1())
Make = Callable[..., Awaitable[World]]


@pytest.fixture
def make(device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey) -> Make:
    async def made(**changes: object) -> World:
        return await make_world(device, ra, ec_key, **changes)

    return made


@pytest.fixture(scope="module")
def signer() -> Identity:
    """MDM SCEP SIGNER: an RSA key that is not the CSR's."""
    return identity("MDM SCEP SIGNER", 0x51)


@dataclass
class CountingKey:
    """An RA's key that counts what it was asked to decrypt."""

    key: rsa.RSAPrivateKey
    asked: list[bytes] = field(default_factory=list)

    def decrypt(self, ciphertext: bytes, padding: Any) -> bytes:
        self.asked.append(ciphertext)
        return self.key.decrypt(ciphertext, padding)


async def test_a_signer_of_its_own_gets_the_certificate_of_the_csrs_key(
    make: Make, signer: Identity
) -> None:
    """The reply is encrypted to who signed, and answers that one's polls."""
    world = await make()
    reply = await world.send(pki_message(signer, world.ra, device_csr(world.device)))
    asked, world.device = world.device, signer
    polled = await world.poll(signer)

    assert reply.status is PkiStatus.SUCCESS
    leaf = world.certificate(reply)
    assert x509.load_der_x509_certificate(leaf).public_key() == asked.key.public_key()
    assert world.certificate(polled) == leaf


async def test_who_asks_for_a_key_without_having_it_is_refused(
    make: Make, signer: Identity
) -> None:
    world = await make()
    forged = csr(signer.key, public=pki.spki(world.device.key.public_key()))
    reply = await world.send(pki_message(signer, world.ra, forged))

    assert (reply.fail_info, reply.fail_info_text) == (FailInfo.BAD_MESSAGE_CHECK, "")
    assert world.requests() == []


async def test_a_profile_may_want_the_csrs_key_to_sign(make: Make, signer: Identity) -> None:
    world = await make(any_signer=False)
    reply = await world.send(pki_message(signer, world.ra, device_csr(world.device)))

    assert (reply.fail_info, reply.fail_info_text) == (FailInfo.BAD_MESSAGE_CHECK, "")
    assert world.requests() == []


# A recorded envelope under another key


def no_ciphertext(reply: CertRep) -> bool:
    """Whether a reply holds nothing to guess a password by."""
    return not reply.signed.content


@pytest.mark.parametrize("whose", ["an RSA device's", "an EC device's"])
async def test_a_recorded_envelope_signed_with_an_ec_key_gives_nothing_to_guess_by(
    make: Make, whose: str
) -> None:
    """A reply under the challenge password inside would be an oracle on it, offline."""
    world, thief = await make(), ec_device()
    victim = EcIdentity(OTHER_CA, thief.x509)
    asked = device_csr(world.device) if whose.startswith("an RSA") else ec_csr(victim)
    reply = await world.send(by_ec(thief, enveloped(asked, recipient(world.ra))))

    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_ALG)
    assert no_ciphertext(reply)
    assert world.requests() == []


async def test_a_live_certificate_of_ours_with_an_ec_key_gets_no_other_devices_password(
    make: Make,
) -> None:
    """Who has enrolled is no less curious than a stranger."""
    world = await make()
    thief = EcIdentity((found := ec_device()).key, certified(found, world.ca).x509)
    reply = await world.send(by_ec(thief, enveloped(device_csr(world.device), recipient(world.ra))))

    assert reply.fail_info is FailInfo.BAD_ALG
    assert no_ciphertext(reply)


async def test_who_opened_the_request_with_the_password_may_have_the_reply_under_it(
    make: Make,
) -> None:
    world, printer = await make(passwords=(PASSWORD,)), ec_device()
    world.others.device = world.device
    reply = await world.send(by_ec(printer, to_password(device_csr(world.device))))

    assert opened(reply) is not None


async def test_that_an_ec_signer_is_foreign_is_said_at_the_time_of_all_failures(
    make: Make,
) -> None:
    """Sooner, it would tell that the envelope opens."""
    world, thief = await make(), ec_device()
    limits = replace(world.enroller.live.current.limits, failure_floor=0.2)
    world.enroller.live.current = replace(world.enroller.live.current, limits=limits)
    loop = asyncio.get_running_loop()
    took = []
    for asked in (device_csr(world.device), b"no csr", ec_csr(thief, None)):
        begun = loop.time()
        await world.send(by_ec(thief, enveloped(asked, recipient(world.ra))))
        took.append(loop.time() - begun)

    assert min(took) >= 0.2


# What may be told


async def test_a_challenge_that_is_no_string_is_named_once_the_csr_verifies(make: Make) -> None:
    world, printer = await make(), ec_device()
    broken = csr(
        printer.key,
        challenge(0x05, b""),
        algorithm=ECDSA,
        sign=ecdsa_sign(printer.key, "sha256"),
    )
    reply = await world.send(by_ec(printer, enveloped(broken, recipient(world.ra))))

    assert reply.fail_info is FailInfo.BAD_REQUEST


# Polls


async def test_a_poll_of_an_rsa_signer_decrypts_nothing(make: Make) -> None:
    """What an altered envelope would take tells whether its key opened."""
    world = await make()
    await world.enroll()
    (decryption,) = world.profile.ra.decryption
    counting = CountingKey(world.ra.key)
    keys = (replace(decryption, key=counting), replace(decryption, key=counting))
    world.profile = replace(world.profile, ra=replace(world.profile.ra, decryption=keys))
    polled = await world.poll()

    assert polled.status is PkiStatus.SUCCESS
    assert counting.asked == []


async def test_replies_to_an_rsa_signer_are_for_its_key_alone(make: Make, signer: Identity) -> None:
    world = await make()
    reply = await world.send(pki_message(signer, world.ra, device_csr(world.device)))
    envelope = read_envelope(reply.signed.content)

    assert envelope.passwords == ()
    assert [r.names(signer.certificate) for r in envelope.recipients] == [True]
