"""From the events of the streams beside enrollments to their rows. Pure."""

import json

from services.audit.record.changes import Changes, Key, Row, see
from services.audit.record.event_row import storable
from shared.log.catalog import Event
from shared.log.envelope import Stored
from shared.log.events.certificates import CertificateRecorded, CertificateStatusChanged
from shared.log.events.commands import (
    ChallengeCancelled,
    ChallengeCreated,
    OrderAnswered,
    RedriveOrdered,
    ReloadOrdered,
)
from shared.log.events.state import DeadLetter
from shared.log.subjects import parse_prefix


def take_other(changes: Changes, stored: Stored, event: Event) -> None:
    """Events of the other streams; each table's rows come from one stream alone."""
    tokens = stored.subject.split(".")
    match event:
        case CertificateRecorded() if tokens[0] == "cert":
            _certificate(changes, tokens[1], event.serial).update(_recorded(event, stored))
        case CertificateStatusChanged() if tokens[0] == "cert":
            row = _certificate(changes, tokens[1], event.serial)
            row |= {
                "revoked_at": event.revoked_at
                if event.revoked
                else 0,  # a merge keeps what is null
                "revocation_reason": event.reason.value,
                "revoked_by": storable(event.operator),
            }
            row.setdefault("recorded_at", stored.time)
        case ReloadOrdered() | OrderAnswered() if tokens[:2] in (["ops", "reload"], ["ops", "ra"]):
            _reload(changes, tokens, stored, event)
        case ChallengeCreated() | ChallengeCancelled() if tokens[:2] == ["ops", "challenge"]:
            _challenge(changes, (storable(event.profile), tokens[3]), stored, event)
        case RedriveOrdered() if tokens[:2] == ["ops", "redrive"]:
            stream = storable(event.stream)
            changes.redrives[stream, event.sequence, event.attempt] = {
                "stream": stream,
                "sequence": event.sequence,
                "attempt": event.attempt,
                "operator": storable(event.operator),
                "recorded_at": stored.time,
            }
        case DeadLetter() if tokens[0] == "dead":
            stream = storable(event.stream)
            changes.dead_letters[stream, event.sequence] = {
                "stream": stream,
                "sequence": event.sequence,
                "subject": storable(event.subject),
                "role": storable(event.role),
                "deliveries": event.deliveries,
                "recorded_at": stored.time,
            }


def _certificate(changes: Changes, issuer: str, serial: str) -> Row:
    key = (issuer, storable(serial))
    return changes.certificates.setdefault(key, {"issuer": key[0], "serial": key[1]})


def _recorded(event: CertificateRecorded, stored: Stored) -> Row:
    try:
        profile = parse_prefix(event.enrollment).profile
    except ValueError:
        profile = None
    return {
        "enrollment": storable(event.enrollment),
        "profile": profile,
        "subject": storable(event.subject),
        "spki_sha256": storable(event.spki_sha256),
        "not_before": event.not_before,
        "not_after": event.not_after,
        "ca_spki_sha256": storable(event.ca_spki_sha256),
        "renews": storable(event.renews) or None,
        "recorded_at": stored.time,
    }


def _reload(
    changes: Changes, tokens: list[str], stored: Stored, event: ReloadOrdered | OrderAnswered
) -> None:
    """An order, or one replica's answer to it."""
    reload, profile = ".".join(tokens[:4]), tokens[2]
    ordered = isinstance(event, ReloadOrdered)
    replica = "" if ordered else tokens[4]
    changes.reloads[reload, replica] = {
        "reload": reload,
        "replica": replica,
        "profile": profile,
        "operator": storable(event.operator) if isinstance(event, ReloadOrdered) else None,
        "done": int(event.done) if isinstance(event, OrderAnswered) else None,
        "detail": storable(event.detail) if isinstance(event, OrderAnswered) else None,
        "recorded_at": stored.time,
    }
    if not ordered and tokens[1] == "reload":  # gateways' rows come from their requests
        see(changes.replicas, ("validator", replica), stored.time)


def _challenge(
    changes: Changes, key: Key, stored: Stored, event: ChallengeCreated | ChallengeCancelled
) -> None:
    row = changes.challenges.setdefault(key, {"profile": key[0], "digest": key[1]})
    if isinstance(event, ChallengeCreated):
        row |= {
            "cn": storable(event.cn),
            "sans": json.dumps([storable(san) for san in event.sans]),
            "operator": storable(event.operator),
            "created_at": stored.time,
            "expires_at": event.expires_at,
        }
    else:
        row |= {"cancelled_at": stored.time, "cancelled_by": storable(event.operator)}
