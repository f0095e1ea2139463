"""The inventory of certificates, by the configuration's SCEP profiles, fleets and windows."""

from dataclasses import dataclass
from math import ceil
from typing import Final

from sqlalchemy import Connection

from services.audit.query.certificates import CertificateFilter, list_certificates
from services.audit.query.life import RenewalWindows, View
from services.audit.query.pages import Page
from shared.ca.validity import renewal_late_from
from shared.config.sections import Configuration

EXPIRING_DAYS: Final = 30
MAX_DAYS: Final = 36500

_AT_THE_END = 1  # second


@dataclass(frozen=True, slots=True)
class Selection:
    """What to list, as API, page and command line ask for it; None: all. See `CertificateFilter`.

    A fleet is that of SCEP profiles as they are configured now.
    """

    view: View | None = None
    days: int = EXPIRING_DAYS
    profile: str | None = None
    fleet: str | None = None
    issuer: str | None = None
    cursor: str | None = None
    limit: int = 50


def list_inventory(
    connection: Connection, configuration: Configuration | None, selection: Selection, now: int
) -> Page:
    """Return a page of certificates as `list_certificates` does; `now` is in Unix seconds.

    Without a configuration, which may be broken, the usual renewal windows count and no profile
    belongs to a fleet.
    """
    return list_certificates(
        connection,
        CertificateFilter(
            windows=renewal_windows(configuration) if configuration else RenewalWindows(),
            now=now,
            view=selection.view,
            days=selection.days,
            profiles=_profiles(configuration, selection),
            issuer=selection.issuer,
            cursor=selection.cursor,
            limit=selection.limit,
        ),
    )


def fleets(configuration: Configuration) -> list[str]:
    """Return the fleets of the configured SCEP profiles."""
    return sorted({profile.fleet or name for name, profile in configuration.profiles.items()})


def _profiles(configuration: Configuration | None, selection: Selection) -> tuple[str, ...] | None:
    """Return the SCEP profiles to list; one that was removed can still be asked for."""
    if selection.fleet is None:
        return None if selection.profile is None else (selection.profile,)
    profiles = configuration.profiles if configuration else {}
    found = (
        name for name, profile in profiles.items() if (profile.fleet or name) == selection.fleet
    )
    return tuple(name for name in found if selection.profile in (None, name))


def renewal_windows(configuration: Configuration) -> RenewalWindows:
    """Return the renewal windows of a configuration's SCEP profiles.

    Devices of a profile without renewal are late when their certificate ends.
    """
    windows = {
        name: ceil(profile.renewal_window)
        for name, profile in configuration.profiles.items()
        if profile.renewal_window is not None
    }
    never = (name for name, profile in configuration.profiles.items() if not profile.renews)
    windows |= dict.fromkeys(never, _AT_THE_END)
    reach = [
        _late_for(_longest_life(configuration, name), windows.get(name))
        for name in configuration.profiles
    ]
    reach += [  # for profiles that there are no more
        _late_for(ceil(issuer.max_ttl + issuer.max_backdate), None)
        for issuer in configuration.issuers.values()
    ]
    return RenewalWindows(windows, max(reach, default=0))


def _late_for(life: int, window: int | None) -> int:
    """Return how long before its end a device can be late with a certificate of this life."""
    return life - renewal_late_from(0, life, window)


def _longest_life(configuration: Configuration, name: str) -> int:
    """Return the longest life of a certificate of a profile, 0 if its parts are not configured."""
    profile = configuration.profiles[name]
    certificate = configuration.certificate_profiles.get(profile.profile_id)
    issuer = configuration.issuers.get(profile.issuer_id)
    if certificate is None or issuer is None:
        return 0
    return ceil(min(certificate.max_ttl, issuer.max_ttl) + certificate.backdate)
