"""Connections to Microsoft in the configuration: strict, complete, and without a secret to see."""

from pathlib import Path
from typing import Any

import pytest
import tomli_w
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.validator.microsoft.connection import TenantConnection, read_connection
from shared.config.load import SettingsError, load
from shared.log.roles import SERVICES, Role
from tests.support import pki
from tests.unit.shared.configurations import text

GUID = "641b43b0-ffff-4953-8915-102113131035"
SECRET = "the-s3cret-of~the.app"
BASE = {"tenant_id": GUID, "client_id": GUID, "client_secret_path": "app.secret"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.secret").write_text(f"{SECRET}\n")
    (tmp_path / "app.secret").chmod(0o600)
    return tmp_path


def read(folder: Path, role: Role | None = None, **keys: Any) -> TenantConnection:
    table = {key: value for key, value in (BASE | keys).items() if value is not None}
    path = folder / "scepstream.toml"
    path.write_text(f"{text()}\n{tomli_w.dumps({'intune': {'corp': table}})}")
    path.chmod(0o600)
    return read_connection(load(path, {}, role), "corp")


def pair(folder: Path, name: str, key: Any = None) -> None:
    key = key or rsa.generate_private_key(65537, 2048)
    issuer = ec.generate_private_key(ec.SECP256R1())
    made = pki.make_certificate(key.public_key(), issuer, subject="app")
    pki.write_certificate(folder / f"{name}.pem", made)
    pki.write_key(folder / f"{name}.key", key)


def test_a_connection_has_the_addresses_of_its_cloud(folder: Path) -> None:
    found = read(folder, tenant_id="Contoso.OnMicrosoft.com")

    assert found.token_url == (
        "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token"
    )
    assert found.graph_scope == "https://graph.microsoft.com/.default"
    assert found.intune_scope == "https://api.manage.microsoft.com//.default"
    assert found.provider_name.startswith("scepstream/")
    assert found.ca_configuration == "corp"
    assert read(folder, cloud="gcc_high").service_hosts == ("manage.microsoft.us",)


def test_a_connection_does_not_show_its_secret(folder: Path) -> None:
    found = read(folder)

    assert found.credentials[0].proof(GUID, "", 0.0, "") == {"client_secret": SECRET}
    assert SECRET not in repr(found) + repr(found.credentials)
    assert SECRET not in found.credentials[0].fingerprint


def test_two_certificates_make_a_rotation(folder: Path) -> None:
    pair(folder, "one")
    pair(folder, "two")
    found = read(
        folder,
        client_secret_path=None,
        client_cert_path=["one.pem", "two.pem"],
        client_key_path=["one.key", "two.key"],
    )

    assert [each.kind for each in found.credentials] == ["certificate"] * 2
    assert len({each.fingerprint for each in found.credentials}) == 2
    assert found.credentials[0].not_after > 0


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"tenant_id": "common/../x"}, "intune.corp.tenant_id"),
        ({"tenant_id": "common"}, "intune.corp.tenant_id"),
        ({"client_id": "app"}, "intune.corp.client_id"),
        ({"client_secret_path": None}, "set either client_secret_path, or client_cert_path"),
        (
            {"client_cert_path": "a.pem", "client_key_path": "a.key"},
            "set either client_secret_path, or client_cert_path",
        ),
        ({"client_cert_path": "a.pem"}, "must have one key for each certificate"),
        ({"client_secret_path": ["a", "b", "c"]}, "intune.corp.client_secret_path"),
        ({"login_url": "http://login.example/"}, "intune.corp.login_url"),
        ({"graph_url": "https://graph.example"}, "intune.corp.graph_url"),
        ({"resource_url": "https://a@b/"}, "intune.corp.resource_url"),
        ({"service_hosts": ["*.example"]}, "intune.corp.service_hosts"),
        ({"service_hosts": []}, "intune.corp.service_hosts"),
        ({"cloud": "china"}, "intune.corp.resource_url: required"),
        ({"revocation_interval": "59s"}, "intune.corp.revocation_interval"),
        ({"provider_name": "a\nb"}, "intune.corp.provider_name"),
        ({"color": "red"}, "intune.corp.color: no such setting"),
    ],
)
def test_a_connection_that_cannot_work_is_refused(
    folder: Path, keys: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SettingsError, match=problem):
        read(folder, **keys)


@pytest.mark.parametrize("secret", ["", "a\nb", "x" * 600, "schlüssel"])
def test_a_file_that_holds_no_secret_is_refused_without_quoting_it(
    folder: Path, secret: str
) -> None:
    (folder / "app.secret").write_text(secret)
    with pytest.raises(SettingsError, match="must hold the client secret") as caught:
        read(folder)

    assert not secret or secret not in str(caught.value)


def test_a_secret_that_others_may_read_is_refused(folder: Path) -> None:
    (folder / "app.secret").chmod(0o644)
    with pytest.raises(SettingsError, match="0644"):
        read(folder)


def test_an_ec_key_and_the_key_of_another_certificate_are_refused(folder: Path) -> None:
    pair(folder, "ec", ec.generate_private_key(ec.SECP256R1()))
    pair(folder, "one")
    pair(folder, "two")
    for cert, key, problem in (("ec", "ec", "RSA key of 2048"), ("one", "two", "is not the key")):
        with pytest.raises(SettingsError, match=problem):
            read(
                folder,
                client_secret_path=None,
                client_cert_path=f"{cert}.pem",
                client_key_path=f"{key}.key",
            )


@pytest.mark.parametrize("role", [role for role in SERVICES if role is not Role.VALIDATOR])
def test_other_services_read_the_configuration_without_the_files(folder: Path, role: Role) -> None:
    (folder / "app.secret").unlink()
    with pytest.raises(SettingsError, match=r"app\.secret"):
        read(folder)
    assert load(folder / "scepstream.toml", {}, role).intune == {}
