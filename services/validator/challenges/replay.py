"""Gate 7: a challenge belongs to the first enrollment that uses it. Pure."""

from typing import Final

from services.validator.challenges.verifier import (
    ChallengeRequest,
    ChallengeResult,
    passed,
    refused,
)
from shared.log.envelope import NANOSECONDS
from shared.log.events.state import ChallengeClaimed
from shared.log.reasons import Reason
from shared.log.subjects import parse_prefix, same_csr

MARGIN_SECONDS: Final = 600
_MOST_SECONDS: Final = 100 * 365 * 86400


def time_to_keep(until: int, now: int) -> int:
    """Return for how long (seconds) to keep the record of a challenge that expires at `until`."""
    return min(max(until + MARGIN_SECONDS - now, MARGIN_SECONDS), _MOST_SECONDS)


def check_replay(
    asked: ChallengeRequest,
    record: ChallengeClaimed,
    first_used_at: int,
    until: int,
    *,
    held_by_another: bool = False,
) -> ChallengeResult:
    """Decide whether this enrollment holds the challenge; `until` (Unix s) is when it expires.

    `held_by_another` says that another enrollment holds the challenge: a repetition with the same
    key then gets the certificate that the key already has, if it is still live, and never a second
    one.

    `first_used_at` (Unix ns) is when the log stored the challenge's first record. A record that was
    made after an earlier one may have left the log proves nothing: who used the challenge is no
    longer known.
    """
    holder, mine = parse_prefix(record.enrollment), asked.enrollment
    same_key = record.spki_sha256 == asked.opened.facts.spki_sha256
    same_request = same_key and same_csr(holder, mine)
    if same_key and asked.existing:
        return ChallengeResult(
            (passed("replay", "the same key requests the certificate that it already has"),)
        )
    if held_by_another or not same_request:
        who = "another request of the same key" if same_key else "another key"
        return refused("replay", Reason.REPLAY, f"the challenge was already used by {who}")
    if first_used_at >= (until + MARGIN_SECONDS) * NANOSECONDS:
        detail = "too late to determine whether the challenge was already used"
        return refused("replay", Reason.EXPIRED, detail)
    return ChallengeResult((passed("replay", f"bound to key {record.spki_sha256[:16]}"),))
