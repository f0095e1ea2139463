"""`webhook`: an operator's own service decides who may enroll; only an explicit yes admits."""

import asyncio
import hashlib
import hmac
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import msgspec

from services.validator.challenges.answers import check_answer, denied
from services.validator.challenges.kind import VerifierContext, VerifierKind
from services.validator.challenges.once import OnceVerifier
from services.validator.challenges.proved import LOOKED_UP_CLAIMS
from services.validator.challenges.verifier import (
    ChallengeRequest,
    ChallengeResult,
    Verifier,
)
from shared.config.keys import read_certificates
from shared.config.load import SettingsError, read_file, read_secret_file
from shared.config.profiles import ProfileSection
from shared.config.sections import Configuration
from shared.log.events.enrollment import Facts
from shared.observe.logs import log_failure
from shared.runtime.places import Places

WEBHOOK: Final = "webhook"
SIGNATURE: Final = "Scepstream-Signature"
TIMESTAMP: Final = "Scepstream-Timestamp"
_MAX_ANSWER: Final = 64 * 1024


class AnswerTooLongError(Exception):
    """Raised for an answer that is longer than any yes or no needs to be."""


@dataclass(frozen=True)
class Endpoint:
    """Where to post, and how to authenticate: HMAC key, bearer token, client certificate.

    `tls` is None for plain HTTP, which the settings allow on loopback only; `timeout` in seconds.
    """

    url: str
    timeout: float
    secret: bytes = field(default=b"", repr=False)
    bearer: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None

    async def post(self, body: Mapping[str, Any], now: int) -> tuple[int, bytes]:
        """Post a body with the time `now` (Unix seconds); return (status, content).

        Follows no redirects and uses no proxy from the environment. Raises `httpx.HTTPError`,
        `TimeoutError` or `AnswerTooLongError`.
        """
        content = msgspec.json.encode(body)
        async with asyncio.timeout(self.timeout), self._client() as client:
            headers = self.headers(content, now)
            request = client.build_request("POST", self.url, content=content, headers=headers)
            response = await client.send(request, stream=True)
            try:
                return response.status_code, await _bounded(response)
            finally:
                await response.aclose()

    def headers(self, content: bytes, now: int) -> dict[str, str]:
        """Return the headers for a body.

        These are content type, time and, if configured, bearer token and HMAC-SHA256 of
        "<time>.<body>".
        """
        found = {"content-type": "application/json", TIMESTAMP: str(now)}
        if self.secret:
            mac = hmac.new(self.secret, f"{now}.".encode() + content, hashlib.sha256)
            found[SIGNATURE] = f"sha256={mac.hexdigest()}"
        if self.bearer:
            found["authorization"] = f"Bearer {self.bearer}"
        return found

    def _client(self) -> httpx.AsyncClient:
        # Without `tls` it is plain HTTP on loopback, where there is nothing to verify.
        verify = self.tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return httpx.AsyncClient(verify=verify, trust_env=False, timeout=self.timeout)


async def _bounded(response: httpx.Response) -> bytes:
    content = b""
    async for part in response.aiter_bytes():
        content += part
        if len(content) > _MAX_ANSWER:
            raise AnswerTooLongError
    return content


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
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            AnswerTooLongError,
            ValueError,
            OSError,
        ) as error:
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
    """Return a context: TLS 1.2 or newer, server name checked, client certificate if configured."""
    ca = section.webhook_ca_path
    roots = None
    if ca is not None:
        read_certificates(configuration.path(ca))  # an empty file would mean the system's roots
        roots = read_file(configuration.path(ca)).decode("ascii", "replace")
    try:
        context = ssl.create_default_context(cadata=roots)
    except (ValueError, ssl.SSLError):
        raise SettingsError(f"{ca}: no PEM certificate") from None
    cert, key = section.webhook_client_cert_path, section.webhook_client_key_path
    if cert is not None and key is not None:
        key_path = configuration.path(key)
        read_secret_file(key_path)
        try:
            context.load_cert_chain(configuration.path(cert), key_path, password="")
        except (OSError, ssl.SSLError):
            raise SettingsError(f"{cert}: no certificate matches the key {key}") from None
    return context


def _claims(section: ProfileSection) -> frozenset[str]:
    del section
    return LOOKED_UP_CLAIMS


KIND: Final = VerifierKind(WEBHOOK, _prepare, on_renewal=True, claims=_claims)
