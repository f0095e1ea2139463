"""Whatever our client can write is answered rightly."""

import itertools
from collections.abc import Iterator
from functools import lru_cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cli.enroll.client import CIPHER_NAMES, DIGEST_NAMES, TRANSPORTS
from cli.enroll.identity import Key
from shared.scep.certificate import read_certificate
from shared.scep.certrep import PkiStatus, read_certificates, read_crls
from shared.scep.pkimessage import MessageType
from shared.scep.request import issuer_and_serial, issuer_and_subject
from tests.support.messages import Identity
from tests.unit.whole.client import NAME, Device, Style
from tests.unit.whole.system import Whole

LEGACY = {"des", "des3", "md5", "sha1"}
KEYS = ("rsa:2048", "rsa:3072", "ec:p256", "ec:p384", "ec:p521")


@lru_cache
def key_of(kind: str, number: int = 0) -> Key:
    """One key of a kind for all tests; `number` tells several apart."""
    del number
    curves = {"ec:p256": ec.SECP256R1(), "ec:p384": ec.SECP384R1(), "ec:p521": ec.SECP521R1()}
    if kind in curves:
        return ec.generate_private_key(curves[kind])
    return rsa.generate_private_key(65537, int(kind.partition(":")[2]))


def styles() -> Iterator[tuple[str, Style]]:
    """Every cipher with every digest, every transport, encoding and scheme with every key."""
    for cipher, digest in itertools.product(CIPHER_NAMES, DIGEST_NAMES):
        yield "rsa:2048", Style(cipher, digest)
    for kind, transport, ber in itertools.product(KEYS, TRANSPORTS, (False, True)):
        for pss in (False, True) if kind.startswith("rsa") else (False,):
            yield kind, Style("aes256-gcm", "sha512", transport, pss, ber)
    for kind, cipher in itertools.product(("rsa:2048", "ec:p256"), ("aes128", "aes256")):
        yield kind, Style(cipher, by_password=True)


@pytest.mark.parametrize(("kind", "style"), list(styles()), ids=str)
async def test_every_style_of_request_gets_its_certificate(
    whole: Whole, ra: Identity, kind: str, style: Style
) -> None:
    device = Device.new(key_of(kind))
    legacy = {style.cipher, style.digest} & LEGACY
    message = device.message(MessageType.PKCS_REQ, device.csr(), ra.certificate, style)
    status, answer = await whole.post("legacy" if legacy else "modern", message)
    assert status == 200
    reply, content = device.opened(answer)
    assert reply.status is PkiStatus.SUCCESS, reply.fail_info_text
    (leaf,) = read_certificates(content)
    assert read_certificate(leaf).spki == read_certificate(device.certificate).spki
    assert reply.signed.digest is DIGEST_NAMES[style.digest]
    if legacy:
        refused = device.opened((await whole.post("modern", message))[1])[0]
        assert refused.status is PkiStatus.FAILURE


@pytest.mark.parametrize("kind", ["rsa:2048", "ec:p256"])
@pytest.mark.parametrize("message_type", [MessageType.PKCS_REQ, MessageType.RENEWAL_REQ])
async def test_a_renewal_polls_and_queries_follow(
    whole: Whole, ra: Identity, kind: str, message_type: MessageType
) -> None:
    style = Style(by_password=kind.startswith("ec"))
    first = Device.new(key_of(kind))
    message = first.message(MessageType.PKCS_REQ, first.csr(), ra.certificate, style)
    (leaf,) = read_certificates(first.opened((await whole.post("modern", message))[1])[1])
    old = Device(first.key, leaf)
    new = Device.new(key_of(kind, 1))
    renewal = old.message(message_type, new.csr(), ra.certificate, style)
    reply, content = old.opened((await whole.post("modern", renewal))[1])
    assert reply.status is PkiStatus.SUCCESS, reply.fail_info_text
    (renewed,) = read_certificates(content)
    assert read_certificate(renewed).spki == read_certificate(new.certificate).spki

    ca = whole.gateway.chains.get(*next(iter(whole.gateway.live.current.chains())))
    assert ca is not None
    issuer = ca.ca.subject.public_bytes()
    poll = issuer_and_subject(issuer, NAME.public_bytes())
    answer = old.message(MessageType.CERT_POLL, poll, ra.certificate, style)
    _, content = old.opened((await whole.post("modern", answer))[1])
    assert read_certificates(content) == (renewed,)
    for wanted in (leaf, renewed):
        named = issuer_and_serial(issuer, read_certificate(wanted).serial)
        query = new.message(MessageType.GET_CERT, named, ra.certificate, style)
        _, content = new.opened((await whole.post("modern", query))[1])
        assert read_certificates(content) == (wanted,)
        query = new.message(MessageType.GET_CRL, named, ra.certificate, style)
        _, content = new.opened((await whole.post("modern", query))[1])
        (crl,) = read_crls(content)
        assert x509.load_der_x509_crl(crl).issuer == ca.ca.subject
