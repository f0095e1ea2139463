from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.scep import cacert
from shared.scep.errors import ScepError
from tests.support.messages import (
    SEQ,
    Identity,
    certs_only,
    cms_attributes,
    identity,
    indefinite,
    signed,
)
from tests.support.signing import every_way, signed_so
from tests.unit.shared.scep import oracles


def test_lone_certificate_is_sent_raw(ra: Identity) -> None:
    assert cacert.write_ca_certs([ra.der]) == ("application/x-x509-ca-cert", ra.der)


def test_several_certificates_keep_their_order(
    ra: Identity, old_ra: Identity, device: Identity
) -> None:
    """RA first, then CA, then chain; encoders that sort the SET OF break devices."""
    ordered = sorted([ra.der, old_ra.der, device.der])
    for order in (ordered, ordered[::-1]):
        content_type, body = cacert.write_ca_certs(order)
        assert content_type == "application/x-x509-ca-ra-cert"
        data = oracles.signed_data(body)
        assert oracles.certificates(data) == order
        assert len(data["signer_infos"]) == 0
        assert cacert.read_ca_certs(body) == tuple(order)


def test_lone_certificate_is_read(ra: Identity) -> None:
    assert cacert.read_ca_certs(ra.der) == (ra.der,)


def test_certs_only_with_one_certificate_is_read(ra: Identity) -> None:
    """As some servers answer, whatever the Content-Type says."""
    assert cacert.read_ca_certs(certs_only(ra.der)) == (ra.der,)


def test_ber_answer_is_read(ra: Identity, device: Identity) -> None:
    der = certs_only(ra.der, device.der)
    assert cacert.read_ca_certs(indefinite(SEQ, der[4:]) + b"\r\n") == (ra.der, device.der)


def test_answer_of_openssl_is_read(ra: Identity, device: Identity, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(ra.pem + device.pem)
    body = oracles.openssl(
        *("crl2pkcs7", "-nocrl", "-outform", "DER", "-certfile", both), stdin=b""
    )
    assert cacert.read_ca_certs(body) == (ra.der, device.der)


def test_signed_message_is_read_for_its_certificates(ra: Identity, device: Identity) -> None:
    body = signed(b"content", ra, certificates=[ra.der, device.der])
    assert cacert.read_ca_certs(body) == (ra.der, device.der)


@pytest.mark.parametrize(
    "body", [b"", b"\x30\x00", b"\x30\x80", b"<html></html>", b"-----BEGIN CERTIFICATE-----"]
)
def test_what_holds_no_certificate_is_refused(body: bytes) -> None:
    with pytest.raises(ScepError):
        cacert.read_ca_certs(body)


def test_answer_cut_anywhere_is_refused(ra: Identity) -> None:
    for body in (certs_only(ra.der), ra.der):
        for end in range(len(body)):
            with pytest.raises(ScepError):
                cacert.read_ca_certs(body[:end])


# GetNextCACert


def next_answer(by: Identity, *certificates: bytes, digest: str = "sha256") -> bytes:
    content = certs_only(*certificates)
    return signed(content, by, cms_attributes(content, digest), digest=digest)


@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("ber", [False, True], ids=["DER", "BER"])
def test_next_certificates_that_the_ca_signed_are_read(
    ra: Identity,
    old_ra: Identity,
    device: Identity,
    digest: str,
    ber: bool,  # noqa: FBT001
) -> None:
    content = certs_only(device.der, ra.der)
    body = signed(content, old_ra, cms_attributes(content, digest), digest=digest, ber=ber)
    assert cacert.read_next_ca_certs(body + b"\r\n", old_ra.der) == (device.der, ra.der)


@pytest.mark.parametrize("way", ["PSS sha256", "P-256 sha256, named", "P-384 sha384"])
def test_next_certificates_are_signed_in_any_scheme(device: Identity, way: str) -> None:
    how = every_way(device)[way]
    body = signed_so(certs_only(device.der), how)
    assert cacert.read_next_ca_certs(body, how.by.der) == (device.der,)


def test_next_certificates_that_openssl_signed_are_read(
    ra: Identity, old_ra: Identity, tmp_path: Path
) -> None:
    pem, key = oracles.write_pem(old_ra, tmp_path)
    body = oracles.openssl(
        *("cms", "-sign", "-nodetach", "-binary", "-outform", "DER", "-signer", pem, "-inkey", key),
        stdin=certs_only(ra.der),
    )
    assert cacert.read_next_ca_certs(body, old_ra.der) == (ra.der,)


def test_next_certificates_that_another_signed_are_refused(ra: Identity, old_ra: Identity) -> None:
    """Also where the CA's certificate came along, and where the stranger takes its name."""
    stranger = identity("old RA", 0x12)
    content = certs_only(ra.der)
    attributes = cms_attributes(content)
    for body in (
        next_answer(ra, ra.der),
        next_answer(stranger, ra.der),
        signed(content, ra, attributes, certificates=[old_ra.der, ra.der]),
        signed(content, ra, attributes, certificates=[old_ra.der], sid=old_ra.issuer_and_serial),
        signed(content, stranger, attributes, certificates=[stranger.der, old_ra.der]),
        signed(content, stranger, attributes, certificates=[old_ra.der, stranger.der]),
    ):
        with pytest.raises(ScepError):
            cacert.read_next_ca_certs(body, old_ra.der)


def test_next_certificates_swapped_under_a_valid_signature_are_refused(
    ra: Identity, device: Identity, old_ra: Identity
) -> None:
    body = next_answer(old_ra, ra.der)
    forged = body.replace(ra.der, device.der)
    assert forged != body
    with pytest.raises(ScepError):
        cacert.read_next_ca_certs(forged, old_ra.der)


def test_next_certificates_without_a_signature_are_refused(ra: Identity, old_ra: Identity) -> None:
    for body in (b"", ra.der, certs_only(ra.der), signed(b"", old_ra), signed(b"x", old_ra)):
        with pytest.raises(ScepError):
            cacert.read_next_ca_certs(body, old_ra.der)


def test_next_answer_cut_anywhere_is_refused(ra: Identity, old_ra: Identity) -> None:
    body = next_answer(old_ra, ra.der)
    for end in range(len(body)):
        with pytest.raises(ScepError):
            cacert.read_next_ca_certs(body[:end], old_ra.der)


@given(data=st.binary(max_size=200))
def test_no_bytes_pass_for_a_next_answer(old_ra: Identity, data: bytes) -> None:
    with pytest.raises(ScepError):
        cacert.read_next_ca_certs(data, old_ra.der)
