"""Names of key usages in the configuration (RFC 5280 s4.2.1.3, s4.2.1.12)."""

from collections.abc import Iterable
from typing import Final

KEY_USAGES: Final = {
    "digitalSignature": "digital_signature",
    "nonRepudiation": "content_commitment",
    "keyEncipherment": "key_encipherment",
    "dataEncipherment": "data_encipherment",
}
# What an EC key can be used for, of the above (RFC 5480 s3): it does not encipher.
EC_KEY_USAGES: Final = frozenset({"digitalSignature", "nonRepudiation"})
EXTENDED_KEY_USAGES: Final = {
    "serverAuth": "1.3.6.1.5.5.7.3.1",
    "clientAuth": "1.3.6.1.5.5.7.3.2",
    "codeSigning": "1.3.6.1.5.5.7.3.3",
    "emailProtection": "1.3.6.1.5.5.7.3.4",
    "ipsecIKE": "1.3.6.1.5.5.7.3.17",
    "smartcardLogon": "1.3.6.1.4.1.311.20.2.2",
}
_NAMES: Final = {oid: name for name, oid in EXTENDED_KEY_USAGES.items()}


def usage_oids(usages: Iterable[str]) -> tuple[str, ...]:
    """Return extended key usages, given by name or OID, as dotted OIDs."""
    return tuple(EXTENDED_KEY_USAGES.get(usage, usage) for usage in usages)


def usage_name(oid: str) -> str:
    """Return the name of an extended key usage, or its OID if it has none here."""
    return _NAMES.get(oid, oid)


# Subject attributes that are allowed by default beside a CN which the challenge names.
PLAIN_ATTRIBUTES: Final = ("C", "O", "L", "ST", "serialNumber")
ANY_ATTRIBUTE: Final = "any"
