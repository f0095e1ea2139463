"""CA chains that issuers publish: read from the bus, trusted only if a profile pins them."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import Final

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from shared.bus.core import Bus, BusUnavailableError
from shared.log.envelope import Stored, UnreadableEventError, decode
from shared.log.events.certificates import CaChain
from shared.log.streams import CA_CHAINS
from shared.log.subjects import chain_subject
from shared.observe.logs import log_failure
from shared.scep.certificate import Certificate, read_certificate
from shared.scep.cms import read_der_or_ber
from shared.scep.errors import ScepError
from shared.scep.schemes import public_key
from shared.scep.signed_data import read_signed_data, verify
from shared.x509.key_ids import spki_sha256
from shared.x509.loading import loading
from shared.x509.names import read_name
from shared.x509.signatures import is_issued_by

_log = structlog.get_logger()
_REFRESH_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 0.2

ChainKey = tuple[str, tuple[str, ...]]


class UntrustedChainError(Exception):
    """Raised for a chain whose CA is not pinned, or whose certificates do not form a chain."""


@dataclass(frozen=True, slots=True)
class Chain:
    """An issuing CA and the CAs above it, as DER and parsed, the issuing CA first.

    `previous` are the issuer's CAs before a rollover, as DER. `next_signed` is the CA's signed
    announcement for GetNextCACert; empty if no next CA is planned.
    """

    der: tuple[bytes, ...]
    certificates: tuple[x509.Certificate, ...]
    previous: tuple[bytes, ...] = ()
    next_signed: bytes = b""

    @property
    def ca(self) -> x509.Certificate:
        """The issuing CA."""
        return self.certificates[0]

    def issued(self, certificate: bytes) -> bool:
        """Return whether the issuer's current CA or an earlier one issued a certificate (DER)."""
        return any(_issued(ca, certificate) for ca in (self.der[0], *self.previous))

    def ca_named(self, name: bytes) -> bytes | None:
        """Return the CA (DER) with this name (DER), the current one before earlier ones, or None.

        Clients re-encode names, so their text is compared.
        """
        wanted = read_name(name)
        cas = (self.der[0], *self.previous)
        return next((ca for ca in cas if read_name(read_certificate(ca).subject) == wanted), None)

    def ca_pinned(self, pin: str) -> bytes | None:
        """Return the CA (DER) with this SPKI SHA-256, or None; the current one for ""."""
        if not pin:
            return self.der[0]
        return next((ca for ca in (self.der[0], *self.previous) if _pin(ca) == pin), None)


def _issued(ca: bytes, certificate: bytes) -> bool:
    parsed = _ca(ca)
    return is_issued_by(certificate, parsed.subject, public_key(parsed.spki))


@lru_cache(maxsize=64)
def _ca(der: bytes) -> Certificate:
    return read_certificate(der)


def read_chain(stored: Stored, pins: Collection[str]) -> Chain:
    """Return the chain in a stored message, whose CA must be pinned and each link signed.

    Earlier CAs that are not pinned are left out. `pins` are SHA-256 digests of SPKIs, in hex.
    Raises `UntrustedChainError`.
    """
    try:
        event = decode(stored.payload, stored.headers)
        if not isinstance(event, CaChain) or not event.certificates:
            raise UntrustedChainError("not a CA chain event, or an empty one")
        with loading():
            certificates = tuple(map(x509.load_der_x509_certificate, event.certificates))
            for lower, upper in pairwise(certificates):
                lower.verify_directly_issued_by(upper)
        if _pin(event.certificates[0]) not in pins:
            raise UntrustedChainError("the CA's key is not pinned")
        previous = tuple(der for der in event.previous if _pin(der) in pins)
        _check_next(event)
    except (UnreadableEventError, ValueError, InvalidSignature, ScepError):
        raise UntrustedChainError("the chain's signatures do not verify") from None
    return Chain(event.certificates, certificates, previous, event.next_signed)


def _pin(der: bytes) -> str:
    return spki_sha256(read_certificate(der).spki)


def _check_next(event: CaChain) -> None:
    """Require that the CA itself signed the announcement of the next CA.

    The RA signs the reply to devices: see docs/decisions/0027.
    """
    if event.next_signed:
        signed = read_der_or_ber(event.next_signed, read_signed_data)
        verify(signed)
        if signed.signer.der != event.certificates[0]:
            raise ScepError("the next CA is not signed by the current CA")


@dataclass
class ChainBook:
    """The current chain of each wanted (issuer, pins), read repeatedly to stay current."""

    bus: Bus
    wanted: frozenset[ChainKey]
    _chains: dict[ChainKey, Chain] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, bus: Bus, wanted: Iterable[ChainKey]) -> "ChainBook":
        """Return a book for these (issuer, pins)."""
        return cls(bus, frozenset(wanted))

    def set_wanted(self, wanted: Iterable[ChainKey]) -> None:
        """Replace what is wanted, after the configuration was reloaded.

        A known chain that is still pinned remains in use until the log is read again.
        """
        self.wanted = frozenset(wanted)
        for issuer, pins in self.wanted:
            for (known, _), chain in list(self._chains.items()):
                if known == issuer and _pin(chain.der[0]) in pins:
                    previous = tuple(der for der in chain.previous if _pin(der) in pins)
                    kept = replace(chain, previous=previous)
                    self._chains.setdefault((issuer, pins), kept)
        self._changed.set()

    def get(self, issuer: str, pins: tuple[str, ...]) -> Chain | None:
        """Return the chain, or None if it has not been read yet."""
        return self._chains.get((issuer, pins))

    def issued(self, certificate: bytes) -> bool:
        """Return whether a CA of any known wanted chain issued a certificate (DER)."""
        known = (self._chains.get(wanted) for wanted in self.wanted)
        return any(chain.issued(certificate) for chain in known if chain is not None)

    async def reread(self, issuer: str, pins: tuple[str, ...]) -> Chain | None:
        """Read the chain from the stream's leader now and return it.

        Raises `BusUnavailableError` if the leader cannot be read.
        """
        stored = await self.bus.get_last_from_leader(CA_CHAINS, chain_subject(issuer))
        self._take(issuer, pins, stored)
        return self.get(issuer, pins)

    def missing(self) -> list[str]:
        """Return the issuers whose chain has not been read yet."""
        return sorted({issuer for issuer, pins in self.wanted - self._chains.keys()})

    async def start(self) -> None:
        """Start to read chains and to listen for hints."""
        await self.bus.on_hint("chain.*", self._on_hint)
        self._task = asyncio.create_task(self._watch())

    def stop(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()

    def _on_hint(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Read chains again at once; the hint's content is not trusted."""
        del subject, payload, headers
        self._changed.set()

    async def _watch(self) -> None:
        while True:
            for issuer, pins in self.wanted:
                try:
                    await self._read(issuer, pins)
                except Exception as error:  # noqa: BLE001 - one chain must not end the watch
                    log_failure("ca_chain_waiting", error, issuer=issuer)
            try:
                async with asyncio.timeout(_RETRY_SECONDS if self.missing() else _REFRESH_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                continue
            self._changed.clear()

    async def _read(self, issuer: str, pins: tuple[str, ...]) -> None:
        """Read one chain; keep the previous one if that fails."""
        try:
            stored = await self.bus.get_last(CA_CHAINS, chain_subject(issuer))
        except BusUnavailableError:
            return
        self._take(issuer, pins, stored)

    def _take(self, issuer: str, pins: tuple[str, ...], stored: Stored | None) -> None:
        try:
            if stored is not None:
                self._chains[issuer, pins] = read_chain(stored, pins)
        except UntrustedChainError as error:
            _log.error("ca_chain_refused", issuer=issuer, detail=str(error))
