"""`intune`: Intune itself validates each challenge, which only it can read.

Theory of operation. The challenge is claimed for this enrollment first, as every challenge is. Then
Intune is asked, once: its yes is recorded under the attempt (`VALIDATED`), so that a redelivery
after a kill, a wait for compliance or a repetition with the same CSR does not ask again. Then the
compliance gate and the look-up of a SID follow, if the profile has them. That a device's state
allows it is remembered for a minute, anything else is not. Whatever is not a clear yes refuses the
device. See docs/intune.md.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import structlog

from services.validator.challenges.allowed import AllowedDevices
from services.validator.challenges.kind import VerifierContext, VerifierKind
from services.validator.challenges.records import Claimed, Records
from services.validator.challenges.replay import check_replay
from services.validator.challenges.verifier import (
    INTUNE,
    ChallengeRequest,
    ChallengeResult,
    Verifier,
    intune_claim,
    passed,
    refused,
)
from services.validator.compliance import (
    Choice,
    Compliance,
    ComplianceRules,
    DeviceIds,
    device_ids,
    judge,
    state_of,
    without_answer,
)
from services.validator.microsoft.calls import Microsoft
from services.validator.microsoft.connection import TenantConnection, read_connection
from services.validator.microsoft.model import (
    EntraDevice,
    ManagedDevice,
    MicrosoftUnavailableError,
)
from services.validator.microsoft.verdicts import verdict_of
from shared.config.challenge_format import looks_encrypted
from shared.config.load import SettingsError
from shared.config.profiles import ProfileSection
from shared.config.sections import Configuration
from shared.log.events.enrollment import Facts
from shared.log.events.state import Claim
from shared.log.reasons import Reason
from shared.log.subjects import replay_record, token
from shared.observe.metrics import SECURITY_EVENTS
from shared.runtime.places import Places
from shared.runtime.worker import DeferredError

_log = structlog.get_logger()
GATE: Final = "intune"
VALIDATED: Final = "validated"
_FORGED: Final = "intune_challenge"
_KEPT_SECONDS: Final = 30 * 86400
_WAIT_SECONDS: Final = 30.0
_LONGEST_WAIT: Final = 3600
_UPN: Final = "upn:"


@dataclass(frozen=True)
class IntuneRules:
    """How a profile uses its connection; `sid` is whose SID is looked up ("user", "device", "")."""

    connection: str
    compliance: ComplianceRules | None = None
    sid: str = ""


@dataclass(frozen=True)
class IntuneVerifier:
    """See `Verifier`; `clock` returns Unix seconds."""

    rules: IntuneRules
    microsoft: Microsoft
    records: Records
    clock: Callable[[], float]
    places: Places = field(default_factory=Places)
    allowed: AllowedDevices = field(default_factory=AllowedDevices)

    async def verify(self, asked: ChallengeRequest) -> ChallengeResult:
        """See `Verifier.verify`; anything but a yes of Intune in time is a no."""
        until = asked.asked_at + _KEPT_SECONDS
        digest = token(self.rules.connection.encode(), asked.challenge.encode())
        claimed = await self.records.claim(asked, INTUNE, digest, until)
        held_by_another = await self.records.is_held_by_another(asked, claimed.record)
        found = check_replay(
            asked, claimed.record, claimed.first_used_at, until, held_by_another=held_by_another
        )
        ids = _ids(asked.opened.facts)
        for gate in (self._validate, self._comply, self._look_up):
            if found.refusal is None:
                step = await self._placed(gate, asked, claimed, ids)
                found = replace(
                    step, gates=(*found.gates, *step.gates), claims={**found.claims, **step.claims}
                )
        claim = Claim(
            issuer=intune_claim(self.rules.connection),
            subject=ids.intune or ids.named,
            record=replay_record(INTUNE, digest, "*"),
        )
        return replace(found, claim=claim)

    async def _placed(
        self, gate: "_Gate", asked: ChallengeRequest, claimed: Claimed, ids: DeviceIds
    ) -> ChallengeResult:
        """Run a gate in one of the profile's places, or let the request wait for one."""
        with self.places.taken() as free:
            if free:
                return await gate(asked, claimed, ids)
        await self.records.mark_wait(asked)
        raise DeferredError(asked.enrollment.prefix())

    async def _validate(
        self, asked: ChallengeRequest, claimed: Claimed, ids: DeviceIds
    ) -> ChallengeResult:
        """Ask Intune, unless it has validated this challenge with this CSR or key before."""
        del ids
        if await self.records.has_mark(VALIDATED, claimed.record.enrollment):
            return ChallengeResult((passed(GATE, "Success (asked before)"),))
        try:
            answer = await self.microsoft.validate(asked.transaction_id, asked.opened.csr.der)
        except MicrosoftUnavailableError as error:
            return _unavailable("Intune could not be asked", f"{error}")
        compared = f"{answer.code or 'no code'}, activity {answer.activity_id}"
        if answer.accepted:
            await self.records.set_mark(VALIDATED, asked, _KEPT_SECONDS)
            return ChallengeResult((passed(GATE, compared),))
        verdict = verdict_of(answer.code)
        if verdict.security:
            SECURITY_EVENTS.labels(_FORGED).inc()
            _log.error("intune_refused", code=answer.code, enrollment=asked.enrollment.prefix())
        detail = f"Intune refused the request: {answer.code or 'no code'}"
        return refused(GATE, verdict.reason, detail, f"{verdict.hint}; {compared}")

    async def _comply(
        self, asked: ChallengeRequest, claimed: Claimed, ids: DeviceIds
    ) -> ChallengeResult:
        """Run gate 9, if configured: the device's state in Graph allows it a certificate."""
        del claimed
        rules = self.rules.compliance
        if rules is None:
            return ChallengeResult(())
        found = await self._compliance(rules, ids, asked.asked_at)
        if found.choice is Choice.ALLOW:
            return ChallengeResult((passed("compliance", found.detail),))
        waits = found.choice is Choice.DEFER
        if waits and self.clock() - asked.asked_at < _LONGEST_WAIT:
            await self.records.mark_wait(asked)
            raise DeferredError(asked.enrollment.prefix(), _WAIT_SECONDS)
        detail = "the device's state does not allow enrollment"
        return refused("compliance", Reason.DEVICE_STATE_FAILED, detail, found.detail)

    async def _compliance(self, rules: ComplianceRules, ids: DeviceIds, now: float) -> Compliance:
        if not ids:
            return without_answer(rules, "the request names no device")
        if kept := self.allowed.get(ids, self.clock()):
            return kept
        try:
            found = await (self._entra(ids) if rules.entra else self._managed(ids))
        except MicrosoftUnavailableError as error:
            return without_answer(rules, f"Graph could not be asked: {error}")
        judged = judge(rules, state_of(found), now)
        if found is not None:
            self.allowed.keep(ids, judged, self.clock())
        return judged

    async def _managed(self, ids: DeviceIds) -> ManagedDevice | None:
        """Return the device as Intune knows it; a CN may hold either ID."""
        if ids.intune:
            return await self.microsoft.managed_device(ids.intune)
        found = await self.microsoft.managed_device(ids.named)
        return found or await self.microsoft.managed_device_of(ids.named)

    async def _entra(self, ids: DeviceIds) -> EntraDevice | None:
        """Return the device as Entra ID knows it; an Intune ID leads to it."""
        if not ids.intune and (found := await self.microsoft.entra_device(ids.named)):
            return found
        managed = await self.microsoft.managed_device(ids.intune or ids.named)
        if managed is None or not managed.entra_id:
            return None
        return await self.microsoft.entra_device(managed.entra_id)

    async def _look_up(
        self, asked: ChallengeRequest, claimed: Claimed, ids: DeviceIds
    ) -> ChallengeResult:
        """Look up the SID that the certificate is to have, if the profile wants one."""
        del claimed
        if not self.rules.sid:
            return ChallengeResult(())
        try:
            sid = await self._sid(asked.opened.facts, ids)
        except MicrosoftUnavailableError as error:
            return _unavailable("the SID could not be looked up", f"{error}")
        return ChallengeResult((), claims={"sid": (sid,)} if sid else {})

    async def _sid(self, facts: Facts, ids: DeviceIds) -> str | None:
        if self.rules.sid == "device":
            device = await self._entra(ids) if ids else None
            return await self.microsoft.device_sid(device.entra_id) if device else None
        upns = [san.removeprefix(_UPN) for san in facts.sans if san.startswith(_UPN)]
        return await self.microsoft.user_sid(upns[0]) if len(upns) == 1 else None


class _Gate(Protocol):
    async def __call__(
        self, asked: ChallengeRequest, claimed: Claimed, ids: DeviceIds
    ) -> ChallengeResult:
        """Return the result of one gate."""


def _ids(facts: Facts) -> DeviceIds:
    return device_ids(facts.subject, facts.device_id)


def _unavailable(detail: str, compared: str = "") -> ChallengeResult:
    return refused(GATE, Reason.SERVICE_UNAVAILABLE, detail, compared)


@dataclass(frozen=True)
class IntuneAccess:
    """See `PreparedVerifier`; `tenant` is the connection of the rules."""

    rules: IntuneRules
    tenant: TenantConnection
    asks_outside: bool = True

    def verifier(self, context: VerifierContext) -> Verifier:
        """See `PreparedVerifier.verifier`."""
        microsoft = context.connections[self.rules.connection]
        return IntuneVerifier(self.rules, microsoft, context.records, context.clock)


def _prepare(configuration: Configuration, section: ProfileSection, now: float) -> IntuneAccess:
    del now
    connection = section.intune_connection
    if connection is None or connection not in configuration.intune:
        raise SettingsError(f"intune_connection: no such connection: {connection}")
    sid = "" if section.sid_lookup == "off" else section.sid_lookup
    rules = IntuneRules(connection, _compliance_rules(section), sid)
    return IntuneAccess(rules, read_connection(configuration, connection))


def _compliance_rules(section: ProfileSection) -> ComplianceRules | None:
    if section.compliance == "off":
        return None
    return ComplianceRules(
        entra=section.compliance == "entra",
        policy={state: Choice(choice) for state, choice in section.compliance_policy.items()},
        grace=section.compliance_grace,
        not_found=Choice(section.compliance_not_found),
        on_error=Choice(section.compliance_on_error),
    )


def _claims(section: ProfileSection) -> frozenset[str]:
    return frozenset() if section.sid_lookup == "off" else frozenset({"sid"})


KIND: Final = VerifierKind(INTUNE, _prepare, looks_encrypted, on_renewal=True, claims=_claims)
