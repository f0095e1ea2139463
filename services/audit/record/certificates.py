"""Projection of the events of all other streams to their rows. Pure."""

import json

from services.audit.record.changes import Changes, Row, see
from services.audit.record.event_row import storable
from shared.log.catalog import ANCHOR_RELOAD_ANSWER
from shared.log.channels import Match
from shared.log.envelope import Stored
from shared.log.events.base import EventPayload
from shared.log.events.certificates import (
    CertificateRecorded,
    CertificateStatusChanged,
    OrphanSettled,
    OrphanSuspected,
)
from shared.log.events.commands import (
    ChallengeCancelled,
    ChallengeCreated,
    CommandAnswered,
    ReloadOrdered,
    RetryOrdered,
)
from shared.log.events.state import DeadLetter
from shared.log.subjects import parse_prefix


def recorded(changes: Changes, at: Match, stored: Stored, event: EventPayload) -> None:
    """Project a certificate, under its issuer and serial number, and the one that it renews."""
    assert isinstance(event, CertificateRecorded)
    issuer = at.fields["issuer"]
    row = _certificate(changes, issuer, event.serial)
    row.setdefault("recorded_at", stored.time)
    row |= _recorded(event)
    if event.renews not in ("", event.serial):
        renewed = _certificate(changes, issuer, event.renews)
        renewed.setdefault("recorded_at", stored.time)
        renewed |= {"superseded_by": storable(event.serial), "superseded_at": stored.time}


def status_changed(changes: Changes, at: Match, stored: Stored, event: EventPayload) -> None:
    """Project a certificate's revocation, or the end of one."""
    assert isinstance(event, CertificateStatusChanged)
    row = _certificate(changes, at.fields["issuer"], event.serial)
    row |= {
        "revoked_at": event.revoked_at if event.revoked else 0,  # null would keep the old one
        "revocation_reason": event.reason.value,
        "revoked_by": storable(event.operator),
    }
    row.setdefault("recorded_at", stored.time)


def retried(changes: Changes, _: Match, stored: Stored, event: EventPayload) -> None:
    """Project a command to retry a dead letter."""
    assert isinstance(event, RetryOrdered)
    stream = storable(event.stream)
    changes.retries[stream, event.sequence, event.attempt] = {
        "stream": stream,
        "sequence": event.sequence,
        "attempt": event.attempt,
        "operator": storable(event.operator),
        "recorded_at": stored.time,
    }


def orphaned(changes: Changes, at: Match, stored: Stored, event: EventPayload) -> None:
    """Project that an order's answer was lost, or that the matter is settled."""
    assert isinstance(event, OrphanSuspected | OrphanSettled)
    key = (at.fields["issuer"], at.fields["key"])
    row = changes.orphans.setdefault(key, {"issuer": key[0], "key": key[1]})
    row["enrollment"] = storable(event.enrollment)
    if isinstance(event, OrphanSuspected):
        row |= {
            "placement": event.placement,
            "spki_sha256": storable(event.spki_sha256),
            "suspected_at": stored.time,
            "settled_at": 0,  # null would keep an earlier settlement
        }
    else:
        row |= {
            "settled_at": stored.time,
            "serials": json.dumps([storable(serial) for serial in event.serials]),
            "detail": storable(event.detail),
            "operator": storable(event.operator),
        }


def dead(changes: Changes, _: Match, stored: Stored, event: EventPayload) -> None:
    """Project a dead letter."""
    assert isinstance(event, DeadLetter)
    stream = storable(event.stream)
    changes.dead_letters[stream, event.sequence] = {
        "stream": stream,
        "sequence": event.sequence,
        "subject": storable(event.subject),
        "role": storable(event.role),
        "deliveries": event.deliveries,
        "recorded_at": stored.time,
    }


def reloaded(changes: Changes, at: Match, stored: Stored, event: EventPayload) -> None:
    """Project a command to reload files, or one replica's answer to it."""
    reload, profile = ".".join(stored.subject.split(".")[:4]), at.fields["profile"]
    replica = at.fields.get("replica", "")
    changes.reloads[reload, replica] = {
        "reload": reload,
        "replica": replica,
        "profile": profile,
        "operator": storable(event.operator) if isinstance(event, ReloadOrdered) else None,
        "done": int(event.done) if isinstance(event, CommandAnswered) else None,
        "detail": storable(event.detail) if isinstance(event, CommandAnswered) else None,
        "recorded_at": stored.time,
    }
    if at.channel is ANCHOR_RELOAD_ANSWER:  # gateways are seen by their requests
        see(changes.replicas, ("validator", replica), stored.time)


def challenged(changes: Changes, at: Match, stored: Stored, event: EventPayload) -> None:
    """Project the creation or the cancellation of a one-time challenge."""
    assert isinstance(event, ChallengeCreated | ChallengeCancelled)
    key = (storable(event.profile), at.fields["digest"])
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


def _certificate(changes: Changes, issuer: str, serial: str) -> Row:
    key = (issuer, storable(serial))
    return changes.certificates.setdefault(key, {"issuer": key[0], "serial": key[1]})


def _recorded(event: CertificateRecorded) -> Row:
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
    }
