"""The certificate template that a profile makes of a CSR. Pure; nothing is copied by default."""

import hashlib
from dataclasses import replace
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import AuthorityInformationAccessOID

from services.validator.gates import Policy
from shared.log.events.enrollment import CertificateTemplate, TemplateExtension
from shared.x509.certificate_names import CertificateNames
from shared.x509.csr import SUBJECT_ALT_NAME, CertificationRequest
from shared.x509.key_ids import authority_key_id, public_key_id, spki_sha256
from shared.x509.names import read_name
from shared.x509.sid import SID, write_sid
from shared.x509.usages import EC_KEY_USAGES, KEY_USAGES, usage_oids


def build_template(
    csr: CertificationRequest,
    policy: Policy,
    ca: x509.Certificate,
    decided_at: int,
    names: CertificateNames | None = None,
    sid: str = "",
) -> CertificateTemplate:
    """Take subject, SANs and key from the CSR, byte for byte, and everything else from the profile.

    `names` replace the CSR's, and `sid` is an account for the extension that names one. A CSR may
    ask for some of the profile's extended key usages, and for a shorter validity. Whatever else it
    asks for (BasicConstraints, CA key usages, a SID) is ignored. The certificate begins no earlier
    than its CA and ends no later. `decided_at` is in Unix seconds.
    """
    names = names or CertificateNames.of_csr(csr)
    begin, end = lifetime(ca)
    longest = min(policy.max_ttl, csr.validity or policy.max_ttl)
    not_before = max(decided_at - policy.backdate, begin)
    not_after = min(decided_at + longest, end)
    return CertificateTemplate(
        issuer=policy.issuer,
        ca_spki_sha256=_pin(ca),
        subject=names.subject,
        spki=csr.spki,
        not_before=not_before,
        not_after=not_after,
        extensions=(*_extensions(csr, policy, ca, names), *_account(sid)),
    )


@lru_cache(maxsize=64)
def lifetime(ca: x509.Certificate) -> tuple[int, int]:
    """Return when the CA's validity begins and ends (Unix seconds)."""
    return int(ca.not_valid_before_utc.timestamp()), int(ca.not_valid_after_utc.timestamp())


@lru_cache(maxsize=64)
def _pin(ca: x509.Certificate) -> str:
    """Return the hex SHA-256 of the CA's public key, which names one of the issuer's CAs."""
    info = ca.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(info).hexdigest()


def _extensions(
    csr: CertificationRequest, policy: Policy, ca: x509.Certificate, names: CertificateNames
) -> tuple[TemplateExtension, ...]:
    """Return the extensions in the order in which most CAs write them."""
    is_rsa = isinstance(csr.public_key, rsa.RSAPublicKey)
    fixed = _fixed(_narrowed(policy, csr), is_rsa, ca)
    key_usage, extended_key_usage, authority, *rest = fixed
    key_id = _extension(x509.SubjectKeyIdentifier(public_key_id(csr.spki)), critical=False)
    extensions = [key_usage, extended_key_usage, key_id, authority]
    if points := policy.crl_partitioning.points_of(_pin(ca), spki_sha256(csr.spki)):
        extensions.append(_extension(_distribution_points(points), critical=False))
    extensions += rest
    if names.san_value is not None and names.sans:
        # RFC 5280 s4.2.1.6: critical if the subject is empty.
        critical = not read_name(names.subject)
        san = TemplateExtension(oid=SUBJECT_ALT_NAME, critical=critical, value=names.san_value)
        extensions.append(san)
    return tuple(extensions)


def _account(sid: str) -> tuple[TemplateExtension, ...]:
    """Return the extension that names an account; none without a SID."""
    if not sid:
        return ()
    return (TemplateExtension(oid=SID, critical=False, value=write_sid(sid)),)


def _narrowed(policy: Policy, csr: CertificationRequest) -> Policy:
    """Return the policy with only the extended key usages that a CSR asks for, if it names any."""
    if not csr.extended_key_usages:
        return policy
    asked = set(csr.extended_key_usages)
    chosen = tuple(u for u in policy.extended_key_usages if not asked.isdisjoint(usage_oids((u,))))
    return replace(policy, extended_key_usages=chosen)


@lru_cache(maxsize=64)
def _fixed(
    policy: Policy,
    is_rsa: bool,  # noqa: FBT001 - private, and part of the cache's key
    ca: x509.Certificate,
) -> tuple[TemplateExtension, ...]:
    """Return what all certificates of a profile share: all but key and names."""
    fixed = [
        _extension(_key_usage(policy, is_rsa), critical=True),
        _extension(_extended_key_usage(policy), critical=False),
        _extension(authority_key_id(ca), critical=False),
    ]
    if policy.crl_distribution_points:
        points = _distribution_points(policy.crl_distribution_points)
        fixed.append(_extension(points, critical=False))
    if policy.ocsp or policy.ca_issuers:
        fixed.append(_extension(_authority_information(policy), critical=False))
    if policy.certificate_policies:
        fixed.append(_extension(_policies(policy), critical=False))
    if policy.must_staple:
        feature = x509.TLSFeature([x509.TLSFeatureType.status_request])
        fixed.append(_extension(feature, critical=False))
    return tuple(fixed)


def _extension(value: x509.ExtensionType, *, critical: bool) -> TemplateExtension:
    return TemplateExtension(
        oid=value.oid.dotted_string, critical=critical, value=value.public_bytes()
    )


def _key_usage(policy: Policy, is_rsa: bool) -> x509.KeyUsage:  # noqa: FBT001 - private
    """Return the profile's usages that the key's algorithm supports (RFC 5480 s3)."""
    usages = {u for u in policy.key_usages if is_rsa or u in EC_KEY_USAGES}
    return x509.KeyUsage(
        **{argument: name in usages for name, argument in KEY_USAGES.items()},
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _extended_key_usage(policy: Policy) -> x509.ExtendedKeyUsage:
    return x509.ExtendedKeyUsage(
        list(map(x509.ObjectIdentifier, usage_oids(policy.extended_key_usages)))
    )


def _distribution_points(points: tuple[str, ...]) -> x509.CRLDistributionPoints:
    """Return the CRL URLs; each leads to the same CRL (RFC 5280 s4.2.1.13)."""
    urls = [x509.UniformResourceIdentifier(url) for url in points]
    return x509.CRLDistributionPoints([x509.DistributionPoint(urls, None, None, None)])


def _authority_information(policy: Policy) -> x509.AuthorityInformationAccess:
    """Return the URLs of OCSP responders, then those of the CA's certificate."""
    urls = [(AuthorityInformationAccessOID.OCSP, url) for url in policy.ocsp]
    urls += [(AuthorityInformationAccessOID.CA_ISSUERS, url) for url in policy.ca_issuers]
    return x509.AuthorityInformationAccess(
        x509.AccessDescription(method, x509.UniformResourceIdentifier(url)) for method, url in urls
    )


def _policies(policy: Policy) -> x509.CertificatePolicies:
    return x509.CertificatePolicies(
        x509.PolicyInformation(x509.ObjectIdentifier(oid), [cps] if cps else None)
        for oid, cps in policy.certificate_policies
    )
