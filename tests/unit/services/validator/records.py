"""Certificates on record for judges: of this profile, in the last second before its last third."""

from typing import Any, Final

from services.validator.facts import KnownCertificate
from shared.log.events.certificates import CertificateRecorded
from tests.support.world import NOW, PIN, PROFILE, REQUEST_SHA256, SERIAL

DAY: Final = 86400
# 300 days, of which the last third begins now.
BEGIN: Final = NOW - 200 * DAY
END: Final = NOW + 100 * DAY
KEY_OF_RECORDS: Final = "11" * 32


def record(profile: str = PROFILE, **changes: Any) -> CertificateRecorded:
    values: dict[str, Any] = {
        "request_sha256": REQUEST_SHA256,
        "enrollment": f"enroll.0.{profile}.t.c.0",
        "spki_sha256": KEY_OF_RECORDS,
        "subject": "CN=device",
        "not_before": BEGIN,
        "not_after": END,
        "serial": SERIAL,
        "ca_spki_sha256": PIN,
        "names_sha256": "22" * 32,
    }
    return CertificateRecorded(**(values | changes))


def known(
    profile: str = PROFILE,
    *,
    revoked: bool = False,
    **changes: Any,
) -> KnownCertificate:
    return KnownCertificate(profile, record(profile, **changes), revoked=revoked)
