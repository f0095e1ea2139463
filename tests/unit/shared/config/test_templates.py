"""Templates and SIDs as configured: what could never be issued does not start."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.issuer import settings as issuer
from services.validator import settings as validator
from shared.config.load import SettingsError, load
from shared.x509.name_templates import read_san_template, read_subject_template
from tests.support import pki
from tests.support.world import NOW
from tests.unit.shared import configurations
from tests.unit.shared.changed import change

CERTIFICATE = "certificate_profiles.device"
HOOK = {"webhook_url": "https://hook.example/", "challenge_password": None}
SIGNED = {
    "intune_enabled": True,
    "intune_connector_cert_path": "anchors.pem",
    "challenge_password": None,
}
ONE_TIME = {"one_time_enabled": True, "challenge_password": None}
PLUGIN = {"device_state": "tests.integration.device_states:answer"}
NAME = {"subject_template": "CN={device_name}"}
ALLOWED = {"allow_sid": True}


@pytest.fixture
def config(tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey) -> Path:
    anchor = pki.make_certificate(ec_key.public_key(), ec_key, subject="connector")
    pki.write_certificate(tmp_path / "anchors.pem", anchor)
    return configurations.write_all(tmp_path, rsa_key, ec_key)


def policy(path: Path, certificate: dict[str, Any], profile: dict[str, Any], **local: Any) -> Any:
    change(path, CERTIFICATE, **certificate)
    change(path, **profile)
    change(path, "issuers.local", **local)
    return validator.read_settings(load(path, {}), NOW).policies["corp-2"]


def test_templates_reach_the_gates(config: Path) -> None:
    certificate = {
        "subject_template": ["CN={device_name}", "O=Corp"],
        "san_templates": "dns:{san_dns}",
        "sid_extension": True,
    }
    found = policy(config, certificate, HOOK, **ALLOWED)

    assert found.subject_template == (
        read_subject_template("CN={device_name}"),
        read_subject_template("O=Corp"),
    )
    assert found.san_templates == (read_san_template("dns:{san_dns}"),)
    assert found.sid_extension
    assert found.builds_names
    ceilings = issuer.read_settings(load(config, {})).issuers["local"].current.ceilings
    assert ceilings.allow_sid


@pytest.mark.parametrize(
    ("certificate", "profile"),
    [
        (NAME, HOOK),
        (NAME, SIGNED),
        (NAME, ONE_TIME),
        (NAME, SIGNED | {"one_time_enabled": True}),
        ({"subject_template": "CN={iss} {sub}"}, SIGNED),
        ({"san_templates": "uri:urn:device:{device_id}"}, SIGNED | PLUGIN),
        ({"subject_template": "O=Corp"}, {}),
    ],
)
def test_claims_that_every_verifier_proves_may_be_used(
    config: Path, certificate: dict[str, Any], profile: dict[str, Any]
) -> None:
    assert policy(config, certificate, profile).builds_names


@pytest.mark.parametrize(
    ("certificate", "profile", "said"),
    [
        (NAME, {}, "device_name, which the verifier static does not prove"),
        ({"subject_template": "CN={sub}"}, HOOK, "sub, which the verifier webhook does not prove"),
        ({"subject_template": "CN={sub}"}, SIGNED | {"one_time_enabled": True}, "one_time"),
        ({"san_templates": "uri:urn:{device_id}"}, SIGNED, "device_id, which the verifier signed"),
        ({"san_templates": "uri:urn:{sid}"}, SIGNED, "sid, which the verifier signed"),
        ({"subject_template": "CN={password}"}, HOOK, "no claim password; there are iss, sub"),
        ({"san_templates": "ip:{device_id}"}, HOOK, "not a kind and a template"),
        (NAME | {"subject_patterns": "O=Corp"}, HOOK, "which none of its subject_patterns matches"),
        (
            {"san_templates": "dns:{san_dns}", "san_patterns": ["ip:10.0.0.0/8"]},
            HOOK,
            "which none of its san_patterns matches",
        ),
        (
            {"san_templates": "dns:{san_dns}", "sans": ["upn"]},
            HOOK,
            "a subjectAltName of kind dns, which its sans do not allow",
        ),
        (NAME, HOOK | {"renewal_names": "any"}, "renewals keep the names"),
        ({"sid_extension": True}, HOOK, "issuer local does not have allow_sid"),
    ],
)
def test_names_that_could_never_be_built_do_not_start(
    config: Path, certificate: dict[str, Any], profile: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError) as error:
        policy(config, certificate, profile)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ({}, "sid, which the verifier static does not prove"),
        (SIGNED, "sid, which the verifier signed does not prove"),
        (HOOK | {"renewal_challenge": False}, "each SID comes from a new look-up"),
        (HOOK, ""),
        (HOOK | {"renewal_challenge": False, "renewal": False}, ""),
        (SIGNED | PLUGIN, ""),
    ],
)
def test_sids_need_a_look_up_for_every_certificate(
    config: Path, profile: dict[str, Any], said: str
) -> None:
    certificate = {"sid_extension": True}
    if not said:
        assert policy(config, certificate, profile, **ALLOWED).sid_extension
        return
    with pytest.raises(SettingsError) as error:
        policy(config, certificate, profile, **ALLOWED)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("kind", "certificate", "said"),
    [
        ("openbao", NAME, "CAs of kind openbao take the names from the CSR"),
        ("google-cas", {"sid_extension": True}, "CAs of kind google-cas get no SID"),
        ("command", NAME | {"sid_extension": True}, ""),
        ("google-cas", NAME, ""),
    ],
)
def test_a_ca_that_takes_names_from_the_csr_is_refused(
    config: Path, kind: str, certificate: dict[str, Any], said: str
) -> None:
    outside = {"kind": kind, "ca_key_path": None, "secret_path": None, **ALLOWED}
    if not said:
        assert policy(config, certificate, HOOK, **outside).external
        return
    with pytest.raises(SettingsError) as error:
        policy(config, certificate, HOOK, **outside)
    assert said in str(error.value)
