"""Certificate templates within everybody's ceilings, to be altered one part at a time."""

from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from shared.log.events.enrollment import CertificateTemplate, TemplateExtension
from tests.support import pki
from tests.support.messages import DEVICE_NAME, SEQ, oid, tlv
from tests.support.world import ISSUER, NOW

DAY: Final = 86400
KEY_USAGE: Final = TemplateExtension(oid="2.5.29.15", critical=True, value=b"\x03\x02\x05\xa0")
EKU: Final = TemplateExtension(
    oid="2.5.29.37", critical=False, value=tlv(SEQ, oid(pki.CLIENT_AUTH))
)
SAN: Final = TemplateExtension(
    oid="2.5.29.17", critical=False, value=tlv(SEQ, tlv(0x82, b"device.example"))
)
# Any key will do: nobody signs with it here.
DEVICE_KEY: Final = ec.derive_private_key(7, ec.SECP256R1()).public_key()
SPKI: Final = pki.spki(DEVICE_KEY)


def template(ca: x509.Certificate, **changes: Any) -> CertificateTemplate:
    """What a validator would approve for this CA."""
    own = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    key_id = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
    device_id = x509.SubjectKeyIdentifier.from_public_key(DEVICE_KEY)
    values: dict[str, Any] = {
        "issuer": ISSUER,
        "ca_spki_sha256": pki.pin(ca),
        "subject": DEVICE_NAME,
        "spki": SPKI,
        "not_before": NOW - 600,
        "not_after": NOW + 365 * DAY,
        "extensions": (
            KEY_USAGE,
            EKU,
            TemplateExtension(oid="2.5.29.14", critical=False, value=device_id.public_bytes()),
            TemplateExtension(oid="2.5.29.35", critical=False, value=key_id.public_bytes()),
            SAN,
        ),
    }
    return CertificateTemplate(**(values | changes))
