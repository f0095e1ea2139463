"""What the fake of Microsoft reads of CSRs."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from cli.enroll.csr import write_csr
from cli.enroll.families import FAMILIES
from cli.fake_microsoft.csr import read_csr

KEY = rsa.generate_private_key(65537, 2048)
SUBJECT = x509.Name.from_rfc4514_string("CN=device-1").public_bytes()
NAMES = x509.SubjectAlternativeName([x509.DNSName("device-1.example")])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_csr_of_every_family_of_devices_is_read(family: str) -> None:
    form = FAMILIES[family].csr

    found = read_csr(write_csr(KEY, SUBJECT, "A" * 3000, NAMES, form))

    assert found.subject == (("2.5.4.3", "device-1"),)
    assert found.sans == (("dns", "device-1.example"),)
    assert found.challenge == "A" * 3000


@pytest.mark.parametrize("challenge", ["QUJD", None])
def test_a_csr_without_a_challenge_has_none(challenge: str | None) -> None:
    der = write_csr(KEY, SUBJECT, challenge, None, FAMILIES["windows"].csr)

    assert read_csr(der).challenge == challenge
