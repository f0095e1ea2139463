"""Projection of events to the rows of the read model. Pure: the same log gives the same rows.

Theory of operation. A subject's channel says which events may are there; an event of another kind
is stored in `events` and changes nothing else. Each channel has its projectors in one table here.
What a range of a stream changes is collected by table and key (`Changes`) without a database, and
merged into it by `merge.py`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from services.audit.record.certificates import (
    challenged,
    dead,
    orphaned,
    recorded,
    reloaded,
    retried,
    status_changed,
)
from services.audit.record.changes import Changes
from services.audit.record.commands import answered, decided, ordered
from services.audit.record.enrollments import EnrollmentRow, Known, enrollment_of
from services.audit.record.event_row import DecodedMessage, is_ours
from shared.log import catalog
from shared.log.channels import Channel, Match
from shared.log.envelope import Stored
from shared.log.events.base import EventPayload

Projector = Callable[[Changes, Match, Stored, EventPayload], None]

# In addition, every event on a channel of enrollments changes the row of its enrollment. Events on
# channels that are not listed (a certificate under its key, say) are stored in `events` only.
PROJECTORS: Final[Mapping[Channel, tuple[Projector, ...]]] = {
    catalog.DECISION: (decided,),
    catalog.CERTIFICATE: (recorded,),
    catalog.CERTIFICATE_STATUS: (status_changed,),
    catalog.ORPHAN: (orphaned,),
    catalog.ORPHAN_REPORT: (ordered,),
    catalog.ORPHAN_ANSWER: (answered,),
    catalog.REVOCATION: (ordered,),
    catalog.REVOCATION_ANSWER: (answered,),
    catalog.WITHDRAWAL: (ordered,),
    catalog.WITHDRAWAL_ANSWER: (answered,),
    catalog.RETRY: (ordered, retried),
    catalog.RESUME: (ordered,),
    catalog.RA_RELOAD: (ordered, reloaded),
    catalog.RA_RELOAD_ANSWER: (answered, reloaded),
    catalog.ANCHOR_RELOAD: (ordered, reloaded),
    catalog.ANCHOR_RELOAD_ANSWER: (answered, reloaded),
    catalog.CHALLENGE: (ordered, challenged),
    catalog.CHALLENGE_CANCELLATION: (ordered, challenged),
    catalog.API_TOKEN: (ordered,),
    catalog.API_TOKEN_REVOCATION: (ordered,),
    catalog.DEAD_LETTER: (dead,),
}


def fold(messages: Iterable[DecodedMessage], known: Mapping[str, Known]) -> Changes:
    """Return what a range of one stream changes; `known` has the stored rows of its enrollments.

    An event that does not belong on its subject changes nothing: `audit verify` reports it.
    """
    changes = Changes()
    for found in messages:
        stored, event = found.stored, found.event
        if event is None or not is_ours(stored.subject):
            continue
        at = catalog.CHANNELS.match(stored.subject)
        if at is None or type(event) not in at.channel.events:
            continue
        if "shard" in at.fields:
            enrollment = enrollment_of(stored)
            if enrollment is None:
                continue
            EnrollmentRow(changes, enrollment, known.get(enrollment)).apply(stored, event)
        for project in PROJECTORS.get(at.channel, ()):
            project(changes, at, stored, event)
    return changes
