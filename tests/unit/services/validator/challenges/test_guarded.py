"""Verifiers of other packages: what they do wrong costs one request, and no place for long."""

import asyncio
from dataclasses import dataclass, field

import pytest

from services.validator.challenges import guarded
from services.validator.challenges.guarded import GuardedVerifier
from services.validator.challenges.verifier import ChallengeRequest, ChallengeResult, passed
from shared.bus.core import BusUnavailableError
from shared.log.reasons import Reason
from shared.runtime.places import Places
from shared.runtime.worker import DeferredError
from shared.x509.name_templates import Claims
from tests.support.signed_challenges import asked


@dataclass
class Odd:
    """A verifier that does as it is told."""

    fault: BaseException | None = None
    seconds: float = 0.0
    claims: Claims = field(default_factory=dict)

    async def verify(self, asked: ChallengeRequest) -> ChallengeResult:
        del asked
        await asyncio.sleep(self.seconds)
        if self.fault is not None:
            raise self.fault
        return ChallengeResult((passed("challenge"),), claims=self.claims)


def refusal(found: ChallengeResult) -> tuple[Reason, str]:
    assert found.refusal is not None
    return found.refusal.reason, found.refusal.detail


async def test_its_claims_count_in_the_form_of_their_type() -> None:
    odd = Odd(claims={"device_name": ("laptop",), "undeclared": ("x",)})
    found = await GuardedVerifier(odd, "odd", claims=frozenset({"device_name"})).verify(asked())

    assert found.claims == {"device_name": ("laptop",)}


async def test_what_it_says_counts() -> None:
    assert (await GuardedVerifier(Odd(), "odd").verify(asked())).refusal is None


@pytest.mark.parametrize("fault", [ValueError("s3cret"), OSError(), KeyError(), AssertionError()])
async def test_whatever_it_raises_refuses_without_its_words(fault: Exception) -> None:
    found = await GuardedVerifier(Odd(fault), "odd").verify(asked())

    assert refusal(found) == (Reason.VERIFIER_FAILED, "the verifier failed")


@pytest.mark.parametrize("fault", [BusUnavailableError("away"), DeferredError("later")])
async def test_an_outage_of_the_bus_is_waited_out_as_everywhere(fault: Exception) -> None:
    with pytest.raises(type(fault)):
        await GuardedVerifier(Odd(fault), "odd").verify(asked())


async def test_one_that_hangs_refuses_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded, "_SECONDS", 0.01)
    found = await GuardedVerifier(Odd(seconds=60), "odd").verify(asked())

    assert refusal(found) == (Reason.VERIFIER_FAILED, "the verifier did not answer in time")


async def test_no_more_wait_for_it_than_there_are_places() -> None:
    found = await GuardedVerifier(Odd(), "odd", Places(most=0)).verify(asked())

    assert refusal(found)[0] is Reason.VERIFIER_FAILED
