import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.issuer.connectors.local import LocalCa
from services.validator.facts import (
    DecryptedRequest,
    OpeningRules,
    UndecryptableRequest,
    open_request,
)
from shared.ca.chains import Chain
from shared.log.reasons import Reason
from shared.log.subjects import NO_RENEWAL
from shared.scep.algorithms import AlgorithmPolicy
from tests.support import pki
from tests.support.messages import (
    PRINTABLE,
    Identity,
    cms_attributes,
    csr,
    device_csr,
    enveloped,
    recipient,
    scep_attributes,
    signed,
    tlv,
)
from tests.support.world import OPENING, OPENING_ID, SERIAL, certified, enrollment_of, requested

KEYS = {OPENING_ID: OPENING}
STRANGERS_KEY = ec.derive_private_key(9, ec.SECP256R1())
RENEWS = bytes.fromhex(SERIAL)


@pytest.fixture
def ca(ec_key: ec.EllipticCurvePrivateKey) -> LocalCa:
    return pki.local_ca(ec_key)


def opened(
    ca: LocalCa,
    ra: Identity,
    signer: Identity,
    asked: bytes,
    *,
    renews: bytes = RENEWS,
    kind: bytes = b"19",
    any_signer: bool = True,
    others: tuple[LocalCa, ...] = (),
) -> DecryptedRequest | UndecryptableRequest:
    """What becomes of a CSR that this certificate signed; `kind` is the message type."""
    enrollment = enrollment_of(signer, asked, renews=renews)
    content = enveloped(asked, recipient(ra))
    attributes = [*scep_attributes(message_type=tlv(PRINTABLE, kind)), *cms_attributes(content)]
    message = signed(content, signer, attributes)
    event = requested(signer, ra, enrollment, pki_message=message)
    chain = Chain(ca.chain, (ca.certificate,))
    chains = [chain, *(Chain(each.chain, (each.certificate,)) for each in others)]

    def issued_by_any(certificate: bytes) -> bool:
        return any(each.issued(certificate) for each in chains)

    rules = OpeningRules(AlgorithmPolicy(), chain.issued, issued_by_any, any_signer=any_signer)
    return open_request(enrollment, event, KEYS, rules)


@pytest.mark.parametrize(("kind", "renewal_asked"), [(b"19", False), (b"17", True)])
def test_a_certificate_of_the_ca_renews_itself_under_another_key(
    device: Identity,
    ra: Identity,
    ca: LocalCa,
    kind: bytes,
    renewal_asked: bool,  # noqa: FBT001 - a case
) -> None:
    """Whichever message type says it: clients send both."""
    found = opened(ca, ra, certified(device, ca), csr(ra.key), kind=kind)

    assert isinstance(found, DecryptedRequest)
    assert (found.renews, found.key_reused) == (SERIAL, False)
    assert found.renewal_asked is renewal_asked


def test_a_certificate_of_the_ca_renews_itself_with_its_own_key(
    device: Identity, ra: Identity, ca: LocalCa
) -> None:
    found = opened(ca, ra, certified(device, ca), device_csr(device))

    assert isinstance(found, DecryptedRequest)
    assert (found.renews, found.key_reused) == (SERIAL, True)


def test_a_strangers_certificate_renews_nothing(
    device: Identity, ra: Identity, ca: LocalCa
) -> None:
    """Of another CA that has the very name of ours."""
    signer = certified(device, pki.local_ca(STRANGERS_KEY))
    found = opened(ca, ra, signer, device_csr(device), renews=NO_RENEWAL, kind=b"17")

    assert isinstance(found, DecryptedRequest)
    assert (found.renews, found.renewal_asked) == ("", True)


def test_a_self_signed_certificate_renews_nothing(
    device: Identity, ra: Identity, ca: LocalCa
) -> None:
    found = opened(ca, ra, device, device_csr(device), renews=NO_RENEWAL, kind=b"17")

    assert isinstance(found, DecryptedRequest)
    assert (found.renews, found.key_reused, found.renewal_asked) == ("", False, True)


@pytest.mark.parametrize("kind", [b"17", b"19"])
def test_what_another_configured_ca_issued_is_no_first_enrollment(
    device: Identity, ra: Identity, ca: LocalCa, kind: bytes
) -> None:
    """A certificate of ours that is another profile's does not enroll here, challenge or not."""
    other = pki.local_ca(STRANGERS_KEY)
    renews = NO_RENEWAL if kind == b"17" else b""
    signer = certified(device, other)
    found = opened(ca, ra, signer, csr(ra.key), renews=renews, kind=kind, others=(other,))

    assert isinstance(found, DecryptedRequest)
    assert (found.renews, found.renewal_asked) == ("", True)


def test_a_stranger_may_sign_for_another_key_that_the_csr_proves(
    device: Identity, ra: Identity, ca: LocalCa
) -> None:
    """As macOS does: a first enrollment, which needs a challenge."""
    signer = certified(device, pki.local_ca(STRANGERS_KEY))
    found = opened(ca, ra, signer, csr(ra.key), renews=b"")

    assert isinstance(found, DecryptedRequest)
    assert (found.renews, found.foreign_signer, found.key_reused) == ("", True, False)


@pytest.mark.parametrize("kind", [b"17", b"19"])
def test_a_stranger_asks_for_no_other_key_where_the_profile_wants_it_so(
    device: Identity, ra: Identity, ca: LocalCa, kind: bytes
) -> None:
    signer = certified(device, pki.local_ca(STRANGERS_KEY))
    found = opened(ca, ra, signer, csr(ra.key), renews=b"", kind=kind, any_signer=False)

    assert found == UndecryptableRequest(
        Reason.BAD_MESSAGE, "the signer's key is not the CSR's key"
    )


@pytest.mark.parametrize("renews", [b"", bytes.fromhex("41" * 16), RENEWS[1:]])
def test_a_renewal_recorded_as_another_enrollment_is_refused(
    device: Identity, ra: Identity, ca: LocalCa, renews: bytes
) -> None:
    """A gateway taken over must not hide which certificate is renewed."""
    found = opened(ca, ra, certified(device, ca), device_csr(device), renews=renews)

    assert found == UndecryptableRequest(
        Reason.BAD_MESSAGE, "recorded under another transaction's subject"
    )


def test_a_first_enrollment_recorded_as_a_renewal_is_refused(
    device: Identity, ra: Identity, ca: LocalCa
) -> None:
    found = opened(ca, ra, device, device_csr(device), renews=RENEWS)

    assert found == UndecryptableRequest(
        Reason.BAD_MESSAGE, "recorded under another transaction's subject"
    )


def test_a_renewal_still_proves_that_it_has_the_new_key(
    device: Identity, ra: Identity, ca: LocalCa
) -> None:
    stolen = csr(device.key, public=pki.spki(ra.key.public_key()))

    found = opened(ca, ra, certified(device, ca), stolen)
    assert found == UndecryptableRequest(Reason.BAD_MESSAGE, "CSR signature does not verify")
