"""Connectors of other packages: found by the kind of an issuer, checked before anything starts."""

import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from services.issuer import settings as issuer
from services.issuer.connectors import registry
from services.issuer.connectors.connector import Connector, ConnectorKind, Recovery
from services.issuer.connectors.local import KIND as LOCAL
from services.issuer.connectors.local import LocalConnector
from services.issuer.connectors.registry import GROUP
from services.validator import settings as validator
from shared.config.load import SettingsError, load
from shared.config.sections import ConnectorSection
from shared.log.roles import Role
from tests.plugins import PLUGINS
from tests.plugins.entry_points import declare
from tests.support import pki
from tests.support.world import NOW
from tests.unit.shared import configurations
from tests.unit.shared.changed import change

OPTIONS: Final = {"register_path": "register.db", "key_path": "outside.key"}
SECRET: Final = "s3cret-of-an-opti0n"


@pytest.fixture
def registry_ca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of tests/plugins, installed."""
    monkeypatch.syspath_prepend(PLUGINS / "registry_ca")
    monkeypatch.delitem(sys.modules, "scepstream_registry_ca", raising=False)
    site = declare(tmp_path / "site", GROUP, "registry-ca", "scepstream_registry_ca:KIND")
    monkeypatch.syspath_prepend(site)


@pytest.fixture
def config(tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey) -> Path:
    path = configurations.write_all(tmp_path, rsa_key, ec_key)
    pki.write_key(tmp_path / "outside.key", ec_key)
    root = pki.make_root(ec_key, "Outside CA")
    pki.write_certificate(tmp_path / "outside.pem", root)
    return path


def outside(config: Path, **keys: Any) -> Path:
    """One more issuer, whose CA is outside."""
    table = {"kind": "registry-ca", "ca_cert_path": "outside.pem", "options": OPTIONS} | keys
    return change(config, "issuers.outside", **table)


def complaint(config: Path) -> str:
    with pytest.raises(SettingsError) as error:
        issuer.read_settings(load(config, {}))
    return str(error.value)


@pytest.mark.usefixtures("registry_ca")
def test_an_issuer_has_the_connector_of_its_kind(config: Path) -> None:
    found = issuer.read_settings(load(outside(config, lease="90s"), {})).issuers

    assert isinstance(found["local"], LocalConnector)
    assert type(found["outside"]).__name__ == "RegistryConnector"
    assert found["outside"].recovery is Recovery.NAMED
    assert found["outside"].lease == 90
    assert found["outside"].crls is None


@pytest.mark.usefixtures("registry_ca")
def test_a_connector_of_another_version_is_refused_with_what_it_lacks(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = import_module("scepstream_registry_ca").KIND

    def older(*given: Any) -> Any:
        found = newest.build(*given)
        names = {name for name in vars(Connector) if not name.startswith("_")} - {"ocsp"}
        return SimpleNamespace(**{name: getattr(found, name) for name in names})

    kind = ConnectorKind("registry-ca", older)
    path = outside(config)
    monkeypatch.setattr(registry, "_kind", lambda name: kind if name == kind.kind else LOCAL)
    assert "for another version of scepstream: its connector lacks ocsp" in complaint(path)


@pytest.mark.usefixtures("registry_ca")
def test_the_ceilings_of_the_configuration_hold_for_it_too(config: Path) -> None:
    path = outside(config, max_ttl="30d", extended_key_usages=["clientAuth"])
    ceilings = issuer.read_settings(load(path, {})).issuers["outside"].current.ceilings

    assert ceilings.max_ttl == 30 * 86400
    assert ceilings.extended_key_usages == {pki.CLIENT_AUTH}


@pytest.mark.usefixtures("registry_ca")
def test_only_issuers_need_the_package_and_know_its_options(config: Path) -> None:
    path = outside(config, options=OPTIONS | {"secret": SECRET})
    for role in set(Role) & {Role.GATEWAY, Role.VALIDATOR, Role.AUDIT}:
        found = load(path, {}, role)
        section = found.issuers["outside"]
        assert isinstance(section, ConnectorSection)
        assert section.options == {}
    assert SECRET not in repr(load(path, {}))
    assert validator.read_settings(load(path, {}), NOW)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"kind": "nobody"}, "'nobody': no installed package provides it (scepstream.issuers)"),
        ({"options": {}}, "issuers.outside.options: register_path and key_path are needed"),
        ({"ca_cert_path": "nothing.pem"}, "nothing.pem"),
        ({"more": 1}, "issuers.outside.more: no such setting"),
        ({"lease": "0s"}, "issuers.outside.lease: "),
        ({"secret_path": "ca.secret"}, "issuers.outside.secret_path: no such setting"),
    ],
)
@pytest.mark.usefixtures("registry_ca")
def test_what_is_wrong_is_one_sentence(config: Path, keys: dict[str, Any], said: str) -> None:
    assert said in complaint(outside(config, **keys))


@pytest.mark.usefixtures("registry_ca")
def test_a_certificate_that_is_no_cas_is_refused(
    config: Path, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    leaf = pki.make_certificate(ec_key.public_key(), ec_key, subject="device")
    pki.write_certificate(config.parent / "outside.pem", leaf)

    assert "outside.pem: the CA certificate" in complaint(outside(config))


def test_a_connector_that_needs_the_csr_needs_the_keys_to_seal_it(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "forgetful.py").write_text(
        "from types import SimpleNamespace\n"
        "from services.issuer.connectors.connector import ConnectorKind\n"
        "BLANK = SimpleNamespace(needs_csr=True)\n"
        "KIND = ConnectorKind('forgetful', lambda *_: BLANK)\n"
    )
    monkeypatch.delitem(sys.modules, "forgetful", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(declare(tmp_path / "site", GROUP, "forgetful", "forgetful:KIND"))

    said = complaint(outside(config, kind="forgetful"))
    assert "set issuer.opening_key_path and trust.issuer_sealing_key" in said


@pytest.mark.usefixtures("registry_ca")
@pytest.mark.parametrize(
    "options", [OPTIONS | {"register_path": 5}, OPTIONS | {"key_path": "outside.pem"}]
)
def test_a_package_that_fails_over_its_options_is_a_sentence(
    config: Path, options: dict[str, Any]
) -> None:
    (config.parent / "outside.pem").chmod(0o600)

    assert "issuers.outside: registry-ca cannot be built: " in complaint(
        outside(config, options=options)
    )


@pytest.mark.usefixtures("registry_ca")
def test_options_may_hold_secrets_so_the_file_is_for_its_owner_alone(config: Path) -> None:
    bare = change(config, challenge_password=None, one_time_enabled=True)
    path = outside(bare)
    path.chmod(0o644)
    with pytest.raises(SettingsError, match=r"contains issuers\.outside\.options.*0644"):
        load(path, {})


@pytest.mark.usefixtures("registry_ca")
def test_a_ca_key_that_nothing_here_verifies_is_refused(config: Path) -> None:
    key = Ed25519PrivateKey.from_private_bytes(b"e" * 32)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Ed CA")])
    root = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, pki.START, pki.END)
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .sign(key, None)
    )
    pki.write_certificate(config.parent / "outside.pem", root)

    assert "outside.pem: unsupported CA key type" in complaint(outside(config))
