"""Serves OCSP responses that an issuer signed: the newest of a certificate, kept for a minute.

A hint ends the minute early: see `services/issuer/responder.py`. Whoever asks about a certificate
without a response, or about another CA's, gets `unauthorized` (RFC 5019 s2.2.3).
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache, partial
from typing import Final, TypeVar

import structlog

from services.gateway.early import read_ocsp
from services.gateway.ocsp_requests import (
    MALFORMED,
    TRY_LATER,
    UNAUTHORIZED,
    MalformedRequestError,
    read_request,
)
from services.gateway.settings import Settings
from shared.bus.core import Bus, BusUnavailableError
from shared.bus.series import Series, SeriesTooLongError
from shared.ca.chains import ChainBook
from shared.limits import OCSP_CACHED, OCSP_READS
from shared.log.events.certificates import OcspResponseSigned
from shared.log.streams import OCSP
from shared.log.subjects import ocsp_response, serial_token
from shared.observe.metrics import REQUESTS
from shared.runtime.live import Live
from shared.scep.certificate import read_certificate
from shared.x509.cert_ids import CaId, ca_ids
from shared.x509.key_ids import spki_sha256

_log = structlog.get_logger()
OCSP_RESPONSE: Final = "application/ocsp-response"
_FRESH_SECONDS: Final = 60.0
_MAX_AGE: Final = 3600
_HEAD: Final = f"HTTP/1.1 200 OK\r\ncontent-type: {OCSP_RESPONSE}\r\ncontent-length: "
_SERVED: Final = REQUESTS.labels("", "ocsp", "200")
_STALE_SECONDS: Final = 300.0  # for which a kept response is served while the gateway is overloaded
_KEPT_BYTES: Final = 256  # of a request that is remembered; one without extensions has 80 or so
_SERIAL_BYTES: Final = 20  # RFC 5280 s4.1.2.2
_NOT_CACHED: Final[Mapping[str, str]] = {"cache-control": "no-store"}
_K = TypeVar("_K")
_V = TypeVar("_V")
Certificate = tuple[str, str]  # (issuer id, serial number in hex)
Named = tuple[Certificate, str, str]  # and the CA's pin, and the CertID's hash algorithm


class TooManyReadsError(BusUnavailableError):
    """Raised if too many requests wait for the log already."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An OCSPResponse (DER) and its caching headers."""

    body: bytes
    headers: Mapping[str, str]


_MALFORMED: Final = Reply(MALFORMED, _NOT_CACHED)
_TRY_LATER: Final = Reply(TRY_LATER, _NOT_CACHED)
_UNAUTHORIZED: Final = Reply(UNAUTHORIZED, _NOT_CACHED)


@dataclass(frozen=True, slots=True)
class Known:
    """Responses as read from the log at `read_at` (monotonic seconds), with their entity tags."""

    event: OcspResponseSigned
    read_at: float
    tags: Mapping[str, str]

    @classmethod
    def of(cls, event: OcspResponseSigned, read_at: float) -> "Known":
        """Compute the entity tags."""
        digests = {name: hashlib.sha256(der).hexdigest() for name, der in event.responses.items()}
        return cls(event, read_at, {name: f'"{each[:32]}"' for name, each in digests.items()})


@dataclass
class Statuses:
    """Finds and caches responses. `clock` returns Unix seconds, `timer` monotonic ones."""

    bus: Bus
    live: Live[Settings]
    chains: ChainBook
    clock: Callable[[], float]
    timer: Callable[[], float]
    _known: OrderedDict[Certificate, Known] = field(default_factory=OrderedDict)
    _asked: OrderedDict[tuple[str, bytes], Named] = field(default_factory=OrderedDict)
    _reads: dict[Certificate, "asyncio.Task[Known | None]"] = field(default_factory=dict)

    def on_hint(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Read a certificate's response again when it is next asked for."""
        del headers
        certificate = subject.partition(".")[2], payload.decode("ascii", "replace")
        self._known.pop(certificate, None)
        self._reads.pop(certificate, None)  # it may have read the response before this one

    async def answer(self, issuer: str, request: bytes) -> Reply:
        """Return the reply to an OCSP request (DER) about a certificate of this issuer."""
        try:
            asked = self._named(issuer, request)
        except MalformedRequestError:
            return _MALFORMED
        if asked is None:
            return _UNAUTHORIZED
        try:
            known = await self._newest(asked[0])
        except (BusUnavailableError, SeriesTooLongError) as error:
            _log.warning("ocsp_response_not_readable", issuer=issuer, detail=str(error)[:100])
            return _TRY_LATER
        if known is None:
            return _UNAUTHORIZED
        if len(request) <= _KEPT_BYTES:  # others have a nonce: they never come again
            _keep(self._asked, (issuer, request), asked)
        return _reply(known, asked, int(self.clock()))

    def at_hand(self, received: bytes) -> bytes | None:
        """Return the HTTP response to a complete request, if all that it needs is in memory.

        It does without an HTTP parser, a task and a request object, which would be most of the work
        of an OCSP request.
        """
        found = read_ocsp(received)
        asked = self._asked.get(found) if found is not None else None
        known = self._known.get(asked[0]) if asked is not None else None
        if found is None or asked is None or known is None or not self._is_fresh(known):
            return None
        self._asked.move_to_end(found)
        self._known.move_to_end(asked[0])
        now = int(self.clock())
        reply = _reply(known, asked, now)
        if reply in (_UNAUTHORIZED, _TRY_LATER):
            return None
        _SERVED.inc()
        lines = (f"{name}: {value}\r\n" for name, value in reply.headers.items())
        head = f"{_HEAD}{len(reply.body)}\r\ndate: {_date(now)}\r\n{''.join(lines)}\r\n"
        return head.encode("ascii") + reply.body

    def _is_fresh(self, known: Known) -> bool:
        return self.timer() - known.read_at <= _FRESH_SECONDS

    async def _newest(self, certificate: Certificate) -> Known | None:
        """Return a certificate's newest response: the kept one, if it is fresh or the bus away."""
        known = self._known.get(certificate)
        if known is not None and self._is_fresh(known):
            self._known.move_to_end(certificate)
            return known
        try:
            return await self._read(certificate)
        except TooManyReadsError:
            if known is None or self.timer() - known.read_at > _STALE_SECONDS:
                raise
            return known
        except BusUnavailableError:
            if known is None:
                raise
            return known

    def _named(self, issuer: str, request: bytes) -> Named | None:
        """Return the certificate that a request is about, None for a stranger's or several."""
        if (found := self._asked.get((issuer, request))) is not None:
            return found
        asked = read_request(request)
        pin = self._pin(issuer, asked.ca) if asked is not None else None
        if asked is None or pin is None or not 0 < len(asked.serial) <= _SERIAL_BYTES:
            return None
        return (issuer, serial_token(asked.serial)), pin, asked.ca.algorithm

    def _pin(self, issuer: str, named: CaId) -> str | None:
        """Return the pin of the issuer's CA that a client names."""
        wanted = (each for each in self.live.current.chains() if each[0] == issuer)
        for chain in (self.chains.get(*each) for each in wanted):
            for ca in (chain.der[0], *chain.previous) if chain is not None else ():
                names, pin = _ids(ca)
                if named in names:
                    return pin
        return None

    async def _read(self, certificate: Certificate) -> Known | None:
        """Read a certificate's newest response; None if it has none. Callers share a read.

        Raises `BusUnavailableError`, and `TooManyReadsError` if too many wait for the log already.
        """
        reading = self._reads.get(certificate)
        if reading is None:
            # Half of the places are for certificates whose response was read before.
            places = OCSP_READS if certificate in self._known else OCSP_READS // 2
            if len(self._reads) >= places:
                raise TooManyReadsError("too many OCSP requests wait for the log")
            reading = asyncio.create_task(self._fetch(certificate))
            self._reads[certificate] = reading
            reading.add_done_callback(partial(self._fetched, certificate))
        return await asyncio.shield(reading)

    async def _fetch(self, certificate: Certificate) -> Known | None:
        place, trusted = ocsp_response(*certificate, "*"), self.live.current.issuers
        responses = Series(self.bus, OCSP, place, OcspResponseSigned, trusted, "ocsp")
        begun, newest = self.timer(), await responses.newest()
        if newest is None or (newest.event.issuer, newest.event.serial) != certificate:
            return None
        return Known.of(newest.event, begun)

    def _fetched(self, certificate: Certificate, reading: "asyncio.Task[Known | None]") -> None:
        """Keep what was read, unless a hint came in the meantime."""
        is_newest = self._reads.get(certificate) is reading
        if is_newest:
            del self._reads[certificate]
        known = None if reading.cancelled() or reading.exception() else reading.result()
        if known is not None and is_newest:
            _keep(self._known, certificate, known)


@lru_cache(maxsize=256)
def _ids(ca: bytes) -> tuple[tuple[CaId, ...], str]:
    return ca_ids(ca), spki_sha256(read_certificate(ca).spki)


def _keep(cache: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    """Put a value into a bounded cache, from which the longest unused leaves first."""
    cache[key] = value
    cache.move_to_end(key)
    while len(cache) > OCSP_CACHED:
        cache.popitem(last=False)


def _reply(known: Known, asked: Named, now: int) -> Reply:
    """Return what is known of the certificate that a client asked about."""
    _, pin, algorithm = asked
    der = known.event.responses.get(algorithm)
    if der is None or known.event.ca_spki_sha256 != pin:
        return _UNAUTHORIZED
    if now >= known.event.next_update:
        return _TRY_LATER
    return Reply(der, _caching(known.event, known.tags[algorithm], now))


def _caching(event: OcspResponseSigned, tag: str, now: int) -> dict[str, str]:
    """Return the caching headers of RFC 5019 s6.2.

    A cache keeps a response for an hour at most, so that it learns of a revocation by then.
    """
    age = min(_MAX_AGE, event.next_update - now)
    return {
        "cache-control": f"public, max-age={age}, no-transform, must-revalidate",
        "last-modified": _date(event.this_update),
        "expires": _date(now + age),
        "etag": tag,
    }


@lru_cache(maxsize=4096)
def _date(seconds: int) -> str:
    """Return Unix seconds as HTTP writes them."""
    return formatdate(seconds, usegmt=True)
