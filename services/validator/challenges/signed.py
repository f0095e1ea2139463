"""`signed`: takes a connector's token through gates 2 to 9."""

from dataclasses import dataclass, replace
from math import ceil, floor
from typing import Final

from services.validator.challenges.anchors import AnchorFiles
from services.validator.challenges.claims import Claims
from services.validator.challenges.device_state import DeviceStateGate, load_device_state
from services.validator.challenges.kind import VerifierContext, VerifierKind
from services.validator.challenges.proved import LOOKED_UP_CLAIMS, TOKEN_CLAIMS, proved
from services.validator.challenges.records import Records
from services.validator.challenges.replay import check_replay
from services.validator.challenges.token import AnchorPool, TokenRules, check_token
from services.validator.challenges.verifier import (
    ChallengeRequest,
    ChallengeResult,
    Verifier,
    passed,
    refused,
)
from services.validator.challenges.windows import Full
from shared.config.challenge_format import looks_signed
from shared.config.profiles import ProfileSection
from shared.config.sections import Configuration
from shared.log.events.state import Claim
from shared.log.reasons import Reason
from shared.log.subjects import replay_record, token

SIGNED: Final = "signed"


@dataclass(frozen=True)
class SignedVerifier:
    """See `Verifier`; `limit` is the enrollments allowed per device and day, 0 for no limit."""

    profile: str
    pool: AnchorPool
    rules: TokenRules
    limit: int
    records: Records
    device_state: DeviceStateGate | None = None

    async def verify(self, asked: ChallengeRequest) -> ChallengeResult:
        """See `Verifier.verify`; a gate runs only after all gates before it have passed."""
        judged = check_token(
            asked.challenge, self.pool, self.rules, asked.opened.csr, asked.asked_at
        )
        claims, found = judged.claims, judged.verified
        if claims is None:
            return found
        claim, said = _claim(claims), _proved(claims)
        for gate in (self._replay, self._device_rate, self._device_state):
            if found.refusal is None:
                step = await gate(asked, claims)
                found = replace(step, gates=(*found.gates, *step.gates))
        return replace(found, claim=claim, claims={**said, **found.claims})

    async def _replay(self, asked: ChallengeRequest, claims: Claims) -> ChallengeResult:
        """Run gate 7: the token was not used by another enrollment."""
        until = ceil(claims.expires_at) + self.rules.tolerance
        claimed = await self.records.claim(asked, SIGNED, _nonce_digest(claims), until)
        held_by_another = await self.records.is_held_by_another(asked, claimed.record)
        return check_replay(
            asked, claimed.record, claimed.first_used_at, until, held_by_another=held_by_another
        )

    async def _device_rate(self, asked: ChallengeRequest, claims: Claims) -> ChallengeResult:
        """Run gate 8: the device has not enrolled too often."""
        if not self.limit:
            return ChallengeResult((passed("device_rate", "off"),))
        detail = "the device has enrolled too often within 24 hours"
        device = token(self.profile.encode(), claims.issuer.encode(), claims.subject.encode())
        found = await self.records.take_place(asked, device, self.limit)
        compared = f"{len(found.entries)} of {self.limit} in 24 hours"
        if isinstance(found, Full):
            return refused("device_rate", Reason.RATE_LIMITED, detail, compared)
        return ChallengeResult((passed("device_rate", compared),))

    async def _device_state(self, asked: ChallengeRequest, claims: Claims) -> ChallengeResult:
        """Run gate 9, if configured: the plug-in allows the device."""
        if self.device_state is None:
            return ChallengeResult(())
        return await self.device_state.ask(asked, _claim(claims))


def _nonce_digest(claims: Claims) -> str:
    """Return what identifies a token: the digest of its issuer and its nonce."""
    return token(claims.issuer.encode(), claims.nonce.encode())


def _claim(claims: Claims) -> Claim:
    return Claim(
        issuer=claims.issuer,
        subject=claims.subject,
        device=claims.device_name or "",
        issued_at=floor(claims.issued_at),
        expires_at=ceil(claims.expires_at),
        record=replay_record(SIGNED, _nonce_digest(claims), "*"),
    )


def _proved(claims: Claims) -> dict[str, tuple[str, ...]]:
    """Return what a token says of its device; a claim that it does not have is left out."""
    said = {
        "iss": claims.issuer,
        "sub": claims.subject,
        "device_name": claims.device_name,
        "san_dns": claims.san_dns,
        "san_rfc822": claims.san_rfc822,
        "san_upn": claims.san_upn,
    }
    return proved(said, TOKEN_CLAIMS)


def _claims(section: ProfileSection) -> frozenset[str]:
    return TOKEN_CLAIMS | LOOKED_UP_CLAIMS if section.device_state else TOKEN_CLAIMS


@dataclass(frozen=True)
class SignedAccess:
    """See `PreparedVerifier`; `limit` as in `SignedVerifier`."""

    files: AnchorFiles
    pool: AnchorPool
    rules: TokenRules
    limit: int
    device_state: DeviceStateGate | None = None

    @property
    def asks_outside(self) -> bool:
        """See `PreparedVerifier.asks_outside`."""
        return self.device_state is not None

    def verifier(self, context: VerifierContext) -> Verifier:
        """See `PreparedVerifier.verifier`."""
        return SignedVerifier(
            context.profile, self.pool, self.rules, self.limit, context.records, self.device_state
        )


def _prepare(configuration: Configuration, section: ProfileSection, now: float) -> SignedAccess:
    common = section.intune_connector_cert_path
    files = AnchorFiles(
        configuration.path(common) if common else None,
        {
            tenant: configuration.path(path)
            for tenant, path in section.intune_tenant_cert_paths.items()
        },
    )
    plugin = load_device_state(section.device_state) if section.device_state else None
    return SignedAccess(
        files=files,
        pool=files.read(now),
        rules=TokenRules(
            audience=section.intune_audience,
            validity=int(section.intune_challenge_validity),
            tolerance=int(section.intune_clock_skew_tolerance),
            allow_unclaimed=section.unclaimed_sans == "allow",
            attributes=frozenset(section.allowed_subject_attributes),
        ),
        limit=section.intune_per_device_rate_limit_24h,
        device_state=DeviceStateGate(plugin, section.device_state_timeout) if plugin else None,
    )


KIND: Final = VerifierKind(SIGNED, _prepare, looks_signed, on_renewal=True, claims=_claims)
