"""Where certificates, keys, orders and CRLs stand on the log."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.topology import streams
from shared.log.stages import Stage
from shared.log.streams import CERTS, CRLS, OPS, stream_of
from shared.log.subjects import (
    EnrollmentId,
    certificate_issued,
    certificate_status,
    crl_chunk,
    crl_head,
    csr_token,
    key_compromised,
    key_issued,
    parse_prefix,
    revocation_answer,
    revocation_command,
    serial_token,
)
from tests.fakes.memory_bus import matches
from tests.support.world import SERIAL

ORDER = revocation_command("local", SERIAL, 3)
PLACES = {
    certificate_issued("local", SERIAL): CERTS,
    certificate_status("local", SERIAL, 0): CERTS,
    key_issued("ab" * 32, "local", SERIAL): CERTS,
    key_compromised("ab" * 32, 0): CERTS,
    crl_head("local", "ab" * 32, 7): CRLS,
    crl_chunk("local", "ab" * 32, 0): CRLS,
    ORDER: OPS,
    revocation_answer(ORDER): OPS,
}
ISSUERS = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?\Z")
SERIALS = st.binary(min_size=1, max_size=20).map(serial_token)


@pytest.mark.parametrize("place", sorted(PLACES))
def test_each_place_is_in_one_stream_where_it_can_be_read_back(place: str) -> None:
    found = [s.name for s in streams(["0"]) if any(matches(p, place) for p in s.subjects)]

    assert found == [PLACES[place]]
    assert stream_of(place) == PLACES[place]


def test_no_two_places_are_the_same() -> None:
    assert len(PLACES) == 8


@given(ISSUERS, SERIALS, st.integers(min_value=0, max_value=99))
def test_places_of_any_issuer_and_serial_are_in_their_streams(
    issuer: str, serial: str, attempt: int
) -> None:
    order = revocation_command(issuer, serial, attempt)

    assert matches("cert.*.*.issued", certificate_issued(issuer, serial))
    assert matches("cert.*.*.status.*", certificate_status(issuer, serial, 0))
    assert matches("key.*.issued.*.*", key_issued("ab", issuer, serial))
    assert matches("ops.revoke.*.*.*.ordered", order)
    assert matches("ops.revoke.*.*.*.answered", revocation_answer(order))


def test_wildcards_find_what_they_are_for() -> None:
    assert matches(certificate_status("local", "*", "*"), certificate_status("local", SERIAL, 0))
    assert not matches(
        certificate_status("local", "*", "*"), certificate_status("other", SERIAL, 0)
    )
    assert matches(key_issued("ab", "*", "*"), key_issued("ab", "other", SERIAL))
    assert not matches(key_issued("ab", "*", "*"), key_compromised("ab", 0))
    assert matches(crl_head("local", "ab", "*"), crl_head("local", "ab", 7))
    assert not matches(crl_head("local", "ab", "*"), crl_chunk("local", "ab", 7))


def test_a_serial_is_written_as_its_octets_are() -> None:
    """As other tools print it; a leading zero octet is part of the INTEGER's contents."""
    assert serial_token(b"\x40\x01") == "4001"
    assert serial_token(b"\x00\xff") == "00ff"


def test_an_answer_stands_beside_its_order() -> None:
    assert revocation_answer(ORDER) == ORDER.removesuffix("ordered") + "answered"
    assert revocation_answer(ORDER) != revocation_answer(revocation_command("local", SERIAL, 4))


def test_a_prefix_names_its_enrollment() -> None:
    enrollment = EnrollmentId("0", "corp", "t", "c", 4)

    assert parse_prefix(enrollment.prefix()) == enrollment
    assert enrollment.subject(Stage.HOLD).startswith(enrollment.prefix())


@pytest.mark.parametrize("prefix", ["", "enroll.0.p.t.c", "enroll.0.p.t.c.0.request", "cert.a.b"])
def test_what_is_no_prefix_names_no_enrollment(prefix: str) -> None:
    with pytest.raises(ValueError):
        parse_prefix(prefix)


@given(st.binary(max_size=40), st.binary(min_size=1, max_size=20))
def test_a_renewal_is_another_enrollment_than_the_same_csr_without_one(
    info: bytes, serial: bytes
) -> None:
    assert csr_token(info, serial) != csr_token(info)
    assert csr_token(info, serial) != csr_token(info, serial + b"\0")
    assert csr_token(info, serial) != csr_token(info + serial)
