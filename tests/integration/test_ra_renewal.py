"""RA certificates that are renewed while devices enroll, under the same keys."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from cli.up.authority import RA_LIFETIME, Authority, make_ra
from cli.up.layout import Layout, write_private
from shared.config.keys import read_ca_key_file, read_certificates
from tests.support.prepared import command, prepared
from tests.support.requests import Device, Endpoint, der, enroll
from tests.support.system import System, running, wait_until

USES = ("signing", "encryption")
AGE = RA_LIFETIME.total_seconds() * 0.7


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory whose RA certificates have used 70 % of their lives."""
    layout = prepared(tmp_path_factory.mktemp("aged") / "data")
    ca = Authority(
        read_certificates(layout.ca_cert)[0], read_ca_key_file(layout.root / "ca" / "ca.key")
    )
    for use in USES:
        write_private(layout.ra(use), make_ra(ca, use, time.time() - AGE))
    return layout.root


@pytest.fixture(scope="module")
def system(data: Path) -> Iterator[System]:
    with running(data, "--gateways", "2") as found:
        yield found


def shown(system: System, gateway: int) -> list[x509.Certificate]:
    """The RA certificates of GetCACert."""
    found = Endpoint.of(system, "demo", gateway).certificates[:2]
    return [x509.load_der_x509_certificate(each) for each in found]


def in_files(data: Path) -> dict[str, list[x509.Certificate]]:
    layout = Layout(data)
    return {use: read_certificates(layout.ra(use)) for use in USES}


def test_gateways_use_renewed_certificates_beside_the_old_ones(data: Path, system: System) -> None:
    before = {use: found[-1] for use, found in in_files(data).items()}

    def all_renewed() -> bool:
        found = [each for gateway in range(2) for each in shown(system, gateway)]
        ends = max(each.not_valid_after_utc for each in before.values())
        return len(found) == 4 and all(each.not_valid_after_utc > ends for each in found)

    wait_until(all_renewed, 90, "renewed RA certificates at both gateways")
    for use, new in zip(USES, shown(system, 0), strict=True):
        assert new.public_key() == before[use].public_key()
    new = Endpoint.of(system, "demo")
    shown_before = (*map(der, before.values()), new.certificates[2])
    old = replace(new, certificates=shown_before)
    enroll(old, Device.new("addressed-to-the-old"))
    enroll(Endpoint.of(system, "demo", 1), Device.new("addressed-to-the-new"))


def test_the_files_have_both_and_the_record_has_the_event(data: Path, system: System) -> None:
    wait_until(
        lambda: all(len(found) == 2 for found in in_files(data).values()), 90, "written files"
    )
    for new, old in in_files(data).values():
        assert new.public_key() == old.public_key()
        assert new.not_valid_after_utc > old.not_valid_after_utc
    done = command("audit", "verify", "--config", str(system.config))
    assert done.returncode == 0, done.stdout + done.stderr
