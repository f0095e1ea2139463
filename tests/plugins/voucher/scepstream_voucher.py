"""`voucher`: a challenge that an inventory system computes for a device without asking anybody.

    [profiles.corp.verifier.voucher]
    key_path = "voucher.key"

A voucher is `V-` and the HMAC-SHA256 of the common name, in hex.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.validator.challenges.kind import VerifierContext, VerifierKind
from services.validator.challenges.once import OnceVerifier
from services.validator.challenges.subject import common_names
from services.validator.challenges.verifier import (
    ChallengeRequest,
    ChallengeResult,
    Verifier,
    passed,
    refused,
)
from shared.config.load import SettingsError, read_secret_file
from shared.config.profiles import ProfileSection
from shared.config.sections import Configuration
from shared.log.reasons import Reason

PREFIX: Final = "V-"
_NAME: Final = "voucher"
_OPTIONS: Final = frozenset({"key_path"})


def voucher(key: bytes, common_name: str) -> str:
    """The voucher of a device."""
    return PREFIX + hmac.new(key, common_name.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class VoucherVerifier:
    """Compares with the voucher that the CSR's only common name would have."""

    key: bytes = field(repr=False)

    async def verify(self, asked: ChallengeRequest) -> ChallengeResult:
        """See `Verifier.verify`."""
        names = common_names(asked.opened.csr.subject) or [""]
        expected = voucher(self.key, names[0])
        given = asked.challenge.encode("utf-8", "surrogatepass")
        if len(names) == 1 and hmac.compare_digest(given, expected.encode()):
            return ChallengeResult((passed("challenge", "a voucher for this common name"),))
        detail = "the voucher is not for this common name"
        return refused("challenge", Reason.CHALLENGE_WRONG, detail)


@dataclass(frozen=True)
class VoucherAccess:
    """A profile's key."""

    key: bytes = field(repr=False)
    asks_outside: bool = False

    def verifier(self, context: VerifierContext) -> Verifier:
        """Each voucher enrolls one CSR."""
        return OnceVerifier(VoucherVerifier(self.key), context.records, binds_first=False)


def _prepare(configuration: Configuration, section: ProfileSection, now: float) -> VoucherAccess:
    del now
    options = section.verifier[_NAME]
    path = options.get("key_path")
    if set(options) != _OPTIONS or not isinstance(path, str):
        raise SettingsError("verifier.voucher: key_path is the one option, a path")
    return VoucherAccess(read_secret_file(configuration.path(Path(path))))


def _recognises(challenge: str) -> bool:
    return challenge.startswith(PREFIX)


KIND: Final = VerifierKind(_NAME, _prepare, _recognises)
