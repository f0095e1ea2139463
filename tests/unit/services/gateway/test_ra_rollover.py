"""RA pairs under the CA that is current, and what older pairs still open."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.gateway.ra import RaKeys, RaPair, assemble
from services.issuer.connectors.local import LocalCa
from shared.scep.certrep import PkiStatus
from shared.scep.pkimessage import read_message
from tests.support import pki
from tests.support.messages import Identity, enveloped, recipient, signed
from tests.support.world import NOW, pki_message
from tests.unit.services.gateway.gateways import World, make_world

DAY = pki.dt.timedelta(days=1)
TODAY = pki.dt.datetime.fromtimestamp(NOW, pki.dt.UTC)
NEXT_KEY = ec.derive_private_key(41, ec.SECP256R1())


@pytest.fixture
def ca(ec_key: ec.EllipticCurvePrivateKey) -> LocalCa:
    return pki.local_ca(ec_key)


@pytest.fixture
def next_ca() -> LocalCa:
    return pki.local_ca(NEXT_KEY, "Next CA")


def pair(
    ra: Identity,
    ca: LocalCa,
    *,
    signs: bool = True,
    decrypts: bool = True,
    begun: int = 10,
) -> RaPair:
    """A pair that this CA certified so many days ago."""
    made = pki.make_certificate(
        ra.key.public_key(), ca.key,
        subject="RA", issuer=ca.certificate.subject.rfc4514_string().removeprefix("CN="),
        start=TODAY - begun * DAY,
    )  # fmt: skip
    return RaPair(made, ra.key, signs, decrypts)


def shown(keys: RaKeys, ca: LocalCa) -> tuple[bytes, ...]:
    """What GetCACert would show under this CA; its first certificate is the signer's."""
    found = keys.under(ca.chain[0])
    assert found.signer.certificate.der == found.certificates[0]
    return found.certificates


def test_the_pair_of_the_current_ca_is_current_whichever_is_newer(
    ra: Identity, ca: LocalCa, next_ca: LocalCa
) -> None:
    """RA certificates for the next CA are made before the rollover."""
    old, new = pair(ra, ca, begun=300), pair(ra, next_ca, begun=1)
    keys = assemble([old, new], NOW)

    assert shown(keys, ca) == (old.der,)
    assert shown(keys, next_ca) == (new.der,)


def test_under_either_ca_every_pair_decrypts(
    ra: Identity, device: Identity, ca: LocalCa, next_ca: LocalCa
) -> None:
    """Devices keep RA certificates for weeks."""
    old, new = pair(ra, ca, begun=300), pair(device, next_ca, begun=1)
    keys = assemble([old, new], NOW)

    for each in (ca, next_ca):
        decrypting = [key.certificate.der for key in keys.under(each.chain[0]).decryption]
        assert decrypting == [new.der, old.der]


def test_of_several_pairs_of_one_ca_the_newest_is_current(ra: Identity, ca: LocalCa) -> None:
    older, newer = pair(ra, ca, begun=20), pair(ra, ca, begun=5)

    assert shown(assemble([older, newer], NOW), ca) == (newer.der,)


def test_under_a_ca_that_issued_none_the_newest_pair_of_all_is_current(
    ra: Identity, ca: LocalCa, next_ca: LocalCa
) -> None:
    """RA certificates may be of another CA altogether."""
    older, newer = pair(ra, ca, begun=20), pair(ra, ca, begun=5)

    assert shown(assemble([older, newer], NOW), next_ca) == (newer.der,)


@pytest.mark.parametrize("only", [{"decrypts": False}, {"signs": False}])
def test_half_a_pair_of_the_current_ca_does_not_make_it_current(
    ra: Identity, ca: LocalCa, next_ca: LocalCa, only: dict[str, bool]
) -> None:
    """Signing and decrypting certificate change together or not at all."""
    whole, half = pair(ra, ca, begun=20), pair(ra, next_ca, begun=30, **only)
    keys = assemble([whole, half], NOW)

    assert shown(keys, next_ca) == (whole.der,)


def test_a_split_pair_of_the_current_ca_is_current(
    ra: Identity, device: Identity, ca: LocalCa, next_ca: LocalCa
) -> None:
    old = pair(ra, ca, begun=1)
    signs, decrypts = pair(ra, next_ca, decrypts=False), pair(device, next_ca, signs=False)

    assert shown(assemble([old, signs, decrypts], NOW), next_ca) == (signs.der, decrypts.der)


def test_a_pair_of_another_ca_of_the_same_name_is_not_its_own(ra: Identity, ca: LocalCa) -> None:
    """Only the signature says who issued it."""
    namesake = pki.local_ca(NEXT_KEY)
    old, new = pair(ra, ca, begun=300), pair(ra, namesake, begun=1)
    keys = assemble([old, new], NOW)

    assert shown(keys, ca) == (old.der,)
    assert shown(keys, namesake) == (new.der,)


def test_a_pair_whose_time_has_not_come_is_not_current_under_its_ca_either(
    ra: Identity, ca: LocalCa, next_ca: LocalCa
) -> None:
    old, early = pair(ra, ca), pair(ra, next_ca, begun=-1)

    assert shown(assemble([old, early], NOW), next_ca) == (old.der,)


# Through the gateway


@pytest.fixture
async def world(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey, ca: LocalCa,
    next_ca: LocalCa,
) -> World:  # fmt: skip
    keys = assemble([pair(ra, ca, begun=300), pair(ra, next_ca, begun=1)], NOW)
    found = await make_world(device, ra, ec_key)
    found.profile = replace(found.profile, ra=keys)
    return found


async def test_replies_are_signed_by_the_ra_of_the_current_ca(
    world: World, ca: LocalCa, next_ca: LocalCa
) -> None:
    before = await world.enroll()
    world.roll_over(next_ca)
    after = await world.poll()

    assert before.signed.signer.der == shown(world.profile.ra, ca)[0]
    assert after.signed.signer.der == shown(world.profile.ra, next_ca)[0]


async def test_a_request_to_the_ra_of_the_previous_ca_is_opened_after_the_rollover(
    world: World, ra: Identity, ca: LocalCa, next_ca: LocalCa
) -> None:
    kept = Identity(ra.key, pair(ra, ca, begun=300).certificate)
    world.roll_over(next_ca)
    reply = await world.send(pki_message(world.device, kept))

    assert reply.status is PkiStatus.SUCCESS


@pytest.mark.parametrize("split", [False, True], ids=["combined", "split"])
async def test_a_reply_is_signed_by_the_pair_that_the_request_addressed(
    world: World, ra: Identity, device: Identity, ca: LocalCa, next_ca: LocalCa, *, split: bool
) -> None:
    """A device knows the RA certificates that it fetched, until it fetches them again."""
    old = [pair(ra, ca, begun=300, decrypts=not split), pair(device, ca, begun=299, signs=False)]
    new = [pair(ra, next_ca, begun=1, decrypts=not split), pair(device, next_ca, signs=False)]
    world.profile = replace(world.profile, ra=assemble([*old, *new], NOW))
    world.roll_over(next_ca)
    ours = {True: (old[1], new[1]), False: (old[0], new[0])}[split]

    for addressed, signing in zip(ours, (old[0], new[0]), strict=True):
        kept = Identity(addressed.key, addressed.certificate)
        reply = await world.send(pki_message(world.device, kept))
        assert reply.signed.signer.der == signing.der


async def test_of_several_split_pairs_the_one_made_together_signs(
    ra: Identity, device: Identity, ca: LocalCa, next_ca: LocalCa
) -> None:
    signing = [pair(ra, ca, begun=days, decrypts=False) for days in (300, 100)]
    opening = [pair(device, ca, begun=days, signs=False) for days in (299, 101)]
    current = pair(ra, next_ca, begun=1)
    keys = assemble([*signing, *opening, current], NOW).under(next_ca.chain[0])

    for opens, signs in zip(opening, signing, strict=True):
        message = read_message(pki_message(device, Identity(opens.key, opens.certificate)))
        assert keys.addressed(message, NOW).signer.certificate.der == signs.der


async def test_a_pair_that_has_ended_signs_nothing(
    ra: Identity, device: Identity, ca: LocalCa, next_ca: LocalCa
) -> None:
    """It had not when the gateway read it."""
    old, new = pair(ra, ca, begun=300), pair(ra, next_ca, begun=1)
    keys = assemble([old, new], NOW).under(next_ca.chain[0])
    message = read_message(pki_message(device, Identity(ra.key, old.certificate)))
    ends = old.certificate.not_valid_after_utc.timestamp()

    assert keys.addressed(message, ends - 1).signer.certificate.der == old.der
    assert keys.addressed(message, ends).signer.certificate.der == new.der


async def test_a_request_to_nobody_here_is_answered_by_the_current_pair(
    ra: Identity, device: Identity, ca: LocalCa, next_ca: LocalCa
) -> None:
    keys = assemble([pair(ra, ca, begun=300), pair(ra, next_ca, begun=1)], NOW)

    for content in (enveloped(b"", recipient(device)), b"no envelope", b""):
        assert keys.addressed(read_message(signed(content, device)), NOW) is keys
