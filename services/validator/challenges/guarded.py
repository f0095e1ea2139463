"""Guards a verifier of another package: limits its time and number, and refuses on any error."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Final

from services.validator.challenges.proved import proved
from services.validator.challenges.verifier import (
    ChallengeRequest,
    ChallengeResult,
    Verifier,
    refused,
)
from shared.bus.core import BusUnavailableError
from shared.log.reasons import Reason
from shared.observe.logs import log_failure
from shared.runtime.places import Places
from shared.runtime.worker import DeferredError

_SECONDS: Final = 10.0


@dataclass(frozen=True)
class GuardedVerifier:
    """See `Verifier`."""

    inner: Verifier
    kind: str
    claims: frozenset[str] = frozenset()
    places: Places = field(default_factory=Places)

    async def verify(self, asked: ChallengeRequest) -> ChallengeResult:
        """See `Verifier.verify`; bus outages and deferrals are passed on, other errors refuse."""
        with self.places.taken() as free:
            if not free:
                return _failed("too many requests are waiting for the verifier: try again later")
            try:
                async with asyncio.timeout(_SECONDS):
                    found = await self.inner.verify(asked)
                    return replace(found, claims=proved(found.claims, self.claims))
            except TimeoutError:
                return _failed("the verifier did not answer in time")
            except (BusUnavailableError, DeferredError):
                raise
            except Exception as error:  # noqa: BLE001 - a package's error, about one request
                log_failure("verifier_failed", error, kind=self.kind)
                return _failed("the verifier failed")


def _failed(detail: str) -> ChallengeResult:
    return refused("challenge", Reason.VERIFIER_FAILED, detail)
