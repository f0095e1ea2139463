"""Claims of every kind under good signatures: judged as a few plain rules have it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.validator.challenges.token import AnchorPool, TokenRules, check_token
from shared.log.reasons import Reason
from shared.x509.csr import CertificationRequest
from tests.support.messages import COMMON_NAME, UTF8, name, tlv
from tests.support.signed_challenges import (
    ABSENT,
    ISSUER,
    NONCE,
    anchor,
    dns,
    mint,
    p256,
    request,
    rfc822,
    upn,
    uri,
)
from tests.support.world import NOW

pytestmark = pytest.mark.slow

POOL: Final = AnchorPool((anchor(p256()),))
LAST_SECOND: Final = 253_402_300_799
GATES: Final = ("signature", "version", "time", "audience", "binding")
KINDS: Final = ("san_dns", "san_rfc822", "san_upn")
SID: Final = "tag:microsoft.com,2022-09-14:sid:S-1-5-21-1-2-3-1104"
Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Plain:
    """A CSR, and in plain words what it asks for; names are in lower case."""

    csr: CertificationRequest
    common_names: tuple[str, ...] = ("device",)
    names: Mapping[str, set[str]] = field(default_factory=dict)
    others: bool = False


TWO_NAMES: Final = name((COMMON_NAME, UTF8, b"device"), (COMMON_NAME, UTF8, b"other"))
PLAIN: Final = (
    Plain(request()),
    Plain(request(dns("device.example")), names={"san_dns": {"device.example"}}),
    Plain(
        request(dns("Device.Example"), dns("device.example"), upn("U@x"), uri(SID)),
        names={"san_dns": {"device.example"}, "san_upn": {"u@x"}},
    ),
    Plain(
        request(rfc822("m@x"), rfc822("n@x"), subject=name((COMMON_NAME, UTF8, b"Device"))),
        common_names=("Device",),
        names={"san_rfc822": {"m@x", "n@x"}},
    ),
    Plain(request(tlv(0x87, bytes(4)), subject=name()), common_names=(), others=True),
    Plain(
        request(upn("u@x"), uri("urn:x:y"), subject=TWO_NAMES),
        common_names=("device", "other"),
        names={"san_upn": {"u@x"}},
        others=True,
    ),
)


# The oracle


def is_time(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= LAST_SECOND


def is_names(value: Any) -> bool:
    return type(value) is list and {type(each) for each in value} <= {str}


def several(audience: Any) -> list[str]:
    return audience if isinstance(audience, list) else [audience]


def well_formed(fields: Fields) -> bool:
    texts = all(type(fields.get(each)) is str and fields[each] for each in ("iss", "sub", "nonce"))
    times = all(is_time(fields.get(each)) for each in ("iat", "exp"))
    optional = type(fields.get("device_name", "")) is str and (
        type(fields.get("aud", "")) is str or is_names(fields["aud"])
    )
    return texts and times and optional and all(is_names(fields.get(each, [])) for each in KINDS)


def bound(fields: Fields, rules: TokenRules, plain: Plain) -> bool:
    """Whether the request asks for what the token says."""
    if len(plain.common_names) > 1:
        return False
    if "device_name" in fields and plain.common_names != (fields["device_name"],):
        return False
    for kind in KINDS:
        claimed = {each.strip().lower() for each in fields.get(kind, [])}
        bare = kind not in fields and rules.allow_unclaimed
        if not bare and claimed != plain.names.get(kind, set()):
            return False
    return rules.allow_unclaimed or not plain.others


def answers(fields: Fields, rules: TokenRules, plain: Plain) -> Iterator[tuple[bool, str, Reason]]:
    """(whether it refuses, gate, reason) of each rule, by the specification's table."""
    yield fields.get("version", "") not in ("", "v1"), "version", Reason.UNKNOWN_VERSION
    yield not well_formed(fields), "version", Reason.MALFORMED
    issued, expires = fields["iat"], fields["exp"]
    yield NOW + rules.tolerance < issued, "time", Reason.NOT_YET_VALID
    yield NOW - rules.tolerance >= expires, "time", Reason.EXPIRED
    yield 0 < rules.validity < NOW - issued, "time", Reason.EXPIRED
    other = rules.audience is not None and rules.audience not in several(fields.get("aud"))
    yield other, "audience", Reason.WRONG_AUDIENCE
    yield not bound(fields, rules, plain), "binding", Reason.CLAIM_MISMATCH


def expected(fields: Fields, rules: TokenRules, plain: Plain) -> tuple[str, Reason] | None:
    """The gate that refuses first, and why."""
    refusals = ((gate, reason) for no, gate, reason in answers(fields, rules, plain) if no)
    return next(refusals, None)


# Tokens and rules

ODD: Final = st.sampled_from(
    [
        *(None, True, False, 0, 1, -1, NOW, 1.5, float(NOW), 10**15, "", "x", str(NOW)),
        *([], ["x"], [1], [None], ["x", 1], [["x"]], {}, {"x": 1}, LAST_SECOND, LAST_SECOND + 1),
    ]
)
SECONDS: Final = (0, 1, 59, 60, 61, 99, 100, 101, 3599, 3600, 3601, 10**8)
TIMES: Final = st.sampled_from([NOW + sign * by for sign in (-1, 1) for by in SECONDS])
NAMES: Final = st.lists(
    st.sampled_from(["device.example", "DEVICE.example ", "u@x", "U@X", "m@x", "n@x", "b", ""]),
    max_size=3,
)


def mostly(good: st.SearchStrategy[Any], odds: int = 12) -> st.SearchStrategy[Any]:
    """A good value, and now and then none or an odd one."""
    choices = [good] * (odds - 2) + [ODD, st.just(ABSENT)]
    return st.sampled_from(choices).flatmap(lambda choice: choice)


FIELDS: Final = st.fixed_dictionaries(
    {
        "version": st.sampled_from([*[ABSENT, "", "v1"] * 6, "v2", "V1", "1", " "]),
        "iss": mostly(st.just(ISSUER), 24),
        "sub": mostly(st.just("device-1"), 24),
        "iat": mostly(TIMES | st.just(NOW), 24),
        "exp": mostly(TIMES | st.just(NOW + 3600), 24),
        "nonce": mostly(st.just(NONCE), 24),
        "aud": mostly(st.sampled_from(["a", "A", ["A", "a"], [], ABSENT])),
        "device_name": mostly(st.sampled_from(["device", "device", "Device", "", ABSENT, ABSENT])),
        **{kind: mostly(NAMES | st.just(ABSENT)) for kind in KINDS},
        "unknown": mostly(ODD),
    }
).map(lambda fields: {name: value for name, value in fields.items() if value is not ABSENT})
RULES: Final = st.builds(
    TokenRules,
    audience=st.sampled_from([None, None, "a"]),
    validity=st.sampled_from([0, 100, 3600]),
    tolerance=st.sampled_from([0, 60]),
    allow_unclaimed=st.booleans(),
)


@st.composite
def agreeing(draw: st.DrawFn) -> tuple[Fields, Plain]:
    """Claims made for a request, of which one may be changed."""
    plain = draw(st.sampled_from(PLAIN[:4]))
    fields: dict[str, Any] = {
        "iss": ISSUER,
        "sub": "device-1",
        "iat": NOW - draw(st.sampled_from(SECONDS)),
        "exp": NOW + draw(st.sampled_from(SECONDS)),
        "nonce": NONCE,
        "aud": "a",
        "device_name": plain.common_names[0],
        **{kind: [each.upper() for each in names] for kind, names in plain.names.items()},
    }
    return {
        **fields,
        **draw(st.dictionaries(st.sampled_from(sorted(fields)), ODD, max_size=1)),
    }, plain


def judged(fields: Fields, rules: TokenRules, plain: Plain) -> tuple[str, Reason] | None:
    """What the product says; the gates before the one that refused have passed."""
    found = check_token(mint(fields, p256()), POOL, rules, plain.csr, NOW).verified
    gates = found.gates
    assert tuple(gate.gate for gate in gates) == GATES[: len(gates)]
    assert all(gate.passed for gate in gates[:-1])
    assert gates[-1].passed is (found.refusal is None)
    if found.refusal is None:
        assert len(gates) == len(GATES)
        return None
    return gates[-1].gate, found.refusal.reason


@settings(max_examples=700)
@given(FIELDS, RULES, st.sampled_from(PLAIN))
def test_claims_of_any_kind_are_judged_as_the_rules_have_it(
    fields: Fields, rules: TokenRules, plain: Plain
) -> None:
    assert judged(fields, rules, plain) == expected(fields, rules, plain)


@settings(max_examples=500)
@given(agreeing(), RULES)
def test_claims_made_for_a_request_are_judged_as_the_rules_have_it(
    made: tuple[Fields, Plain], rules: TokenRules
) -> None:
    fields, plain = made

    assert judged(fields, rules, plain) == expected(fields, rules, plain)


def test_the_oracle_knows_every_answer() -> None:
    """A few tokens of each, so that no rule of it is dead."""
    good = {
        "iss": "i",
        "sub": "s",
        "iat": NOW,
        "exp": NOW + 1,
        "nonce": "n",
        "device_name": "device",
    }
    rules = TokenRules()

    assert expected(good, rules, PLAIN[0]) is None
    assert expected(good, rules, PLAIN[1]) == ("binding", Reason.CLAIM_MISMATCH)
    assert expected(good, TokenRules("a"), PLAIN[0]) == ("audience", Reason.WRONG_AUDIENCE)
    for change, answer in (
        ({"version": "v2"}, Reason.UNKNOWN_VERSION),
        ({"iss": ""}, Reason.MALFORMED),
        ({"iat": True}, Reason.MALFORMED),
        ({"san_dns": None}, Reason.MALFORMED),
        ({"iat": NOW + 61}, Reason.NOT_YET_VALID),
        ({"iat": NOW - 3601}, Reason.EXPIRED),
        ({"exp": NOW - 60}, Reason.EXPIRED),
        ({"san_upn": ["u"]}, Reason.CLAIM_MISMATCH),
    ):
        found = expected({**good, **change}, rules, PLAIN[0])
        assert found is not None
        assert found[1] is answer
        assert judged({**good, **change}, rules, PLAIN[0]) == found
