"""GetNextCACert: announced by the CA, signed by the RA."""

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.gateway.next_ca import NextCa
from services.gateway.ra import RaKeys, RaPair, assemble
from services.issuer.connectors.local import LocalCa
from shared.ca.chains import Chain
from shared.scep.cacert import read_next_ca_certs, write_next_ca_certs
from shared.scep.cms import read_der_or_ber
from shared.scep.errors import ScepError
from shared.scep.signed_data import Signer, read_signed_data
from tests.support import pki
from tests.support.messages import Identity
from tests.support.world import NOW

NEXT = pki.local_ca(ec.derive_private_key(41, ec.SECP256R1()), "Next CA")
STRANGER = pki.local_ca(ec.derive_private_key(42, ec.SECP256R1()), "Stranger")


@pytest.fixture
def ca(ec_key: ec.EllipticCurvePrivateKey) -> LocalCa:
    return pki.local_ca(ec_key)


@pytest.fixture
def keys(ra: Identity) -> RaKeys:
    return assemble([RaPair(ra.x509, ra.key, signs=True, decrypts=True)], NOW)


def chain(ca: LocalCa, announcement: bytes) -> Chain:
    return Chain(ca.chain, (ca.certificate,), next_signed=announcement)


def test_what_the_ca_announced_is_signed_by_the_ra(ca: LocalCa, keys: RaKeys) -> None:
    body = NextCa().answer(keys, chain(ca, ca.sign_next(NEXT.chain)))
    signed = read_der_or_ber(body, read_signed_data)

    assert read_next_ca_certs(body, keys.certificates[0]) == NEXT.chain
    assert signed.certificates == (keys.certificates[0], ca.chain[0])
    with pytest.raises(ScepError):
        read_next_ca_certs(body, ca.chain[0])


def test_what_the_ca_did_not_announce_is_never_signed(ca: LocalCa, keys: RaKeys) -> None:
    by_ra = write_next_ca_certs(STRANGER.chain, keys.signer, ca.chain)
    answers = NextCa()
    for announcement in (STRANGER.sign_next(STRANGER.chain), by_ra, b"", NEXT.chain[0]):
        with pytest.raises(ScepError):
            answers.answer(keys, chain(ca, announcement))


def test_each_answer_is_signed_once(
    ca: LocalCa, keys: RaKeys, device: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may ask; a signature takes a millisecond, more in a token."""
    signatures: list[Any] = []
    real = write_next_ca_certs

    def counted(*arguments: Any) -> bytes:
        signatures.append(arguments)
        return real(*arguments)

    monkeypatch.setattr("services.gateway.next_ca.write_next_ca_certs", counted)
    answers, announced = NextCa(), chain(ca, ca.sign_next(NEXT.chain))
    first = answers.answer(keys, announced)
    assert answers.answer(keys, announced) == first
    other = replace(keys, signer=Signer(device.key, device.certificate))

    assert read_next_ca_certs(answers.answer(other, announced), device.der) == NEXT.chain
    assert len(signatures) == 2
