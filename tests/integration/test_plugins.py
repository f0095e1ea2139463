"""Packages of other people, built and installed beside scepstream: devices enroll with them."""

import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cli.up.authority import Authority, make_ca, make_ra, pem
from cli.up.layout import Layout, write_private
from shared.x509.key_ids import spki_sha256
from shared.x509.sid import SID, read_sid
from tests.integration.device_states import ACCOUNT
from tests.plugins.install import install
from tests.plugins.registry_ca.scepstream_registry_ca import Register
from tests.plugins.voucher.scepstream_voucher import voucher
from tests.support import requests
from tests.support.prepared import add_kinds, add_profiles, command, configure, prepared
from tests.support.requests import Device, Endpoint
from tests.support.system import System, running, wait_until
from tests.support.tokens import token

KEY: Final = b"k3y-of-the-v0uchers"


@pytest.fixture(scope="module")
def outside_ca() -> Authority:
    return make_ca("ec:p256", time.time())


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, outside_ca: Authority) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("plugins")
    site = install("voucher", folder / "site")
    install("registry_ca", site)
    layout = prepared(folder / "data")
    _add_verifier(layout)
    _add_built_names(layout)
    _add_issuer(layout, outside_ca)
    path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    with running(layout.root, "--issuers", "2", env={"PYTHONPATH": path}) as found:
        yield found


def _add_verifier(layout: Layout) -> None:
    write_private(layout.root / "voucher.key", KEY)
    add_profiles(layout, {"inventory": {"challenge_password": []}})
    _append(layout, '[profiles.inventory.verifier.voucher]\nkey_path = "voucher.key"\n')


def _add_built_names(layout: Layout) -> None:
    built = {
        "subject_template": ["O=Corp, Inc.", "CN={device_name}"],
        "san_templates": ["uri:urn:device:{device_id}"],
        "sid_extension": True,
    }
    signed = {
        "challenge_password": [],
        "intune_enabled": True,
        "intune_connector_cert_path": "connector/connector.pem",
        "device_state": "tests.integration.device_states:answer",
        "profile_id": "built",
    }
    add_kinds(layout, {"built": built})
    add_profiles(layout, {"named": signed})
    configure(layout.config, "issuers.local", allow_sid=True)


def _add_issuer(layout: Layout, ca: Authority) -> None:
    write_private(layout.root / "outside.pem", ca.certificate.public_bytes(Encoding.PEM))
    write_private(layout.root / "outside.key", pem(ca.key))
    for use in ("signing", "encryption"):
        write_private(layout.root / f"outside-{use}.pem", make_ra(ca, use, time.time()))
    ra = [f"outside-{use}.pem" for use in ("signing", "encryption")]
    spki = ca.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    keys = {"issuer_id": "outside", "ca_spki_sha256": spki_sha256(spki)}
    add_profiles(layout, {"outside": keys | {"ra_cert_path": ra, "ra_key_path": ra}})
    _append(
        layout,
        '[issuers.outside]\nkind = "registry-ca"\nca_cert_path = "outside.pem"\nlease = "3s"\n'
        '[issuers.outside.options]\nregister_path = "register.db"\nkey_path = "outside.key"\n',
    )


def _append(layout: Layout, tables: str) -> None:
    write_private(layout.config, f"{layout.config.read_text()}\n{tables}".encode())


def enroll(system: System, profile: str, name: str, challenge: str, out: Path) -> str:
    """What a device of this name is told, "" where it has its certificate."""
    ca = system.data / "outside.pem" if profile == "outside" else system.ca_file
    done = system.cli(
        "enroll", system.url(profile), "--cn", name, "--challenge", challenge,
        "--ca-file", str(ca), "--out", str(out), "--poll",
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stdout + done.stderr


def register(system: System, table: str) -> list[str]:
    """The serial numbers of the CA outside."""
    with Register(system.data / "register.db").open() as connection:
        return [row[0] for row in connection.execute(f"SELECT serial FROM {table}")]


def test_a_device_enrolls_with_a_challenge_of_an_installed_verifier(
    system: System, tmp_path: Path
) -> None:
    own = voucher(KEY, "printer-1")
    assert enroll(system, "inventory", "printer-1", own, tmp_path / "own") == ""
    said = enroll(system, "inventory", "printer-2", own, tmp_path / "anothers")

    assert "BAD_MESSAGE_CHECK the voucher is not for this common name" in said
    shown = system.cli("audit", "show", "printer-2", "--config", str(system.config)).stdout
    assert "the voucher is not for this common name" in shown


def test_a_device_gets_a_certificate_of_a_ca_outside(
    system: System, outside_ca: Authority, tmp_path: Path
) -> None:
    challenge = system.challenge("demo")
    assert enroll(system, "outside", "scanner-1", challenge, tmp_path / "out") == ""
    (path,) = (tmp_path / "out").glob("*cert*.pem")
    leaf = x509.load_pem_x509_certificate(path.read_bytes())
    serial = f"{leaf.serial_number:032x}"

    leaf.verify_directly_issued_by(outside_ca.certificate)
    assert serial in register(system, "certificates")
    shown = system.cli("audit", "show", "scanner-1", "--config", str(system.config)).stdout
    assert "CertificateOrdered" in shown
    revoked = system.cli(
        "ca", "revoke", serial, "--issuer", "outside", "--config", str(system.config)
    )
    assert revoked.returncode == 0, revoked.stdout + revoked.stderr
    assert register(system, "revocations") == [serial]


def test_a_ca_outside_makes_one_certificate_for_a_device_whatever_is_killed(
    system: System, tmp_path: Path
) -> None:
    """The register is locked, so that every issuer dies with an order under way."""
    before = len(register(system, "certificates"))
    with closing(sqlite3.connect(system.data / "register.db", isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        arguments = (
            "enroll", system.url("outside"), "--cn", "scanner-2",
            "--challenge", system.challenge("demo"), "--out", str(tmp_path / "out"),
            "--ca-file", str(system.data / "outside.pem"), "--poll",
        )  # fmt: skip
        with Popen([sys.executable, "-m", "cli", *arguments], stdout=PIPE, text=True) as device:
            wait_until(lambda: "CertificateOrdered" in _shown(system, "scanner-2"), 30, "an order")
            system.kill("issuer")
            lock.execute("ROLLBACK")
            said, _ = device.communicate(timeout=120)
    assert device.returncode == 0, said
    assert len(register(system, "certificates")) == before + 1


def _shown(system: System, name: str) -> str:
    return system.cli("audit", "show", name, "--config", str(system.config)).stdout


def test_a_plug_in_says_more_about_a_device_for_the_names_of_its_certificate(
    system: System,
) -> None:
    """And people find the device by these names."""
    endpoint, device = Endpoint.of(system, "named"), Device.new()
    account = f"healthy-{device.name}"
    challenge = token(system, device, sub=account)
    made = requests.enroll(endpoint, device, csr=device.csr(challenge))
    sans = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (sid,) = (e for e in made.extensions if e.oid.dotted_string == SID)
    approved = _event(system, f"O=Corp\\, Inc., CN={device.name}", "EnrollmentApproved")

    assert made.subject.rfc4514_string() == f"CN={device.name},O=Corp\\, Inc."
    assert sans.get_values_for_type(x509.UniformResourceIdentifier) == [f"urn:device:{account}"]
    assert read_sid(sid.value.public_bytes()) == ACCOUNT
    assert [gate["gate"] for gate in approved["gates"]][-3:] == ["subject", "sans", "sid"]


def _event(system: System, name: str, kind: str) -> Any:
    """An event of the enrollment that people find under this name."""
    arguments = ("audit", "show", name, "--config", str(system.config), "--json")
    wait_until(lambda: kind in command(*arguments).stdout, 10, name)
    lines = map(json.loads, command(*arguments).stdout.splitlines())
    return next(line for line in lines if line["type"] == kind)
