"""`one_time`: a challenge that an operator created for one device."""

from dataclasses import dataclass, replace
from typing import Final

import structlog

from services.validator.challenges import subject
from services.validator.challenges.binding import folded, lowered, names_one_of
from services.validator.challenges.kind import VerifierContext, VerifierKind
from services.validator.challenges.proved import ONE_TIME_CLAIMS, proved
from services.validator.challenges.records import Records
from services.validator.challenges.replay import check_replay
from services.validator.challenges.verifier import (
    ChallengeRequest,
    ChallengeResult,
    Verifier,
    passed,
    refused,
)
from shared.bus.log import read_authentic
from shared.bus.series import Series
from shared.config.profiles import ProfileSection
from shared.config.sections import Configuration
from shared.log.envelope import Stored, Trusted
from shared.log.events.commands import ChallengeCancelled, ChallengeCreated
from shared.log.events.state import Claim
from shared.log.one_time import ONE_TIME, ONE_TIME_SHAPE, one_time_digest
from shared.log.reasons import Reason
from shared.log.streams import OPS
from shared.log.subjects import one_time_cancelled, one_time_created, replay_record
from shared.x509.csr import CertificationRequest
from shared.x509.name_templates import LISTS

_log = structlog.get_logger()


@dataclass(frozen=True)
class OneTimeVerifier:
    """See `Verifier`; challenges are found by their digest and bound to the first request."""

    records: Records
    operators: Trusted
    attributes: frozenset[str] = subject.PLAIN

    async def verify(self, asked: ChallengeRequest) -> ChallengeResult:
        """See `Verifier.verify`."""
        profile = asked.enrollment.profile
        digest = one_time_digest(profile, asked.challenge)
        created = self._authentic(
            await self.records.bus.get_last_or_leader(OPS, one_time_created(profile, digest))
        )
        if created is None or created.profile != profile:
            return refused("challenge", Reason.CHALLENGE_WRONG, "unknown challenge")
        found = check_one_time(created, asked.opened.csr, asked.asked_at, self.attributes)
        if found.refusal is None:
            step = await self._claim(asked, digest, created)
            found = replace(step, gates=(*found.gates, *step.gates))
        claim = Claim(
            issuer="operator",
            subject=created.operator,
            device=created.cn,
            expires_at=created.expires_at,
            record=replay_record(ONE_TIME, digest, "*"),
        )
        return replace(found, claim=claim, claims=_proved(created))

    async def _claim(
        self, asked: ChallengeRequest, digest: str, created: ChallengeCreated
    ) -> ChallengeResult:
        """Claim the challenge; refuse if it was cancelled before the log stored the claim."""
        until = created.expires_at
        claimed = await self.records.claim(asked, ONE_TIME, digest, until)
        place = one_time_cancelled(asked.enrollment.profile, digest, "*")
        cancelled = await Series(
            self.records.bus, OPS, place, ChallengeCancelled, self.operators, ONE_TIME
        ).newest()
        if cancelled is not None and cancelled.stored.time <= claimed.recorded_at:
            return refused("challenge", Reason.CHALLENGE_WRONG, "the challenge was cancelled")
        held_by_another = await self.records.is_held_by_another(asked, claimed.record)
        return check_replay(
            asked, claimed.record, claimed.first_used_at, until, held_by_another=held_by_another
        )

    def _authentic(self, stored: Stored | None) -> ChallengeCreated | None:
        """Return the challenge if an operator created it, else None."""
        if stored is None:
            return None
        return read_authentic(ChallengeCreated, stored, self.operators, "one_time")


def _proved(created: ChallengeCreated) -> dict[str, tuple[str, ...]]:
    """Return what the operator who created a challenge said of its device."""
    said: dict[str, object] = {"device_name": created.cn} if created.cn else {}
    for name, kind in LISTS.items() if created.sans else ():
        sans = (san.partition(":") for san in created.sans)
        said[name] = [value for found, _, value in sans if found == kind]
    return proved(said, ONE_TIME_CLAIMS)


def check_one_time(
    created: ChallengeCreated,
    csr: CertificationRequest,
    now: int,
    attributes: frozenset[str] = subject.PLAIN,
) -> ChallengeResult:
    """Check the time and the device binding of a challenge that exists; `now` in Unix seconds.

    A challenge that names a device binds all names: the request may ask for no others, and its
    subject may hold only the CN and `attributes`. If the challenge names only SANs, the CN must be
    one of them or absent; otherwise a challenge for one name would work for any name.
    """
    if now >= created.expires_at:
        return refused("challenge", Reason.EXPIRED, "the challenge has expired")
    names = subject.common_names(csr.subject)
    if created.cn and names != [created.cn]:
        compared = f"asked {', '.join(names or ()) or 'none'}; made for {created.cn}"
        detail = "the challenge is for another common name"
        return refused("challenge", Reason.CLAIM_MISMATCH, detail, compared)
    asked = lowered(f"{san.kind}:{san.value}" for san in csr.sans)
    if (created.cn or created.sans) and asked != folded(created.sans):
        compared = f"asked {', '.join(sorted(asked)) or 'none'}"
        detail = "the challenge is for other names"
        return refused("challenge", Reason.CLAIM_MISMATCH, detail, compared)
    if created.sans and not created.cn and not names_one_of(names, created.sans):
        compared = f"asked {', '.join(names or ()) or 'none'}; made for {', '.join(created.sans)}"
        detail = "the challenge is not for the common name"
        return refused("challenge", Reason.CLAIM_MISMATCH, detail, compared)
    bound = bool(created.cn or created.sans)
    if bound and (beside := subject.first_disallowed(csr.subject, attributes)):
        detail = "the challenge is for a device, but the subject has more than its name"
        compared = f"asked {beside}; allowed {subject.allowed_text(attributes)}"
        return refused("challenge", Reason.CLAIM_MISMATCH, detail, compared)
    return ChallengeResult((passed("challenge", f"made by {created.operator}"),))


@dataclass(frozen=True)
class OneTimeAccess:
    """See `PreparedVerifier`.

    `attributes` are those that a subject may hold beside the CN if a challenge names a device.
    """

    attributes: frozenset[str] = subject.PLAIN
    asks_outside: bool = False

    def verifier(self, context: VerifierContext) -> Verifier:
        """See `PreparedVerifier.verifier`."""
        return OneTimeVerifier(context.records, context.operators, self.attributes)


def _prepare(configuration: Configuration, section: ProfileSection, now: float) -> OneTimeAccess:
    del configuration, now
    return OneTimeAccess(frozenset(section.allowed_subject_attributes))


def _recognises(challenge: str) -> bool:
    return ONE_TIME_SHAPE.fullmatch(challenge) is not None


def _claims(section: ProfileSection) -> frozenset[str]:
    del section
    return ONE_TIME_CLAIMS


KIND: Final = VerifierKind(ONE_TIME, _prepare, _recognises, claims=_claims)
