"""Read a CSR as leniently as Intune: any version, attributes in any order."""

import hashlib
from collections.abc import Iterator
from typing import Any, Final

from asn1crypto import csr as asn1_csr
from asn1crypto import x509 as asn1_x509

from cli.fake_microsoft.model import CsrFacts

_CHALLENGE: Final = "1.2.840.113549.1.9.7"
_EXTENSIONS: Final = ("1.2.840.113549.1.9.14", "1.3.6.1.4.1.311.2.1.14")
_SAN, _KEY_USAGE, _EKU = "2.5.29.17", "2.5.29.15", "2.5.29.37"
_UPN: Final = "1.3.6.1.4.1.311.20.2.3"
_TEXTS: Final = {"dns_name": "dns", "rfc822_name": "email", "uniform_resource_identifier": "uri"}
_KINDS: Final = {"ip_address": "ip"}


def read_csr(der: bytes) -> CsrFacts:
    """Return what Intune compares; `ValueError` if this is not a CSR."""
    try:
        return _read(der)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise ValueError(f"not a PKCS#10 request: {type(error).__name__}") from None


def _read(der: bytes) -> CsrFacts:
    info = asn1_csr.CertificationRequest.load(der, strict=True)["certification_request_info"]
    extensions = dict(_extensions(info))
    key = info["subject_pk_info"]
    usage, eku = extensions.get(_KEY_USAGE), extensions.get(_EKU)
    return CsrFacts(
        subject=tuple(name_parts(info["subject"])),
        sans=tuple(_sans(extensions.get(_SAN))),
        key_bits=key.bit_size,
        key_usage=None if usage is None else tuple(sorted(asn1_x509.KeyUsage.load(usage).native)),
        eku=None if eku is None else tuple(sorted(_usages(eku))),
        key_sha256=hashlib.sha256(key.dump()).hexdigest(),
        challenge=next(_challenges(info), None),
    )


def name_parts(name: Any) -> Iterator[tuple[str, str]]:
    """Yield (OID, text) of each attribute of an asn1crypto name."""
    for rdn in name.chosen:
        for attribute in rdn:
            yield attribute["type"].dotted, str(attribute["value"].native)


def _values(info: Any, *oids: str) -> Iterator[Any]:
    """Yield the values of these attributes; others may be of syntaxes that are not known here."""
    attributes = info["attributes"]
    for attribute in attributes if attributes.contents else ():
        if attribute["type"].dotted in oids:
            yield from attribute["values"]


def _challenges(info: Any) -> Iterator[str]:
    for value in _values(info, _CHALLENGE):
        yield str(value.native)


def _extensions(info: Any) -> Iterator[tuple[str, bytes]]:
    for extensions in _values(info, *_EXTENSIONS):
        for extension in extensions:
            yield extension["extn_id"].dotted, extension["extn_value"].contents


def _usages(value: bytes) -> Iterator[str]:
    for usage in asn1_x509.ExtKeyUsageSyntax.load(value):
        yield usage.dotted


def _sans(value: bytes | None) -> Iterator[tuple[str, str]]:
    for name in asn1_x509.GeneralNames.load(value) if value is not None else ():
        if name.name == "other_name":
            oid = name.chosen["type_id"].dotted
            yield "upn" if oid == _UPN else oid, str(name.chosen["value"].native)
        elif name.name == "directory_name":
            yield "directory", name.chosen.human_friendly
        elif name.name in _TEXTS:  # as sent: asn1crypto would rewrite URIs and international names
            yield _TEXTS[name.name], name.chosen.contents.decode("latin-1")
        else:
            yield _KINDS.get(name.name, name.name), str(name.native)
