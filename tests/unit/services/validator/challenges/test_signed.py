"""A connector's token through all gates: which comes first, and what is left where one refuses."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cli.connector.signing import Connector
from services.validator.challenges.device_state import DeviceAnswer, DeviceQuestion, DeviceStateGate
from services.validator.challenges.token import AnchorPool, TokenRules
from shared.log.envelope import Stored
from shared.log.events.certificates import KeyCompromised
from shared.log.reasons import Reason
from shared.log.subjects import key_compromised, key_issued
from tests.support import signed_challenges as tokens
from tests.support.enrollers import (
    CONNECTOR,
    OTHER_CONNECTOR,
    SUBJECT,
    anchor,
    ask,
    asked,
    by_token,
    claims,
    dns,
    holder,
    judgement,
    places,
    token,
    verdict,
    windows,
)
from tests.support.messages import Identity
from tests.support.validators import World, validating
from tests.support.world import (
    ISSUER,
    ISSUING,
    NOW,
    PROFILE,
    REQUEST_SHA256,
    SERIAL,
    append_signed,
    counted,
)
from tests.unit.services.validator.records import record

AUDIENCE = "https://scep.example/demo"
POLICY = ("key", "subject", "sans", "compromise")
TOKEN = ("signature", "version", "time", "audience", "binding")
STATEFUL = ("replay", "device_rate", "device_state")
FAIL_INFO = {
    Reason.MALFORMED: 2,
    Reason.SIGNATURE_INVALID: 1,
    Reason.UNKNOWN_VERSION: 2,
    Reason.NOT_YET_VALID: 3,
    Reason.EXPIRED: 3,
    Reason.WRONG_AUDIENCE: 1,
    Reason.CLAIM_MISMATCH: 2,
    Reason.REPLAY: 1,
    Reason.RATE_LIMITED: 2,
    Reason.DEVICE_STATE_FAILED: 2,
}


@dataclass
class Plugin:
    """Says what a test tells it to, and writes down whom it was asked about."""

    allow: bool = True
    asked: list[DeviceQuestion] = field(default_factory=list)

    async def __call__(self, question: DeviceQuestion) -> DeviceAnswer:
        self.asked.append(question)
        return DeviceAnswer(self.allow)


@dataclass
class Gates:
    """A validator with every gate in use."""

    world: World
    plugin: Plugin

    async def ask(self, password: str | None, number: int = 0, *sans: bytes) -> Stored:
        return await ask(self.world, holder(number), password, *sans)

    async def refused(self, request: Stored) -> Reason | str:
        """Judge it; the gates it went through end with the one that refused."""
        reason = await judgement(self.world, request)
        passed = [gate.passed for gate in verdict(self.world, request).gates]
        assert passed == [True] * (len(passed) - 1) + [False]
        return reason

    def names(self, request: Stored) -> tuple[str, ...]:
        return tuple(gate.gate for gate in verdict(self.world, request).gates)


@pytest.fixture
async def gates(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> AsyncIterator[Gates]:
    async with validating(device, ra, ec_key) as world:
        plugin = Plugin()
        rules = TokenRules(audience=AUDIENCE)
        world.accept(by_token(device_state=DeviceStateGate(plugin, 5), rules=rules))
        yield Gates(world, plugin)


def good(nonce: str = "n-1", **claims: Any) -> str:
    return token(nonce, **({"audience": AUDIENCE} | claims))


def with_claims(**changes: Any) -> str:
    """A token by the trusted connector with other claims than it would write."""
    found = {
        "iss": CONNECTOR.name, "sub": SUBJECT, "iat": NOW, "exp": NOW + 3600, "nonce": "n-1",
        "aud": AUDIENCE, "device_name": "device",
    }  # fmt: skip
    key = CONNECTOR.key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return tokens.mint(found | changes, key)


# The order of the gates


async def test_a_good_token_goes_through_every_gate_in_order(gates: Gates) -> None:
    request = await gates.ask(good())

    assert await judgement(gates.world, request) == "approved"
    assert gates.names(request) == POLICY + TOKEN + STATEFUL
    assert all(gate.passed for gate in verdict(gates.world, request).gates)
    assert (len(claims(gates.world)), places(gates.world), len(gates.plugin.asked)) == (1, 1, 1)


EARLY: dict[str, tuple[Callable[[], str | None], Reason, tuple[str, ...]]] = {
    "no challenge": (lambda: None, Reason.CHALLENGE_MISSING, (*POLICY, "challenge")),
    "no token": (lambda: "a password", Reason.MALFORMED, (*POLICY, "signature")),
    "another connector": (
        lambda: good(by=OTHER_CONNECTOR),
        Reason.SIGNATURE_INVALID,
        (*POLICY, "signature"),
    ),
    "its name on another's token": (
        lambda: good(by=Connector(OTHER_CONNECTOR.key, CONNECTOR.name)),
        Reason.SIGNATURE_INVALID,
        (*POLICY, "signature"),
    ),
    "another version": (
        lambda: with_claims(version="v2"),
        Reason.UNKNOWN_VERSION,
        (*POLICY, *TOKEN[:2]),
    ),
    "no nonce": (lambda: with_claims(nonce=""), Reason.MALFORMED, (*POLICY, *TOKEN[:2])),
    "of tomorrow": (lambda: good(now=NOW + 7200), Reason.NOT_YET_VALID, (*POLICY, *TOKEN[:3])),
    "of yesterday": (lambda: good(now=NOW - 7200), Reason.EXPIRED, (*POLICY, *TOKEN[:3])),
    "another audience": (
        lambda: good(audience="https://other.example"),
        Reason.WRONG_AUDIENCE,
        (*POLICY, *TOKEN[:4]),
    ),
    "no audience": (lambda: good(audience=None), Reason.WRONG_AUDIENCE, (*POLICY, *TOKEN[:4])),
    "another device": (
        lambda: good(device_name="Device"),
        Reason.CLAIM_MISMATCH,
        (*POLICY, *TOKEN),
    ),
    "a name that was not asked for": (
        lambda: good(san_dns=("device.example",)),
        Reason.CLAIM_MISMATCH,
        (*POLICY, *TOKEN),
    ),
}


@pytest.mark.parametrize(("make", "reason", "names"), EARLY.values(), ids=EARLY)
async def test_a_refusal_before_gate_seven_leaves_no_record_and_takes_no_place(
    gates: Gates, make: Callable[[], str | None], reason: Reason, names: tuple[str, ...]
) -> None:
    request = await gates.ask(make())

    assert await gates.refused(request) == reason
    assert gates.names(request) == names
    assert (claims(gates.world), windows(gates.world), gates.plugin.asked) == ([], [], [])


async def forbid_keys(world: World) -> None:
    world.allow(key_types=frozenset({"rsa:2048"}))


async def forbid_names(world: World) -> None:
    world.allow(sans=frozenset({"upn"}))


async def compromise(world: World) -> None:
    spki = asked(holder(), None).opened.facts.spki_sha256
    issued = record(not_after=NOW - 1)
    await append_signed(world.bus, key_issued(spki, ISSUER, SERIAL), issued, ISSUING)
    event = KeyCompromised(request_sha256=REQUEST_SHA256, serial=SERIAL)
    await append_signed(world.bus, key_compromised(spki, 0), event, ISSUING)


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (forbid_keys, Reason.KEY_NOT_ALLOWED),
        (forbid_names, Reason.SAN_NOT_ALLOWED),
        (compromise, Reason.KEY_COMPROMISED),
    ],
)
async def test_what_the_profile_refuses_does_not_use_up_its_token(
    gates: Gates, prepare: Callable[[World], Awaitable[None]], reason: Reason
) -> None:
    await prepare(gates.world)
    request = await gates.ask(good(san_dns=("device.example",)), 0, dns("device.example"))

    assert await gates.refused(request) == reason
    assert (claims(gates.world), windows(gates.world), gates.plugin.asked) == ([], [], [])


async def test_a_used_token_takes_no_place(gates: Gates) -> None:
    assert await judgement(gates.world, await gates.ask(good())) == "approved"
    gates.plugin.asked.clear()
    request = await gates.ask(good(), 1)

    assert await gates.refused(request) == Reason.REPLAY
    assert gates.names(request) == (*POLICY, *TOKEN, "replay")
    assert (places(gates.world), gates.plugin.asked) == (1, [])


async def test_a_device_without_a_place_is_not_asked_about(gates: Gates) -> None:
    for number in range(3):
        request = await gates.ask(good(f"n-{number}"), number)
        assert await judgement(gates.world, request) == "approved"
    gates.plugin.asked.clear()
    request = await gates.ask(good("n-3"), 3)

    assert await gates.refused(request) == Reason.RATE_LIMITED
    assert gates.names(request) == (*POLICY, *TOKEN, *STATEFUL[:2])
    assert (len(claims(gates.world)), places(gates.world)) == (4, 3)
    assert gates.plugin.asked == []


async def test_the_devices_state_has_the_last_word(gates: Gates) -> None:
    gates.plugin.allow = False
    request = await gates.ask(good())

    assert await gates.refused(request) == Reason.DEVICE_STATE_FAILED
    assert gates.names(request) == POLICY + TOKEN + STATEFUL


# What a refusal says


@pytest.mark.parametrize(
    ("make", "reason"), [(make, reason) for make, reason, _ in EARLY.values()], ids=EARLY
)
async def test_each_refusal_has_the_fail_info_of_its_gate(
    gates: Gates, make: Callable[[], str | None], reason: Reason
) -> None:
    request = await gates.ask(make())
    assert await judgement(gates.world, request) == reason

    event = verdict(gates.world, request)
    assert getattr(event, "fail_info", None) == FAIL_INFO.get(reason, 1)


async def test_stateful_refusals_have_the_fail_info_of_their_gates(gates: Gates) -> None:
    numbers = [0, 1, 2, 2, 3]
    requests = [await gates.ask(good(f"n-{nonce}"), number) for number, nonce in enumerate(numbers)]
    found = [await judgement(gates.world, request) for request in requests]
    gates.plugin.allow = False
    requests.append(await gates.ask(good("n-5", subject="ill"), 5))
    found.append(await judgement(gates.world, requests[-1]))

    reasons = [Reason.REPLAY, Reason.RATE_LIMITED, Reason.DEVICE_STATE_FAILED]
    assert found == ["approved"] * 3 + reasons
    infos = [getattr(verdict(gates.world, each), "fail_info", None) for each in requests[3:]]
    assert infos == [FAIL_INFO[reason] for reason in reasons]


async def test_who_vouched_is_said_only_of_a_token_whose_signature_holds(gates: Gates) -> None:
    forged = await gates.ask(good(by=OTHER_CONNECTOR))
    mismatched = await gates.ask(good(device_name="other"))
    await judgement(gates.world, forged)
    await judgement(gates.world, mismatched)

    assert verdict(gates.world, forged).claim is None
    claim = verdict(gates.world, mismatched).claim
    assert claim is not None
    assert (claim.issuer, claim.subject, claim.device) == (CONNECTOR.name, SUBJECT, "other")
    assert (claim.issued_at, claim.expires_at) == (NOW, NOW + 3600)


async def test_each_refusal_is_counted_once_and_success_not_before_there_is_a_certificate(
    gates: Gates,
) -> None:
    def count(result: str) -> float:
        return counted("challenges", profile=PROFILE, kind="signed", result=result)

    before = {result: count(result) for result in ("expired", "success")}
    expired = await gates.ask(good(now=NOW - 7200))
    approved = await gates.ask(good())
    for request in (expired, approved, expired, approved):
        await gates.world.consumer.handle(request)

    assert count("expired") == before["expired"] + 1
    assert count("success") == before["success"]


# When


@pytest.mark.parametrize(
    ("seconds", "expected"), [(4000, "approved"), (4300, Reason.EXPIRED), (86400, Reason.EXPIRED)]
)
async def test_the_time_is_that_of_the_request_for_as_long_as_its_token_is_remembered(
    gates: Gates, seconds: int, expected: Reason | str
) -> None:
    """An outage makes no token expire; but a use before it may be forgotten by then."""
    request = await gates.ask(good())
    gates.world.clock.seconds = NOW + seconds

    assert await judgement(gates.world, request) == expected


@pytest.mark.parametrize(("seconds", "expected"), [(0, "approved"), (61, Reason.SIGNATURE_INVALID)])
async def test_an_anchor_past_its_end_verifies_nothing_any_more(
    gates: Gates, seconds: int, expected: Reason | str
) -> None:
    pool = AnchorPool((anchor(not_after=NOW + 60),))
    gates.world.accept(by_token(pool=pool))
    gates.world.clock.seconds = NOW + seconds
    request = await gates.ask(token())

    assert await judgement(gates.world, request) == expected


async def test_after_one_anchors_end_another_of_the_same_profile_still_verifies(
    gates: Gates,
) -> None:
    pool = AnchorPool((anchor(not_after=NOW - 1), anchor(OTHER_CONNECTOR)))
    gates.world.accept(by_token(pool=pool))
    request = await gates.ask(token(by=OTHER_CONNECTOR))

    assert await judgement(gates.world, request) == "approved"


async def test_anchors_are_those_of_now_and_not_of_the_start(gates: Gates) -> None:
    assert await judgement(gates.world, await gates.ask(good())) == "approved"
    gates.world.accept(by_token(OTHER_CONNECTOR))
    old, new = await gates.ask(token("n-2"), 1), await gates.ask(token(by=OTHER_CONNECTOR), 2)

    assert await judgement(gates.world, old) == Reason.SIGNATURE_INVALID
    assert await judgement(gates.world, new) == "approved"


# Whose word


def tenants(gates: Gates) -> None:
    """`connector-2` is a tenant with a bundle of its own, beside `connector-1` for all others."""
    pool = AnchorPool((anchor(),), {OTHER_CONNECTOR.name: (anchor(OTHER_CONNECTOR),)})
    gates.world.accept(by_token(pool=pool))


@pytest.mark.parametrize(
    ("key", "name", "expected"),
    [
        (CONNECTOR, CONNECTOR.name, "approved"),
        (OTHER_CONNECTOR, OTHER_CONNECTOR.name, "approved"),
        (CONNECTOR, OTHER_CONNECTOR.name, Reason.SIGNATURE_INVALID),
        (OTHER_CONNECTOR, CONNECTOR.name, Reason.SIGNATURE_INVALID),
        (OTHER_CONNECTOR, "nobody", Reason.SIGNATURE_INVALID),
        (CONNECTOR, "nobody", "approved"),
    ],
)
async def test_nobody_signs_for_a_tenant_but_its_own_connector(
    gates: Gates, key: Connector, name: str, expected: Reason | str
) -> None:
    tenants(gates)
    request = await gates.ask(token(by=Connector(key.key, name)))

    assert await judgement(gates.world, request) == expected


async def test_the_same_nonce_of_two_connectors_is_two_tokens(gates: Gates) -> None:
    tenants(gates)
    first = await gates.ask(token(), 0)
    second = await gates.ask(token(by=OTHER_CONNECTOR), 1)

    assert await judgement(gates.world, first) == "approved"
    assert await judgement(gates.world, second) == "approved"


async def test_issuer_and_nonce_are_not_run_together(gates: Gates) -> None:
    """("a", "bc") is not ("ab", "c"), for records and for windows."""
    gates.world.accept(by_token(limit=1))
    pairs = (("a", "bc"), ("ab", "c"))
    requests = [
        await gates.ask(with_claims(iss=issuer, nonce=rest, sub=rest), number)
        for number, (issuer, rest) in enumerate(pairs)
    ]

    for request in requests:
        assert await judgement(gates.world, request) == "approved"
    assert (len(claims(gates.world)), len(windows(gates.world))) == (2, 2)


async def test_a_token_is_used_up_for_every_profile(gates: Gates) -> None:
    world = gates.world
    settings = world.evaluator.live.current
    settings.policies["second"] = world.policy
    settings.access["second"] = settings.access[PROFILE]
    here = await gates.ask(good())
    there = await ask(world, holder(), good(), profile="second")

    assert await judgement(world, here) == "approved"
    assert await judgement(world, there) == Reason.REPLAY
