"""Reasons for refusing an enrollment, and the map to failInfo (RFC 8894 s3.2.1.4.4)."""

from enum import StrEnum
from typing import Final

from shared.scep.errors import FailInfo


class Reason(StrEnum):
    """Labels under which refusals are counted and recorded."""

    BAD_MESSAGE = "bad_message"
    BAD_ALGORITHM = "bad_algorithm"
    BAD_REQUEST = "bad_request"
    UNSUPPORTED_MESSAGE = "unsupported_message"
    NO_SUCH_TRANSACTION = "no_such_transaction"
    NO_SUCH_CERTIFICATE = "no_such_certificate"
    KEY_NOT_ALLOWED = "key_not_allowed"
    SUBJECT_NOT_ALLOWED = "subject_not_allowed"
    SAN_NOT_ALLOWED = "san_not_allowed"
    USAGE_NOT_ALLOWED = "usage_not_allowed"
    CHALLENGE_MISSING = "challenge_missing"
    CHALLENGE_WRONG = "challenge_wrong"
    MALFORMED = "malformed"
    SIGNATURE_INVALID = "signature_invalid"
    UNKNOWN_VERSION = "unknown_version"
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    WRONG_AUDIENCE = "wrong_audience"
    CLAIM_MISMATCH = "claim_mismatch"
    REPLAY = "replay"
    RATE_LIMITED = "rate_limited"
    DEVICE_STATE_FAILED = "device_state_failed"
    CLAIM_MISSING = "claim_missing"
    WEBHOOK_DENIED = "webhook_denied"
    VERIFIER_FAILED = "verifier_failed"
    SERVICE_UNAVAILABLE = "service_unavailable"
    NOT_CONFIRMED = "not_confirmed"
    NOT_RENEWABLE = "not_renewable"
    RENEWED_TOO_EARLY = "renewed_too_early"
    NAMES_CHANGED = "names_changed"
    KEY_REUSED = "key_reused"
    KEY_COMPROMISED = "key_compromised"
    DENIED = "denied"
    NOT_A_PROFILE = "not_a_profile"
    VERDICT_EXPIRED = "verdict_expired"
    BEYOND_CEILING = "beyond_ceiling"
    CA_NOT_VALID = "ca_not_valid"
    CA_REFUSED = "ca_refused"
    CA_SILENT = "ca_silent"
    UNREADABLE = "unreadable"
    POISON = "poison"


# Reasons for which a verifier may refuse; counted by profile and kind of challenge.
CHALLENGE_REASONS: Final = frozenset(
    {
        Reason.CHALLENGE_MISSING,
        Reason.CHALLENGE_WRONG,
        Reason.MALFORMED,
        Reason.SIGNATURE_INVALID,
        Reason.UNKNOWN_VERSION,
        Reason.NOT_YET_VALID,
        Reason.EXPIRED,
        Reason.WRONG_AUDIENCE,
        Reason.CLAIM_MISMATCH,
        Reason.REPLAY,
        Reason.RATE_LIMITED,
        Reason.DEVICE_STATE_FAILED,
        Reason.WEBHOOK_DENIED,
        Reason.VERIFIER_FAILED,
        Reason.SERVICE_UNAVAILABLE,
    }
)
FAIL_INFO: Final[dict[Reason, FailInfo]] = {
    Reason.BAD_MESSAGE: FailInfo.BAD_MESSAGE_CHECK,
    Reason.BAD_ALGORITHM: FailInfo.BAD_ALG,
    Reason.BAD_REQUEST: FailInfo.BAD_REQUEST,
    Reason.UNSUPPORTED_MESSAGE: FailInfo.BAD_REQUEST,
    Reason.NO_SUCH_TRANSACTION: FailInfo.BAD_CERT_ID,
    Reason.NO_SUCH_CERTIFICATE: FailInfo.BAD_CERT_ID,
    Reason.KEY_NOT_ALLOWED: FailInfo.BAD_ALG,
    Reason.SUBJECT_NOT_ALLOWED: FailInfo.BAD_REQUEST,
    Reason.SAN_NOT_ALLOWED: FailInfo.BAD_REQUEST,
    Reason.USAGE_NOT_ALLOWED: FailInfo.BAD_REQUEST,
    Reason.CHALLENGE_MISSING: FailInfo.BAD_MESSAGE_CHECK,
    Reason.CHALLENGE_WRONG: FailInfo.BAD_MESSAGE_CHECK,
    Reason.MALFORMED: FailInfo.BAD_REQUEST,
    Reason.SIGNATURE_INVALID: FailInfo.BAD_MESSAGE_CHECK,
    Reason.UNKNOWN_VERSION: FailInfo.BAD_REQUEST,
    Reason.NOT_YET_VALID: FailInfo.BAD_TIME,
    Reason.EXPIRED: FailInfo.BAD_TIME,
    Reason.WRONG_AUDIENCE: FailInfo.BAD_MESSAGE_CHECK,
    Reason.CLAIM_MISMATCH: FailInfo.BAD_REQUEST,
    Reason.REPLAY: FailInfo.BAD_MESSAGE_CHECK,
    Reason.RATE_LIMITED: FailInfo.BAD_REQUEST,
    Reason.DEVICE_STATE_FAILED: FailInfo.BAD_REQUEST,
    Reason.CLAIM_MISSING: FailInfo.BAD_REQUEST,
    Reason.WEBHOOK_DENIED: FailInfo.BAD_MESSAGE_CHECK,
    Reason.VERIFIER_FAILED: FailInfo.BAD_MESSAGE_CHECK,
    Reason.SERVICE_UNAVAILABLE: FailInfo.BAD_REQUEST,
    Reason.NOT_CONFIRMED: FailInfo.BAD_REQUEST,
    Reason.NOT_RENEWABLE: FailInfo.BAD_REQUEST,
    Reason.RENEWED_TOO_EARLY: FailInfo.BAD_REQUEST,
    Reason.NAMES_CHANGED: FailInfo.BAD_REQUEST,
    Reason.KEY_REUSED: FailInfo.BAD_REQUEST,
    Reason.KEY_COMPROMISED: FailInfo.BAD_REQUEST,
    Reason.DENIED: FailInfo.BAD_REQUEST,
    Reason.NOT_A_PROFILE: FailInfo.BAD_REQUEST,
    Reason.VERDICT_EXPIRED: FailInfo.BAD_REQUEST,
    Reason.BEYOND_CEILING: FailInfo.BAD_REQUEST,
    Reason.CA_NOT_VALID: FailInfo.BAD_REQUEST,
    Reason.CA_REFUSED: FailInfo.BAD_REQUEST,
    Reason.CA_SILENT: FailInfo.BAD_REQUEST,
    Reason.UNREADABLE: FailInfo.BAD_REQUEST,
    Reason.POISON: FailInfo.BAD_REQUEST,
}
# Labels of the codec's refusals.
REFUSALS: Final = {
    FailInfo.BAD_ALG: Reason.BAD_ALGORITHM,
    FailInfo.BAD_REQUEST: Reason.BAD_REQUEST,
}
