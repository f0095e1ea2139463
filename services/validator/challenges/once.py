"""Binds a CSR to one use of its challenge, for challenges that can be used again and again.

A password or a webhook's approval admits whoever brings it. Whoever recorded a device's message can
sign it again with keys of their own, each time as a new transaction. So a first request that is not
signed with the CSR's own key is bound to its CSR: the first one enrolls, and the others get its
certificate or wait for it.
"""

from dataclasses import dataclass, replace
from typing import Final

from services.validator.challenges.records import Records
from services.validator.challenges.replay import check_replay
from services.validator.challenges.verifier import ChallengeRequest, ChallengeResult, Verifier
from shared.log.subjects import token

_CSR: Final = "csr"
_KEPT_SECONDS: Final = 86400


@dataclass(frozen=True)
class OnceVerifier:
    """Adds the binding to the CSR to a verifier: before it runs if `binds_first`, else after."""

    inner: Verifier
    records: Records
    binds_first: bool

    async def verify(self, asked: ChallengeRequest) -> ChallengeResult:
        """See `Verifier.verify`."""
        if not asked.opened.foreign_signer:
            return await self.inner.verify(asked)
        steps = (self._bind, self.inner.verify)
        found = ChallengeResult(())
        for step in steps if self.binds_first else reversed(steps):
            if found.refusal is None:
                after = await step(asked)
                found = replace(
                    after,
                    gates=(*found.gates, *after.gates),
                    claim=after.claim or found.claim,
                    claims={**found.claims, **after.claims},
                )
        return found

    async def _bind(self, asked: ChallengeRequest) -> ChallengeResult:
        enrollment, until = asked.enrollment, asked.asked_at + _KEPT_SECONDS
        digest = token(enrollment.profile.encode(), enrollment.csr.encode())
        claimed = await self.records.claim(asked, _CSR, digest, until)
        held_by_another = await self.records.is_held_by_another(asked, claimed.record)
        return check_replay(
            asked, claimed.record, claimed.first_used_at, until, held_by_another=held_by_another
        )
