"""Answers to GetCRL: a degenerate SignedData around a CRL, and the request that asks for it."""

from pathlib import Path

import pytest
from asn1crypto import crl as asn1_crl
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import example, given
from hypothesis import strategies as st

from shared.scep import certrep, request, signed_data
from shared.scep.algorithms import AES256_GCM, PKCS1V15, SHA256
from shared.scep.asn1 import Der
from shared.scep.certrep import ReplyTo
from shared.scep.envelope import ContentEncryption
from shared.scep.errors import ScepError
from shared.scep.pkimessage import TransactionId
from tests.support.messages import (
    CONTENT_KEY,
    DEVICE_NAME,
    IV,
    NONCE,
    NULL,
    PRINTABLE,
    SEQ,
    SET,
    Identity,
    certs_only,
    crl_only,
    degenerate,
    indefinite,
    integer,
    oid,
    tlv,
)
from tests.unit.shared.scep import oracles
from tests.unit.shared.scep.revocations import crl


@pytest.fixture(scope="module")
def revoked(ra: Identity) -> bytes:
    return crl(ra, 5, 0x7001)


def test_crl_is_written_alone(revoked: bytes) -> None:
    written = signed_data.write_crl_only(revoked)
    data = oracles.signed_data(written)
    assert data["version"].native == "v1"
    assert len(data["digest_algorithms"]) == len(data["signer_infos"]) == 0
    assert data["encap_content_info"]["content"].native is None
    assert data["certificates"].native is None
    (found,) = data["crls"]
    assert found.chosen.dump() == revoked
    assert isinstance(found.chosen, asn1_crl.CertificateList)
    assert written == crl_only(revoked)


def test_openssl_prints_the_written_crl(revoked: bytes) -> None:
    written = signed_data.write_crl_only(revoked)
    pem = oracles.openssl("pkcs7", "-inform", "DER", "-print_certs", stdin=written)
    found = x509.load_pem_x509_crl(pem[pem.index(b"-----BEGIN X509 CRL") :])
    assert found.public_bytes(serialization.Encoding.DER) == revoked


def test_crl_only_of_openssl_is_read(ra: Identity, revoked: bytes, tmp_path: Path) -> None:
    pem = tmp_path / "ra.pem"
    pem.write_bytes(ra.pem)
    with_chain = oracles.openssl(
        *("crl2pkcs7", "-inform", "DER", "-outform", "DER", "-certfile", pem), stdin=revoked
    )
    alone = oracles.openssl("crl2pkcs7", "-inform", "DER", "-outform", "DER", stdin=revoked)
    assert certrep.read_crls(alone) == certrep.read_crls(with_chain) == (revoked,)
    assert certrep.read_certificates(with_chain) == (ra.der,)


def test_reply_with_a_crl_opens_to_it(
    device: Identity, ra: Identity, revoked: bytes, tmp_path: Path
) -> None:
    to = ReplyTo(TransactionId(PRINTABLE, b"1"), NONCE, NONCE, SHA256, 1_700_000_000)
    sealing = ContentEncryption(AES256_GCM, PKCS1V15, CONTENT_KEY, IV[:12])
    content = signed_data.write_crl_only(revoked)
    reply = certrep.success(to, content, device.certificate, sealing, ra.signer)
    inner = oracles.openssl_decrypted(oracles.openssl_verified(reply), device, tmp_path)
    assert certrep.read_crls(inner) == (revoked,)


def test_crls_are_read_from_der_and_ber(revoked: bytes) -> None:
    der = crl_only(revoked)
    ber = indefinite(SEQ, Der(der).value(SEQ))
    assert certrep.read_crls(der + b"\n") == certrep.read_crls(ber + b"\r\n") == (revoked,)
    with pytest.raises(ScepError):
        certrep.read_crls(der + b"\0")


def test_several_crls_keep_their_order(ra: Identity) -> None:
    made = [crl(ra, number=number) for number in (2, 1, 3)]
    assert certrep.read_crls(crl_only(*made)) == tuple(made)


def test_answer_without_crls_holds_none(ra: Identity) -> None:
    """Other revocation information carries a tag (RFC 5652 s10.2.1)."""
    other = tlv(0xA1, oid("1.3.6.1.5.5.7.16.2"), NULL)
    for answer in (crl_only(), certs_only(ra.der), degenerate(), crl_only(other)):
        assert certrep.read_crls(answer) == ()


def test_hundreds_of_crls_are_refused(revoked: bytes) -> None:
    with pytest.raises(ScepError):
        certrep.read_crls(crl_only(*[revoked] * 200))


def test_answer_cut_anywhere_is_refused(revoked: bytes) -> None:
    body = crl_only(revoked)
    for end in range(len(body)):
        with pytest.raises(ScepError):
            certrep.read_crls(body[:end])


# GetCRL's and GetCert's payload


def test_payload_names_issuer_and_serial(ra: Identity) -> None:
    issuer = ra.x509.issuer.public_bytes()
    payload = request.issuer_and_serial(issuer, b"\x11")
    assert payload == ra.issuer_and_serial == ra.certificate.issuer_and_serial()
    assert request.read_issuer_and_serial(payload) == (issuer, b"\x11")


@pytest.mark.parametrize("serial", [0, 1, 127, 128, (1 << 159) - 1, (1 << 255) - 1])
def test_serial_of_every_size_in_use_is_kept(serial: int) -> None:
    contents = integer(serial)[-(serial.bit_length() // 8 + 1) :]
    payload = tlv(SEQ, DEVICE_NAME, integer(serial))
    assert request.read_issuer_and_serial(payload) == (DEVICE_NAME, contents)
    assert request.issuer_and_serial(DEVICE_NAME, contents) == payload


@pytest.mark.parametrize("contents", [b"", bytes(33), b"\x01" * 4000])
def test_serial_that_no_ca_would_write_is_refused(contents: bytes) -> None:
    """It becomes part of a subject on the bus."""
    with pytest.raises(ScepError):
        request.read_issuer_and_serial(tlv(SEQ, DEVICE_NAME, tlv(2, contents)))


def test_payload_in_ber_is_read(ra: Identity) -> None:
    streamed = indefinite(SEQ, ra.x509.issuer.public_bytes(), integer(0x11)) + b"\r\n"
    assert request.read_issuer_and_serial(streamed) == (ra.x509.issuer.public_bytes(), b"\x11")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        tlv(SEQ),
        tlv(SEQ, DEVICE_NAME),
        tlv(SEQ, integer(1), DEVICE_NAME),
        tlv(SEQ, DEVICE_NAME, DEVICE_NAME),
        tlv(SEQ, DEVICE_NAME, integer(1), NULL),
        tlv(SEQ, DEVICE_NAME, integer(1)) + b"\0",
        tlv(SEQ, tlv(SET), integer(1)),
        tlv(SET, DEVICE_NAME, integer(1)),
    ],
)
def test_what_is_no_issuer_and_serial_is_refused(payload: bytes) -> None:
    with pytest.raises(ScepError):
        request.read_issuer_and_serial(payload)


@given(data=st.binary(max_size=200))
@example(data=tlv(SEQ, DEVICE_NAME, tlv(2)))
def test_any_bytes_give_a_value_or_the_one_error(data: bytes) -> None:
    for read in (certrep.read_crls, request.read_issuer_and_serial):
        try:
            read(data)
        except ScepError:
            continue
