"""Counts the validators that have tried a request that waits for another one.

Theory of operation. The server counts how often a message was delivered, not how each delivery
ended. A request with the same CSR as another one is redelivered until that one has ended, which can
take as long as an operator or an outage takes. Its delivery count therefore says nothing, and it is
handled however often it was delivered. But a request that kills the process that handles it would
then be redelivered forever, and stop all validators.

So before a process handles such a request for the first time, it records on the log that it does.
Whatever happens after that without the process ending (an outage, another wait) belongs to the same
trial. A request uses up one trial for each process that meets it, and a killed process is followed
by a new one: after `TRIALS` of them the request is given up.
"""

from functools import partial
from typing import Final

from shared.bus.core import Bus
from shared.bus.series import Series, signing
from shared.limits import TRIALS
from shared.log.envelope import EventSigner, Stored, Trusted
from shared.log.events.state import ChallengeClaimed
from shared.log.streams import REPLAYS
from shared.log.subjects import EnrollmentId, replay_record, token

_TRIED: Final = "tried"
_KEPT_SECONDS: Final = 30 * 86400  # as long as the mark of a waiting request


async def begin_trial(
    bus: Bus, signer: EventSigner, validators: Trusted, enrollment: EnrollmentId, stored: Stored
) -> bool:
    """Record that this process handles the message; return False if too many already have."""
    prefix = enrollment.prefix()
    place = partial(replay_record, _TRIED, token(prefix.encode()))
    trial = ChallengeClaimed(
        request_sha256=stored.sha256(),
        kind=_TRIED,
        enrollment=prefix,
        spki_sha256="",
        expires_at=stored.seconds + _KEPT_SECONDS,
    )
    series = Series(bus, REPLAYS, place("*"), ChallengeClaimed, validators, "replay")
    written = signing(place, trial, signer, _KEPT_SECONDS)
    while True:
        before = [entry async for entry in series.all()]
        if len(before) >= TRIALS:
            return False
        if await series.append(before[-1] if before else None, written) is not None:
            return True
