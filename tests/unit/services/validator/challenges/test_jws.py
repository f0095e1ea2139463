"""The token's form: segments, padding, header."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives import serialization

from services.validator.challenges.jws import (
    Anchor,
    MalformedTokenError,
    UnacceptableTokenError,
    read_jws,
    read_object,
    verified_by,
)
from tests.support.signed_challenges import (
    Sign,
    anchor,
    base64url,
    claims,
    encode,
    es256_der,
    es256_raw,
    mint,
    p256,
    rs256,
    rsa_key,
)
from tests.support.world import NOW
from tests.unit.services.validator.challenges.broken import BROKEN_JSON

RS256: Final = {"alg": "RS256"}
GOOD_SIGNERS: Final[dict[str, tuple[Callable[[], Any], Callable[[Any], Sign]]]] = {
    "RS256": (rsa_key, rs256),
    "ES256 side by side": (p256, es256_raw),
    "ES256 in DER": (p256, es256_der),
}


def verifies(token: str, *anchors: Anchor, now: int = NOW) -> bool:
    return verified_by(read_jws(token), anchors, now) is not None


def malformed(token: str) -> None:
    with pytest.raises(MalformedTokenError):
        read_jws(token)


def unacceptable(token: str) -> None:
    with pytest.raises(UnacceptableTokenError):
        read_jws(token)


# Whole tokens


@pytest.mark.parametrize("name", GOOD_SIGNERS)
def test_a_token_is_verified_by_the_key_that_signed_it(name: str) -> None:
    make, how = GOOD_SIGNERS[name]
    key = make()
    token = mint(claims(), key, sign=how(key))

    assert verified_by(read_jws(token), [anchor(key)], NOW) == anchor(key)


@pytest.mark.parametrize("name", GOOD_SIGNERS)
def test_a_token_is_verified_by_no_other_key_of_its_kind(name: str) -> None:
    make, how = GOOD_SIGNERS[name]
    key = make()
    token = mint(claims(), key, sign=how(key))

    assert not verifies(token, anchor(rsa_key("stranger")), anchor(p256(1002)))


def test_a_token_is_taken_apart_into_the_bytes_that_were_signed() -> None:
    """White space and the order of names are the signer's own."""
    header, payload = b' {\n"typ":"x", "alg" :"RS256" }\r\n', b'\t{"b" :1,"a":[ ]} '
    token = mint(payload, header=header)

    found = read_jws(token)

    assert found.algorithm == "RS256"
    assert found.payload == payload
    assert found.signing_input == f"{base64url(header)}.{base64url(payload)}".encode("ascii")
    assert base64url(found.signature) == token.split(".")[2]
    assert verifies(token, anchor(rsa_key()))


def test_the_payload_is_not_looked_at() -> None:
    assert verifies(mint(b"\xff\x00 no JSON"), anchor(rsa_key()))


@pytest.mark.parametrize("part", [0, 1, 2])
def test_parts_of_two_tokens_are_no_token(part: int) -> None:
    first = mint(claims(), header={"alg": "RS256", "kid": "1"}).split(".")
    second = mint(claims(sub="other"), header={"alg": "RS256", "kid": "2"}).split(".")
    first[part] = second[part]

    assert not verifies(".".join(first), anchor(rsa_key()))


# Segments


@pytest.mark.parametrize("dots", [0, 1, 3, 4, 200])
def test_a_token_has_three_segments(dots: int) -> None:
    malformed(".".join([base64url(encode(RS256)), *["e30"] * dots]))


@pytest.mark.parametrize(
    "token", ["", ".", "..", "...", " ", "s3cret", "=.=.=", "\n\n", "a.b.c", "e30.e30.e30"]
)
def test_what_is_no_token_at_all_is_malformed(token: str) -> None:
    malformed(token)


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize(
    "bad",
    [
        *("", "=", "==", "A", "AAAAA", "QQ===", "Q=Q=", "=QQ", "QQ=A", "Q Q", "QQ\n", "\nQQ"),
        *("QQ\r", "Q+Q", "Q/Q", "QQ\0", "QÄ", "Q\uff21", "QQ\u2028", "\ud800QQ", "Q,Q", "Q%3D"),
    ],
)
def test_no_segment_is_anything_but_base64url(part: int, bad: str) -> None:
    parts = mint(claims()).split(".")
    parts[part] = bad

    malformed(".".join(parts))


@pytest.mark.parametrize(("part", "filler"), [(0, "   "), (1, "xx"), (1, "x"), (2, "")])
def test_a_segment_has_one_spelling(part: int, filler: str) -> None:
    """Bits after the last whole octet are zero (RFC 4648 s3.5)."""
    texts = [json.dumps(RS256) + (filler if part == 0 else ""), filler if part == 1 else "xx"]
    parts = mint(texts[1].encode(), header=texts[0].encode()).split(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    unused = {2: 4, 3: 2}[len(parts[part]) % 4]
    last = alphabet.index(parts[part][-1])
    assert last % 2**unused == 0
    for bits in range(1, 2**unused):
        changed = list(parts)
        changed[part] = parts[part][:-1] + alphabet[last + bits]

        malformed(".".join(changed))


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("padded", ["h", "p", "s", "hp", "hs", "ps", "hps"])
@pytest.mark.parametrize("name", GOOD_SIGNERS)
def test_padding_that_was_signed_is_tolerated(name: str, padded: str, size: int) -> None:
    """Payloads of every length modulo three."""
    make, how = GOOD_SIGNERS[name]
    key = make()
    token = mint(b"x" * size, key, sign=how(key), padded=padded)

    assert verifies(token, anchor(key))
    assert read_jws(token).payload == b"x" * size


@pytest.mark.parametrize("pad", ["=", "=="])
@pytest.mark.parametrize(("part", "tolerated"), [(0, False), (1, False), (2, True)])
def test_padding_added_later_breaks_what_was_signed(part: int, pad: str, tolerated: bool) -> None:  # noqa: FBT001 - a column of the table
    """Nothing signs the signature's own spelling."""
    parts = mint(claims()).split(".")
    parts[part] += pad

    assert verifies(".".join(parts), anchor(rsa_key())) is tolerated


@pytest.mark.parametrize("part", [0, 1])
def test_padding_taken_away_later_breaks_what_was_signed(part: int) -> None:
    parts = mint(b"x", header=json.dumps(RS256).encode() + b" ", padded="hp").split(".")
    assert parts[part].endswith("=")
    parts[part] = parts[part].rstrip("=")

    assert not verifies(".".join(parts), anchor(rsa_key()))


# Headers


@pytest.mark.parametrize(
    "algorithm",
    [
        *("none", "None", "NONE", "", "HS256", "HS384", "HS512", "PS256", "PS384", "PS512", "RS1"),
        *("RS384", "RS512", "ES384", "ES512", "ES256K", "EdDSA", "rs256", "Rs256", "es256"),
        *("RS256 ", " RS256", "RS256\n", "RS256\0", "RS-256", "RSA-SHA256", "RSA1_5", "dir"),
        *("\uff32S256", "RS256,ES256", "RS\u0662\u0665\u0666"),
    ],
)
def test_no_algorithm_but_two_is_accepted(algorithm: str) -> None:
    unacceptable(mint(claims(), header={"alg": algorithm}))


@pytest.mark.parametrize("signature", ["AA", "e30", base64url(b"\0" * 64)])
def test_a_token_that_nobody_signed_is_not_accepted(signature: str) -> None:
    header, payload = base64url(encode({"alg": "none"})), base64url(encode(claims()))

    unacceptable(f"{header}.{payload}.{signature}")
    malformed(f"{header}.{payload}.")


@pytest.mark.parametrize("algorithm", [None, True, 256, 1.5, [], ["RS256"], {}, {"RS256": 1}])
def test_an_algorithm_is_a_string(algorithm: Any) -> None:
    malformed(mint(claims(), header={"alg": algorithm}))


@pytest.mark.parametrize("name", ["", "ALG", "Alg", "alg ", "typ"])
def test_a_header_without_an_algorithm_is_malformed(name: str) -> None:
    malformed(mint(claims(), header={name: "RS256"}))


@pytest.mark.parametrize("crit", [None, [], ["exp"], ["b64"], "", 0, False, {}])
@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "none"])
def test_critical_extensions_are_refused_whatever_they_are(algorithm: str, crit: Any) -> None:
    unacceptable(mint(claims(), header={"alg": algorithm, "crit": crit}))


@pytest.mark.parametrize(
    "extra",
    [
        {"kid": "../../dev/null"},
        {"kid": 7},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/cert"},
        {"x5c": ["MIIB"]},
        {"x5t": "AAAA", "x5t#S256": "AAAA"},
        {"jwk": {"kty": "oct", "k": "AAAA"}},
        {"typ": "JOSE", "cty": "JWT", "zip": "DEF", "b64": False, "Crit": ["x"]},
        {"a": {"b": [None, True, 1.5, {"c": "\u00e9"}]}},
    ],
)
def test_what_else_a_header_says_changes_nothing(extra: dict[str, Any]) -> None:
    token = mint(claims(), header={"alg": "RS256", **extra})

    assert verifies(token, anchor(rsa_key()))
    assert not verifies(token, anchor(rsa_key("stranger")))


def test_a_key_that_comes_with_the_token_verifies_nothing() -> None:
    stranger = p256(666)
    public = stranger.public_key().public_numbers()
    size = 32
    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "x": base64url(public.x.to_bytes(size, "big")),
        "y": base64url(public.y.to_bytes(size, "big")),
    }
    spki = stranger.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header = {"alg": "ES256", "jwk": jwk, "x5c": [base64url(spki)], "kid": "connector"}

    assert not verifies(mint(claims(), stranger, header=header), anchor(p256()), anchor(rsa_key()))


@pytest.mark.parametrize("name", BROKEN_JSON)
def test_a_header_is_one_object_in_which_no_name_stands_twice(name: str) -> None:
    malformed(mint(claims(), header=BROKEN_JSON[name]))


@pytest.mark.parametrize("name", BROKEN_JSON)
def test_the_error_does_not_repeat_what_was_read(name: str) -> None:
    with pytest.raises(MalformedTokenError) as error:
        read_object(BROKEN_JSON[name], "header")

    assert "header" in str(error.value)
    assert "RS256" not in str(error.value)
    assert len(str(error.value)) < 100


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"{}", {}),
        (b' {"a" : {"a": {"a": 1}}, "b": [{"a": 1}, {"a": 1}]} \n', None),
        (b'{"a": "\\ud83d\\ude00", "A": "\\u0000"}', {"a": "\U0001f600", "A": "\0"}),
        ('{"\u00e9": "\u9375"}'.encode(), {"\u00e9": "\u9375"}),
        (b'{"a": -0, "b": 1e400, "c": 1E2}', {"a": 0, "b": Decimal("1e400"), "c": 100}),
    ],
)
def test_any_object_is_read(data: bytes, expected: dict[str, Any] | None) -> None:
    assert read_object(data, "payload") == (json.loads(data) if expected is None else expected)
