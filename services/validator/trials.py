"""How many validators have tried a request that waits for another one.

Theory of operation. The server counts how often a message was handed out, not how each delivery
ended. A request with the CSR of another one is handed out again and again until that one has ended,
which takes as long as an operator or an outage takes: so its deliveries say nothing, and it is
handled however many there were. One that kills the process that handles it would then be handed out
for ever, and stop all validators.

So a process records on the log, before it handles such a request for the first time, that it does.
Whatever happens after that without an end of the process (an outage, one more wait) is the same
trial. A request makes one trial of each process that meets it, and a killed process is followed by
a new one: after `TRIALS` of them the request is given up.
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
_KEPT_SECONDS: Final = 30 * 86400  # as long as the mark that a request waits


async def begin_trial(
    bus: Bus, signer: EventSigner, validators: Trusted, enrollment: EnrollmentId, stored: Stored
) -> bool:
    """Record that this process handles the message; False where too many have before."""
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
