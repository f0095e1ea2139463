"""All kinds of events that the log may hold."""

from typing import Final, get_args

from shared.log.events.certificates import (
    CaChain,
    CertificateRecorded,
    CertificateStatusChanged,
    CrlPublished,
    KeyCompromised,
)
from shared.log.events.commands import OrderAnswered, Ordered
from shared.log.events.enrollment import (
    CertificateIssued,
    EnrollmentApproved,
    EnrollmentHeld,
    EnrollmentRejected,
    EnrollmentRequested,
    HoldDecided,
    IssuanceFailed,
)
from shared.log.events.state import (
    ChallengeClaimed,
    CheckpointSigned,
    DeadLetter,
    DeviceCounted,
    GatewaySeen,
    ReplicaSeen,
    StreamMeasured,
)

Event = (
    EnrollmentRequested
    | EnrollmentHeld
    | HoldDecided
    | EnrollmentApproved
    | EnrollmentRejected
    | CertificateIssued
    | IssuanceFailed
    | CertificateRecorded
    | Ordered
    | OrderAnswered
    | CertificateStatusChanged
    | KeyCompromised
    | CrlPublished
    | CaChain
    | ChallengeClaimed
    | DeviceCounted
    | ReplicaSeen
    | StreamMeasured
    | GatewaySeen
    | CheckpointSigned
    | DeadLetter
)
EVENT_TYPES: Final[dict[str, type[Event]]] = {kind.__name__: kind for kind in get_args(Event)}
VERSIONS: Final[dict[str, int]] = dict.fromkeys(EVENT_TYPES, 1)
