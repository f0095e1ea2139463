"""`webhook`: an operator's own service decides who may enroll; only an explicit yes admits."""

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from services.validator.challenges.answers import check_answer, denied
from services.validator.challenges.kind import VerifierContext, VerifierKind
from services.validator.challenges.once import OnceVerifier
from services.validator.challenges.proved import LOOKED_UP_CLAIMS
from services.validator.challenges.verifier import (
    ChallengeRequest,
    ChallengeResult,
    Verifier,
)
from shared.config.load import SettingsError
from shared.config.profiles import ProfileSection
from shared.config.sections import Configuration
from shared.log.events.enrollment import Facts
from shared.observe.logs import log_failure
from shared.runtime.endpoint import POST_ERRORS, Endpoint, client_tls
from shared.runtime.places import Places

WEBHOOK: Final = "webhook"


@dataclass(frozen=True)
class WebhookVerifier:
    """See `Verifier`; a redelivered request is posted again under the same `id`."""

    endpoint: Endpoint
    limit: asyncio.Semaphore
    places: Places = field(default_factory=Places)

    async def verify(self, asked: ChallengeRequest) -> ChallengeResult:
        """See `Verifier.verify`; anything but a yes in time is a no."""
        with self.places.taken() as free:
            if not free:
                return denied("too many requests are waiting for the webhook: try again later")
            return await self._verify(asked)

    async def _verify(self, asked: ChallengeRequest) -> ChallengeResult:
        try:
            async with asyncio.timeout(self.endpoint.timeout), self.limit:
                status, content = await self.endpoint.post(question(asked), asked.asked_at)
        except TimeoutError:
            return denied("the webhook did not answer in time")
        except POST_ERRORS as error:
            log_failure("webhook_failed", error, profile=asked.enrollment.profile)
            return denied("the webhook request failed")
        secret = self.endpoint.secret.decode("utf-8", "replace")
        return check_answer(status, content, (asked.challenge, self.endpoint.bearer, secret))


def question(asked: ChallengeRequest) -> dict[str, Any]:
    """Return the body for the operator's service, the only one that gets the challenge."""
    return {
        "id": asked.enrollment.prefix(),
        "profile": asked.enrollment.profile,
        "transaction_id": asked.transaction_id,
        "challenge": asked.challenge,
        "renewal": bool(asked.opened.renews),
        "csr": described(asked.opened.facts),
    }


def described(facts: Facts) -> dict[str, Any]:
    """Return the decoded CSR."""
    return {
        "subject": facts.subject,
        "sans": list(facts.sans),
        "key_type": facts.key_type,
        "key_bits": facts.key_bits,
        "spki_sha256": facts.spki_sha256,
        "sha256": facts.csr_sha256,
    }


@dataclass(frozen=True)
class WebhookAccess:
    """See `PreparedVerifier`; `concurrency` limits the requests under way at once."""

    endpoint: Endpoint
    concurrency: int = 16
    asks_outside: bool = True

    def verifier(self, context: VerifierContext) -> Verifier:
        """See `PreparedVerifier.verifier`."""
        webhook = WebhookVerifier(self.endpoint, asyncio.Semaphore(self.concurrency))
        return OnceVerifier(webhook, context.records, binds_first=True)


def _prepare(configuration: Configuration, section: ProfileSection, now: float) -> WebhookAccess:
    del now
    endpoint = read_endpoint(configuration, section, section.webhook_url)
    if endpoint is None:
        raise SettingsError("webhook_url: required by the webhook verifier")
    return WebhookAccess(endpoint, section.webhook_concurrency)


def read_endpoint(
    configuration: Configuration, section: ProfileSection, url: str | None
) -> Endpoint | None:
    """Read a profile's endpoint for a URL; None without a URL. Raises `SettingsError`."""
    if url is None:
        return None
    return Endpoint(
        url=url,
        timeout=section.webhook_timeout,
        secret=(section.webhook_secret or "").encode(),
        bearer=section.webhook_bearer_token or "",
        tls=_tls(configuration, section) if urlsplit(url).scheme == "https" else None,
    )


def _tls(configuration: Configuration, section: ProfileSection) -> ssl.SSLContext:
    return client_tls(
        configuration,
        section.webhook_ca_path,
        section.webhook_client_cert_path,
        section.webhook_client_key_path,
    )


def _claims(section: ProfileSection) -> frozenset[str]:
    del section
    return LOOKED_UP_CLAIMS


KIND: Final = VerifierKind(WEBHOOK, _prepare, on_renewal=True, claims=_claims)
