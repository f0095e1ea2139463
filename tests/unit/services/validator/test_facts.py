import hashlib
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services.validator.facts import (
    DecryptedRequest,
    OpeningRules,
    UndecryptableRequest,
    open_request,
)
from shared.log.events.enrollment import EnrollmentRequested
from shared.log.reasons import Reason
from shared.log.seal import seal
from shared.log.stages import Stage
from shared.log.subjects import EnrollmentId
from shared.scep.algorithms import AlgorithmPolicy
from tests.support.messages import (
    PRINTABLE,
    SHA256_RSA,
    UTF8,
    Identity,
    challenge,
    cms_attributes,
    csr,
    device_csr,
    enveloped,
    extension_request,
    name,
    oid,
    recipient,
    san,
    scep_attributes,
    signed,
    spki,
    tlv,
)
from tests.support.world import OPENING, OPENING_ID, csr_info, enrollment_of, requested

KEYS = {OPENING_ID: OPENING}


def nobody(certificate: bytes) -> bool:
    """No certificate is one of ours."""
    assert certificate
    return False


def opened(
    enrollment: EnrollmentId, event: EnrollmentRequested, *, legacy: bool = False
) -> DecryptedRequest | UndecryptableRequest:
    return open_request(
        enrollment, event, KEYS, OpeningRules(AlgorithmPolicy(legacy), nobody, nobody)
    )


def refused(enrollment: EnrollmentId, event: EnrollmentRequested) -> tuple[Reason, str]:
    found = opened(enrollment, event)
    assert isinstance(found, UndecryptableRequest)
    return found.reason, found.detail


@pytest.fixture
def enrollment(device: Identity) -> EnrollmentId:
    return enrollment_of(device, device_csr(device))


def test_facts_say_what_the_csr_says_without_its_secret(
    device: Identity, ra: Identity, enrollment: EnrollmentId
) -> None:
    found = opened(enrollment, requested(device, ra, enrollment))
    csr_bytes = device_csr(device)

    assert isinstance(found, DecryptedRequest)
    assert found.csr.info == csr_info(csr_bytes)
    assert found.facts.subject == "CN=device, O=Lab"
    assert found.facts.sans == ("dns:device.example",)
    assert (found.facts.key_type, found.facts.key_bits) == ("rsa", 2048)
    key = spki(device.key.public_key())
    assert found.facts.spki_sha256 == hashlib.sha256(key).hexdigest()
    assert found.facts.csr_sha256 == hashlib.sha256(csr_info(csr_bytes)).hexdigest()
    assert found.facts.challenge == "given"
    assert "s3cret" not in repr(found.facts)


def test_facts_of_a_csr_without_challenge_and_names(device: Identity, ra: Identity) -> None:
    plain = csr(device.key)
    enrollment = enrollment_of(device, plain)
    found = opened(enrollment, requested(device, ra, enrollment, csr=plain))

    assert isinstance(found, DecryptedRequest)
    assert (found.facts.challenge, found.facts.sans) == ("none", ())


@pytest.mark.parametrize(
    "change",
    [{"profile": "other"}, {"transaction": "a" * 26}, {"csr": "a" * 26}],
    ids=["profile", "transaction", "csr"],
)
def test_a_request_recorded_under_another_subject_is_refused(
    device: Identity, ra: Identity, enrollment: EnrollmentId, change: dict[str, Any]
) -> None:
    """A gateway taken over must not carry a device's request into another profile."""
    moved = replace(enrollment, **change)

    assert refused(moved, requested(device, ra, moved)) == (
        Reason.BAD_MESSAGE,
        "recorded under another transaction's subject",
    )


@pytest.mark.parametrize("change", [{"attempt": 1}, {"shard": "1"}, {"profile": "other"}])
def test_a_content_key_sealed_for_another_subject_is_refused(
    device: Identity, ra: Identity, enrollment: EnrollmentId, change: dict[str, Any]
) -> None:
    event = requested(device, ra, replace(enrollment, **change))

    assert refused(enrollment, event) == (
        Reason.BAD_MESSAGE,
        "the sealed content key cannot be decrypted",
    )


def test_a_key_sealed_to_an_unknown_key_is_refused(
    device: Identity, ra: Identity, enrollment: EnrollmentId
) -> None:
    event = requested(device, ra, enrollment, sealing_key="0" * 16)

    assert refused(enrollment, event) == (
        Reason.BAD_MESSAGE,
        "content key sealed to an unknown key",
    )


def test_a_seal_that_names_one_key_and_is_another_keys_is_refused(
    device: Identity, ra: Identity, enrollment: EnrollmentId
) -> None:
    other = X25519PrivateKey.from_private_bytes(b"q" * 32)
    event = requested(device, ra, enrollment)
    found = open_request(
        enrollment, event, {OPENING_ID: other}, OpeningRules(AlgorithmPolicy(), nobody, nobody)
    )

    assert found == UndecryptableRequest(
        Reason.BAD_MESSAGE, "the sealed content key cannot be decrypted"
    )


@pytest.mark.parametrize("key", [bytes(32), bytes(16), b""])
def test_a_wrong_content_key_is_refused(
    device: Identity, ra: Identity, enrollment: EnrollmentId, key: bytes
) -> None:
    sealed = seal(key, enrollment.subject(Stage.REQUEST), OPENING.public_key())
    event = requested(device, ra, enrollment, content_key=sealed)

    assert refused(enrollment, event)[0] is Reason.BAD_MESSAGE


def test_a_csr_without_proof_of_possession_is_refused(device: Identity, ra: Identity) -> None:
    """The device's key in a CSR that another key signed."""
    stolen = csr(ra.key, public=spki(device.key.public_key()))
    enrollment = enrollment_of(device, stolen)

    assert refused(enrollment, requested(device, ra, enrollment, csr=stolen)) == (
        Reason.BAD_MESSAGE,
        "CSR signature does not verify",
    )


def test_a_message_with_a_broken_signature_is_refused(
    device: Identity, ra: Identity, enrollment: EnrollmentId
) -> None:
    event = requested(device, ra, enrollment, options={"sign": lambda _: bytes(256)})

    assert refused(enrollment, event)[0] is Reason.BAD_MESSAGE


def test_content_that_was_exchanged_under_the_signature_is_refused(
    device: Identity, ra: Identity, enrollment: EnrollmentId
) -> None:
    content = enveloped(csr(device.key, challenge(PRINTABLE, b"other")), recipient(ra))
    attributes = [*scep_attributes(), *cms_attributes(content)]
    event = requested(device, ra, enrollment, options={"attributes": attributes})

    assert refused(enrollment, event)[0] is Reason.BAD_MESSAGE


@pytest.mark.parametrize("kind", [b"20", b"21", b"22", b"3", b"99"])
def test_a_message_of_another_type_is_refused(
    device: Identity, ra: Identity, enrollment: EnrollmentId, kind: bytes
) -> None:
    content = enveloped(device_csr(device), recipient(ra))
    attributes = [*scep_attributes(message_type=tlv(PRINTABLE, kind)), *cms_attributes(content)]
    event = requested(device, ra, enrollment, pki_message=signed(content, device, attributes))

    assert refused(enrollment, event)[0] is Reason.UNSUPPORTED_MESSAGE


def test_what_the_gateway_tells_of_the_message_is_not_believed(
    device: Identity, ra: Identity, enrollment: EnrollmentId
) -> None:
    event = requested(
        device, ra, enrollment, message_type=17, transaction_id="x", signer_sha256="y"
    )

    assert isinstance(opened(enrollment, event), DecryptedRequest)


def test_a_legacy_digest_opens_only_on_a_legacy_profile(
    device: Identity, ra: Identity, enrollment: EnrollmentId
) -> None:
    event = requested(device, ra, enrollment, options={"digest": "sha1"})

    assert refused(enrollment, event)[0] is Reason.BAD_ALGORITHM
    assert isinstance(opened(enrollment, event, legacy=True), DecryptedRequest)


def test_a_csr_signed_in_an_unknown_way_is_a_bad_algorithm(device: Identity, ra: Identity) -> None:
    odd = csr(
        device.key,
        algorithm=SHA256_RSA.replace(oid("1.2.840.113549.1.1.11"), oid("1.2.840.113549.1.1.14")),
    )
    enrollment = enrollment_of(device, odd)

    event = requested(device, ra, enrollment, csr=odd)
    assert refused(enrollment, event)[0] is Reason.BAD_ALGORITHM


@pytest.mark.parametrize("message", [b"", b"\x30\x80", b"garbage" * 50])
def test_any_other_bytes_are_a_bad_message(
    device: Identity, ra: Identity, enrollment: EnrollmentId, message: bytes
) -> None:
    event = requested(device, ra, enrollment, pki_message=message)

    assert refused(enrollment, event)[0] is Reason.BAD_MESSAGE


def test_different_subject_alternative_names_are_refused_and_equal_ones_are_one(
    device: Identity, ra: Identity
) -> None:
    one, other = (san(tlv(0x82, n)) for n in (b"a.example", b"b.example"))
    found = []
    for both in ((one, one), (one, other)):
        twice = csr(device.key, extension_request(*both), subject=name(("2.5.4.3", UTF8, b"d")))
        enrollment = enrollment_of(device, twice)
        found.append(opened(enrollment, requested(device, ra, enrollment, csr=twice)))

    assert isinstance(found[0], DecryptedRequest)
    assert found[0].facts.sans == ("dns:a.example",)
    detail = "conflicting subjectAltName extensions"
    assert found[1] == UndecryptableRequest(Reason.BAD_REQUEST, detail)
