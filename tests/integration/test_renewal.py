"""A device with a certificate asks for the next one, as RFC 8894 wants it and as clients do it."""

import time

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from shared.log.reasons import FAIL_INFO, Reason
from shared.scep.certrep import CertRep, PkiStatus
from tests.support import messages as m
from tests.support.holders import (
    PKCS_REQ,
    RENEWAL_REQ,
    enrolled,
    holding,
    next_second,
    renewal,
    renewed,
    revoke,
)
from tests.support.requests import (
    Device,
    Endpoint,
    Request,
    ask,
    certificate,
    der,
    enroll,
    issued,
    listed,
    recorded,
    sealed,
    shown,
)
from tests.support.system import System, wait_until

OTHER_NAME = m.name((m.COMMON_NAME, m.UTF8, b"somebody else"))


@pytest.fixture(scope="module")
def old_key() -> m.Identity:
    """One key for many transactions."""
    return Device.new().identity


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    """The key that renewals are for."""
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def device(old_key: m.Identity) -> Device:
    return Device(old_key)


@pytest.fixture(scope="module")
def anytime(wide: System) -> Endpoint:
    """The profile whose certificates may be renewed from the first day."""
    return Endpoint.of(wide, "anytime")


def refused(system: System, device: Device, reply: CertRep, why: Reason) -> None:
    """A FAILURE that says why, and the same on record."""
    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FAIL_INFO[why])
    assert reply.fail_info_text
    assert recorded(system, device, "rejected")["result"] == why


# What is renewed


@pytest.mark.parametrize("message_type", [RENEWAL_REQ, PKCS_REQ])
def test_a_certificate_is_renewed_by_signing_with_it(
    anytime: Endpoint, device: Device, key: rsa.RSAPrivateKey, message_type: bytes
) -> None:
    holder = enrolled(anytime, device)
    request = renewal(anytime, holder, key, message_type)
    new = renewed(anytime, holder, key, ask(anytime, request))
    assert new.serial_number != holder.identity.x509.serial_number


@pytest.mark.parametrize("message_type", [RENEWAL_REQ, PKCS_REQ])
def test_a_renewal_is_answered_the_same_from_every_gateway(
    wide: System, device: Device, key: rsa.RSAPrivateKey, message_type: bytes
) -> None:
    gateways = [Endpoint.of(wide, "anytime", gateway) for gateway in range(3)]
    holder = enrolled(gateways[0], device)
    request = renewal(gateways[0], holder, key, message_type)
    found = {der(renewed(g, holder, key, ask(g, request))) for g in (*gateways, gateways[0])}
    assert len(found) == 1


def test_a_renewal_in_a_new_envelope_gets_the_same_certificate(
    anytime: Endpoint, device: Device, key: rsa.RSAPrivateKey
) -> None:
    holder = enrolled(anytime, device)
    found = {
        der(renewed(anytime, holder, key, ask(anytime, renewal(anytime, holder, key, kind))))
        for kind in (RENEWAL_REQ, RENEWAL_REQ, PKCS_REQ)
    }
    assert len(found) == 1


def test_a_renewal_under_a_transaction_of_its_own_is_renewed_too(
    anytime: Endpoint, device: Device, key: rsa.RSAPrivateKey
) -> None:
    name = m.name((m.COMMON_NAME, m.UTF8, device.name.encode()))
    holder = enrolled(anytime, device)
    another = Device(holder.identity)
    request = renewal(anytime, another, key, subject=name)
    renewed(anytime, holder, key, ask(anytime, request))


def test_a_poll_after_a_renewal_gets_the_new_certificate(
    wide: System, anytime: Endpoint, device: Device, key: rsa.RSAPrivateKey
) -> None:
    """It is signed with the old key, in the transaction of both certificates."""
    holder = enrolled(anytime, device)
    new = renewed(anytime, holder, key, ask(anytime, renewal(anytime, holder, key)))
    for gateway in (0, 1):
        endpoint = Endpoint.of(wide, "anytime", gateway)
        assert issued(holder, ask(endpoint, holder.poll(endpoint))) == new


def test_a_renewed_certificate_is_renewed_with_its_own_key(
    anytime: Endpoint, device: Device, key: rsa.RSAPrivateKey, old_key: m.Identity
) -> None:
    holder = enrolled(anytime, device)
    new = renewed(anytime, holder, key, ask(anytime, renewal(anytime, holder, key)))
    next_holder = Device(m.Identity(key, new), device.transaction)
    third = rsa.generate_private_key(65537, 2048)
    request = renewal(anytime, next_holder, third)
    assert renewed(anytime, next_holder, third, ask(anytime, request)) != new
    assert old_key.key.public_key() != third.public_key()


def test_a_renewal_needs_no_challenge_and_the_record_says_what_it_renews(
    wide: System, anytime: Endpoint, device: Device, key: rsa.RSAPrivateKey
) -> None:
    holder = enrolled(anytime, device)
    new = renewed(anytime, holder, key, ask(anytime, renewal(anytime, holder, key)))
    old_serial = f"{holder.identity.x509.serial_number:x}"

    serial = f"{new.serial_number:x}"
    wait_until(lambda: listed(wide, "--search", serial), 30, "the renewal on record")
    (approved,) = [e for e in shown(wide, serial) if e["type"] == "EnrollmentApproved"]
    assert approved["facts"]["challenge"] == "none"  # type: ignore[index]
    assert approved["renews"]["serial"].lstrip("0") == old_serial  # type: ignore[index]


def test_in_its_last_third_a_certificate_is_renewed_without_a_word_in_the_configuration(
    wide: System, device: Device, key: rsa.RSAPrivateKey
) -> None:
    dying = Endpoint.of(wide, "dying")
    holder = enrolled(dying, device)
    renewed(dying, holder, key, ask(dying, renewal(dying, holder, key)))


def test_within_the_grace_an_expired_certificate_is_renewed(
    wide: System, device: Device, key: rsa.RSAPrivateKey
) -> None:
    grace = Endpoint.of(wide, "grace")
    holder = enrolled(grace, device)
    _wait_for_the_end(holder)
    issued(holder, ask(grace, renewal(grace, holder, key)))


def test_names_may_change_and_a_key_go_on_where_the_profile_says_so(
    wide: System, device: Device
) -> None:
    reusing = Endpoint.of(wide, "reusing")
    holder = enrolled(reusing, device)
    key = holder.identity.key
    for _ in range(3):
        reply = ask(reusing, renewal(reusing, holder, key, subject=OTHER_NAME))
        holder = holding(device, issued(holder, reply))
    assert holder.identity.x509.subject.rfc4514_string() == "CN=somebody else"


def test_a_profile_may_want_the_challenge_at_a_renewal_too(
    wide: System, device: Device, key: rsa.RSAPrivateKey
) -> None:
    asking = Endpoint.of(wide, "asking")
    holder = enrolled(asking, device)
    reply = ask(asking, renewal(asking, holder, key))
    refused(wide, device, reply, Reason.CHALLENGE_MISSING)
    request = renewal(asking, holder, key, challenge=asking.challenge)
    renewed(asking, holder, key, ask(asking, request))


# What is refused


def _wait_for_the_end(holder: Device) -> None:
    """Until the certificate has expired, by the clock that all share."""
    end = holder.identity.x509.not_valid_after_utc.timestamp()
    wait_until(lambda: time.time() > end + 1, 10, "the certificate's end")


def test_a_renewal_in_the_first_two_thirds_is_too_early(
    wide: System, device: Device, key: rsa.RSAPrivateKey
) -> None:
    demo = Endpoint.of(wide)
    holder = enrolled(demo, device)
    reply = ask(demo, renewal(demo, holder, key))
    refused(wide, device, reply, Reason.RENEWED_TOO_EARLY)


def test_a_renewal_that_was_too_early_is_refused_the_same_from_another_gateway(
    wide: System, device: Device, key: rsa.RSAPrivateKey
) -> None:
    first, second = (Endpoint.of(wide, "demo", gateway) for gateway in (0, 1))
    request = renewal(first, enrolled(first, device), key)
    texts = {ask(endpoint, request).fail_info_text for endpoint in (first, second)}
    assert len(texts) == 1


def test_a_certificate_of_another_profile_is_not_renewed(
    wide: System, anytime: Endpoint, device: Device, key: rsa.RSAPrivateKey
) -> None:
    holder = enrolled(Endpoint.of(wide, "reusing"), device)
    reply = ask(anytime, renewal(anytime, holder, key))
    refused(wide, device, reply, Reason.NOT_RENEWABLE)


def test_a_revoked_certificate_is_not_renewed(
    wide: System, anytime: Endpoint, device: Device, key: rsa.RSAPrivateKey
) -> None:
    holder = enrolled(anytime, device)
    assert revoke(wide, holder.identity.x509.serial_number).returncode == 0
    reply = ask(anytime, renewal(anytime, holder, key))
    refused(wide, device, reply, Reason.NOT_RENEWABLE)


def test_an_expired_certificate_is_not_renewed(
    wide: System, device: Device, key: rsa.RSAPrivateKey
) -> None:
    blink = Endpoint.of(wide, "blink")
    holder = enrolled(blink, device)
    _wait_for_the_end(holder)
    refused(wide, device, ask(blink, renewal(blink, holder, key)), Reason.NOT_RENEWABLE)


def test_a_profile_without_renewal_renews_nothing_and_promises_nothing(
    wide: System, device: Device, key: rsa.RSAPrivateKey
) -> None:
    final = Endpoint.of(wide, "final")
    assert "Renewal" not in final.get("GetCACaps").text
    holder = enrolled(final, device)
    refused(wide, device, ask(final, renewal(final, holder, key)), Reason.NOT_RENEWABLE)


@pytest.mark.parametrize("what", ["subject", "subjectAltName"])
def test_a_renewal_changes_no_name(
    wide: System, anytime: Endpoint, device: Device, key: rsa.RSAPrivateKey, what: str
) -> None:
    holder = enrolled(anytime, device)
    san = m.extension_request(m.san(m.tlv(0x82, b"other.example")))
    csr = (
        holder.csr("", key=key, subject=OTHER_NAME)
        if what == "subject"
        else holder.csr("", san, key=key)
    )
    reply = ask(anytime, holder.request(sealed(anytime, csr), RENEWAL_REQ))
    refused(wide, device, reply, Reason.NAMES_CHANGED)


def test_a_key_is_renewed_with_itself_once_and_not_twice(
    wide: System, anytime: Endpoint, device: Device
) -> None:
    holder = enrolled(anytime, device)
    key = holder.identity.key
    next_second()
    once = renewed(anytime, holder, key, ask(anytime, renewal(anytime, holder, key)))
    assert once.serial_number != holder.identity.x509.serial_number
    again = holding(device, once)
    next_second()
    refused(wide, device, ask(anytime, renewal(anytime, again, key)), Reason.KEY_REUSED)


def test_a_renewal_signed_by_no_certificate_of_ours_is_not_renewable(
    wide: System, anytime: Endpoint, device: Device
) -> None:
    """Type 17, but self-signed: there is nothing that it could renew."""
    csr = device.csr(anytime.challenge)
    reply = ask(anytime, device.request(sealed(anytime, csr), RENEWAL_REQ))
    refused(wide, device, reply, Reason.NOT_RENEWABLE)


def test_a_first_enrollment_after_a_renewal_that_was_none_is_judged_for_itself(
    anytime: Endpoint, device: Device
) -> None:
    """A client that falls back from RenewalReq to PKCSReq keeps its CSR and its transaction."""
    csr = device.csr(anytime.challenge)
    ask(anytime, device.request(sealed(anytime, csr), RENEWAL_REQ))
    enroll(anytime, device, csr=csr)


def test_a_renewal_for_another_key_signed_by_no_certificate_of_ours_is_not_renewable(
    wide: System, anytime: Endpoint, device: Device, key: rsa.RSAPrivateKey
) -> None:
    """A right challenge does not make it one; under a PKCSReq it is a first enrollment."""
    reply = ask(anytime, renewal(anytime, device, key, RENEWAL_REQ, anytime.challenge))
    refused(wide, device, reply, Reason.NOT_RENEWABLE)

    first = ask(anytime, renewal(anytime, device, key, PKCS_REQ, anytime.challenge))
    assert first.status is PkiStatus.SUCCESS


def test_a_certificate_that_another_ca_made_up_renews_nothing(
    anytime: Endpoint, device: Device, key: rsa.RSAPrivateKey
) -> None:
    """Issuer and serial of a real certificate, signed by a key of the forger's."""
    real = enrolled(anytime, device).identity.x509
    forger = Device.new("forger").identity
    usurper = m.Identity(forger.key, anytime.ca)
    made = m.certificate("device", forger.key.public_key(), usurper, real.serial_number)
    forged = made.sign(forger.key, hashes.SHA256())
    holder = Device(m.Identity(forger.key, forged), device.transaction)
    reply = ask(anytime, renewal(anytime, holder, key, RENEWAL_REQ))
    assert reply.fail_info is FAIL_INFO[Reason.NOT_RENEWABLE]

    reply = ask(anytime, renewal(anytime, holder, key, PKCS_REQ))
    assert reply.fail_info is FAIL_INFO[Reason.CHALLENGE_MISSING]


# The same key enrolls again


def test_a_key_with_a_certificate_is_given_that_one_whatever_its_csr_looks_like(
    anytime: Endpoint, device: Device
) -> None:
    first = enroll(anytime, device)
    name = m.name((m.COMMON_NAME, m.UTF8, device.name.encode()))
    comment = m.attribute("1.2.840.113549.1.9.2", m.tlv(m.UTF8, b"again"))
    later = Device(device.identity)
    csr = later.csr(anytime.challenge, comment, subject=name)
    assert certificate(anytime, later, ask(anytime, later.enrollment(anytime, csr))) == first


def test_in_the_last_third_a_key_that_enrolls_again_gets_a_new_certificate(
    wide: System, device: Device
) -> None:
    dying = Endpoint.of(wide, "dying")
    first = enroll(dying, device)
    next_second()
    name = m.name((m.COMMON_NAME, m.UTF8, device.name.encode()))
    later = Device(device.identity)
    request: Request = later.enrollment(dying, later.csr(dying.challenge, subject=name))
    assert certificate(dying, later, ask(dying, request)) != first
