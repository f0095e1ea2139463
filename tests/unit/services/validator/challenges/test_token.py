"""Gates 2 to 6 in their order: each refusal, what stands before it, and what it does not say."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.validator.challenges.token import AnchorPool, TokenResult, TokenRules, check_token
from shared.limits import DETAIL_CHARACTERS, SAN_ENTRIES
from shared.log.reasons import FAIL_INFO, Reason
from shared.x509.csr import CertificationRequest
from tests.support.messages import COMMON_NAME, UTF8, name, tlv
from tests.support.signed_challenges import (
    ABSENT,
    DAY,
    ISSUER,
    NONCE,
    REQUIRED,
    PrivateKey,
    anchor,
    base64url,
    claims,
    dns,
    encode,
    es256_der,
    mint,
    p256,
    request,
    rfc822,
    rsa_key,
    upn,
    uri,
)
from tests.support.world import NOW
from tests.unit.services.validator.challenges.broken import BROKEN_JSON

GATES: Final = ("signature", "version", "time", "audience", "binding")
AUDIENCE: Final = "https://scep.example/demo"
RULES: Final = TokenRules(audience=AUDIENCE)
POOL: Final = AnchorPool((anchor(rsa_key()), anchor(p256(), "CN=ec")))
ASKED: Final = request(dns("device.example"))
P384: Final = ec.derive_private_key(1001, ec.SECP384R1())
TENANT: Final = "https://tenant.example/a"
OTHER_TENANT: Final = "https://tenant.example/b"


def evaluator(
    token: str,
    rules: TokenRules = RULES,
    *,
    pool: AnchorPool = POOL,
    csr: CertificationRequest = ASKED,
    now: int = NOW,
) -> TokenResult:
    return check_token(token, pool, rules, csr, now)


def passes(judged: TokenResult) -> bool:
    """Whether all gates opened, each asked once and in order."""
    if judged.verified.refusal is not None:
        return False
    assert tuple(gate.gate for gate in judged.verified.gates) == GATES
    assert all(gate.passed for gate in judged.verified.gates)
    assert judged.claims is not None
    assert judged.verified.claim is None
    return True


def refusal(token: str, *arguments: Any, **options: Any) -> tuple[str, Reason]:
    """The gate that refused and why; those before it passed, those behind it were not asked."""
    judged = evaluator(token, *arguments, **options)
    gates, found = judged.verified.gates, judged.verified.refusal
    assert found is not None
    assert tuple(gate.gate for gate in gates) == GATES[: len(gates)]
    assert [gate.passed for gate in gates] == [True] * (len(gates) - 1) + [False]
    assert gates[-1].detail.startswith(found.detail)
    assert (judged.claims is None) == (gates[-1].gate in ("signature", "version"))
    says_nothing_secret(judged, token)
    return gates[-1].gate, found.reason


def says_nothing_secret(judged: TokenResult, token: str) -> None:
    """Details go to logs and records: no token, no part of one, no nonce."""
    refused = judged.verified.refusal
    said = [gate.detail for gate in judged.verified.gates] + [refused.detail if refused else ""]
    secrets = [NONCE, *(part for part in token.split(".") if len(part) > 8)]
    assert not [secret for secret in secrets if any(secret in each for each in said)]
    assert all(len(each) <= DETAIL_CHARACTERS for each in said)


# What passes


@pytest.mark.parametrize("key", [rsa_key(), p256()], ids=["RS256", "ES256"])
@pytest.mark.parametrize("version", [ABSENT, "", "v1"])
def test_a_good_token_passes_every_gate(key: PrivateKey, version: Any) -> None:
    token = mint(claims(version=version), key)

    judged = evaluator(token)

    assert passes(judged)
    assert judged.claims is not None
    assert (judged.claims.issuer, judged.claims.nonce) == (ISSUER, NONCE)
    says_nothing_secret(judged, token)


def test_a_signature_in_der_passes() -> None:
    assert passes(evaluator(mint(claims(), p256(), sign=es256_der(p256()))))


def test_the_record_says_which_connector_signed() -> None:
    signature = evaluator(mint(claims(), p256())).verified.gates[0]

    assert (signature.gate, signature.detail) == ("signature", "ES256 by CN=ec")


def test_a_token_with_nothing_but_what_is_required_passes() -> None:
    few = {name: claims()[name] for name in REQUIRED}

    assert passes(evaluator(mint(few), TokenRules(), csr=request()))


@pytest.mark.parametrize("padded", ["h", "p", "s", "hps"])
def test_padding_of_the_signer_s_own_passes(padded: str) -> None:
    assert passes(evaluator(mint(claims(x="."), padded=padded)))
    assert passes(evaluator(mint(claims(x=".."), padded=padded)))


def test_what_a_token_says_beyond_its_claims_changes_nothing() -> None:
    header = {"alg": "RS256", "kid": "x", "jku": "https://evil.example", "x5c": ["AAAA"]}

    assert passes(evaluator(mint(claims(nbf=NOW + DAY, jti=None, roles=[1.5, {}]), header=header)))


def test_a_token_is_judged_by_its_time_and_not_by_what_was_judged_before() -> None:
    token = mint(claims())

    assert [evaluator(token, now=now).verified for now in (NOW, NOW + DAY, NOW)] == [
        evaluator(token).verified,
        evaluator(token, now=NOW + DAY).verified,
        evaluator(token).verified,
    ]


# Gate 2


@pytest.mark.parametrize(
    "token",
    [
        *("", "s3cret", "a.b", "a.b.c", "a.b.c.d", "..", "x" * 30_000, "." * 30_000),
        *("OT-00000-00000-00000-00000-00000", "e30.e30.e30", "\ud800.\ud800.\ud800", "\0"),
    ],
    ids=lambda token: ascii(token[:12]),
)
def test_what_is_no_token_is_malformed(token: str) -> None:
    assert refusal(token) == ("signature", Reason.MALFORMED)


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("bad", ["", "=", "Q", "QQ===", "Q Q", "QQ\n", "Q+/Q", "QR", "\u00e9QQQ"])
def test_segments_that_are_not_base64url_are_malformed(part: int, bad: str) -> None:
    parts = mint(claims()).split(".")
    parts[part] = bad

    assert refusal(".".join(parts)) == ("signature", Reason.MALFORMED)


@pytest.mark.parametrize("name", BROKEN_JSON)
def test_a_header_that_is_no_object_is_malformed(name: str) -> None:
    token = mint(claims(), header=BROKEN_JSON[name])

    assert refusal(token) == ("signature", Reason.MALFORMED)


OTHER_ALGORITHMS: Final = ("none", "HS256", "PS256", "RS512", "")
NO_ALGORITHMS: Final[list[Any]] = [None, 256, True, ["RS256"], {}]
HEADERS: Final[list[tuple[Mapping[str, Any], Reason]]] = [
    *(({"alg": algorithm}, Reason.SIGNATURE_INVALID) for algorithm in OTHER_ALGORITHMS),
    *(({"alg": algorithm}, Reason.MALFORMED) for algorithm in NO_ALGORITHMS),
    ({}, Reason.MALFORMED),
    ({"typ": "JWT"}, Reason.MALFORMED),
    ({"alg": "RS256", "crit": []}, Reason.SIGNATURE_INVALID),
    ({"alg": "RS256", "crit": ["exp"]}, Reason.SIGNATURE_INVALID),
    ({"alg": "RS256", "crit": None}, Reason.SIGNATURE_INVALID),
    ({"alg": "ES256"}, Reason.SIGNATURE_INVALID),
]


@pytest.mark.parametrize(("header", "reason"), HEADERS, ids=repr)
def test_a_header_that_asks_for_something_else_is_refused(
    header: Mapping[str, Any], reason: Reason
) -> None:
    """Though a connector's key has signed it."""
    assert refusal(mint(claims(), header=header)) == ("signature", reason)


@pytest.mark.parametrize(
    "token",
    [
        mint(claims(), rsa_key("stranger")),
        mint(claims(), p256(1002)),
        mint(claims(), p256(1002), sign=es256_der(p256(1002))),
        mint(claims(), header={"alg": "RS256"}, sign=lambda _: b"\0" * 256),
        mint(claims(), header={"alg": "ES256"}, sign=lambda _: b"\0" * 64),
        mint(b"no JSON", rsa_key("stranger")),
        mint(b"{}", rsa_key("stranger")),
    ],
    ids=["RSA", "P-256", "P-256 in DER", "zeros", "64 zeros", "no JSON", "no claims"],
)
def test_a_stranger_s_token_is_refused_for_its_signature(token: str) -> None:
    assert refusal(token) == ("signature", Reason.SIGNATURE_INVALID)


@pytest.mark.parametrize("part", [0, 1])
def test_padding_added_after_signing_is_refused(part: int) -> None:
    parts = mint(claims()).split(".")
    parts[part] += "="

    assert refusal(".".join(parts)) == ("signature", Reason.SIGNATURE_INVALID)
    assert passes(evaluator(f"{mint(claims())}=="))


def test_claims_changed_after_signing_are_refused() -> None:
    header, _, signature = mint(claims()).split(".")
    payload = base64url(encode(claims(sub="another device")))

    assert refusal(f"{header}.{payload}.{signature}") == ("signature", Reason.SIGNATURE_INVALID)


@pytest.mark.parametrize(
    ("not_before", "not_after", "expected"),
    [
        (NOW, NOW, True),
        (NOW + 1, NOW + DAY, False),
        (NOW - DAY, NOW - 1, False),
        (NOW - DAY, NOW, True),
    ],
)
@pytest.mark.parametrize("tolerance", [0, 60])
def test_no_tolerance_prolongs_an_anchor(
    not_before: int,
    not_after: int,
    expected: bool,  # noqa: FBT001 - a column of the table
    tolerance: int,
) -> None:
    pool = AnchorPool((anchor(rsa_key(), not_before=not_before, not_after=not_after),))
    rules = replace(RULES, tolerance=tolerance)

    assert passes(evaluator(mint(claims()), rules, pool=pool)) is expected


def test_the_record_says_how_many_anchors_were_tried() -> None:
    pool = AnchorPool(
        (
            anchor(p256()),
            anchor(rsa_key(), not_after=NOW - 1),
            anchor(rsa_key(), not_before=NOW + 1),
        )
    )
    judged = evaluator(mint(claims()), pool=pool)

    assert "1 valid of 3" in judged.verified.gates[-1].detail
    assert refusal(mint(claims()), pool=pool) == ("signature", Reason.SIGNATURE_INVALID)


@pytest.mark.parametrize(
    "pool",
    [
        AnchorPool(),
        AnchorPool((anchor(P384),)),
        AnchorPool((anchor(p256()),)),
        AnchorPool((), {ISSUER: ()}),
        AnchorPool((anchor(rsa_key()),), {ISSUER: ()}),
    ],
    ids=["none", "P-384", "P-256", "a tenant without", "a tenant without, beside others"],
)
def test_without_a_fitting_anchor_nothing_passes(pool: AnchorPool) -> None:
    assert refusal(mint(claims()), pool=pool) == ("signature", Reason.SIGNATURE_INVALID)


def test_a_tenant_without_a_bundle_is_named_where_there_is_no_common_one() -> None:
    pool = AnchorPool((), {TENANT: (anchor(p256()),)})
    token = mint(claims(iss="https://other.example/" + "x" * 500), p256())
    refused = evaluator(token, pool=pool).verified

    assert refusal(token, pool=pool) == ("signature", Reason.SIGNATURE_INVALID)
    assert refused.refusal is not None
    assert refused.refusal.detail == "no trust anchors are configured for the token's issuer"
    assert "iss https://other.example/xxx" in refused.gates[-1].detail
    assert "x" * 100 not in refused.gates[-1].detail
    assert passes(evaluator(mint(claims(iss=TENANT), p256()), pool=pool))


def test_a_p384_anchor_verifies_nothing() -> None:
    pool = AnchorPool((anchor(P384),))

    for token in (
        mint(claims(), P384),
        mint(claims(), P384, sign=es256_der(P384)),
        mint(claims(), P384, header={"alg": "ES384"}),
    ):
        assert refusal(token, pool=pool) == ("signature", Reason.SIGNATURE_INVALID)


# Tenants


TENANT_KEYS: Final[Mapping[str, PrivateKey]] = {
    TENANT: p256(2001),
    OTHER_TENANT: p256(2002),
    "common": p256(),
}
TENANTS: Final = AnchorPool(
    (anchor(p256()),),
    {
        TENANT: (anchor(rsa_key("tenant"), "CN=a1"), anchor(p256(2001), "CN=a2")),
        OTHER_TENANT: (anchor(p256(2002), "CN=b"),),
    },
)


@pytest.mark.parametrize("key", TENANT_KEYS)
@pytest.mark.parametrize(
    ("issuer", "owner"),
    [
        (TENANT, TENANT),
        (OTHER_TENANT, OTHER_TENANT),
        (ISSUER, "common"),
        (f"{TENANT}/", "common"),
        (TENANT.upper(), "common"),
        (f" {TENANT}", "common"),
        ("common", "common"),
    ],
)
def test_a_tenant_s_tokens_are_verified_by_its_own_anchors_alone(
    issuer: str, owner: str, key: str
) -> None:
    """And the common ones verify those of everyone else, told by `iss` to the letter."""
    token = mint(claims(iss=issuer), TENANT_KEYS[key])

    if key == owner:
        assert passes(evaluator(token, pool=TENANTS))
    else:
        assert refusal(token, pool=TENANTS) == ("signature", Reason.SIGNATURE_INVALID)


def test_each_of_a_tenant_s_anchors_verifies() -> None:
    assert passes(evaluator(mint(claims(iss=TENANT), rsa_key("tenant")), pool=TENANTS))
    assert passes(evaluator(mint(claims(iss=TENANT), p256(2001)), pool=TENANTS))


def test_a_tenant_s_expired_anchor_is_not_replaced_by_common_ones() -> None:
    expired = anchor(p256(2001), not_after=NOW - 1)
    pool = AnchorPool((anchor(p256()), anchor(p256(2001))), {TENANT: (expired,)})

    for key in (p256(), p256(2001)):
        token = mint(claims(iss=TENANT), key)
        assert refusal(token, pool=pool) == ("signature", Reason.SIGNATURE_INVALID)


@pytest.mark.parametrize("value", [None, 7, "", [TENANT], {"x": TENANT}, ABSENT])
@pytest.mark.parametrize("key", TENANT_KEYS)
def test_a_token_without_an_issuer_is_nobody_s(value: Any, key: str) -> None:
    """It may be signed by whom it will."""
    token = mint(claims(iss=value), TENANT_KEYS[key])
    expected = (
        ("version", Reason.MALFORMED)
        if key == "common"
        else ("signature", Reason.SIGNATURE_INVALID)
    )

    assert refusal(token, pool=TENANTS) == expected


@pytest.mark.parametrize("issuers", [(TENANT, ISSUER), (ISSUER, TENANT), (TENANT, TENANT)])
@pytest.mark.parametrize("key", TENANT_KEYS)
def test_a_token_of_two_issuers_is_refused(issuers: tuple[str, str], key: str) -> None:
    first, second = (encode({"iss": issuer})[1:-1] for issuer in issuers)
    payload = b"{%s, %s, %s" % (first, second, encode(claims(iss=ABSENT))[1:])

    assert refusal(mint(payload, TENANT_KEYS[key]), pool=TENANTS)


def test_a_pool_knows_the_anchors_of_all() -> None:
    assert {one.subject for one in TENANTS.all()} == {"CN=connector", "CN=a1", "CN=a2", "CN=b"}
    assert AnchorPool().all() == ()


# Gate 3


@pytest.mark.parametrize("version", ["v2", "V1", "v1 ", "1", "v10", "\u0076\uff11"])
def test_an_unknown_version_is_refused(version: str) -> None:
    assert refusal(mint(claims(version=version))) == ("version", Reason.UNKNOWN_VERSION)
    assert refusal(mint({"version": version})) == ("version", Reason.UNKNOWN_VERSION)


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("rules", [RULES, TokenRules(validity=0, allow_unclaimed=True)])
def test_a_missing_claim_switches_no_gate_off(name: str, rules: TokenRules) -> None:
    assert refusal(mint(claims(**{name: ABSENT})), rules) == ("version", Reason.MALFORMED)


ODD: Final[dict[str, list[Any]]] = {
    "all": [None, "", True, [], {}],
    "texts": [None, 1, 1.5, [1], {}],
    "names": [None, "x", [1], {}],
    "times": [0, -1, -1.5, 10**300],
}


@pytest.mark.parametrize(
    "changes",
    [
        *({name: value} for name in REQUIRED for value in ODD["all"]),
        *({name: value} for name in ("aud", "device_name") for value in ODD["texts"]),
        *({name: value} for name in ("san_dns", "san_upn") for value in ODD["names"]),
        *({name: value} for name in ("iat", "exp") for value in ODD["times"]),
    ],
    ids=repr,
)
def test_claims_of_another_type_are_malformed(changes: dict[str, Any]) -> None:
    assert refusal(mint(claims(**changes))) == ("version", Reason.MALFORMED)


@pytest.mark.parametrize("name", [name for name, broken in BROKEN_JSON.items() if broken])
def test_a_payload_that_is_no_object_is_malformed(name: str) -> None:
    assert refusal(mint(BROKEN_JSON[name])) == ("version", Reason.MALFORMED)


# Gate 4


@pytest.mark.parametrize("tolerance", [0, 1, 60, 86400])
@pytest.mark.parametrize(("past", "expected"), [(-1, True), (0, True), (1, False)])
def test_a_token_is_not_valid_before_it_was_issued(
    tolerance: int,
    past: int,
    expected: bool,  # noqa: FBT001 - a column of the table
) -> None:
    token = mint(claims(iat=NOW + tolerance + past, exp=NOW + 10 * DAY))
    rules = replace(RULES, tolerance=tolerance)

    if expected:
        assert passes(evaluator(token, rules))
    else:
        assert refusal(token, rules) == ("time", Reason.NOT_YET_VALID)


@pytest.mark.parametrize("tolerance", [0, 1, 60, 86400])
@pytest.mark.parametrize(("left", "expected"), [(-1, False), (0, False), (1, True)])
def test_a_token_ends_in_the_second_that_it_names(
    tolerance: int,
    left: int,
    expected: bool,  # noqa: FBT001 - a column of the table
) -> None:
    token = mint(claims(iat=NOW - 10 * DAY, exp=NOW - tolerance + left))
    rules = replace(RULES, tolerance=tolerance, validity=0)

    if expected:
        assert passes(evaluator(token, rules))
    else:
        assert refusal(token, rules) == ("time", Reason.EXPIRED)


@pytest.mark.parametrize("validity", [1, 3600, 86400])
@pytest.mark.parametrize("tolerance", [0, 60])
@pytest.mark.parametrize(("past", "expected"), [(-1, True), (0, True), (1, False), (60, False)])
def test_a_token_is_never_older_than_the_profile_allows(
    validity: int,
    tolerance: int,
    past: int,
    expected: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """Whatever its own end, and without tolerance."""
    token = mint(claims(iat=NOW - validity - past, exp=NOW + 365 * DAY))
    rules = replace(RULES, validity=validity, tolerance=tolerance)

    if expected:
        assert passes(evaluator(token, rules))
    else:
        assert refusal(token, rules) == ("time", Reason.EXPIRED)


@pytest.mark.parametrize("issued", [1, NOW - 20 * 365 * DAY, NOW])
def test_without_a_cap_a_token_s_own_end_counts_alone(issued: int) -> None:
    rules = replace(RULES, validity=0)

    assert passes(evaluator(mint(claims(iat=issued, exp=NOW + 1)), rules))
    assert passes(evaluator(mint(claims(iat=issued, exp=253_402_300_799)), rules))
    assert refusal(mint(claims(iat=issued, exp=NOW - 60)), rules) == ("time", Reason.EXPIRED)


def test_a_token_that_is_too_early_and_too_late_is_too_early() -> None:
    token = mint(claims(iat=NOW + DAY, exp=1))

    assert refusal(token) == ("time", Reason.NOT_YET_VALID)


def test_the_record_says_which_times_were_compared() -> None:
    detail = evaluator(mint(claims(iat=NOW, exp=NOW - DAY))).verified.gates[-1].detail

    assert "issued 2026-01-01T00:00:00Z" in detail
    assert "expires 2025-12-31T00:00:00Z" in detail
    assert "now 2026-01-01T00:00:00Z" in detail


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("60.0", "1970-01-01T00:01:00Z"),
        ("0.5", "1970-01-01T00:00:00.5Z"),
        ("10.050", "1970-01-01T00:00:10.05Z"),
        ("0.0000000001", "1970-01-01T00:00:00Z"),
        ("0.9999999999", "1970-01-01T00:00:00.999999999Z"),
        ("1e-999999999", "1970-01-01T00:00:00Z"),
    ],
)
def test_a_fraction_of_a_second_is_told_in_nanoseconds(written: str, told: str) -> None:
    payload = json.dumps(claims(iat=1, exp=NOW)).replace('"iat": 1', f'"iat": {written}')
    detail = evaluator(mint(payload.encode())).verified.gates[-1].detail

    assert f"issued {told}," in detail


# Gate 5


@pytest.mark.parametrize(
    ("pinned", "audience", "expected"),
    [
        (None, ABSENT, True),
        (None, "", True),
        (None, "anything", True),
        ("a", "a", True),
        ("a", ABSENT, False),
        ("a", "", False),
        ("a", "A", False),
        ("a", "b", False),
        ("a", "a ", False),
        ("a", " a", False),
        ("a", "a/", False),
        ("a", "aa", False),
        ("a", "\uff41", False),
        ("a", "a\0", False),
        ("K", "\u212a", False),
        ("", ABSENT, False),
        ("\u00e9", "\u00e9", True),
        ("\u00e9", "e\u0301", False),
        ("nothing", ABSENT, False),
    ],
)
def test_a_pinned_audience_is_there_and_equal(
    pinned: str | None,
    audience: Any,
    expected: bool,  # noqa: FBT001 - a column of the table
) -> None:
    token, rules = mint(claims(aud=audience)), replace(RULES, audience=pinned)

    if expected:
        assert passes(evaluator(token, rules))
    else:
        assert refusal(token, rules) == ("audience", Reason.WRONG_AUDIENCE)


@pytest.mark.parametrize("pinned", [None, AUDIENCE])
def test_of_several_audiences_the_pinned_one_is_enough(pinned: str | None) -> None:
    rules = replace(RULES, audience=pinned)
    assert passes(evaluator(mint(claims(aud=[AUDIENCE])), rules))
    assert passes(evaluator(mint(claims(aud=["another", AUDIENCE])), rules))
    for others in ([], ["another"], [AUDIENCE + "/"]):
        judged = evaluator(mint(claims(aud=others)), rules)
        assert passes(judged) is (pinned is None)


@pytest.mark.parametrize(
    ("issued", "expires", "reason"),
    [
        ("{now}.0", "{later}.0", None),
        ("{now}.9", "{later}", None),
        ("{tolerated}.0", "{later}", None),
        ("{tolerated}.00000000000000000001", "{later}", Reason.NOT_YET_VALID),
        ("{now}", "{ended}.00000000000000000001", None),
        ("{now}", "{ended}.0", Reason.EXPIRED),
        ("{oldest}.0", "{later}", None),
        ("{older}.99999999999999999999", "{later}", Reason.EXPIRED),
    ],
)
def test_times_with_a_fraction_are_compared_unrounded(
    issued: str, expires: str, reason: Reason | None
) -> None:
    rules = replace(RULES, tolerance=60, validity=3600)
    times = {
        "now": NOW,
        "later": NOW + 3600,
        "tolerated": NOW + 60,
        "ended": NOW - 60,
        "oldest": NOW - 3600,
        "older": NOW - 3601,
    }
    payload = json.dumps(claims(iat=7, exp=8)).replace('"iat": 7', '"iat": ' + issued)
    payload = payload.replace('"exp": 8', '"exp": ' + expires)
    for moment, value in times.items():
        payload = payload.replace(f"{{{moment}}}", str(value))
    token = mint(payload.encode())

    if reason is None:
        assert passes(evaluator(token, rules))
    else:
        assert refusal(token, rules) == ("time", reason)


# Gate 6


NAMED: Final = dns("device.example")


@pytest.mark.parametrize(
    ("csr", "dimension"),
    [
        (request(NAMED, subject=name((COMMON_NAME, UTF8, b"Device"))), "device_name"),
        (request(NAMED, subject=name()), "device_name"),
        (request(), "san_dns"),
        (request(dns("other.example")), "san_dns"),
        (request(NAMED, dns("other.example")), "san_dns"),
        (request(NAMED, rfc822("a@b.example")), "san_rfc822"),
        (request(NAMED, upn("a@b.example")), "san_upn"),
        (request(NAMED, uri("urn:x:y")), "san_other"),
        (request(NAMED, tlv(0x87, bytes(4))), "san_other"),
    ],
)
def test_a_request_for_something_else_is_refused(csr: CertificationRequest, dimension: str) -> None:
    token = mint(claims())

    assert refusal(token, csr=csr) == ("binding", Reason.CLAIM_MISMATCH)
    assert dimension in evaluator(token, csr=csr).verified.gates[-1].detail


def test_unclaimed_names_pass_where_the_profile_allows_them() -> None:
    csr = request(NAMED, rfc822("a@b.example"), upn("a@b.example"), tlv(0x87, bytes(4)))
    rules = replace(RULES, allow_unclaimed=True)

    assert passes(evaluator(mint(claims()), rules, csr=csr))
    assert refusal(mint(claims(san_upn=[])), rules, csr=csr) == ("binding", Reason.CLAIM_MISMATCH)


def test_what_was_compared_is_told_as_far_as_it_fits() -> None:
    """A request may ask for thousands of names."""
    csr = request(*(dns(f"{index}.device.example") for index in range(SAN_ENTRIES)))

    assert refusal(mint(claims()), csr=csr) == ("binding", Reason.CLAIM_MISMATCH)


# All together


BAD: Final[dict[str, dict[str, Any]]] = {
    "version": {"version": "v9"},
    "missing": {"nonce": ABSENT},
    "early": {"iat": NOW + DAY},
    "late": {"iat": 1, "exp": NOW - DAY},
    "audience": {"aud": "another"},
    "binding": {"device_name": "another"},
}
LADDER: Final = [
    (("stranger", "version", "late", "audience", "binding"), "signature", Reason.SIGNATURE_INVALID),
    (("stranger", "missing"), "signature", Reason.SIGNATURE_INVALID),
    (("version", "missing", "late", "audience", "binding"), "version", Reason.UNKNOWN_VERSION),
    (("missing", "late", "audience", "binding"), "version", Reason.MALFORMED),
    (("late", "audience", "binding"), "time", Reason.EXPIRED),
    (("early", "audience", "binding"), "time", Reason.NOT_YET_VALID),
    (("audience", "binding"), "audience", Reason.WRONG_AUDIENCE),
    (("binding",), "binding", Reason.CLAIM_MISMATCH),
]


@pytest.mark.parametrize(("faults", "gate", "reason"), LADDER)
def test_the_first_gate_that_refuses_ends_it(
    faults: tuple[str, ...], gate: str, reason: Reason
) -> None:
    """Each refuses a token that every later gate would refuse too."""
    changes: dict[str, Any] = {}
    for fault in faults:
        changes |= BAD.get(fault, {})
    key = rsa_key("stranger") if "stranger" in faults else rsa_key()

    assert refusal(mint(claims(**changes), key)) == (gate, reason)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("malformed", 2),
        ("signature_invalid", 1),
        ("unknown_version", 2),
        ("not_yet_valid", 3),
        ("expired", 3),
        ("wrong_audience", 1),
        ("claim_mismatch", 2),
        ("replay", 1),
        ("rate_limited", 2),
        ("device_state_failed", 2),
    ],
)
def test_every_refusal_has_its_failinfo(reason: str, expected: int) -> None:
    assert FAIL_INFO[Reason(reason)] == expected
