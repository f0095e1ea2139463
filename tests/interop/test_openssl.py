"""What the server hands out, in openssl's eyes."""

import re
import urllib.request
from pathlib import Path

import pytest
from cryptography import x509

from tests.interop.clients import succeed
from tests.interop.verify import verify_strictly
from tests.support.system import System
from tests.support.tools import need


@pytest.fixture(params=["demo", "legacy"])
def fetched(request: pytest.FixtureRequest, system: System, tmp_path: Path) -> list[Path]:
    """The certificates of GetCACert, each in a file, in the order in which they came."""
    url = f"{system.url(request.param)}?operation=GetCACert"
    with urllib.request.urlopen(url, timeout=10) as response:
        assert response.headers["Content-Type"] == "application/x-x509-ca-ra-cert"
        (tmp_path / "ca.p7b").write_bytes(response.read())
    command = [need("openssl", "openssl"), "pkcs7", "-inform", "DER", "-print_certs"]
    printed = succeed([*command, "-in", "ca.p7b"], tmp_path).stdout
    blocks = re.findall(
        r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", printed, re.DOTALL
    )
    paths = [tmp_path / f"{number}.pem" for number in range(len(blocks))]
    for path, block in zip(paths, blocks, strict=True):
        path.write_text(block)
    return paths


def test_ra_certificates_come_first_and_verify(system: System, fetched: list[Path]) -> None:
    signing, encryption, ca = (x509.load_pem_x509_certificate(p.read_bytes()) for p in fetched)
    assert ca == x509.load_pem_x509_certificate(system.ca_file.read_bytes())
    uses = [
        certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        for certificate in (signing, encryption)
    ]
    assert [use.digital_signature for use in uses] == [True, False]
    assert [use.key_encipherment for use in uses] == [False, True]
    for path in fetched:
        verify_strictly(path, system.ca_file)
