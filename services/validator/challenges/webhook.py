"""`webhook`: an operator's own service says who may enroll; only a clear yes is one."""

import asyncio
import hashlib
import hmac
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import msgspec

from services.validator.challenges.answers import denied, judge_answer
from services.validator.challenges.verifier import ChallengeRequest, ChallengeResult, Places
from shared.log.events.enrollment import Facts
from shared.observe.logs import log_failure

SIGNATURE: Final = "Scepstream-Signature"
TIMESTAMP: Final = "Scepstream-Timestamp"
_MAX_ANSWER: Final = 64 * 1024


class AnswerTooLongError(Exception):
    """Raised for an answer that nobody would send who only says yes or no."""


@dataclass(frozen=True)
class Endpoint:
    """Where to post, and how to prove who posts: HMAC key, bearer token, client certificate.

    `tls` is None for plain HTTP, which settings allow on loopback alone; `timeout` in seconds.
    """

    url: str
    timeout: float
    secret: bytes = field(default=b"", repr=False)
    bearer: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None

    async def post(self, body: Mapping[str, Any], now: int) -> tuple[int, bytes]:
        """(status, content); `httpx.HTTPError`, `TimeoutError` or `AnswerTooLongError`.

        No redirect is followed, no proxy of the environment asked.
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
        """Content type, time, and the HMAC-SHA256 over "<time>.<body>"; bearer where there is."""
        found = {"content-type": "application/json", TIMESTAMP: str(now)}
        if self.secret:
            mac = hmac.new(self.secret, f"{now}.".encode() + content, hashlib.sha256)
            found[SIGNATURE] = f"sha256={mac.hexdigest()}"
        if self.bearer:
            found["authorization"] = f"Bearer {self.bearer}"
        return found

    def _client(self) -> httpx.AsyncClient:
        # Without a context of its own it is plain HTTP on loopback: nothing to verify there.
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
    """See `Verifier`; a redelivered request is asked about again, under the same `id`."""

    endpoint: Endpoint
    limit: asyncio.Semaphore
    places: Places = field(default_factory=Places)

    async def verify(self, asked: ChallengeRequest) -> ChallengeResult:
        """See `Verifier.verify`; whatever is not a yes in time is a no."""
        with self.places.taken() as free:
            if not free:
                return denied("too many requests wait for the webhook: try again later")
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
            return denied("the webhook cannot be asked now")
        secret = self.endpoint.secret.decode("utf-8", "replace")
        return judge_answer(status, content, (asked.challenge, self.endpoint.bearer, secret))


def question(asked: ChallengeRequest) -> dict[str, Any]:
    """What the operator's service is asked: it gets the challenge, nobody else does."""
    return {
        "id": asked.enrollment.prefix(),
        "profile": asked.enrollment.profile,
        "transaction_id": asked.transaction_id,
        "challenge": asked.challenge,
        "renewal": bool(asked.opened.renews),
        "csr": described(asked.opened.facts),
    }


def described(facts: Facts) -> dict[str, Any]:
    """The decoded CSR."""
    return {
        "subject": facts.subject,
        "sans": list(facts.sans),
        "key_type": facts.key_type,
        "key_bits": facts.key_bits,
        "spki_sha256": facts.spki_sha256,
        "sha256": facts.csr_sha256,
    }
