"""At every start: RA pairs that end soon are replaced, the old encryption pair still decrypts."""

from datetime import UTC, datetime, timedelta
from typing import Final

from cli.up.authority import Authority, make_ra
from cli.up.layout import Layout, write_private
from shared.keys import read_ca_key, read_certificates

_RENEW_BEFORE: Final = timedelta(days=30)


def renew_ra(layout: Layout, now: float) -> list[str]:
    """Replace what is due and say which; killed at any point, the next start goes on."""
    ends_before = datetime.fromtimestamp(now, UTC) + _RENEW_BEFORE
    due = [
        use
        for use in ("signing", "encryption")
        if layout.ra(use).exists()
        and read_certificates(layout.ra(use))[0].not_valid_after_utc < ends_before
    ]
    ca_certificate = read_certificates(layout.ca_cert)[0]
    if not due or ca_certificate.not_valid_after_utc < ends_before:
        return []  # where the CA ends as soon, a new pair would live no longer
    ca = Authority(ca_certificate, read_ca_key(layout.root / "ca" / "ca.key"))
    for use in due:
        if use == "encryption":
            _keep_previous(layout)
        write_private(layout.ra(use), make_ra(ca, use, now))
    return due


def _keep_previous(layout: Layout) -> None:
    """Devices that cached GetCACert go on encrypting to the old key for a while."""
    write_private(layout.ra("previous-encryption"), layout.ra("encryption").read_bytes())
    text = layout.config.read_text()
    if '"ra/previous-encryption.pem"' not in text:
        with_previous = '"ra/encryption.pem", "ra/previous-encryption.pem"]'
        text = text.replace('"ra/encryption.pem"]', with_previous)
        write_private(layout.config, text.encode())
