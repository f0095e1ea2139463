import datetime as dt
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from services.issuer.certificate import draft
from services.issuer.connectors.local import LocalCa
from shared.log.events.enrollment import CertificateTemplate, TemplateExtension
from shared.scep.certificate import read_certificate
from tests.support import pki
from tests.support.messages import DEVICE_NAME, PRINTABLE, SEQ, UTF8, name, oid, tlv
from tests.support.templates import EKU, KEY_USAGE, SAN, SPKI, template
from tests.support.tools import need
from tests.support.world import NOW

ALGORITHM = tlv(SEQ, oid("1.2.840.10045.4.3.2"))
ISSUER_NAME = name(("2.5.4.3", UTF8, b"Test CA"))
ATTEMPT = "enroll.0.demo.transaction.csr.0"
SECRET = b"secret of the issuer, 32 bytes or more"


@pytest.fixture(scope="module")
def ec_ca(ec_key: ec.EllipticCurvePrivateKey) -> LocalCa:
    return pki.local_ca(ec_key)


@pytest.fixture(scope="module")
def rsa_ca(rsa_key: rsa.RSAPrivateKey) -> LocalCa:
    return pki.local_ca(rsa_key, "RSA CA")


def issue(ca: LocalCa, made: CertificateTemplate) -> bytes:
    return ca.sign(ca.draft(made, "attempt"))


def serial(made: CertificateTemplate, secret: bytes = SECRET) -> bytes:
    return draft(made, ISSUER_NAME, ALGORITHM, secret, ATTEMPT).serial


@pytest.mark.parametrize("kind", ["rsa_ca", "ec_ca"])
@pytest.mark.parametrize("critical_san", [False, True])
def test_openssl_accepts_the_certificate_in_strict_mode(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    kind: str,
    critical_san: bool,  # noqa: FBT001 - a case
) -> None:
    openssl = need("openssl", "openssl")
    ca: LocalCa = request.getfixturevalue(kind)
    made = template(ca.certificate)
    if critical_san:
        alone = TemplateExtension(oid=SAN.oid, critical=True, value=SAN.value)
        made = template(ca.certificate, subject=tlv(SEQ), extensions=(*made.extensions[:-1], alone))
    leaf = x509.load_der_x509_certificate(issue(ca, made))
    (tmp_path / "ca.pem").write_bytes(ca.certificate.public_bytes(Encoding.PEM))
    (tmp_path / "leaf.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
    run = subprocess.run(
        [openssl, "verify", "-x509_strict", "-purpose", "sslclient", "-attime", str(NOW),
         "-CAfile", "ca.pem", "leaf.pem"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (run.returncode, run.stdout.strip()) == (0, "leaf.pem: OK"), run.stderr


def test_every_field_of_the_template_stands_in_the_certificate(ec_ca: LocalCa) -> None:
    made = template(ec_ca.certificate)
    leaf = x509.load_der_x509_certificate(issue(ec_ca, made))

    assert leaf.version is x509.Version.v3
    assert leaf.issuer == ec_ca.certificate.subject
    assert leaf.serial_number == int.from_bytes(ec_ca.draft(made, "attempt").serial, "big")
    assert leaf.not_valid_before_utc.timestamp() == made.not_before
    assert leaf.not_valid_after_utc.timestamp() == made.not_after
    assert leaf.public_key().public_bytes_raw if False else pki.spki(leaf.public_key()) == SPKI
    assert [e.oid.dotted_string for e in leaf.extensions] == [e.oid for e in made.extensions]
    assert [e.critical for e in leaf.extensions] == [e.critical for e in made.extensions]
    assert [e.value.public_bytes() for e in leaf.extensions] == [e.value for e in made.extensions]


@pytest.mark.parametrize(
    "subject",
    [
        DEVICE_NAME,
        tlv(SEQ),
        name(("2.5.4.3", PRINTABLE, b"dev_ice!@*")),
        name(("2.5.4.3", 0x14, b"T61 \xe4\xf6\xfc")),
        name(("2.5.4.3", 0x1E, "BMP ü".encode("utf-16-be"))),
        name(("2.5.4.3", UTF8, b"x" * 200)),
        name(("1.2.840.113549.1.9.2", PRINTABLE, b"router.example")),
    ],
    ids=["plain", "empty", "illegal printable", "T61", "BMP", "long", "unstructuredName"],
)
def test_the_subject_is_the_templates_byte_for_byte(ec_ca: LocalCa, subject: bytes) -> None:
    der = issue(ec_ca, template(ec_ca.certificate, subject=subject))

    assert read_certificate(der).subject == subject


@pytest.mark.parametrize(
    ("moment", "tag"),
    [
        (dt.datetime(2049, 12, 31, 23, 59, 59, tzinfo=dt.UTC), 0x17),
        (dt.datetime(2050, 1, 1, tzinfo=dt.UTC), 0x18),
        (dt.datetime(2051, 6, 1, tzinfo=dt.UTC), 0x18),
        (dt.datetime(2000, 2, 29, tzinfo=dt.UTC), 0x17),
    ],
)
def test_years_from_2050_on_are_generalized_times(moment: dt.datetime, tag: int) -> None:
    root = pki.make_root(ec.derive_private_key(9, ec.SECP256R1()))
    made = template(
        root, not_after=int(moment.timestamp()), not_before=int(moment.timestamp()) - 60
    )
    text = moment.strftime("%Y%m%d%H%M%SZ")[0 if tag == 0x18 else 2 :]
    tbs = draft(made, ISSUER_NAME, ALGORITHM, SECRET, ATTEMPT).tbs

    assert tlv(tag, text.encode()) in tbs


def test_a_certificate_that_crosses_2050_is_read_back_right(
    ec_key: ec.EllipticCurvePrivateKey,
) -> None:
    ca = pki.local_ca(ec_key)
    start = int(dt.datetime(2049, 12, 31, tzinfo=dt.UTC).timestamp())
    leaf = x509.load_der_x509_certificate(
        issue(ca, template(ca.certificate, not_before=start, not_after=start + 2 * 86400))
    )

    assert leaf.not_valid_before_utc == dt.datetime(2049, 12, 31, tzinfo=dt.UTC)
    assert leaf.not_valid_after_utc == dt.datetime(2050, 1, 2, tzinfo=dt.UTC)


# Serial numbers


def test_a_serial_is_16_positive_bytes(ec_ca: LocalCa) -> None:
    for second in range(300):
        found = serial(template(ec_ca.certificate, not_after=NOW + second))
        assert len(found) == 16
        assert 0x40 <= found[0] <= 0x7F


def test_the_same_template_gets_the_same_serial(ec_ca: LocalCa) -> None:
    assert serial(template(ec_ca.certificate)) == serial(template(ec_ca.certificate))


@pytest.mark.parametrize(
    "change",
    [
        {"subject": name(("2.5.4.3", UTF8, b"other"))},
        {"spki": pki.spki(ec.derive_private_key(8, ec.SECP256R1()).public_key())},
        {"not_before": NOW - 601},
        {"not_after": NOW + 365 * 86400 + 1},
        {"extensions": (KEY_USAGE, EKU)},
        {"extensions": (EKU, KEY_USAGE)},
        {
            "extensions": (
                TemplateExtension(oid="2.5.29.15", critical=False, value=KEY_USAGE.value),
                EKU,
            )
        },
    ],
)
def test_any_other_content_gets_another_serial(ec_ca: LocalCa, change: dict[str, Any]) -> None:
    base = serial(template(ec_ca.certificate))
    swapped = serial(template(ec_ca.certificate, extensions=(KEY_USAGE, EKU, SAN)))

    assert serial(template(ec_ca.certificate, **change)) not in (base, swapped)


def test_another_secret_name_algorithm_or_attempt_gives_another_serial(ec_ca: LocalCa) -> None:
    made = template(ec_ca.certificate)
    found = {
        serial(made),
        serial(made, SECRET + b"!"),
        draft(made, DEVICE_NAME, ALGORITHM, SECRET, ATTEMPT).serial,
        draft(made, ISSUER_NAME, tlv(SEQ, oid("1.2.840.113549.1.1.11")), SECRET, ATTEMPT).serial,
        draft(made, ISSUER_NAME, ALGORITHM, SECRET, "enroll.0.demo.transaction.csr.1").serial,
    }

    assert len(found) == 5
