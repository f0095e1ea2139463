import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from shared.log.seal import SealError, seal, sealing_key_id, unseal
from tests.support.world import OPENING

SUBJECT = "enroll.0.demo.t.c.0.request"
CONTENT_KEY = bytes(range(32))
OTHER = X25519PrivateKey.from_private_bytes(b"p" * 32)


def sealed() -> bytes:
    return seal(CONTENT_KEY, SUBJECT, OPENING.public_key())


def test_the_validators_key_opens_what_was_sealed_to_it() -> None:
    assert unseal(sealed(), SUBJECT, OPENING) == CONTENT_KEY


def test_two_seals_of_one_key_differ_and_do_not_show_it() -> None:
    one, other = sealed(), sealed()

    assert one != other
    assert CONTENT_KEY not in one


def test_another_key_does_not_open_it() -> None:
    with pytest.raises(SealError):
        unseal(sealed(), SUBJECT, OTHER)


@pytest.mark.parametrize("subject", ["", SUBJECT + "x", "enroll.0.demo.t.c.1.request"])
def test_it_does_not_open_under_another_subject(subject: str) -> None:
    with pytest.raises(SealError):
        unseal(sealed(), subject, OPENING)


@given(st.data())
def test_not_one_bit_may_change(data: st.DataObject) -> None:
    changed = bytearray(sealed())
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    with pytest.raises(SealError):
        unseal(bytes(changed), SUBJECT, OPENING)


@given(st.binary(max_size=100))
def test_any_other_bytes_do_not_open(data: bytes) -> None:
    with pytest.raises(SealError):
        unseal(data, SUBJECT, OPENING)


@pytest.mark.parametrize("size", [0, 16, 32, 48, 80])
def test_a_public_key_of_zeroes_does_not_open(size: int) -> None:
    with pytest.raises(SealError):
        unseal(bytes(size), SUBJECT, OPENING)


def test_key_ids_tell_keys_apart() -> None:
    assert sealing_key_id(OPENING.public_key()) != sealing_key_id(OTHER.public_key())
    assert len(sealing_key_id(OPENING.public_key())) == 16
