"""`scepstream config check`: what is in effect, so that it can be read again, and no secret."""

import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
import tomli_w
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.effective_config import MASK, effective
from shared.config.load import load
from shared.config.sections import Configuration
from tests.unit.cli.commands import command, sentence
from tests.unit.shared import configurations
from tests.unit.shared.changed import PROFILE, TABLE, add_profile, change
from tests.unit.shared.configurations import MARKER

HOOK: Final = "https://hook.example/scep?a=b"
SECRETS: Final = ("challenge_password", "webhook_secret", "webhook_bearer_token")
TABLES: Final = ("verifier",)  # of secrets, perhaps
# Every key that has a default, set to something else.
RICH: Final[Mapping[str, Mapping[str, Any]]] = {
    "": {"start": "available"},
    "log": {
        "epochs": [
            {"shards": ["0", "1"], "pinned": {"fleet-1": "1"}},
            {"effective_at": 1767225600.5, "shards": ["2"]},
        ],
        "replicas": 3,
        "sync_interval": "always",
        "retry_window": "36h",
        "max_bytes_enrollments": "unlimited",
        "max_bytes_certificates": "3GiB",
        "max_bytes_crls": "300MiB",
        "max_bytes_ocsp": "200MiB",
        "max_bytes_commands": "1GiB",
        "max_bytes_shared": "100MiB",
        "max_bytes_dead_letters": "10MiB",
    },
    "tracing": {"endpoint": "http://127.0.0.1:4318/v1/traces", "sample_ratio": 0.25},
    "gateway": {
        "default_profile": PROFILE,
        "body_limit": 4096,
        "max_in_flight": 7,
        "max_in_flight_per_source": 3,
        "max_wait": "1200ms",
        "max_connections_per_source": 5,
        "max_unfinished_per_source": 2,
        "rate_per_source": 12.5,
        "burst_per_source": 77,
        "failure_floor": "125ms",
        "trusted_proxies": ["192.0.2.1", "2001:db8::1"],
        "tls_cert_path": "tls.pem",
        "tls_key_path": "/etc/tls.key",
    },
    "validator": {"verdict_ttl": "90s", "concurrency": 9, "blocked_keys_path": "blocked.txt"},
    "issuer": {"opening_key_path": "opening.key", "concurrency": 8},
    "audit": {
        "batch": 17,
        "database_url": "postgresql://keeper@db.example:5433/scep",
        "admin_token_path": "admin.token",
        "public_url": "https://scep-admin.example:8443",
        "session_ttl": "45m",
        "oidc_issuer": "https://login.example/realms/pki",
        "oidc_client_id": "scepstream",
        "oidc_client_secret_path": "oidc.secret",
        "oidc_ca_path": "oidc-roots.pem",
        "oidc_roles_claim": "groups",
        "oidc_viewers": ["helpdesk"],
        "oidc_operators": ["pki", "mdm"],
        "oidc_admins": ["pki-admins"],
        "expiry_webhook_url": "https://notices.example/expiry",
        "expiry_webhook_before": ["60d", "2d"],
        "expiry_webhook_secret_path": "expiry.secret",
        "expiry_webhook_ca_path": "expiry-roots.pem",
        "expiry_webhook_timeout": "3s",
    },
    "issuers.local": {
        "chain_path": "chain.pem",
        "next_ca_cert_path": "next.pem",
        "next_ca_key_path": "pkcs11:token=ca;object=next?module-path=/l.so&pin-source=file:/pin",
        "crl_validity": "3d",
        "ocsp_validity": "2d",
        "ra_cert_path": "ra.pem",
        "crl_partitions": [16, 8],
        "crl_partition_urls": ["http://crl.example/crl/local"],
        "max_ttl": "1001ms",
        "max_backdate": "5m",
        "extended_key_usages": ["serverAuth", "1.3.6.1.4.1.311.20.2.2"],
        "certificate_policies": ["1.2.3.4", "1.2.3.5"],
        "allow_sid": True,
    },
    "certificate_profiles.device": {
        "key_types": "ec:p384",
        "key_usages": ["digitalSignature"],
        "extended_key_usages": ["serverAuth"],
        "sans": [],
        "subject_patterns": ["CN=device-*", "O=Corp"],
        "san_patterns": ["dns:*.corp.example", "ip:192.0.2.0/24"],
        "ca_issuers": ["http://ca.example/a.cer"],
        "ocsp": ["http://ocsp.example/"],
        "must_staple": True,
        "certificate_policies": ["1.2.3.4", "1.2.3.5 https://cps.example/"],
        "max_ttl": "25h",
        "backdate": "0s",
    },
    # Not of a profile of this issuer, whose certificates name partitions, nor of these verifiers.
    "certificate_profiles.elsewhere": {
        "crl_distribution_points": ["http://crl.example/a.crl"],
        "subject_template": ["CN={device_name}"],
        "san_templates": ["dns:{san_dns}"],
        "sid_extension": True,
    },
    "intune.contoso": {
        "tenant_id": "contoso.example",
        "client_id": "4b1f5a60-3f3b-4a43-8f0a-0c1f5a603f3b",
        "client_secret_path": "contoso.secret",
    },
    TABLE: {
        "fleet": 'north "1"',
        "shard": "3",
        "challenge_password": ["first secret", "second secret"],
        "signer_key": "csr",
        "empty_content": "absent",
        "staple_ocsp": True,
        "intune_connection": "contoso",
        "intune_wait_for_success_notification": False,
        "intune_allow_static": True,
        "intune_allow_manual": True,
        "intune_allow_pending": True,
        "compliance": "intune",
        "compliance_policy": {"compliant": "allow", "unknown": "defer"},
        "compliance_grace": "2h",
        "compliance_not_found": "defer",
        "compliance_on_error": "allow",
        "intune_enabled": True,
        "intune_connector_cert_path": "anchors.pem",
        "intune_tenant_cert_paths": {"https://sts.example/1 \u00fc": "tenant.pem", "a.b": "/b.pem"},
        "intune_audience": "https://scep.example/\u00e9\\n",
        "intune_challenge_validity": "90m",
        "intune_clock_skew_tolerance": "0s",
        "intune_per_device_rate_limit_24h": 0,
        "unclaimed_sans": "allow",
        "allowed_subject_attributes": ["OU", "2.5.4.12"],
        "device_state": "module:attribute",
        "device_state_timeout": "1500ms",
        "one_time_enabled": True,
        "notify_webhook_url": HOOK,
        "verifier": {"voucher": {"key": "fifth secret", "many": ["sixth secret"]}},
        "webhook_secret": "third secret of the hook",
        "webhook_bearer_token": "fourth secret",
        "webhook_ca_path": "roots.pem",
        "webhook_client_cert_path": "hook.pem",
        "webhook_client_key_path": "hook.key",
        "webhook_timeout": "7s",
        "webhook_concurrency": 5,
        "legacy": True,
        "reply_digest": "sha512",
        "reply_cipher": "aes256",
        "password_recipients": True,
        "mtls_enabled": True,
        "mtls_client_ca_trust_bundle_path": "clients.pem",
        "approval": "manual",
        "renewal": False,
        "renewal_window": "0s",
        "renewal_grace": "1d",
        "renewal_challenge": False,
        "renewal_names": "any",
        "renewal_key_reuse": True,
        "include_chain": True,
        "message_limit": 8192,
        "reply_budget": "250ms",
    },
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return configurations.write(tmp_path)


@pytest.fixture
def complete(
    tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey
) -> Path:
    return configurations.write_all(tmp_path, rsa_key, ec_key)


def rich(config: Path) -> Path:
    for table, keys in RICH.items():
        change(config, table, **keys)
    return config


def shown(configuration: Configuration) -> dict[str, Any]:
    return tomllib.loads(effective(configuration))


def unmasked(table: dict[str, Any], original: Configuration) -> dict[str, Any]:
    """What is shown with the secrets put back."""
    for name, profile in table["profiles"].items():
        for key in SECRETS + TABLES:
            if key in profile:
                profile[key] = getattr(original.profiles[name], key)
    table["audit"]["database_url"] = original.audit.database_url
    return table


def read_again(text: str | dict[str, Any], directory: Path) -> Configuration:
    path = directory / "again.toml"
    path.write_text(text if isinstance(text, str) else tomli_w.dumps(text))
    return load(path, {})


# It says what is in effect


def test_a_minimal_configuration_reads_again_as_the_same(config: Path) -> None:
    original = load(config, {})
    table = unmasked(shown(original), original)

    assert read_again(table, config.parent) == original


def test_every_key_reads_again_as_the_same(config: Path) -> None:
    original = load(rich(config), {})
    table = unmasked(shown(original), original)

    assert read_again(table, config.parent) == original


def test_the_rich_configuration_sets_every_key_that_has_a_default(config: Path) -> None:
    """Else the test above means less than it says."""
    plain, other = load(config, {}), load(rich(config), {})
    tables = ("log", "gateway", "validator", "issuer")
    sections = [
        *((getattr(plain, table), getattr(other, table)) for table in tables),
        (plain.audit, other.audit),
        (plain.issuers["local"], other.issuers["local"]),
        (plain.certificate_profiles["device"], other.certificate_profiles["device"]),
        (plain.profiles[PROFILE], other.profiles[PROFILE]),
    ]
    # This profile cannot have them.
    elsewhere = {"crl_distribution_points", "subject_template", "san_templates", "sid_extension"}
    assert all(getattr(other.certificate_profiles["elsewhere"], name) for name in elsewhere)
    same = {
        f"{type(one).__name__}.{name}"
        for one, another in sections
        for name, field in type(one).model_fields.items()
        if not field.is_required() and getattr(one, name) == getattr(another, name)
    }

    named = {f"CertificateProfileSection.{name}" for name in elsewhere}
    named |= {"ProfileSection.webhook_url", "ProfileSection.sid_lookup"}
    assert same == {"LocalIssuerSection.kind", *named}


def test_what_is_shown_is_taken_as_it_is_but_for_the_masks(config: Path) -> None:
    text = effective(load(config, {}))
    again = read_again(text, config.parent)

    assert again.profiles[PROFILE].challenge_password == (MASK,)
    assert shown(again) == tomllib.loads(text)


def test_defaults_are_shown_with_their_values(config: Path) -> None:
    found = shown(load(config, {}))

    assert found["start"] == "all"
    assert found["gateway"]["failure_floor"] == "50ms"
    assert found["log"]["retry_window"] == "1d"
    assert found["profiles"][PROFILE]["intune_challenge_validity"] == "1h"
    assert found["certificate_profiles"]["device"]["max_ttl"] == "365d"


def test_what_overrides_the_file_is_shown_in_its_stead(config: Path) -> None:
    secrets = config.parent / "secrets"
    secrets.mkdir()
    (secrets / "SCEPSTREAM_PROFILE_CORP_2_WEBHOOK_BEARER_TOKEN").write_text(MARKER)
    environment = {
        "SCEPSTREAM_GATEWAY_BODY_LIMIT": "5000",
        "SCEPSTREAM_PROFILE_CORP_2_REPLY_BUDGET": "90s",
        "SCEPSTREAM_SECRETS_DIR": str(secrets),
    }
    text = effective(load(config, environment))
    found = tomllib.loads(text)

    assert found["gateway"]["body_limit"] == 5000
    assert found["profiles"][PROFILE]["reply_budget"] == "90s"
    assert found["profiles"][PROFILE]["webhook_bearer_token"] == MASK
    assert MARKER not in text


def test_what_is_computed_is_not_shown(config: Path) -> None:
    change(config, "", start="available")
    add_profile(config, "lab", issuer_id="unheard")
    found = load(config, {})

    assert found.left_out
    assert not {"directory", "left_out"} & set(shown(found))
    assert set(shown(found)["profiles"]) == {PROFILE}


# It shows no secret


HEADERS: Final = (
    MARKER,
    MARKER * 30,
    f'"{MARKER}"',
    f"\\{MARKER}\\",
    f"a {MARKER} b",
    MASK + MARKER,
)
ANY: Final = (*HEADERS, f"{MARKER}\nof lines\n", f"\u00fc{MARKER}\U0001f511", f" {MARKER} ")


@pytest.mark.parametrize(
    ("key", "secret"),
    [(key, secret) for key in SECRETS for secret in (HEADERS if "bearer" in key else ANY)],
)
def test_a_secret_is_masked_whatever_it_is(config: Path, key: str, secret: str) -> None:
    text = effective(load(change(config, **{key: secret}), {}))

    assert MARKER not in text
    assert tomllib.loads(text)["profiles"][PROFILE][key] in (MASK, [MASK])


def test_each_of_several_secrets_is_masked_and_a_missing_one_stays_missing(config: Path) -> None:
    change(config, challenge_password=[MARKER, f"{MARKER}2"])
    found = shown(load(config, {}))["profiles"][PROFILE]

    assert found["challenge_password"] == [MASK, MASK]
    assert not {"webhook_secret", "webhook_bearer_token"} & set(found)


def test_a_mask_does_not_tell_how_long_a_secret_is(config: Path) -> None:
    short, long = (
        effective(load(change(config, challenge_password=secret), {})) for secret in ("a", "b" * 99)
    )

    assert short == long


@settings(max_examples=40)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=16, max_size=40))
def test_no_secret_stands_in_what_is_shown(secret: str) -> None:
    """As it is or as TOML would write it."""
    with tempfile.TemporaryDirectory() as name:
        config = configurations.write(Path(name))
        before = effective(load(config, {}))
        change(config, challenge_password=secret, webhook_secret=secret)
        after = effective(load(config, {}))

    for form in (secret, tomli_w.dumps({"": secret}).partition(" = ")[2].strip().strip('"')):
        assert after.count(form) == before.count(form)


@pytest.mark.parametrize(
    "pin", ["1234", "a b", quote("p&in;"), quote("\u00fc=1"), "12/34", "12//34", MARKER]
)
@pytest.mark.parametrize(
    "uri",
    [
        "pkcs11:token=t;object=o?module-path=/l.so&pin-value={}",
        "pkcs11:token=t;object=o?pin-value={}&module-path=/l.so&pin-source=/pin",
        "pkcs11:token=t;object=o?pin-value={}",
    ],
)
def test_a_pin_in_a_uri_is_masked_and_nothing_else_of_it(config: Path, uri: str, pin: str) -> None:
    change(config, "issuers.local", ca_key_path=uri.format(pin))
    change(config, ra_key_path=[uri.format(pin)])
    found = shown(load(config, {}))

    expected = [uri.format(MASK)]
    assert found["issuers"]["local"]["ca_key_path"] == expected
    assert found["profiles"][PROFILE]["ra_key_path"] == expected


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://keeper:{MARKER}@db.example/scep",
        f"postgresql+psycopg://keeper:{MARKER}@db.example:5432/scep?sslmode=require",
        f"postgresql://keeper:{quote(MARKER + '@/:', safe='')}@db.example/scep",
        f"postgresql://keeper:{MARKER}/part@db.example/scep",
        f"postgresql://keeper:part/{MARKER}@db.example/scep",
        f"postgresql://keeper:part?{MARKER}@db.example/scep",
        f"postgresql://keeper:part#{MARKER}@db.example/scep",
        f"postgresql://keeper:part:{MARKER}@db.example/scep",
        f"postgresql://:{MARKER}@db.example/scep",
        f"postgresql://keeper@db.example/scep?password={MARKER}",
        f"postgresql://keeper@db.example/scep?sslmode=require&password={MARKER}",
        f"postgresql:///scep?host=/run/pg&user=keeper&password={MARKER}",
    ],
)
def test_a_databases_password_is_masked_wherever_its_url_has_it(config: Path, url: str) -> None:
    text = effective(load(change(config, "audit", database_url=url), {}))

    assert MARKER not in text
    assert "/scep" in tomllib.loads(text)["audit"]["database_url"]


@pytest.mark.parametrize(
    "url", ["sqlite:///audit.db", "sqlite:////var/lib/a.db", "postgresql://keeper@db.example/scep"]
)
def test_a_databases_url_without_a_password_is_shown_as_it_is(config: Path, url: str) -> None:
    found = shown(load(change(config, "audit", database_url=url), {}))

    assert found["audit"]["database_url"] == url


@pytest.mark.parametrize(
    "url",
    [f"nats://user:{MARKER}@nats.example:4222", f"nats://{MARKER}@nats.example:4222",
     f"nats://:{MARKER}@nats.example:4222", f"tls://user:{MARKER}@nats.example:4222"],
)  # fmt: skip
def test_a_password_or_token_in_the_url_of_the_bus_is_masked(config: Path, url: str) -> None:
    """The client takes them from there."""
    change(config, "bus", url=url)
    text = effective(load(config, {}))

    assert MARKER not in text
    assert "nats.example:4222" in text


# The command


def test_the_command_shows_what_is_in_effect_and_that_it_is_good(complete: Path) -> None:
    done = command("config", "check", "--config", str(complete))

    assert (done.returncode, done.stderr) == (0, "")
    assert MARKER not in done.stdout
    assert done.stdout.endswith(f"# {complete}: valid; profiles {PROFILE}\n")
    assert tomllib.loads(done.stdout) == shown(load(complete, {}))


def test_the_command_finds_the_file_by_its_variable(complete: Path) -> None:
    done = command("config", "check", env={"SCEPSTREAM_CONFIG": str(complete)})

    assert f"{complete}: valid" in done.stdout


def test_what_is_left_out_is_said_and_is_no_error(complete: Path) -> None:
    change(complete, "", start="available")
    add_profile(complete, "bad-issuer", issuer_id="unheard")
    add_profile(complete, "bad-ra", ra_cert_path="absent-ra.pem")
    keys = {"intune_enabled": True, "intune_connector_cert_path": "absent-anchors.pem"}
    add_profile(complete, "bad-anchors", **keys)
    done = command("config", "check", "--config", str(complete))
    said = [line for line in done.stdout.splitlines() if line.startswith("# left out: ")]

    assert (done.returncode, len(said)) == (0, 3)
    for name, reason in (
        ("bad-issuer", "no such issuer: unheard"),
        ("bad-ra", "absent-ra.pem: No such file"),
        ("bad-anchors", "absent-anchors.pem: No such file"),
    ):
        assert any(name in line and reason in line for line in said), name
    assert done.stdout.endswith(f"# {complete}: valid; profiles {PROFILE}\n")
    assert tomllib.loads(done.stdout)


@pytest.mark.parametrize(
    "file",
    ["scepstream.toml", "gateway.nkey", "ra.pem", "ra.key", "opening.pub", "validator.key",
     "opening.key", "validator.nkey", "issuer.nkey", "ca.pem", "ca.key", "ca.secret", "audit.key",
     "audit.nkey"],
)  # fmt: skip
def test_a_file_without_which_a_service_would_not_start_is_one_sentence(
    complete: Path, file: str
) -> None:
    (complete.parent / file).unlink()

    said = sentence(command("config", "check", "--config", str(complete)))
    assert f"{file}: No such file" in said


@pytest.mark.parametrize(
    ("table", "keys"),
    [
        (TABLE, {"issuer_id": "unheard"}),
        (TABLE, {"unheard": MARKER}),
        (TABLE, {"legacy": MARKER}),
        (TABLE, {"intune_enabled": True, "intune_connector_cert_path": "absent.pem"}),
        ("audit", {"database_url": f"postgresql://keeper:{MARKER}@:port/x"}),
        ("gateway", {"tls_cert_path": "ra.pem", "tls_key_path": "ca.key"}),
    ],
)
def test_what_no_service_would_start_with_is_one_sentence_without_a_secret(
    complete: Path, table: str, keys: dict[str, Any]
) -> None:
    said = sentence(command("config", "check", "--config", str(change(complete, table, **keys))))

    assert MARKER not in said
