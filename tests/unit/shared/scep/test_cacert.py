from pathlib import Path

import pytest

from shared.scep import cacert
from shared.scep.errors import ScepError
from tests.unit.shared.scep import oracles
from tests.unit.shared.scep.messages import SEQ, Identity, certs_only, indefinite, signed


def test_lone_certificate_is_sent_raw(ra: Identity) -> None:
    assert cacert.write_ca_certs([ra.der]) == ("application/x-x509-ca-cert", ra.der)


def test_several_certificates_keep_their_order(
    ra: Identity, old_ra: Identity, device: Identity
) -> None:
    """RA first, then CA, then chain; encoders that sort the SET OF break devices."""
    ordered = sorted([ra.der, old_ra.der, device.der])
    for given in (ordered, ordered[::-1]):
        content_type, body = cacert.write_ca_certs(given)
        assert content_type == "application/x-x509-ca-ra-cert"
        data = oracles.signed_data(body)
        assert oracles.certificates(data) == given
        assert len(data["signer_infos"]) == 0
        assert cacert.read_ca_certs(body) == tuple(given)


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
    """GetNextCACert's outer form."""
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
