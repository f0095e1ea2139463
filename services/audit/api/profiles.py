"""Descriptions of SCEP profiles: RA certificate, trust anchors, counters, replicas."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from services.audit.api.anchors import describe_anchors
from shared.config.keys import read_certificates, spki
from shared.config.load import SettingsError
from shared.config.profiles import ProfileSection
from shared.config.sections import Configuration
from shared.log.envelope import NANOSECONDS
from shared.log.events.state import GatewayHeartbeat, Heartbeat
from shared.x509.names import name_text

_DAY: Final = 86400
# The names that operators know, in display order.
RESULTS: Final = (
    "success", "signature_invalid", "expired", "not_yet_valid", "wrong_audience", "replay",
    "rate_limited", "claim_mismatch", "device_state_failed", "malformed", "unknown_version",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RuntimeState:
    """Runtime state: heartbeats of validators and gateways, counters, replay records.

    `counted` maps a profile to its results and how often each occurred. `replay_records` is None
    if it is unknown.
    """

    validators: Sequence[Heartbeat]
    gateways: Sequence[GatewayHeartbeat]
    counted: Mapping[str, Mapping[str, int]]
    replay_records: int | None


def describe(configuration: Configuration, state: RuntimeState, now: float) -> list[dict[str, Any]]:
    """Describe every profile, sorted by path id; `now` is in Unix seconds."""
    return [
        _profile(configuration, name, section, state, now)
        for name, section in sorted(configuration.profiles.items())
    ]


def _profile(
    configuration: Configuration,
    name: str,
    section: ProfileSection,
    state: RuntimeState,
    now: float,
) -> dict[str, Any]:
    bundle = section.mtls_client_ca_trust_bundle_path
    found = {
        "path_id": name,
        "issuer_id": section.issuer_id,
        "challenge_password_set": any(section.challenge_password),
        "verifiers": list(section.verifiers),
        "intune_connection": section.intune_connection,
        **_ra(configuration, section, now),
        "mtls_enabled": section.mtls_enabled,
        "mtls_trust_bundle_path": str(bundle) if section.mtls_enabled and bundle else None,
        "replicas": _replicas(name, state),
    }
    if section.intune_enabled:
        counted = state.counted.get(name, {})
        found["intune"] = _intune(configuration, section, counted, now)
        found["intune"] |= describe_anchors(configuration, name, section, state.validators, now)
        found["intune"]["replay_cache_size"] = state.replay_records
    return found


def _ra(configuration: Configuration, section: ProfileSection, now: float) -> dict[str, Any]:
    """Describe the RA key whose certificates expire first; all None if none can be read."""
    found = _read(configuration, section.ra_cert_path)
    # A file may hold the certificates before a renewal too: the last one of each key counts.
    ordered = sorted(found, key=lambda each: each.not_valid_after_utc)
    certificates = list({spki(each): each for each in ordered}.values())
    if not certificates:
        keys = ("subject", "not_before", "not_after", "days_to_expiry", "expired")
        return {f"ra_cert_{key}": None for key in keys}
    first = min(certificates, key=lambda found: found.not_valid_after_utc)
    return {f"ra_cert_{key}": value for key, value in _validity(first, now).items()}


def _intune(
    configuration: Configuration,
    section: ProfileSection,
    counted: Mapping[str, int],
    now: float,
) -> dict[str, Any]:
    path = section.intune_connector_cert_path
    anchors = _read(configuration, [path] if path else [])
    limit = section.intune_per_device_rate_limit_24h
    return {
        "trust_anchor_path": str(path) if path else None,
        "trust_anchors": [_validity(anchor, now) for anchor in anchors],
        "audience": section.intune_audience,
        "challenge_validity_ns": int(section.intune_challenge_validity * NANOSECONDS),
        "clock_skew_tolerance_ns": int(section.intune_clock_skew_tolerance * NANOSECONDS),
        "rate_limit_24h": limit,
        "rate_limit_disabled": limit == 0,
        "counters": {result: counted.get(result, 0) for result in RESULTS},
    }


def _replicas(name: str, state: RuntimeState) -> dict[str, Any]:
    """List the running replicas and whether all use the same anchors and RA certificates."""
    anchors = len({each.anchors.get(name) for each in state.validators}) <= 1
    ra = len({each.ra.get(name) for each in state.gateways}) <= 1
    return {
        "gateways": [each.name for each in state.gateways],
        "validators": [each.name for each in state.validators],
        "anchors_agree": anchors,
        "ra_agree": ra,
        "agree": anchors and ra,
    }


def _read(configuration: Configuration, paths: Sequence[Path]) -> list[x509.Certificate]:
    found: list[x509.Certificate] = []
    for path in paths:
        try:
            found += read_certificates(configuration.path(path))
        except SettingsError:
            continue  # the page shows "Not loaded"
    return found


def _validity(certificate: x509.Certificate, now: float) -> dict[str, Any]:
    end = certificate.not_valid_after_utc
    return {
        "subject": name_text(certificate.subject.public_bytes()),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": end.isoformat(),
        "days_to_expiry": int((end.timestamp() - now) // _DAY),
        "expired": end <= datetime.fromtimestamp(now, UTC),
    }
