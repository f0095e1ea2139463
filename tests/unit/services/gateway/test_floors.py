"""Replies repeat the algorithms of their request, or stronger ones where the profile says so."""

from collections.abc import Awaitable, Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from shared.scep.algorithms import AES128, AES192, AES256, DES, DES3, MD5, SHA1, SHA256, SHA512
from shared.scep.certrep import CertRep
from shared.scep.envelope import read_envelope
from tests.support.messages import (
    Identity,
    cms_attributes,
    device_csr,
    enveloped,
    recipient,
    scep_attributes,
    signed,
)
from tests.support.world import pki_message
from tests.unit.services.gateway.gateways import World, make_world

Make = Callable[..., Awaitable[World]]


@pytest.fixture
def make(device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey) -> Make:
    async def made(**changes: object) -> World:
        return await make_world(device, ra, ec_key, **changes)

    return made


async def asked(world: World, cipher: str) -> CertRep:
    """The reply to a request under this cipher."""
    content = enveloped(device_csr(world.device), recipient(world.ra, cipher=cipher), cipher=cipher)
    attributes = [*scep_attributes(), *cms_attributes(content)]
    return await world.send(signed(content, world.device, attributes))


def cipher_of(reply: CertRep) -> str:
    return read_envelope(reply.signed.content).cipher.name


@pytest.mark.parametrize(
    ("request_cipher", "floor", "expected"),
    [
        ("aes128", AES128, "aes128"),
        ("aes192", AES128, "aes192"),
        ("aes256", AES128, "aes256"),
        ("aes128", AES192, "aes192"),
        ("aes128", AES256, "aes256"),
        ("aes256", AES192, "aes256"),
    ],
)
async def test_a_reply_uses_the_requests_cipher_or_the_floor(
    make: Make, request_cipher: str, floor: object, expected: str
) -> None:
    world = await make(floor_cipher=floor)
    reply = await asked(world, request_cipher)

    assert cipher_of(reply) == expected
    assert world.certificate(reply)


@pytest.mark.parametrize(
    ("request_cipher", "floor", "expected"),
    [
        ("des", DES, "des"),
        ("des", DES3, "des3"),
        ("des3", DES, "des3"),
        ("des3", AES128, "aes128"),
        ("des", AES256, "aes256"),
        ("aes128", DES, "aes128"),
    ],
)
async def test_a_legacy_request_is_answered_no_weaker_than_the_floor(
    make: Make, request_cipher: str, floor: object, expected: str
) -> None:
    """3DES has the longer key than AES-128, and is the weaker cipher."""
    world = await make(legacy=True, floor_cipher=floor)

    assert cipher_of(await asked(world, request_cipher)) == expected


@pytest.mark.parametrize(
    ("request_digest", "floor", "expected"),
    [
        ("sha256", SHA256, "sha256"),
        ("sha512", SHA256, "sha512"),
        ("sha256", SHA512, "sha512"),
        ("sha384", SHA256, "sha384"),
    ],
)
async def test_a_reply_uses_the_requests_digest_or_the_floor(
    make: Make, request_digest: str, floor: object, expected: str
) -> None:
    world = await make(floor_digest=floor)
    reply = await world.send(pki_message(world.device, world.ra, digest=request_digest))

    assert reply.signed.digest is not None
    assert reply.signed.digest.name == expected


@pytest.mark.parametrize(("floor", "expected"), [(MD5, "sha1"), (SHA1, "sha1"), (SHA256, "sha256")])
async def test_a_legacy_digest_is_repeated_no_weaker_than_the_floor(
    make: Make, floor: object, expected: str
) -> None:
    world = await make(legacy=True, floor_digest=floor)
    reply = await world.send(pki_message(world.device, world.ra, digest="sha1"))

    assert reply.signed.digest is not None
    assert reply.signed.digest.name == expected


async def test_failures_and_pendings_are_signed_with_the_floor_too(make: Make) -> None:
    world = await make(floor_digest=SHA512)
    world.others.answer = "held"
    replies = [await world.poll(), await world.enroll()]

    assert [r.signed.digest.name for r in replies if r.signed.digest] == ["sha512", "sha512"]
