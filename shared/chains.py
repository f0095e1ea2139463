"""CA chains as issuers publish them: read from the bus, believed only where a profile pins them."""

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from shared.bus.core import Bus, BusUnavailableError
from shared.bus.topology import CA_CHAINS, chain_subject
from shared.events import CaChain, Stored, UnreadableEventError, decode
from shared.keys import spki
from shared.scep.certificate import read_certificate
from shared.signatures import PublicKey, is_issued_by

_log = structlog.get_logger()
_REFRESH_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 0.2


class UntrustedChainError(Exception):
    """Raised for a chain whose CA is not the pinned one, or that does not hang together."""


@dataclass(frozen=True, slots=True)
class Chain:
    """An issuing CA and what stands above it, as DER and parsed, the CA first."""

    der: tuple[bytes, ...]
    certificates: tuple[x509.Certificate, ...]

    @property
    def ca(self) -> x509.Certificate:
        """The CA that issues."""
        return self.certificates[0]

    def issued(self, certificate: bytes) -> bool:
        """Whether the CA's key signed this certificate (DER)."""
        key = self.ca.public_key()
        if not isinstance(key, PublicKey):
            return False
        return is_issued_by(certificate, read_certificate(self.der[0]).subject, key)


def read_chain(stored: Stored, pin: str) -> Chain:
    """The chain in a stored message; each certificate signed by the next, the first one pinned."""
    try:
        event = decode(stored.payload, stored.headers)
        if not isinstance(event, CaChain) or not event.certificates:
            raise UntrustedChainError("no chain")
        certificates = tuple(x509.load_der_x509_certificate(der) for der in event.certificates)
        for lower, upper in pairwise(certificates):
            lower.verify_directly_issued_by(upper)
    except (UnreadableEventError, ValueError, TypeError, InvalidSignature):
        raise UntrustedChainError("the chain does not hang together") from None
    if hashlib.sha256(spki(certificates[0])).hexdigest() != pin:
        raise UntrustedChainError("the CA's key is not the pinned one")
    return Chain(event.certificates, certificates)


@dataclass
class ChainBook:
    """The current chain of each (issuer, pin), read until all are there, then kept fresh."""

    bus: Bus
    wanted: frozenset[tuple[str, str]]
    _chains: dict[tuple[str, str], Chain] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, bus: Bus, wanted: Iterable[tuple[str, str]]) -> "ChainBook":
        """A book for these (issuer, SPKI SHA-256) pairs."""
        return cls(bus, frozenset(wanted))

    def get(self, issuer: str, pin: str) -> Chain | None:
        """The chain, None until it was read once."""
        return self._chains.get((issuer, pin))

    def missing(self) -> list[str]:
        """The issuers whose chain was not read yet."""
        return sorted({issuer for issuer, pin in self.wanted - self._chains.keys()})

    async def start(self) -> None:
        """Begin to read and watch."""
        await self.bus.on_hint("chain.*", self._on_hint)
        self._task = asyncio.create_task(self._watch())

    def stop(self) -> None:
        """Watch no more."""
        if self._task is not None:
            self._task.cancel()

    def _on_hint(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """A hint only says "read again": what it carries is not believed."""
        del subject, payload, headers
        self._changed.set()

    async def _watch(self) -> None:
        while True:
            for issuer, pin in self.wanted:
                await self._read(issuer, pin)
            try:
                async with asyncio.timeout(_RETRY_SECONDS if self.missing() else _REFRESH_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                continue
            self._changed.clear()

    async def _read(self, issuer: str, pin: str) -> None:
        """Read one chain; what was read before is kept where that fails."""
        try:
            stored = await self.bus.get_last(CA_CHAINS, chain_subject(issuer))
            if stored is not None:
                self._chains[issuer, pin] = read_chain(stored, pin)
        except BusUnavailableError:
            return
        except UntrustedChainError as error:
            _log.error("ca_chain_refused", issuer=issuer, detail=str(error))
