"""Gate 7: a challenge belongs to the first enrollment that brings it. Pure."""

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
    """For how long (seconds) the record of a challenge that is good `until` then is kept."""
    return min(max(until + MARGIN_SECONDS - now, MARGIN_SECONDS), _MOST_SECONDS)


def judge_replay(
    asked: ChallengeRequest,
    record: ChallengeClaimed,
    recorded_at: int,
    until: int,
    *,
    spent: bool = False,
) -> ChallengeResult:
    """Whether this enrollment holds the challenge; `until` in Unix seconds.

    `spent` says that the challenge has made a certificate, or is about to, for its key's same
    request: then a repetition gets that one, if it still lives, and never a second.

    `recorded_at` (Unix ns) is when the log took the record. One made after an earlier record may
    have left the log proves nothing: who had used the challenge is not known any more.
    """
    holder, mine = parse_prefix(record.enrollment), asked.enrollment
    same_key = record.spki_sha256 == asked.opened.facts.spki_sha256
    same_request = same_key and same_csr(holder, mine)
    if same_key and asked.existing:
        return ChallengeResult((passed("replay", "the same key asks for the certificate it has"),))
    if spent or not same_request:
        who = "another request of the same key" if same_key else "another key"
        return refused("replay", Reason.REPLAY, f"the challenge was used before by {who}")
    if recorded_at >= (until + MARGIN_SECONDS) * NANOSECONDS:
        detail = "the request was judged too late to know whether its challenge was used before"
        return refused("replay", Reason.EXPIRED, detail)
    return ChallengeResult((passed("replay", f"bound to key {record.spki_sha256[:16]}"),))
