import datetime as dt
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import CRLEntryExtensionOID
from hypothesis import given
from hypothesis import strategies as st

from services.issuer.connectors.local import LocalCa, SigningError
from services.issuer.crl import (
    CrlHead,
    Entries,
    RevokedEntry,
    crl,
    read_entries,
    tbs_crl,
    write_entry,
)
from shared.log.events.commands import RevocationReason
from shared.scep.asn1 import integer
from shared.scep.errors import ScepError
from tests.support import pki
from tests.support.messages import DEVICE_NAME, NULL, SEQ, oid, tlv
from tests.support.tools import need
from tests.support.world import NOW

DAY = 86400
HEAD = CrlHead(number=7, this_update=NOW, next_update=NOW + 7 * DAY)
UNTIL_2049 = int(dt.datetime(2049, 12, 31, 23, 59, 59, tzinfo=dt.UTC).timestamp())
ALGORITHM = tlv(SEQ, oid("1.2.840.10045.4.3.2"), NULL)
CODES = {
    RevocationReason.UNSPECIFIED: None,
    RevocationReason.KEY_COMPROMISE: x509.ReasonFlags.key_compromise,
    RevocationReason.AFFILIATION_CHANGED: x509.ReasonFlags.affiliation_changed,
    RevocationReason.SUPERSEDED: x509.ReasonFlags.superseded,
    RevocationReason.CESSATION_OF_OPERATION: x509.ReasonFlags.cessation_of_operation,
    RevocationReason.CERTIFICATE_HOLD: x509.ReasonFlags.certificate_hold,
    RevocationReason.REMOVE_FROM_CRL: x509.ReasonFlags.remove_from_crl,
    RevocationReason.PRIVILEGE_WITHDRAWN: x509.ReasonFlags.privilege_withdrawn,
}


@pytest.fixture(params=["ec", "rsa"])
def ca(
    request: pytest.FixtureRequest, ec_key: ec.EllipticCurvePrivateKey, rsa_key: rsa.RSAPrivateKey
) -> LocalCa:
    return pki.local_ca(ec_key if request.param == "ec" else rsa_key)


def entry(
    number: int,
    reason: RevocationReason = RevocationReason.UNSPECIFIED,
    revoked_at: int = NOW,
) -> RevokedEntry:
    contents = number.to_bytes(number.bit_length() // 8 + 1, "big")
    return RevokedEntry(contents, revoked_at, reason)


def encoded(entries: Iterable[RevokedEntry]) -> Entries:
    return {each.serial: write_entry(each) for each in entries}


def parsed(
    ca: LocalCa, *entries: RevokedEntry, head: CrlHead = HEAD
) -> x509.CertificateRevocationList:
    return x509.load_der_x509_crl(ca.sign_crl(head, encoded(entries)))


def unsigned(*entries: RevokedEntry, head: CrlHead = HEAD) -> bytes:
    tbs = tbs_crl(head, DEVICE_NAME, ALGORITHM, b"key id", encoded(entries))
    return crl(tbs, ALGORITHM, b"signature")


# As other software reads it


def test_an_empty_crl_says_whose_it_is_and_how_long_it_holds(ca: LocalCa) -> None:
    found = parsed(ca)

    assert len(found) == 0
    assert found.issuer == ca.certificate.subject
    assert found.last_update_utc.timestamp() == NOW
    assert found.next_update_utc is not None
    assert found.next_update_utc.timestamp() == NOW + 7 * DAY
    assert found.is_signature_valid(ca.certificate.public_key())  # type: ignore[arg-type]  # RSA or EC


def test_number_and_authority_key_identifier_are_its_extensions(ca: LocalCa) -> None:
    """RFC 5280 s5.2: both must be there, neither critical."""
    number, authority = sorted(
        parsed(ca).extensions, key=lambda e: not isinstance(e.value, x509.CRLNumber)
    )
    own = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value

    assert number.value == x509.CRLNumber(7)
    assert authority.value == x509.AuthorityKeyIdentifier(own.digest, None, None)
    assert (number.critical, authority.critical) == (False, False)


@pytest.mark.parametrize("number", [0, 1, 127, 128, NOW, 2**63, 2**150])
def test_numbers_of_any_size_are_written(ca: LocalCa, number: int) -> None:
    found = parsed(ca, head=CrlHead(number, NOW, NOW + DAY))

    assert found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == number


@pytest.mark.parametrize("reason", RevocationReason)
def test_each_reason_is_said_and_unspecified_by_its_absence(
    ca: LocalCa, reason: RevocationReason
) -> None:
    (found,) = parsed(ca, entry(0x40112233, reason))

    assert found.serial_number == 0x40112233
    assert found.revocation_date_utc.timestamp() == NOW
    if CODES[reason] is None:
        assert len(found.extensions) == 0
    else:
        (extension,) = found.extensions
        assert extension.oid == CRLEntryExtensionOID.CRL_REASON
        assert extension.value == x509.CRLReason(CODES[reason])
        assert not extension.critical


def test_every_reason_there_is_has_a_code() -> None:
    assert set(CODES) == set(RevocationReason)


@pytest.mark.parametrize("seconds", [0, NOW, UNTIL_2049, UNTIL_2049 + 1, UNTIL_2049 + 900 * DAY])
def test_times_before_and_after_2050_are_read_as_they_were_meant(ca: LocalCa, seconds: int) -> None:
    head = CrlHead(1, seconds, seconds + DAY)
    crl_found = parsed(ca, entry(0x40, revoked_at=seconds), head=head)
    (found,) = crl_found

    assert found.revocation_date_utc.timestamp() == seconds
    assert crl_found.last_update_utc.timestamp() == seconds


@pytest.mark.parametrize(
    ("seconds", "tag"), [(UNTIL_2049, b"\x17\x0d491231"), (UNTIL_2049 + 1, b"\x18\x0f20500101")]
)
def test_2050_is_the_first_year_of_generalized_time(seconds: int, tag: bytes) -> None:
    assert tag in unsigned(entry(0x40, revoked_at=seconds))


def test_a_large_crl_finds_each_of_its_certificates(ca: LocalCa) -> None:
    numbers = range(0x4000_0000, 0x4000_0000 + 3000 * 7, 7)
    found = parsed(ca, *(entry(number) for number in numbers))

    assert len(found) == 3000
    assert found.get_revoked_certificate_by_serial_number(numbers[1234]) is not None
    assert found.get_revoked_certificate_by_serial_number(numbers[1234] + 1) is None


def test_entries_stand_in_the_order_of_their_serials_whatever_order_they_came_in() -> None:
    entries = [entry(number) for number in (0x42, 0x40, 0x7F, 0x41)]

    assert list(read_entries(unsigned(*entries))) == [b"\x40", b"\x41", b"\x42", b"\x7f"]
    assert unsigned(*entries) == unsigned(*reversed(entries))


@pytest.mark.parametrize("count", [0, 3])
def test_openssl_reads_and_verifies_it(ca: LocalCa, tmp_path: Path, count: int) -> None:
    entries = [entry(0x40 + i, RevocationReason.KEY_COMPROMISE) for i in range(count)]
    (tmp_path / "crl.der").write_bytes(ca.sign_crl(HEAD, encoded(entries)))
    authority = pki.write_certificate(tmp_path / "ca.pem", ca.certificate)
    run = subprocess.run(
        [need("openssl", "openssl"), "crl", "-inform", "DER", "-in", tmp_path / "crl.der",
         "-CAfile", authority, "-noout", "-text"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert "verify OK" in run.stdout + run.stderr
    assert "Version 2 (0x1)" in run.stdout
    assert run.stdout.count("Serial Number: 4") == count
    assert run.stdout.count("Key Compromise") == count
    assert ("No Revoked Certificates" in run.stdout) is (count == 0)


# As it is read again


serials = st.integers(min_value=1, max_value=2**159 - 1)
times = st.integers(min_value=-(20 * 365 * DAY), max_value=UNTIL_2049 + 400 * 365 * DAY)


@given(
    st.dictionaries(serials, st.tuples(times, st.sampled_from(RevocationReason)), max_size=20),
    st.integers(min_value=0, max_value=2**70),
)
def test_what_was_written_is_read(
    revoked: dict[int, tuple[int, RevocationReason]], number: int
) -> None:
    entries = [entry(n, reason, moment) for n, (moment, reason) in revoked.items()]
    head = CrlHead(number, NOW, NOW + DAY)

    found = read_entries(unsigned(*entries, head=head))

    assert found == encoded(entries)
    assert list(found) == sorted(found)


@given(st.binary(max_size=200))
def test_what_is_no_crl_is_one_error(data: bytes) -> None:
    with pytest.raises(ScepError):
        read_entries(data)


@given(st.data())
def test_a_broken_crl_is_read_or_is_one_error(data: st.DataObject) -> None:
    whole = bytearray(unsigned(entry(0x40, RevocationReason.SUPERSEDED), entry(0x41)))
    place = data.draw(st.integers(min_value=0, max_value=len(whole) - 1))
    whole[place] = data.draw(st.integers(min_value=0, max_value=255))
    try:
        entries = read_entries(bytes(whole))
    except ScepError:
        return
    assert all(serial in found for serial, found in entries.items())


def test_a_crl_number_is_no_smaller_in_der_than_in_life() -> None:
    assert integer(128) in unsigned(head=CrlHead(128, NOW, NOW + DAY))


# The key that signs it


def test_a_ca_without_a_key_identifier_is_named_as_in_its_certificates(
    ec_key: ec.EllipticCurvePrivateKey,
) -> None:
    """By the digest of its key: an empty identifier is nobody's."""
    subject = pki.name("Old CA")
    bare = x509.CertificateBuilder(
        subject, subject, ec_key.public_key(), 1, pki.START, pki.END
    ).sign(ec_key, hashes.SHA256())
    ca = LocalCa(bare, ec_key, (pki.der(bare),), b"s" * 32, pki.ceilings(bare))
    found = parsed(ca).extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)

    assert found.value == x509.AuthorityKeyIdentifier.from_issuer_public_key(ec_key.public_key())


def test_a_crl_that_another_key_signed_is_never_handed_out(
    ec_key: ec.EllipticCurvePrivateKey,
) -> None:
    faulty = replace(pki.local_ca(ec_key), key=ec.derive_private_key(11, ec.SECP256R1()))

    with pytest.raises(SigningError):
        faulty.sign_crl(HEAD, {})
