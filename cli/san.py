"""The form of subjectAltNames on the command line."""

from typing import Final

KINDS: Final = ("dns", "email", "uri", "ip", "upn")


def san_parts(text: str) -> tuple[str, str]:
    """Split a name into (kind, value): `dns:`, `email:`, `ip:`, `uri:` or `upn:`, then the value.

    A name without a kind is a DNS name. `ValueError` says what is wrong.
    """
    kind, colon, value = text.partition(":")
    if not colon:
        kind, value = "dns", text
    if not value:
        raise ValueError(f"{text}: the value is missing")
    if kind.lower() not in KINDS:
        raise ValueError(f"{text}: must be dns:, email:, ip:, uri: or upn:, then a value")
    return kind.lower(), value
