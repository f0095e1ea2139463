"""Signed challenges for the device that enrolls, from the stand-in connector."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from cli.connector.signing import ChallengeClaims, Connector
from cli.enroll.identity import RequestError, common_name, san_texts
from shared.config.load import SettingsError
from shared.runtime.process import now


@dataclass(frozen=True)
class ChallengeSource:
    """The connector's directory, the device ID (`sub`) and the audience of signed challenges."""

    directory: Path
    device: str | None
    audience: str | None

    def challenge(self, cn: str, sans: tuple[str, ...]) -> str:
        """Return the signed challenge of a first enrollment."""
        try:
            claims = ChallengeClaims.for_device(self.device or cn, cn, sans, self.audience)
        except ValueError as error:
            raise RequestError(f"--san {error}") from None
        try:
            connector = Connector.read(self.directory)
        except (OSError, ValueError, SettingsError) as error:
            said = str(error) if isinstance(error, SettingsError) else type(error).__name__
            raise RequestError(f"--connector {self.directory}: not a connector: {said}") from None
        return connector.mint(claims, secrets.token_hex(16), int(now()))

    def renewal_challenge(self, old: x509.Certificate) -> str:
        """Return the signed challenge of a renewal, for the names in the old certificate."""
        return self.challenge(common_name(old), san_texts(old))
