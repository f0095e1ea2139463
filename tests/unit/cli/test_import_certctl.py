"""`scepstream config import-certctl`: a configuration that the services can start with."""

import hashlib
import shutil
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.audit import settings as audit
from services.gateway import settings as gateway
from services.issuer import settings as issuer
from services.validator import settings as validator
from shared.config.load import load
from shared.config.sections import Configuration
from tests.support import pki
from tests.support.accesses import passwords_of
from tests.support.world import NOW
from tests.unit.cli.commands import command, sentence
from tests.unit.shared import configurations
from tests.unit.shared.changed import change
from tests.unit.shared.configurations import MARKER

ANCHOR_KEY: Final = ec.derive_private_key(101, ec.SECP256R1())
PASSWORD: Final = 'c3rtctl "s p\u00e4ssword'


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where certctl would have run."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def base(tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey) -> Path:
    """A complete configuration; certctl's files lie in a directory of their own."""
    path = configurations.write_all(tmp_path, rsa_key, ec_key)
    certctl = tmp_path / "certctl"
    certctl.mkdir()
    for name in ("ra.pem", "ra.key"):
        shutil.copy(tmp_path / name, certctl / name)
    anchor = pki.make_certificate(ANCHOR_KEY.public_key(), ANCHOR_KEY, subject="connector")
    pki.write_certificate(certctl / "connector.pem", anchor)
    pki.write_certificate(certctl / "clients.pem", pki.make_root(ANCHOR_KEY))
    return path


def flat(directory: Path, **values: str) -> dict[str, str]:
    keys = {
        "ENABLED": "true",
        "CHALLENGE_PASSWORD": PASSWORD,
        "RA_CERT_PATH": str(directory / "certctl" / "ra.pem"),
        "RA_KEY_PATH": str(directory / "certctl" / "ra.key"),
    }
    return {f"CERTCTL_SCEP_{key}": value for key, value in (keys | values).items()}


def profile(directory: Path, name: str, **values: str) -> dict[str, str]:
    keys = {
        "RA_CERT_PATH": str(directory / "certctl" / "ra.pem"),
        "RA_KEY_PATH": str(directory / "certctl" / "ra.key"),
    }
    return {f"CERTCTL_SCEP_PROFILE_{name}_{key}": v for key, v in (keys | values).items()}


def several(directory: Path) -> dict[str, str]:
    """Two profiles, one of them with everything."""
    everything = {
        "ISSUER_ID": "local",
        "PROFILE_ID": "device",
        "CHALLENGE_PASSWORD": PASSWORD,
        "MTLS_ENABLED": "true",
        "MTLS_CLIENT_CA_TRUST_BUNDLE_PATH": str(directory / "certctl" / "clients.pem"),
        "INTUNE_ENABLED": "true",
        "INTUNE_CONNECTOR_CERT_PATH": str(directory / "certctl" / "connector.pem"),
        "INTUNE_AUDIENCE": "https://scep.example/corp",
        "INTUNE_CHALLENGE_VALIDITY": "1h30m",
        "INTUNE_CLOCK_SKEW_TOLERANCE": "90s",
        "INTUNE_PER_DEVICE_RATE_LIMIT_24H": "0",
    }
    return {
        "CERTCTL_SCEP_PROFILES": "corp, my-iot",
        **profile(directory, "CORP", **everything),
        **profile(directory, "MY-IOT", CHALLENGE_PASSWORD=MARKER),
    }


def run(base: Path, variables: dict[str, str], *arguments: str) -> Any:
    return command("config", "import-certctl", "--base", str(base), *arguments, env=variables)


def imported(base: Path, variables: dict[str, str]) -> Configuration:
    """What is printed, read as it would be beside the base."""
    done = run(base, variables)
    assert (done.returncode, done.stderr) == (0, "")
    path = base.with_name("imported.toml")
    path.write_text(done.stdout)
    return load(path, {})


def read_by_all(configuration: Configuration) -> tuple[gateway.Settings, validator.Settings]:
    """Everything as every service reads it at its start."""
    issuer.read_settings(configuration)
    audit.read_settings(configuration)
    found = (
        gateway.read_settings(configuration, NOW),
        validator.read_settings(configuration, NOW),
    )
    assert not found[0].left_out
    assert not found[1].left_out
    return found


# What comes out


def test_the_flat_variables_become_the_default_profile(base: Path) -> None:
    found = imported(base, flat(base.parent))
    serving, judging = read_by_all(found)

    assert set(found.profiles) == {"default"}
    assert serving.default_profile == "default"
    assert passwords_of(judging.access["default"]) == (PASSWORD,)


def test_a_list_of_profiles_becomes_profiles_that_every_service_starts_with(base: Path) -> None:
    found = imported(base, several(base.parent))
    serving, judging = read_by_all(found)
    corp = found.profiles["corp"]
    signed = judging.access["corp"].signed

    assert set(serving.profiles) == set(judging.policies) == {"corp", "my-iot"}
    assert serving.default_profile is None
    assert judging.access["corp"].kinds == ("signed", "static")
    assert passwords_of(judging.access["my-iot"]) == (MARKER,)
    assert len(serving.profiles["corp"].mtls_bundle) == 1
    assert serving.profiles["my-iot"].mtls_bundle == ()
    assert signed is not None
    assert (signed.limit, signed.rules.audience) == (0, "https://scep.example/corp")
    assert (signed.rules.validity, signed.rules.tolerance) == (5400, 90)
    assert (corp.issuer_id, corp.profile_id) == ("local", "device")


def test_the_ca_of_the_issuer_is_pinned(base: Path) -> None:
    ca = x509.load_pem_x509_certificate((base.parent / "ca.pem").read_bytes())
    expected = hashlib.sha256(pki.spki(ca.public_key())).hexdigest()

    assert imported(base, flat(base.parent)).profiles["default"].ca_spki_sha256 == (expected,)


def test_all_but_the_profiles_is_the_bases(base: Path) -> None:
    change(base, "gateway", body_limit=5000)
    change(base, "log", replicas=3)
    before, after = load(base, {}), imported(base, several(base.parent))

    assert after.model_copy(update={"profiles": before.profiles}) == before


def test_a_default_profile_that_is_no_longer_there_is_none(base: Path) -> None:
    change(base, "gateway", default_profile="corp-2")

    assert imported(base, several(base.parent)).gateway.default_profile is None


def test_what_certctl_calls_otherwise_is_said(base: Path) -> None:
    variables = flat(base.parent, ISSUER_ID="iss-vault", PROFILE_ID="prof-wifi")
    done = run(base, variables)
    notes = [line for line in done.stdout.splitlines() if line.startswith("#")]

    assert notes == [
        "# profiles.default.issuer_id: iss-vault is unknown; now local",
        "# profiles.default.profile_id: prof-wifi is unknown; now device",
    ]
    assert imported(base, variables).profiles["default"].issuer_id == "local"


def test_tokens_are_held_to_no_more_of_a_subject_than_before_and_that_is_said(base: Path) -> None:
    done, found = run(base, several(base.parent)), imported(base, several(base.parent)).profiles

    assert found["corp"].allowed_subject_attributes == ("any",)
    assert found["my-iot"].allowed_subject_attributes == ("C", "O", "L", "ST", "serialNumber")
    (warning,) = [
        line for line in done.stdout.splitlines() if "allowed_subject" in line and "#" in line
    ]
    assert warning.startswith('# profiles.corp.allowed_subject_attributes: set to "any"')


def test_what_is_known_here_needs_no_word(base: Path) -> None:
    done = run(base, flat(base.parent, ISSUER_ID="local", PROFILE_ID="device"))

    assert "#" not in done.stdout


def test_relative_paths_are_those_of_the_directory_that_certctl_ran_in(base: Path) -> None:
    variables = flat(
        base.parent, RA_CERT_PATH="certctl/ra.pem", RA_KEY_PATH="./certctl/../certctl/ra.key"
    )
    found = imported(base, variables).profiles["default"]

    assert found.ra_cert_path == (base.parent / "certctl" / "ra.pem",)
    assert found.ra_key_path == (base.parent / "certctl" / "ra.key",)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_variables_may_come_from_a_file_instead_of_the_environment(base: Path, end: str) -> None:
    lines = [f'export {name}="{value}"' for name, value in several(base.parent).items()]
    file = base.with_name("certctl.env")
    file.write_bytes(end.join(["# certctl", *lines, ""]).encode())
    done = run(base, {"CERTCTL_SCEP_UNHEARD": "not looked at"}, "--env-file", str(file))

    assert done.returncode == 0
    assert done.stdout == run(base, several(base.parent)).stdout


# The file it writes


def test_the_file_is_its_owners_alone_and_what_would_be_printed(base: Path) -> None:
    printed = run(base, several(base.parent)).stdout
    out = base.with_name("new.toml")
    done = run(base, several(base.parent), "--out", str(out))

    assert (done.returncode, done.stderr) == (0, "")
    assert out.stat().st_mode & 0o777 == 0o600
    assert tomllib.loads(out.read_text()) == tomllib.loads(printed)
    assert PASSWORD not in done.stdout
    assert MARKER not in done.stdout


def test_config_check_finds_the_file_good(base: Path) -> None:
    out = base.with_name("new.toml")
    run(base, several(base.parent), "--out", str(out))
    done = command("config", "check", "--config", str(out))

    assert done.stdout.endswith(f"# {out}: valid; profiles corp, my-iot\n")


def test_the_base_itself_may_be_replaced(base: Path) -> None:
    assert run(base, several(base.parent), "--out", str(base)).returncode == 0
    assert set(load(base, {}).profiles) == {"corp", "my-iot"}


def test_a_file_in_another_directory_works_there(base: Path, tmp_path: Path) -> None:
    """Or it is said that it would not: the base's paths are relative to the base."""
    out = tmp_path / "etc" / "scepstream.toml"
    done = run(base, several(base.parent), "--out", str(out))
    if done.returncode == 0:
        read_by_all(load(out, {}))
    else:
        assert str(out) in sentence(done)


def test_what_would_be_refused_leaves_what_was_there(base: Path) -> None:
    variables = flat(base.parent, CHALLENGE_PASSWORD="")
    before = base.read_bytes()
    said = sentence(run(base, variables, "--out", str(base)))

    assert "the profile has no verifier" in said
    assert base.read_bytes() == before


# What cannot be imported

BAD: Final = {
    "nothing at all": {},
    "no verifier": {"CERTCTL_SCEP_CHALLENGE_PASSWORD": ""},
    "no RA": {"CERTCTL_SCEP_RA_CERT_PATH": ""},
    "a reserved path id": {"CERTCTL_SCEP_PROFILES": "intune"},
    "a long path id": {"CERTCTL_SCEP_PROFILES": "x" * 64},
    "tokens without anchors": {
        "CERTCTL_SCEP_PROFILES": "a",
        "CERTCTL_SCEP_PROFILE_A_INTUNE_ENABLED": "true",
    },
    "no validity": {
        "CERTCTL_SCEP_PROFILES": "a",
        "CERTCTL_SCEP_PROFILE_A_INTUNE_CHALLENGE_VALIDITY": "0s",
    },
    "a validity of decades": {
        "CERTCTL_SCEP_PROFILES": "a",
        "CERTCTL_SCEP_PROFILE_A_INTUNE_CHALLENGE_VALIDITY": "280000h",
    },
    "a tolerance beyond the validity": {
        "CERTCTL_SCEP_PROFILES": "a",
        "CERTCTL_SCEP_PROFILE_A_INTUNE_ENABLED": "true",
        "CERTCTL_SCEP_PROFILE_A_INTUNE_CONNECTOR_CERT_PATH": "certctl/connector.pem",
        "CERTCTL_SCEP_PROFILE_A_INTUNE_CLOCK_SKEW_TOLERANCE": "2h",
    },
    "a high rate limit": {
        "CERTCTL_SCEP_PROFILES": "a",
        "CERTCTL_SCEP_PROFILE_A_INTUNE_PER_DEVICE_RATE_LIMIT_24H": "1001",
    },
    "half a path id": {"CERTCTL_SCEP_PROFILES": "a-"},
    "an unheard variable": {"CERTCTL_SCEP_UNHEARD": "x"},
    "a boolean of certctl's false": {
        "CERTCTL_SCEP_PROFILES": "a",
        "CERTCTL_SCEP_PROFILE_A_MTLS_ENABLED": "on",
    },
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("to_file", [False, True], ids=["printed", "written"])
def test_what_is_said_to_be_done_can_be_loaded(
    base: Path,
    kind: str,
    to_file: bool,  # noqa: FBT001 - a case
) -> None:
    """Else it is one sentence and exit status 1, not a configuration that no service takes."""
    variables: dict[str, str] = BAD[kind]
    if variables and "CERTCTL_SCEP_PROFILES" in variables:
        name = variables["CERTCTL_SCEP_PROFILES"].upper()
        variables = profile(base.parent, name, CHALLENGE_PASSWORD="pass") | variables
    elif variables:
        variables = flat(base.parent) | variables
    out = base.with_name("new.toml")
    done = run(base, variables, *(["--out", str(out)] if to_file else []))
    if done.returncode == 0:
        out.write_text(out.read_text() if to_file else done.stdout)
        assert load(out, {}).profiles
    else:
        assert PASSWORD not in sentence(done)


@pytest.mark.parametrize("name", ["absent.toml", "certctl"])
def test_a_base_that_cannot_be_read_is_one_sentence(base: Path, name: str) -> None:
    assert name in sentence(run(base.with_name(name), flat(base.parent)))


def test_a_base_without_its_ca_certificate_is_one_sentence(base: Path) -> None:
    (base.parent / "ca.pem").unlink()

    assert "ca.pem: No such file" in sentence(run(base, flat(base.parent)))


def test_an_environment_file_that_is_not_there_is_one_sentence(base: Path) -> None:
    assert "absent.env: No such file" in sentence(run(base, {}, "--env-file", "absent.env"))


def test_a_place_that_cannot_be_written_is_one_sentence(base: Path) -> None:
    out = str(base / "below-a-file" / "new.toml")

    assert str(base) in sentence(run(base, flat(base.parent), "--out", out))


def test_a_challenge_that_is_no_text_is_refused_not_bent(base: Path) -> None:
    """A password in Latin-1, say: another one would let no device in."""
    file = base.with_name("certctl.env")
    lines = [f"{name}={value}" for name, value in flat(base.parent).items()]
    file.write_bytes("\n".join(lines).encode("latin-1"))
    out = base.with_name("new.toml")
    done = run(base, {}, "--env-file", str(file), "--out", str(out))

    if done.returncode == 0:
        assert load(out, {}).profiles["default"].challenge_password == (PASSWORD,)
    else:
        assert "certctl.env" in sentence(done) or "CHALLENGE_PASSWORD" in sentence(done)


def test_a_variable_that_is_no_text_is_one_sentence(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Python reads bytes of the environment that are no UTF-8."""
    for name, value in flat(base.parent, CHALLENGE_PASSWORD="p\udce4ss").items():
        monkeypatch.setenv(name, value)

    assert "CHALLENGE_PASSWORD" in sentence(run(base, {}, "--out", str(base.with_name("new.toml"))))


def test_the_base_is_read_without_the_environments_overrides(base: Path) -> None:
    """They are laid over the result when a service starts; in the file they would be for ever."""
    variables = flat(base.parent) | {
        "SCEPSTREAM_GATEWAY_BODY_LIMIT": "5000",
        "SCEPSTREAM_PROFILE_CORP_2_LEGACY": "true",
    }

    assert imported(base, variables).gateway.body_limit == load(base, {}).gateway.body_limit
