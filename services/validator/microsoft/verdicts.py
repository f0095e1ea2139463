"""What Intune's codes mean: the reason of a refusal, and what an operator can do. Pure."""

from dataclasses import dataclass
from typing import Final

from shared.log.reasons import Reason


@dataclass(frozen=True, slots=True)
class Verdict:
    """The reason for a refusal, a hint for operators, and whether it is a security event."""

    reason: Reason
    hint: str
    security: bool = False


_ESCAPED: Final = (
    "compare the CSR with the SCEP profile in Intune; Intune compares text: a common name with one "
    "of + , ; = never matches"
)
_SANS: Final = "compare the CSR's alternative names with the SCEP profile in Intune"
_USAGE: Final = "compare the CSR's key usages with the SCEP profile in Intune"
_FORGED: Final = "the challenge was changed, or not made by Intune for this service"
_IDS: Final = "the challenge names a request, a device or a user that Intune does not know"
_UNREADABLE: Final = "the challenge is not one of Intune: check which SCEP URL the device uses"
_KEY_BINDING: Final = "Windows Hello for Business: the device's registered key is another one"
VERDICTS: Final = {
    "CertificateRequestDecodingFailed": Verdict(
        Reason.MALFORMED, "Intune cannot decode the device's CSR"
    ),
    "ChallengePasswordMissing": Verdict(
        Reason.CHALLENGE_MISSING, "the device sent no challenge: check which SCEP URL it uses"
    ),
    "ChallengeDecodingError": Verdict(Reason.CHALLENGE_WRONG, _UNREADABLE),
    "ChallengeDeserializationError": Verdict(Reason.CHALLENGE_WRONG, _UNREADABLE),
    "ChallengeDecryptionError": Verdict(Reason.SIGNATURE_INVALID, _FORGED, security=True),
    "SignatureValidationFailed": Verdict(Reason.SIGNATURE_INVALID, _FORGED, security=True),
    "SigningCertThumbprintMismatch": Verdict(Reason.SIGNATURE_INVALID, _FORGED, security=True),
    "ChallengeInvalidTimestamp": Verdict(
        Reason.EXPIRED, "the challenge's time is wrong: let the device synchronize with Intune"
    ),
    "ChallengeExpired": Verdict(
        Reason.EXPIRED, "the challenge is too old: let the device synchronize with Intune"
    ),
    "SubjectNameMissing": Verdict(Reason.CLAIM_MISMATCH, _ESCAPED),
    "SubjectNameMismatch": Verdict(Reason.CLAIM_MISMATCH, _ESCAPED),
    "SubjectAltNameMissing": Verdict(Reason.CLAIM_MISMATCH, _SANS),
    "SubjectAltNameMismatch": Verdict(Reason.CLAIM_MISMATCH, _SANS),
    "KeyUsageMismatch": Verdict(Reason.CLAIM_MISMATCH, _USAGE),
    "KeyLengthMismatch": Verdict(
        Reason.CLAIM_MISMATCH, "compare the CSR's key with the SCEP profile in Intune"
    ),
    "EnhancedKeyUsageMissing": Verdict(Reason.CLAIM_MISMATCH, _USAGE),
    "EnhancedKeyUsageMismatch": Verdict(Reason.CLAIM_MISMATCH, _USAGE),
    "AadKeyIdentifierListMissing": Verdict(Reason.CLAIM_MISMATCH, _KEY_BINDING),
    "RegisteredKeyMismatch": Verdict(Reason.CLAIM_MISMATCH, _KEY_BINDING),
    "ScepProfileNoLongerTargetedToTheClient": Verdict(
        Reason.CLAIM_MISMATCH, "the SCEP profile is no longer assigned to the device or its user"
    ),
    "BadCertificateRequestIdInChallenge": Verdict(Reason.CHALLENGE_WRONG, _IDS, security=True),
    "BadDeviceIdInChallenge": Verdict(Reason.CHALLENGE_WRONG, _IDS, security=True),
    "BadUserIdInChallenge": Verdict(Reason.CHALLENGE_WRONG, _IDS, security=True),
    "BadTenantIdInChallenge": Verdict(
        Reason.WRONG_AUDIENCE,
        "the challenge is of another tenant: check which SCEP URL its devices use",
    ),
}
_UNHEARD_OF: Final = Verdict(
    Reason.CHALLENGE_WRONG, "Intune refused with a code that is not documented"
)
_NO_CODE: Final = Verdict(Reason.CHALLENGE_WRONG, "Intune's answer has no usable code")


def verdict_of(code: str) -> Verdict:
    """Return what a code other than "Success" means; an unknown code refuses as well."""
    return VERDICTS.get(code, _UNHEARD_OF if code else _NO_CODE)
