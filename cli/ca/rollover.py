"""CA rollover in the data directory of `up`: create the next CA, announce it, activate it.

Each step writes new files first and the configuration last, in one rename, and then signals the
running processes to reload it. A kill at any point leaves the step either undone or done.
"""

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding

from cli.toml import set_keys
from cli.up.authority import CA_KINDS, make_ca, make_ra, pem, ra_use
from cli.up.layout import Layout, UpError, is_running, write_private
from shared.config.keys import read_certificates, spki
from shared.config.load import load
from shared.config.profiles import ProfileSection
from shared.config.sections import Configuration, LocalIssuerSection
from shared.x509.key_ids import spki_sha256

_RELOADED: Final = ("issuer", "validator", "gateway")


def make_next(data: Path, issuer: str, kind: str, now: float) -> str:
    """Create CA and RA pairs beside the current ones; all profiles of the issuer trust them.

    `now` is in Unix seconds. Return a line for the user.
    """
    if kind not in CA_KINDS:
        raise UpError(f"--kind {kind}: choose one of {', '.join(CA_KINDS)}")
    layout, configuration, section = _open(data, issuer)
    if section.next_ca_cert_path is not None:
        raise UpError(f"issuer {issuer} already has a next CA: {section.next_ca_cert_path}")
    ca = make_ca(kind, now)
    pin = spki_sha256(spki(ca.certificate))
    stem = f"ca/{issuer}-{pin[:12]}"
    write_private(layout.root / f"{stem}.key", pem(ca.key))
    write_private(layout.root / f"{stem}.pem", ca.certificate.public_bytes(Encoding.PEM))
    forms = {
        name: _ra_form(configuration, profile)
        for name, profile in configuration.profiles.items()
        if profile.issuer_id == issuer
    }
    pairs = {use: f"ra/{use}-{pin[:12]}.pem" for form in forms.values() for use in form}
    for use, path in pairs.items():
        write_private(layout.root / path, make_ra(ca, use, now))
    changes: dict[str, dict[str, Any]] = {
        f"issuers.{issuer}": {
            "next_ca_cert_path": f"{stem}.pem",
            "next_ca_key_path": f"{stem}.key",
        }
    }
    if section.ra_cert_path:
        renewed = [*map(str, section.ra_cert_path), *pairs.values()]
        changes[f"issuers.{issuer}"]["ra_cert_path"] = renewed
    for name, form in forms.items():
        profile, added = configuration.profiles[name], [pairs[use] for use in form]
        changes[f"profiles.{name}"] = {
            "ca_spki_sha256": [*profile.ca_spki_sha256, pin],
            "ra_cert_path": [*map(str, profile.ra_cert_path), *added],
            "ra_key_path": [*map(str, profile.ra_key_path), *added],
        }
    _rewrite(layout, changes)
    when = "now" if _signal_reload(layout) else "after the next start"
    return f"next CA: {stem}.pem (SHA-256 of its key: {pin}). GetNextCACert announces it {when}."


def _ra_form(configuration: Configuration, profile: ProfileSection) -> tuple[str, ...]:
    """Return the uses of a profile's current RA certificates: clients depend on their number."""
    found = [read_certificates(configuration.path(path))[0] for path in profile.ra_cert_path]
    newest = max(
        (c for c in found if ra_use(c) != "encryption"), key=lambda c: c.not_valid_before_utc
    )
    return ("combined",) if ra_use(newest) == "combined" else ("signing", "encryption")


def activate_next(data: Path, issuer: str) -> str:
    """Make the next CA the one that signs; the current one stays, for its own certificates.

    Return a line for the user.
    """
    layout, _, section = _open(data, issuer)
    if section.next_ca_cert_path is None or section.next_ca_key_path is None:
        raise UpError(f"issuer {issuer} has no next CA: create one with `scepstream ca next`")
    certificates = [section.next_ca_cert_path, *section.ca_cert_path]
    keys = [section.next_ca_key_path, *section.ca_key_path]
    changes: dict[str, dict[str, Any]] = {
        f"issuers.{issuer}": {
            "ca_cert_path": list(map(str, certificates)),
            "ca_key_path": list(map(str, keys)),
            "next_ca_cert_path": None,
            "next_ca_key_path": None,
        }
    }
    _rewrite(layout, changes)
    ca = read_certificates(layout.root / certificates[0])[0]
    running = _signal_reload(layout)
    verb = "is now the signing CA" if running else "becomes the signing CA at the next start"
    return f"{ca.subject.rfc4514_string()} {verb}"


def _open(data: Path, issuer: str) -> tuple[Layout, Configuration, LocalIssuerSection]:
    layout = Layout(data.resolve())
    if not layout.version.exists():
        raise UpError(f"{data} is not a data directory of `scepstream up`")
    configuration = load(layout.config)
    section = configuration.issuers.get(issuer)
    if section is None:
        raise UpError(f"no such issuer: {issuer}")
    if not isinstance(section, LocalIssuerSection):
        raise UpError(f"issuer {issuer} has no local CA")
    return layout, configuration, section


def _rewrite(layout: Layout, changes: dict[str, dict[str, Any]]) -> None:
    """Set keys (by table) in the configuration, and check it before it replaces the old one."""
    text = layout.config.read_text()
    for table, keys in changes.items():
        text = set_keys(text, table, keys)
    candidate = layout.config.with_name(".scepstream.toml.candidate")
    write_private(candidate, text.encode())
    try:
        load(candidate)
    finally:
        candidate.unlink()
    write_private(layout.config, text.encode())


def _signal_reload(layout: Layout) -> bool:
    """Send SIGHUP to the running services: issuers, which sign, first; gateways, which show, last.

    Return whether any were running; if not, the change takes effect at the next start.
    """
    try:
        pids = json.loads(layout.run_file.read_text())["pids"] if is_running(layout) else None
    except (OSError, ValueError, KeyError):
        pids = None
    if pids is None:
        return False
    for role in _RELOADED:
        for pid in pids.get(role, []):
            with suppress(ProcessLookupError):  # it reads the new configuration when it restarts
                os.kill(pid, signal.SIGHUP)
    return True
