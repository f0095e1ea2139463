"""Replies to keys that cannot decrypt, and requests encrypted to a password (RFC 8894 s3.1)."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from shared.scep.certrep import CertRep, PkiStatus, read_certificates
from shared.scep.envelope import read_envelope
from shared.scep.errors import FailInfo
from shared.scep.pkimessage import unwrap_with_password
from tests.support.messages import (
    PRINTABLE,
    SEQ,
    EcIdentity,
    Identity,
    challenge,
    cipher_key,
    cms_attributes,
    csr,
    device_csr,
    enveloped,
    oid,
    recipient,
    scep_attributes,
    signed,
    spki,
    tlv,
)
from tests.support.sealing import password_recipient
from tests.support.signing import ec_device, ecdsa_sign
from tests.unit.services.gateway.gateways import World, make_world
from tests.unit.shared.scep.oracles import openssl

ECDSA = tlv(SEQ, oid("1.2.840.10045.4.3.2"))
PASSWORD = "s3cret"
Make = Callable[..., Awaitable[World]]


@pytest.fixture
def make(device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey) -> Make:
    async def made(**changes: object) -> World:
        return await make_world(device, ra, ec_key, **changes)

    return made


@pytest.fixture
def printer() -> EcIdentity:
    """A client with a P-256 key."""
    return ec_device()


def ec_csr(by: EcIdentity, password: str | None = PASSWORD) -> bytes:
    attributes = [] if password is None else [challenge(PRINTABLE, password.encode())]
    return csr(by.key, *attributes, algorithm=ECDSA, sign=ecdsa_sign(by.key, "sha256"))


def by_ec(by: EcIdentity, content: bytes, kind: bytes = b"19") -> bytes:
    """A message that the EC key signed."""
    attributes = [*scep_attributes(message_type=tlv(PRINTABLE, kind)), *cms_attributes(content)]
    sign = ecdsa_sign(by.key, "sha256")
    return signed(content, by, attributes, signature_algorithm=ECDSA, sign=sign)


def to_password(plaintext: bytes, password: str = PASSWORD) -> bytes:
    """An envelope that a password alone opens."""
    return enveloped(plaintext, password_recipient(cipher_key("aes256"), password))


def opened(reply: CertRep, password: str = PASSWORD) -> bytes | None:
    """What a SUCCESS holds, where this password opens it."""
    assert reply.status is PkiStatus.SUCCESS
    envelope = read_envelope(reply.signed.content)
    assert envelope.recipients == ()
    found = unwrap_with_password(envelope, [password])
    return None if found is None else envelope.decrypt(found[1])


async def enroll(world: World, printer: EcIdentity, asked: bytes | None = None) -> CertRep:
    world.others.issued = issued_to(world, printer)  # type: ignore[method-assign]
    content = enveloped(asked or ec_csr(printer), recipient(world.ra))
    return await world.send(by_ec(printer, content))


def issued_to(world: World, printer: EcIdentity) -> Callable[..., object]:
    """The issuer's part, for the printer's key instead of the device's."""
    issued = type(world.others).issued
    return lambda sha256, _key: issued(world.others, sha256, spki(printer.key.public_key()))


# Signers that cannot decrypt


async def test_an_ec_signer_is_answered_under_its_challenge_password(
    make: Make, printer: EcIdentity
) -> None:
    reply = await enroll(await make(), printer)
    plaintext = opened(reply)

    assert plaintext is not None
    (leaf,) = read_certificates(plaintext)
    assert x509.load_der_x509_certificate(leaf).public_key() == printer.key.public_key()


async def test_another_password_does_not_open_the_reply(make: Make, printer: EcIdentity) -> None:
    reply = await enroll(await make(), printer)

    assert opened(reply, "S3cret") is None


async def test_openssl_opens_the_reply_with_the_password(
    make: Make, printer: EcIdentity, tmp_path: Path
) -> None:
    reply = await enroll(await make(), printer)
    (tmp_path / "password").write_text(PASSWORD)
    plaintext = openssl(
        "cms", "-decrypt", "-binary", "-inform", "DER", "-pwri_password", PASSWORD,
        stdin=reply.signed.content,
    )  # fmt: skip

    assert plaintext == opened(reply)


async def test_an_ec_signer_without_a_challenge_is_told_so_before_anything_is_recorded(
    make: Make, printer: EcIdentity
) -> None:
    """Else it would be issued a certificate that nobody could ever send it."""
    world = await make()
    reply = await enroll(world, printer, ec_csr(printer, None))

    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_ALG)
    assert world.requests() == []


async def test_an_ec_signer_asks_again_and_gets_the_same(make: Make, printer: EcIdentity) -> None:
    world = await make()
    first, second = await enroll(world, printer), await enroll(world, printer)

    assert opened(first) == opened(second)
    assert first.signed.content != second.signed.content
    assert len(world.requests()) == 1


async def test_a_poll_by_an_ec_signer_that_names_no_password_cannot_be_answered(
    make: Make, printer: EcIdentity
) -> None:
    world = await make()
    await enroll(world, printer)
    content = enveloped(tlv(SEQ), recipient(world.ra))
    reply = await world.send(by_ec(printer, content, b"20"))

    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_ALG)


@pytest.mark.parametrize("kind", [b"21", b"22"])
async def test_a_query_by_an_ec_signer_that_names_no_password_cannot_be_answered(
    make: Make, printer: EcIdentity, kind: bytes
) -> None:
    world = await make()
    asked = tlv(SEQ, tlv(SEQ), tlv(2, b"\x40"))
    reply = await world.send(by_ec(printer, enveloped(asked, recipient(world.ra)), kind))

    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_ALG)


async def test_an_rsa_signer_is_answered_under_its_key_whatever_its_challenge(
    make: Make,
) -> None:
    reply = await (await make()).enroll()
    envelope = read_envelope(reply.signed.content)

    assert (len(envelope.recipients), len(envelope.passwords)) == (1, 0)


# Requests to a password


@pytest.mark.parametrize("passwords", [(PASSWORD,), ("other", PASSWORD), (PASSWORD, "other")])
async def test_a_request_to_a_password_of_the_profile_is_opened(
    make: Make, passwords: tuple[str, ...]
) -> None:
    world = await make(passwords=passwords)
    reply = await world.send(signed(to_password(device_csr(world.device)), world.device))

    assert world.certificate(reply)
    assert len(world.requests()) == 1


async def test_an_ec_signer_is_answered_under_the_password_of_its_envelope(
    make: Make, printer: EcIdentity
) -> None:
    """Which the CSR need not repeat."""
    world = await make(passwords=(PASSWORD,))
    world.others.issued = issued_to(world, printer)  # type: ignore[method-assign]
    for asked in (ec_csr(printer, None), ec_csr(printer, "another")):
        assert opened(await world.send(by_ec(printer, to_password(asked))))


async def test_without_password_recipients_no_password_opens_anything(make: Make) -> None:
    world = await make()
    reply = await world.send(signed(to_password(device_csr(world.device)), world.device))

    assert reply.fail_info is FailInfo.BAD_MESSAGE_CHECK
    assert world.requests() == []


async def test_a_wrong_password_looks_like_every_other_failure_behind_decryption(
    make: Make,
) -> None:
    world = await make(passwords=(PASSWORD,))
    replies = [
        await world.send(signed(content, world.device))
        for content in (
            to_password(device_csr(world.device), "wrong"),
            to_password(b"no csr"),
            enveloped(device_csr(world.device), recipient(world.device)),
        )
    ]

    assert {(r.fail_info, r.fail_info_text) for r in replies} == {(FailInfo.BAD_MESSAGE_CHECK, "")}
    assert world.requests() == []


async def test_an_ec_signer_with_a_wrong_password_is_not_told_more(
    make: Make, printer: EcIdentity
) -> None:
    world = await make(passwords=(PASSWORD,))
    reply = await world.send(by_ec(printer, to_password(ec_csr(printer), "wrong")))

    assert reply.fail_info is FailInfo.BAD_MESSAGE_CHECK
    assert world.requests() == []


async def test_a_poll_to_a_password_is_answered_under_it(make: Make, printer: EcIdentity) -> None:
    world = await make(passwords=(PASSWORD,))
    first = await enroll(world, printer)
    polled = await world.send(by_ec(printer, to_password(tlv(SEQ)), b"20"))

    assert opened(polled) == opened(first)
