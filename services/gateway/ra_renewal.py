"""Takes over RA certificates that the issuer renewed, beside the ones that they follow.

A renewed certificate has the key of one that is configured, so nothing secret travels. It is used
at once, and written in front of the old one in its file, so that the next start has it too. Where
the file cannot be written, it is taken from the log again at every start, as long as the old one is
valid.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkstemp
from typing import Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from services.gateway.ra import RaPair, assemble
from services.gateway.settings import Profile, Settings
from shared.bus.core import Bus
from shared.bus.series import Series
from shared.ca.chains import ChainBook
from shared.log.events.certificates import ServiceCertificateIssued
from shared.log.streams import CERTS
from shared.log.subjects import ra_renewed
from shared.runtime.live import Live
from shared.runtime.periodic import every
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError
from shared.x509.key_ids import spki_sha256
from shared.x509.loading import loading

_log = structlog.get_logger()
_LOOK_SECONDS: Final = 30.0
_RETRY_SECONDS: Final = 2.0
_KEPT: Final = 4  # renewed certificates of one key


@dataclass
class RaRenewals:
    """The renewed certificates of a gateway's RA keys, by the SHA-256 of the key, newest first.

    `changed` is called after new ones are in effect. `clock` returns Unix seconds.
    """

    bus: Bus
    live: Live[Settings]
    chains: ChainBook
    clock: Callable[[], float]
    changed: Callable[[], None] = lambda: None
    _renewed: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    _refused: dict[str, bytes] = field(default_factory=dict)

    async def run(self) -> None:
        """Look for renewed certificates, forever."""
        await every(_LOOK_SECONDS, self.look, name="ra_renewals", retry=_RETRY_SECONDS)

    def beside(self, settings: Settings) -> Settings:
        """Return settings with the renewed certificates beside those of the files."""
        now = self.clock()
        profiles = {name: self._beside(profile, now) for name, profile in settings.profiles.items()}
        return replace(settings, profiles=profiles)

    def _beside(self, profile: Profile, now: float) -> Profile:
        known = {pair.der for pair in profile.ra_pairs}
        added = [
            replace(pair, certificate=x509.load_der_x509_certificate(der))
            for pair in _one_for_each_key(profile.ra_pairs)
            for der in self._renewed.get(pair.spki_sha256, ())
            if der not in known
        ]
        return replace(profile, ra=assemble([*profile.ra_pairs, *added], now)) if added else profile

    async def look(self) -> None:
        """Read the newest certificate of each RA key; use and write those that are new."""
        pairs = {
            (profile.issuer, pair.spki_sha256): (profile, pair)
            for profile in self.live.current.profiles.values()
            for pair in _one_for_each_key(profile.ra_pairs)
        }
        found = [await self._look_for(profile, pair) for profile, pair in pairs.values()]
        if any(found):
            self.live.current = self.beside(self.live.current)
            self.changed()

    async def _look_for(self, profile: Profile, pair: RaPair) -> bool:
        key, trusted = pair.spki_sha256, self.live.current.issuers
        if self.chains.get(profile.issuer, profile.ca_spki_sha256) is None:
            return False
        place = ra_renewed(profile.issuer, key, "*")
        newest = await Series(
            self.bus, CERTS, place, ServiceCertificateIssued, trusted, "ra"
        ).newest()
        if newest is None or newest.event.certificate in self._renewed.get(key, ()):
            return False
        der = newest.event.certificate
        if any(der == each.der for each in profile.ra_pairs):
            return False
        if problem := self._problem(profile, pair, newest.event):
            if self._refused.get(key) != der:
                self._refused[key] = der
                _log.warning("ra_renewal_refused", profile=profile.name, detail=problem)
            return False
        self._renewed[key] = (der, *self._renewed.get(key, ()))[:_KEPT]
        _log.info("ra_renewed", profile=profile.name, serial=newest.event.serial)
        if pair.path is not None:
            _write(pair.path, der)
        return True

    def _problem(self, profile: Profile, pair: RaPair, event: ServiceCertificateIssued) -> str:
        """Return why a certificate does not continue a pair, "" if it does."""
        chain = self.chains.get(profile.issuer, profile.ca_spki_sha256)
        if chain is None or event.purpose != "ra" or event.issuer != profile.issuer:
            return "it is not an RA certificate of the profile's issuer"
        try:
            same_key = spki_sha256(read_certificate(event.certificate).spki) == pair.spki_sha256
            with loading():
                loaded = x509.load_der_x509_certificate(event.certificate)
        except (ScepError, ValueError):
            return "it does not parse"
        if not same_key or not chain.issued(event.certificate):
            return "it has another key or was not issued by the profile's CA"
        if loaded.not_valid_after_utc <= pair.certificate.not_valid_after_utc:
            return "it does not live longer than the one before"
        return ""


def _one_for_each_key(pairs: tuple[RaPair, ...]) -> list[RaPair]:
    """Return the pair of each key that ends last."""
    ordered = sorted(pairs, key=lambda pair: pair.certificate.not_valid_after_utc)
    return list({pair.spki_sha256: pair for pair in ordered}.values())


def _write(path: Path, der: bytes) -> None:
    """Write a certificate in front of what its file holds; log if that is not possible."""
    pem = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
    real = path.resolve()
    try:
        content, mode = real.read_bytes(), real.stat().st_mode & 0o777
        if pem in content:
            return
        descriptor, temporary = mkstemp(prefix=f".{real.name}.", suffix=".new", dir=real.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)
                file.write(pem + content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(real)
        finally:
            Path(temporary).unlink(missing_ok=True)
        _sync(real.parent)
    except OSError as error:
        _log.warning("ra_file_not_written", path=str(path), detail=error.strerror)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
