"""Descriptions of the trust anchors of a profile, bundle by bundle."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from shared.config.keys import read_certificates
from shared.config.load import SettingsError
from shared.config.profiles import ProfileSection
from shared.config.sections import Configuration
from shared.limits import ANCHOR_CHARACTERS, HEARTBEAT_ANCHORS
from shared.log.events.state import Heartbeat, LoadedAnchor
from shared.x509.names import name_text

_DAY: Final = 86400
_SOON_DAYS: Final = 30
_LAST_SECOND: Final = 253_402_300_799  # the end of the year 9999
_WORST_FIRST: Final = ("expired", "not_loaded", "expiring", "valid")


def describe_anchors(
    configuration: Configuration,
    name: str,
    section: ProfileSection,
    validators: Sequence[Heartbeat],
    now: float,
) -> dict[str, Any]:
    """Describe the bundles of a profile and when their first anchor expires.

    Anchors are those that validators report. Those of a bundle of which none is reported are read
    from the file. `now` is in Unix seconds.
    """
    loaded = _loaded(name, validators)
    paths = _paths(section)
    order = sorted(paths.keys() | loaded.keys(), key=lambda issuer: (issuer is not None, issuer))
    bundles = []
    for issuer in order:
        path = paths.get(issuer)
        anchors = loaded.get(issuer) or _read(configuration, name, issuer, path)
        rows = sorted((_described(each, now) for each in anchors), key=lambda row: row["not_after"])
        bundles.append(
            {
                "issuer": issuer,
                "path": str(path) if path else None,
                "state": rows[0]["state"] if rows else "not_loaded",
                "anchors": rows,
            }
        )
    return {"anchor_bundles": bundles, **_first(bundles)}


def _paths(section: ProfileSection) -> dict[str | None, Path]:
    found: dict[str | None, Path] = {}
    if section.intune_connector_cert_path:
        found[None] = section.intune_connector_cert_path
    for issuer, path in section.intune_tenant_cert_paths.items():
        found[issuer[:ANCHOR_CHARACTERS]] = path
    return found


def _loaded(
    name: str, validators: Sequence[Heartbeat]
) -> Mapping[str | None, Sequence[LoadedAnchor]]:
    """Return what validators report of a profile, each anchor of a bundle once."""
    found: dict[str | None, dict[str, LoadedAnchor]] = {}
    for each in validators:
        for anchor in each.loaded[:HEARTBEAT_ANCHORS]:
            if anchor.profile == name:
                found.setdefault(anchor.issuer, {})[anchor.sha256] = anchor
    return {issuer: list(anchors.values()) for issuer, anchors in found.items()}


def _read(
    configuration: Configuration, name: str, issuer: str | None, path: Path | None
) -> Iterator[LoadedAnchor]:
    """Yield the anchors of a file; none if it cannot be read: the page shows "Not loaded"."""
    try:
        certificates = read_certificates(configuration.path(path)) if path else []
    except SettingsError:
        return
    for each in certificates:
        yield _anchor(name, issuer, each)


def _anchor(name: str, issuer: str | None, certificate: x509.Certificate) -> LoadedAnchor:
    return LoadedAnchor(
        profile=name,
        subject=name_text(certificate.subject.public_bytes()),
        sha256=certificate.fingerprint(SHA256()).hex(),
        not_before=int(certificate.not_valid_before_utc.timestamp()),
        not_after=int(certificate.not_valid_after_utc.timestamp()),
        issuer=issuer,
    )


def _described(anchor: LoadedAnchor, now: float) -> dict[str, Any]:
    days, expired = int((anchor.not_after - now) // _DAY), anchor.not_after <= now
    return {
        "subject": anchor.subject,
        "sha256": anchor.sha256,
        "not_before": _iso(anchor.not_before),
        "not_after": _iso(anchor.not_after),
        "days_to_expiry": days,
        "expired": expired,
        "state": "expired" if expired else "expiring" if days < _SOON_DAYS else "valid",
    }


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(min(max(seconds, 0), _LAST_SECOND), UTC).isoformat()


def _first(bundles: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the worst state, and when the first anchor expires; None if a bundle has none."""
    states = {bundle["state"] for bundle in bundles} or {"not_loaded"}
    firsts = [bundle["anchors"][0] for bundle in bundles if bundle["anchors"]]
    first = min(firsts, key=lambda row: row["not_after"], default=None)
    is_complete = first is not None and (first["expired"] or "not_loaded" not in states)
    return {
        "anchors_state": min(states, key=_WORST_FIRST.index),
        "anchors_days_to_expiry": first["days_to_expiry"] if first and is_complete else None,
        "anchors_expired": first["expired"] if first and is_complete else None,
    }
