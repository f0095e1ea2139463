"""Which CRL URLs an issuer with partitions signs: a validator's key may be stolen."""

import hashlib
from collections import Counter
from dataclasses import replace
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from services.issuer.ceilings import beyond_ceilings
from shared.ca.partitions import NO_PARTITIONS, Partition, Partitioning, partition_of
from shared.log.events.enrollment import CertificateTemplate, TemplateExtension
from shared.x509.key_ids import spki_sha256
from tests.support import pki
from tests.support.templates import EKU, KEY_USAGE, SAN, SPKI, template

ROOT = pki.make_root(ec.derive_private_key(5, ec.SECP256R1()))
PIN = pki.pin(ROOT)
PARTITIONING = Partitioning((8, 4), ("http://crl.example/crl/local", "http://b.example/crl/"))
CEILINGS = replace(pki.ceilings(ROOT), partitioning=PARTITIONING)
OWN = partition_of(spki_sha256(SPKI), 8)
EARLIER = partition_of(spki_sha256(SPKI), 4)
FOREIGN = Partition(8, (OWN.number + 1) % 8)
OTHER_CA = "ab" * 32
NOT_OWN = "the certificate would name a CRL partition that is not its own"


def named(*urls: str) -> CertificateTemplate:
    names = [x509.UniformResourceIdentifier(url) for url in urls]
    points = x509.CRLDistributionPoints([x509.DistributionPoint(names, None, None, None)])
    return with_points(points)


def with_points(points: x509.CRLDistributionPoints) -> CertificateTemplate:
    value = TemplateExtension(oid="2.5.29.31", critical=False, value=points.public_bytes())
    return template(ROOT, extensions=(KEY_USAGE, EKU, value, SAN))


@pytest.mark.parametrize(
    "urls",
    [
        PARTITIONING.points(PIN, OWN),
        PARTITIONING.points(PIN, OWN)[:1],
        PARTITIONING.points(PIN, EARLIER),
        ("http://crl.example/crl/local.crl",),
        (f"http://crl.example/crl/local/{PIN}.crl",),
        (f"http://crl.example/crl/local/{OTHER_CA}/{FOREIGN.name}.crl",),
    ],
)
def test_a_certificate_may_name_its_own_partition_and_complete_crls(urls: tuple[str, ...]) -> None:
    assert beyond_ceilings(named(*urls), CEILINGS) == ""


FOREIGN_URL = PARTITIONING.points(PIN, FOREIGN)[0]


@pytest.mark.parametrize(
    "urls",
    [
        (FOREIGN_URL,),
        (PARTITIONING.points(PIN, OWN)[0], FOREIGN_URL),
        (FOREIGN_URL.upper(),),
        (FOREIGN_URL.replace("http", "HTTP"),),
        (FOREIGN_URL.replace("/crl/", "/./crl/"),),
        (FOREIGN_URL.replace(PIN, quote(PIN[0]) + PIN[1:]).replace("/8-", "%2f8-"),),
        (FOREIGN_URL + "?",),
        (PARTITIONING.points(PIN, Partition(16, 3))[0],),
    ],
)
def test_a_certificate_may_not_name_another_partition(urls: tuple[str, ...]) -> None:
    assert beyond_ceilings(named(*urls), CEILINGS) == NOT_OWN


def test_a_point_that_fits_every_partition_is_refused() -> None:
    """Programs match a point without a name with any CRL of its issuer."""
    issuer = [x509.DirectoryName(ROOT.subject)]
    uri = [x509.UniformResourceIdentifier("http://crl.example/crl/local.crl")]
    reasons = frozenset({x509.ReasonFlags.key_compromise})
    rdn = x509.RelativeDistinguishedName(list(ROOT.subject))
    for point in (
        x509.DistributionPoint(None, None, None, issuer),
        x509.DistributionPoint(uri, None, None, issuer),
        x509.DistributionPoint(uri, None, reasons, None),
        x509.DistributionPoint(None, rdn, None, None),
        x509.DistributionPoint(issuer, None, None, None),
        x509.DistributionPoint([*uri, *issuer], None, None, None),
    ):
        found = with_points(x509.CRLDistributionPoints([point]))
        assert beyond_ceilings(found, CEILINGS) == "the template does not parse"
        whole = replace(CEILINGS, partitioning=NO_PARTITIONS)
        assert beyond_ceilings(found, whole) == ""


def test_a_second_point_is_looked_at_too() -> None:
    points = [
        x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)
        for url in (PARTITIONING.points(PIN, OWN)[0], FOREIGN_URL)
    ]
    assert beyond_ceilings(with_points(x509.CRLDistributionPoints(points)), CEILINGS) == NOT_OWN


def test_every_partition_gets_about_as_many_keys_as_the_others() -> None:
    keys = [
        hashlib.sha256(bytes((number % 256, number // 256))).hexdigest() for number in range(800)
    ]
    found = Counter(partition_of(key, 8) for key in keys)

    assert set(found) == set(replace(PARTITIONING, counts=(8,)).partitions)
    assert 60 < min(found.values()) <= max(found.values()) < 140
