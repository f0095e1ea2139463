"""Serves OCSP responses that an issuer signed: the newest of a certificate, kept for a minute.

A hint ends the minute early: see `services/issuer/responder.py`. Whoever asks about a certificate
without a response, or about another CA's, gets `unauthorized` (RFC 5019 s2.2.3).
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
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
_SERIAL_BYTES: Final = 20  # RFC 5280 s4.1.2.2
_NOT_CACHED: Final[Mapping[str, str]] = {"cache-control": "no-store"}
_K = TypeVar("_K")
_V = TypeVar("_V")
Certificate = tuple[str, str]  # (issuer id, serial number in hex)
Named = tuple[Certificate, str, str]  # and the CA's pin, and the CertID's hash algorithm


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
    _reading: int = 0

    def on_hint(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Read a certificate's response again when it is next asked for."""
        del headers
        issuer = subject.partition(".")[2]
        self._known.pop((issuer, payload.decode("ascii", "replace")), None)

    async def answer(self, issuer: str, request: bytes) -> Reply:
        """Return the reply to an OCSP request (DER) about a certificate of this issuer."""
        try:
            asked = self._certificate(issuer, request)
        except MalformedRequestError:
            return _MALFORMED
        if asked is None:
            return _UNAUTHORIZED
        try:
            known = await self._newest(asked[0])
        except (BusUnavailableError, SeriesTooLongError) as error:
            _log.warning("ocsp_response_not_readable", issuer=issuer, detail=str(error)[:100])
            return _TRY_LATER
        return _reply(known, asked, int(self.clock())) if known else _UNAUTHORIZED

    def at_hand(self, received: bytes) -> bytes | None:
        """Return the HTTP response to a complete request, if all that it needs is in memory.

        It does without an HTTP parser, a task and a request object, which would be most of the work
        of an OCSP request.
        """
        asked = self._asked.get(found) if (found := read_ocsp(received)) is not None else None
        known = self._known.get(asked[0]) if asked is not None else None
        if asked is None or known is None or not self._is_fresh(known):
            return None
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
            return known
        try:
            return await self._read(certificate)
        except BusUnavailableError:
            if known is None:
                raise
            return known

    def _certificate(self, issuer: str, request: bytes) -> Named | None:
        """Return the certificate that a request is about and its CA's pin, None for a stranger's.

        Clients send the same bytes for the same certificate, unless they add a nonce.
        """
        key = issuer, request
        if key in self._asked:
            return self._asked[key]
        asked = read_request(request)
        pin = self._pin(issuer, asked.ca) if asked is not None else None
        if asked is None or pin is None or not 0 < len(asked.serial) <= _SERIAL_BYTES:
            return None
        certificate = issuer, serial_token(asked.serial)
        return _kept(self._asked, key, (certificate, pin, asked.ca.algorithm))

    def _pin(self, issuer: str, named: CaId) -> str | None:
        """Return the pin of the issuer's CA that a client names."""
        wanted = (each for each in self.live.current.chains() if each[0] == issuer)
        for chain in (self.chains.get(*each) for each in wanted):
            for ca in (chain.der[0], *chain.previous) if chain is not None else ():
                names, pin = _named(ca)
                if named in names:
                    return pin
        return None

    async def _read(self, certificate: Certificate) -> Known | None:
        """Read a certificate's newest response; None if it has none.

        Raises `BusUnavailableError`, also if too many requests wait for the log already.
        """
        if self._reading >= OCSP_READS:
            raise BusUnavailableError("too many OCSP requests wait for the log")
        self._reading += 1
        try:
            place = ocsp_response(*certificate, "*")
            trusted = self.live.current.issuers
            responses = Series(self.bus, OCSP, place, OcspResponseSigned, trusted, "ocsp")
            newest = await responses.newest()
        finally:
            self._reading -= 1
        if newest is None or (newest.event.issuer, newest.event.serial) != certificate:
            return None
        return _kept(self._known, certificate, Known.of(newest.event, self.timer()))


@lru_cache(maxsize=256)
def _named(ca: bytes) -> tuple[tuple[CaId, ...], str]:
    return ca_ids(ca), spki_sha256(read_certificate(ca).spki)


def _kept(cache: OrderedDict[_K, _V], key: _K, value: _V) -> _V:
    """Put a value into a bounded cache and return it."""
    cache[key] = value
    cache.move_to_end(key)
    while len(cache) > OCSP_CACHED:
        cache.popitem(last=False)
    return value


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
