"""Whatever comes for a token is judged, and only what a connector signed is ever approved."""

import random
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.validator.challenges.token import AnchorPool, TokenResult, TokenRules, check_token
from shared.x509.csr import CertificationRequest
from tests.support.messages import BMP, PRINTABLE, UTF8, tlv
from tests.support.signed_challenges import (
    anchor,
    asked,
    base64url,
    claims,
    dns,
    es256_der,
    es256_raw,
    mint,
    p256,
    request,
    rsa_key,
)
from tests.support.world import NOW

pytestmark = pytest.mark.slow

POOL: Final = AnchorPool((anchor(rsa_key()), anchor(p256())))
ASKED: Final = request(dns("device.example"))
LAST_SECOND: Final = 253_402_300_799
GATES: Final = ("signature", "version", "time", "audience", "binding")
ANY_TEXT: Final = st.text(st.characters(codec=None, exclude_categories=()))
ANY_BYTES: Final = st.binary(max_size=300)
TOKENS: Final = {
    "RS256": mint(claims()),
    "ES256 side by side": mint(claims(), p256(), sign=es256_raw(p256())),
    "ES256 in DER": mint(claims(), p256(), sign=es256_der(p256())),
    "RS256, padded": mint(claims(x="."), padded="hps"),
    "ES256 in DER, padded": mint(claims(x=".."), p256(), sign=es256_der(p256()), padded="hps"),
}


def evaluator(
    token: str, csr: CertificationRequest = ASKED, rules: TokenRules | None = None
) -> TokenResult:
    """A decision; it is well formed whatever it is."""
    judged = check_token(token, POOL, rules or TokenRules(), csr, NOW)
    gates, refusal = judged.verified.gates, judged.verified.refusal
    assert tuple(gate.gate for gate in gates) == GATES[: len(gates)]
    assert [gate.passed for gate in gates[:-1]] == [True] * (len(gates) - 1)
    assert gates[-1].passed is (refusal is None)
    assert refusal is not None or len(gates) == len(GATES)
    return judged


def approved(token: str) -> bool:
    return evaluator(token).verified.refusal is None


@pytest.mark.parametrize("name", TOKENS)
def test_the_tokens_that_are_changed_are_good(name: str) -> None:
    assert approved(TOKENS[name])


# Anything


@settings(max_examples=500)
@given(ANY_TEXT | st.lists(ANY_TEXT, min_size=3, max_size=3).map(".".join))
def test_no_text_is_approved(token: str) -> None:
    assert not approved(token)


@settings(max_examples=300)
@given(st.binary(), st.sampled_from([UTF8, BMP, PRINTABLE]))
def test_no_bytes_of_a_request_are_approved(password: bytes, tag: int) -> None:
    assert not approved(asked(request(password=password, tag=tag)).challenge)


@settings(max_examples=300)
@given(ANY_BYTES, ANY_BYTES, ANY_BYTES)
def test_no_bytes_in_three_segments_are_approved(
    header: bytes, payload: bytes, signature: bytes
) -> None:
    assert not approved(f"{base64url(header)}.{base64url(payload)}.{base64url(signature)}")


@settings(max_examples=300)
@given(st.sampled_from(["RS256", "ES256"]), st.binary(max_size=300))
def test_no_bytes_are_a_signature(algorithm: str, signature: bytes) -> None:
    assert not approved(mint(claims(), header={"alg": algorithm}, sign=lambda _: signature))


@settings(max_examples=300)
@given(st.binary(min_size=64, max_size=64) | st.binary(max_size=70).map(lambda s: tlv(0x30, s)))
def test_no_bytes_of_the_right_form_are_a_signature(signature: bytes) -> None:
    assert not approved(mint(claims(), header={"alg": "ES256"}, sign=lambda _: signature))


@settings(max_examples=300)
@given(ANY_BYTES)
def test_no_header_makes_a_stranger_s_token_good(header: bytes) -> None:
    assert not approved(mint(claims(), p256(666), header=header))


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
HEADER_NAMES: Final = st.sampled_from(["alg", "typ", "kid", "jku", "jwk", "x5c", "crit", "b64"])


@settings(max_examples=300)
@given(st.dictionaries(HEADER_NAMES, JSON | st.sampled_from(["RS256", "ES256", "none"])))
def test_a_connector_s_header_is_believed_in_its_algorithm_alone(header: dict[str, Any]) -> None:
    expected = header.get("alg") == "ES256" and "crit" not in header and is_json(header)

    assert approved(mint(claims(), p256(), header=header)) is expected


def is_json(value: Any) -> bool:
    """Whether a value is one of RFC 8259: no NaN, no infinity."""
    if isinstance(value, float):
        return value - value == 0
    if isinstance(value, dict):
        return all(map(is_json, value.values()))
    return all(map(is_json, value)) if isinstance(value, list) else True


@settings(max_examples=300)
@given(st.binary())
def test_no_bytes_that_a_connector_signed_are_a_token_without_claims(payload: bytes) -> None:
    assert not approved(mint(payload, p256()))


# Nearly a token


@pytest.mark.parametrize("name", TOKENS)
@settings(max_examples=400)
@given(st.randoms(use_true_random=False), st.characters(max_codepoint=255) | st.sampled_from("=.A"))
def test_a_token_with_one_character_changed_is_never_approved(
    name: str, chance: random.Random, replacement: str
) -> None:
    token = TOKENS[name]
    position = chance.randrange(len(token))
    changed = token[:position] + replacement + token[position + 1 :]

    assert approved(changed) is (changed == token)


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("replacement", ["A", "B", "_", "=", ".", "\0", "\u00e9"])
def test_no_position_of_a_token_may_be_changed(name: str, replacement: str) -> None:
    token = TOKENS[name]
    for position, letter in enumerate(token):
        if letter != replacement:
            assert not approved(token[:position] + replacement + token[position + 1 :])


@pytest.mark.parametrize("name", TOKENS)
def test_no_letter_of_a_token_may_be_its_neighbour(name: str) -> None:
    """One bit of what is encoded, in the last letters of segments too."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = TOKENS[name]
    for position, letter in enumerate(token):
        if letter in alphabet:
            neighbour = alphabet[alphabet.index(letter) ^ 1]
            assert not approved(token[:position] + neighbour + token[position + 1 :])


@pytest.mark.parametrize("name", TOKENS)
def test_no_position_of_a_token_may_be_left_out(name: str) -> None:
    """But for padding of the signature, which nobody signed."""
    token = TOKENS[name]
    unsigned = len(token.rstrip("="))
    for position in range(len(token)):
        shorter = token[:position] + token[position + 1 :]
        assert approved(shorter) is (position >= unsigned)


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("more", ["A", ".", "\n", " ", "\0"])
def test_nothing_may_be_put_into_a_token(name: str, more: str) -> None:
    token = TOKENS[name]
    for position in range(len(token) + 1):
        assert not approved(token[:position] + more + token[position:])


@settings(max_examples=200)
@given(st.sampled_from(sorted(TOKENS)), st.integers(0, 2000), st.integers(0, 2000), ANY_TEXT)
def test_no_part_of_a_token_may_be_something_else(
    name: str, first: int, last: int, other: str
) -> None:
    token = TOKENS[name]
    changed = token[:first] + other + token[max(first, last) :]

    assert approved(changed) is (changed.rstrip("=") == token.rstrip("=") and "===" not in changed)


@settings(max_examples=200)
@given(st.tuples(*[st.sampled_from(sorted(TOKENS))] * 3))
def test_no_parts_of_several_tokens_are_one(names: tuple[str, str, str]) -> None:
    parts = [TOKENS[name].split(".")[part] for part, name in enumerate(names)]
    whole = {tuple(token.split(".")) for token in TOKENS.values()}

    assert approved(".".join(parts)) is (tuple(parts) in whole)
