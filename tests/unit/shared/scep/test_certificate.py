import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError
from tests.support.messages import (
    DEVICE_NAME,
    NULL,
    SEQ,
    Identity,
    certificate,
    extension,
    integer,
    oid,
    spki,
    tlv,
)

ALGORITHM = tlv(SEQ, oid("1.2.840.113549.1.1.11"), NULL)
VALIDITY = tlv(SEQ, tlv(0x17, b"240101000000Z"), tlv(0x17, b"440101000000Z"))
SKI = "2.5.29.14"


def hand_written(
    device: Identity,
    *,
    version: bytes = tlv(0xA0, b"\x02\x01\x02"),
    serial: bytes = b"\x02\x01\x05",
    after_spki: bytes = b"",
) -> bytes:
    tbs = tlv(
        SEQ,
        version,
        serial,
        ALGORITHM,
        DEVICE_NAME,
        VALIDITY,
        DEVICE_NAME,
        spki(device.key.public_key()),
        after_spki,
    )
    return tlv(SEQ, tbs, ALGORITHM, tlv(3, bytes(257)))


def test_fields_are_those_that_cryptography_reads(device: Identity, ra: Identity) -> None:
    key = device.key.public_key()
    issued = certificate("leaf", key, ra, 2**150 + 255).sign(ra.key, hashes.SHA256())
    found = read_certificate(issued.public_bytes(serialization.Encoding.DER))
    assert found.der == issued.public_bytes(serialization.Encoding.DER)
    assert found.issuer == issued.issuer.public_bytes() == ra.x509.subject.public_bytes()
    assert found.subject == issued.subject.public_bytes()
    assert int.from_bytes(found.serial, "big", signed=True) == 2**150 + 255
    assert found.spki == spki(key)
    expected = x509.SubjectKeyIdentifier.from_public_key(key).digest
    assert found.key_id == expected


def test_issuer_and_serial_is_that_of_cms(device: Identity) -> None:
    assert device.certificate.issuer_and_serial() == device.issuer_and_serial


def test_ec_certificate_is_read(ec_key: ec.EllipticCurvePrivateKey) -> None:
    made = certificate("ec", ec_key.public_key(), None, 9).sign(ec_key, hashes.SHA256())
    found = read_certificate(made.public_bytes(serialization.Encoding.DER))
    assert found.spki == spki(ec_key.public_key())


def test_version_1_certificate_has_neither_version_nor_extensions(device: Identity) -> None:
    found = read_certificate(hand_written(device, version=b""))
    assert found.serial == b"\x05"
    assert found.key_id is None


@pytest.mark.parametrize("contents", [b"\0", b"\xff", b"\0\0\x01", b"\x80" + bytes(30), b""])
def test_serial_number_keeps_its_bytes(device: Identity, contents: bytes) -> None:
    """Zero, negative, padded or long: devices make such certificates for themselves."""
    found = read_certificate(hand_written(device, serial=tlv(2, contents)))
    assert found.serial == contents
    assert found.issuer_and_serial() == tlv(SEQ, DEVICE_NAME, tlv(2, contents))


def test_unique_identifiers_are_passed_over(device: Identity) -> None:
    extensions = tlv(0xA3, tlv(SEQ, extension(SKI, tlv(4, b"key"))))
    found = read_certificate(
        hand_written(device, after_spki=tlv(0x81, b"\0a") + tlv(0x82, b"\0b") + extensions)
    )
    assert found.key_id == b"key"


def test_key_id_is_found_behind_other_extensions_and_a_criticality(device: Identity) -> None:
    other = extension("2.5.29.15", tlv(3, b"\x05\xa0"), critical=b"\x01\x01\xff")
    ski = extension(SKI, tlv(4, b"key"), critical=b"\x01\x01\x00")
    found = read_certificate(hand_written(device, after_spki=tlv(0xA3, tlv(SEQ, other, ski))))
    assert found.key_id == b"key"


def test_certificate_cut_inside_what_is_read_is_refused(device: Identity) -> None:
    der = device.der
    for end in range(len(der)):
        with pytest.raises(ScepError):
            read_certificate(der[:end])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30\x00",
        b"\x30\x02\x30\x00",
        tlv(SEQ, tlv(SEQ, integer(1), ALGORITHM, DEVICE_NAME)),
        tlv(SEQ, tlv(SEQ, integer(1), ALGORITHM, b"\x04\x00", VALIDITY, DEVICE_NAME, b"\x30\x00")),
        b"-----BEGIN CERTIFICATE-----\n",
    ],
)
def test_what_is_no_certificate_is_refused(data: bytes) -> None:
    with pytest.raises(ScepError):
        read_certificate(data)
