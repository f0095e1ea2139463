"""HTTPS to Microsoft for one tenant: bounded answers, no redirects, a breaker for each service."""

import asyncio
import contextlib
import random
import secrets
import ssl
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import httpx

from services.validator.microsoft import hints
from services.validator.microsoft.connection import TenantConnection
from services.validator.microsoft.model import LastError, MicrosoftUnavailableError, Problem
from services.validator.microsoft.parsing import retry_after
from services.validator.microsoft.retrying import (
    LOST,
    UNREACHED,
    Breaker,
    Move,
    Step,
    Tried,
    is_failure,
    may_have_acted,
    next_move,
)
from shared.observe.metrics import MICROSOFT_BREAKER, MICROSOFT_CALLS, MICROSOFT_SECONDS
from shared.runtime.process import now as process_now

MAX_ANSWER: Final = 1024 * 1024
_CONNECT_SECONDS: Final = 5.0
_READ_SECONDS: Final = 10.0
_POOL_SECONDS: Final = 2.0
_IDLE_SECONDS: Final = 15.0
_OK: Final = 200
_REDIRECTS: Final = range(300, 400)
_THROTTLED: Final = (429, 503)
_GZIP: Final = 16 + zlib.MAX_WBITS
_SYSTEM: Final = random.SystemRandom()


def _new_id() -> str:
    return str(UUID(bytes=secrets.token_bytes(16), version=4))


@dataclass(frozen=True)
class Surroundings:
    """What a client gets from outside: the clock (Unix seconds), sleep, random numbers, UUIDs."""

    clock: Callable[[], float] = process_now
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    draw: Callable[[], float] = _SYSTEM.random
    new_id: Callable[[], str] = _new_id


@dataclass(frozen=True, slots=True)
class Request:
    """A request; what it sends is a secret."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    content: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, or none: `status` is HTTP's, `UNREACHED` or `LOST`, `why` says what happened.

    `wish` is the Retry-After in seconds. `sent` says whether this attempt or an earlier one may
    have been carried out.
    """

    status: int
    content: bytes = field(default=b"", repr=False)
    wish: float | None = None
    why: str = ""
    sent: bool = False


class TooLongError(Exception):
    """Raised for an answer that is too long, or compressed in a way that was not asked for."""


@dataclass(slots=True)
class _Progress:
    """Whether a call's request may have been carried out, and whether it is under way."""

    sent: bool = False
    flying: bool = False


@dataclass
class Record:
    """What operators see of a connection; times in Unix seconds."""

    calls: Counter[str] = field(default_factory=Counter)
    last_ok: float = 0.0
    last_error: LastError | None = None


Prepare = Callable[[], Awaitable[Request]]
Again = Callable[[Move, Reply], None]


def _nothing(move: Move, reply: Reply) -> None:
    del move, reply


@dataclass
class Channel:
    """The connections of one tenant, and what is known about Microsoft's services for it."""

    connection: TenantConnection
    around: Surroundings = field(default_factory=Surroundings)
    record: Record = field(default_factory=Record)
    throttled: dict[str, float] = field(default_factory=dict)
    breakers: dict[str, Breaker] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Limit the requests under way."""
        self._slots = asyncio.Semaphore(self.connection.concurrency)
        self._http: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    def deadline(self, wanted: float | None = None) -> float:
        """Return when a call that begins now must end, in Unix seconds."""
        latest = self.around.clock() + self.connection.budget
        return latest if wanted is None else min(wanted, latest)

    @contextlib.asynccontextmanager
    async def measured(self, operation: str) -> AsyncIterator[list[str]]:
        """Count and time a call; the caller may append its result, "success" otherwise."""
        result: list[str] = []
        name = self.connection.name
        try:
            with MICROSOFT_SECONDS.labels(name, operation).time():
                yield result
        except MicrosoftUnavailableError as error:
            result[:] = [error.kind.value]
            self.record.last_error = LastError(error.kind, str(error), self.around.clock())
            raise
        except BaseException:
            result[:] = ["cancelled"]
            raise
        else:
            self.record.last_ok = self.around.clock()
        finally:
            outcome = result[0] if result else "success"
            self.record.calls[outcome] += 1
            MICROSOFT_CALLS.labels(name, operation, outcome).inc()

    async def exchange(
        self,
        service: str,
        prepare: Prepare,
        deadline: float,
        *,
        bearer: bool = True,
        relocatable: bool = False,
        again: Again = _nothing,
    ) -> Reply:
        """Make attempts until one has an answer to use, or no further one is due.

        `prepare` makes the request of each attempt; `again` is called before another one. `bearer`
        says whether it sends a token, which may have to be replaced. Raises
        `MicrosoftUnavailableError` if the breaker is open or the budget is used up.
        """
        progress = _Progress()
        remaining = deadline - self.around.clock()
        try:
            async with asyncio.timeout(max(remaining, 0.0)):
                tried = Tried(refreshed=not bearer)
                return await self._attempts(
                    service, prepare, deadline, tried, relocatable, again, progress
                )
        except TimeoutError:
            if progress.flying:
                self._account(service, Reply(LOST))
            detail = f"{service} did not answer within the budget"
            raise MicrosoftUnavailableError(Problem.OUTAGE, detail, sent=progress.sent) from None

    async def _attempts(
        self,
        service: str,
        prepare: Prepare,
        deadline: float,
        tried: Tried,
        relocatable: bool,  # noqa: FBT001 - one caller
        again: Again,
        progress: _Progress,
    ) -> Reply:
        while True:
            request = await _prepared(prepare, progress)
            await self._admit(service, deadline, progress.sent)
            reply = await self._once(service, request, progress)
            remaining = deadline - self.around.clock()
            draw = self.around.draw()
            move = next_move(
                reply.status, reply.wish, tried, remaining, draw, relocatable=relocatable
            )
            if move.step in (Step.USE, Step.FAIL):
                return reply
            tried = move.tried
            again(move, reply)
            if move.step is Step.WAIT:
                await self.around.sleep(move.seconds)

    async def _admit(self, service: str, deadline: float, sent: bool) -> None:  # noqa: FBT001
        """Wait while the service asks for fewer calls; fail at once if it cannot be asked."""
        clock = self.around.clock
        wait = self.throttled.get(service, 0.0) - clock()
        if wait > 0.0:
            if clock() + wait >= deadline:
                detail = f"{service} asks for fewer calls, for another {wait:.0f} s"
                raise MicrosoftUnavailableError(Problem.OUTAGE, detail, sent=sent)
            await self.around.sleep(wait)
        if closed := self._breaker(service).wait(clock()):
            detail = f"{service} failed repeatedly; it is tried again in {closed:.0f} s"
            raise MicrosoftUnavailableError(Problem.OUTAGE, detail, sent=sent)

    def _breaker(self, service: str) -> Breaker:
        return self.breakers.setdefault(service, Breaker())

    async def _once(self, service: str, request: Request, progress: _Progress) -> Reply:
        before = progress.sent
        async with self._slots:
            progress.sent = progress.flying = True  # until it is known that it was not
            reply = await self._send(service, request, before)
        progress.sent, progress.flying = before or may_have_acted(reply.status), False
        self._account(service, reply)
        return Reply(reply.status, reply.content, reply.wish, reply.why, progress.sent)

    async def _send(self, service: str, request: Request, before: bool) -> Reply:  # noqa: FBT001
        try:
            built = self._client.build_request(
                request.method, request.url, headers=dict(request.headers), content=request.content
            )
            response = await self._client.send(built, stream=True)
            try:
                wish = retry_after(response.headers.get("retry-after", ""), self.around.clock())
                self._refuse_redirect(service, response.status_code, before)
                return Reply(response.status_code, await _content(response), wish)
            finally:
                await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return Reply(UNREACHED, why=_cause(error))
        except TooLongError as error:
            self._account(service, Reply(_OK))
            detail = f"{service}: {error}"
            raise MicrosoftUnavailableError(Problem.PROTOCOL, detail, sent=True) from None
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
            return Reply(LOST, why=f"no complete answer ({type(error).__name__})")

    def _refuse_redirect(self, service: str, status: int, before: bool) -> None:  # noqa: FBT001
        if status in _REDIRECTS:
            self._account(service, Reply(status))
            detail = f"{service} redirects ({status})"
            raise MicrosoftUnavailableError(
                Problem.PROTOCOL, detail, hints.REDIRECT, sent=before
            ) from None

    def _account(self, service: str, reply: Reply) -> None:
        breaker, now = self._breaker(service), self.around.clock()
        if is_failure(reply.status, reply.wish):
            breaker.failed(now)
        else:
            breaker.succeeded()
        if reply.wish is not None and reply.status in _THROTTLED:
            self.throttled[service] = now + reply.wish
        MICROSOFT_BREAKER.labels(self.connection.name, service).set(breaker.open)

    @property
    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            name = self.connection.provider_name
            self._http = httpx.AsyncClient(
                verify=self.connection.tls,
                trust_env=False,
                follow_redirects=False,
                timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS, pool=_POOL_SECONDS),
                limits=httpx.Limits(
                    max_connections=self.connection.concurrency, keepalive_expiry=_IDLE_SECONDS
                ),
                headers={
                    "accept": "application/json",
                    "accept-encoding": "gzip",
                    "user-agent": name,
                },
            )
        return self._http


async def _prepared(prepare: Prepare, progress: _Progress) -> Request:
    """Return the next request; an error says whether an earlier one was sent.

    Otherwise it would speak of the token or the list of services, which change nothing.
    """
    try:
        return await prepare()
    except MicrosoftUnavailableError as error:
        raise MicrosoftUnavailableError(
            error.kind, error.detail, error.hint, sent=progress.sent
        ) from None


async def _content(response: httpx.Response) -> bytes:
    """Return the decoded body; neither it nor what was sent may be longer than `MAX_ANSWER`."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise TooLongError("the answer has an encoding that was not asked for")
    inflate = zlib.decompressobj(_GZIP) if encoding == "gzip" else None
    found, received = bytearray(), 0
    async for part in response.aiter_raw():
        received += len(part)
        try:
            found += inflate.decompress(part, MAX_ANSWER + 1 - len(found)) if inflate else part
        except zlib.error:
            raise TooLongError("the answer cannot be decompressed") from None
        if max(received, len(found)) > MAX_ANSWER:
            raise TooLongError(f"the answer is longer than {MAX_ANSWER} bytes")
    return bytes(found)


def _cause(error: BaseException) -> str:
    """Return what kept a connection from being made, in words without secrets."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"its TLS certificate is not trusted ({seen.verify_message})"
        if isinstance(seen, ssl.SSLError):
            return f"TLS failed ({seen.reason or 'handshake'})"
        if isinstance(seen, OSError) and seen.strerror:
            return f"it cannot be reached ({seen.strerror})"
        seen = seen.__cause__ or seen.__context__
    return "it cannot be reached (timeout or no connection)"
