import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.audit import settings as audit
from services.gateway import settings as gateway
from services.issuer import settings as issuer
from services.validator import settings as validator
from shared.config.load import SettingsError, load
from shared.config.sections import Configuration
from tests.support.accesses import passwords_of
from tests.support.world import ISSUING, NOW, OPENING_ID, OPERATOR, VALIDATOR
from tests.unit.shared import configurations
from tests.unit.shared.configurations import MARKER, text, without, write

PROFILE = "[profiles.corp-2]\n"


def loaded(directory: Path, changed: str | None = None, **environment: str) -> Configuration:
    return load(write(directory, changed), environment)


def refused(directory: Path, changed: str | None = None, **environment: str) -> str:
    """The complaint without the file's name; a secret never stands in it."""
    path = write(directory, changed)
    with pytest.raises(SettingsError) as error:
        load(path, environment)
    complaint = str(error.value)
    assert MARKER not in complaint
    return complaint.removeprefix(f"{path}: ")


# The file


def test_a_minimal_file_is_complete(tmp_path: Path) -> None:
    configuration = loaded(tmp_path)
    profile = configuration.profiles["corp-2"]

    assert profile.challenge_password == (MARKER,)
    assert profile.ra_cert_path == (Path("ra.pem"),)
    assert (profile.legacy, profile.include_chain, profile.reply_budget) == (False, False, 10)
    assert configuration.certificate_profiles["device"].max_ttl == 365 * 86400
    assert configuration.log.epochs[0].shards == ("0",)
    assert configuration.path(Path("ra.pem")) == tmp_path / "ra.pem"


def test_an_absolute_path_stays_as_it_is(tmp_path: Path) -> None:
    assert loaded(tmp_path).path(Path("/etc/ra.pem")) == Path("/etc/ra.pem")


def test_a_configuration_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        loaded(tmp_path).bus.url = "other"  # type: ignore[misc]


UNSIGNED = "device has extended key usages that issuer local does not sign"
BOTH_POINTS = (
    "crl_distribution_points of device cannot be combined with crl_partitions of issuer local"
)
PARTITIONS = 'crl_partitions = [8, 4]\ncrl_partition_urls = "http://c/crl/local"'
UNSIGNED_POLICIES = "device has certificate policies that issuer local does not sign"
NO_VERIFIER = (
    "challenge_password: the profile has no verifier:"
    " set challenge_password or enable another verifier"
)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        (text().replace("[bus]", "[bus]\nurll = 1"), "bus.urll: no such setting"),
        (text() + "challenge = 1", "profiles.corp-2.challenge: no such setting"),
        ("unheard = 1\n" + text(), "unheard: no such setting"),
        ('directory = "/"\n' + text(), "directory: no such setting"),
        ("version = 2\n" + text(), "version: Input should be 1"),
        (without("trust"), "trust: required"),
        (text().replace("[bus]\nurl", "[bus]\n# url"), "bus.url: required"),
        (text() + "legacy = 'maybe'", "profiles.corp-2.legacy: "),
        (text().replace("[audit]", "[audit]\nbatch = 0"), "audit.batch: Input should be greater"),
        (text().replace('"ra.pem"', "[]"), "profiles.corp-2.ra_cert_path: "),
        (text().replace("ab" * 32, "AB" * 32), "profiles.corp-2.ca_spki_sha256.0: "),
        (text().replace("corp-2", "Corp"), "profiles.Corp.[key]: "),
        (text().replace("corp-2", "corp-"), "profiles.corp-.[key]: "),
    ],
)  # fmt: skip
def test_a_wrong_key_is_named(tmp_path: Path, changed: str, complaint: str) -> None:
    assert refused(tmp_path, changed).startswith(complaint)


@pytest.mark.parametrize(
    "value",
    ['"10"', '"s"', '"-1s"', '"1.5h"', '"10 s"', '"1h30m"', '"10S"', "10", "10.0", "true", '""'],
)
def test_what_is_no_duration_is_refused(tmp_path: Path, value: str) -> None:
    complaint = refused(tmp_path, text() + f"reply_budget = {value}")

    assert complaint.startswith("profiles.corp-2.reply_budget: ")
    assert "duration" in complaint


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("250ms", 0.25), ("90s", 90), ("60m", 3600), ("24h", 86400), ("365d", 31536000), ("0s", 0)],
)
def test_durations_have_a_unit(tmp_path: Path, value: str, seconds: float) -> None:
    configuration = loaded(tmp_path, text() + f'reply_budget = "{value}"')

    assert configuration.profiles["corp-2"].reply_budget == seconds


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        (text().replace('issuer_id = "local"', 'issuer_id = "x"'), "issuer_id: no such issuer: x"),
        (
            text().replace('profile_id = "device"', 'profile_id = "y"'),
            "profile_id: no such certificate profile: y",
        ),
        (
            text().replace(
                "[certificate_profiles.device]", '[certificate_profiles.device]\nbackdate = "2h"'
            ),
            ("profile_id: backdate of device, 7200s, exceeds max_backdate of issuer local, 3600s"),
        ),
        (
            text().replace(
                "[certificate_profiles.device]",
                '[certificate_profiles.device]\nextended_key_usages = ["codeSigning"]',
            ),
            f"profile_id: {UNSIGNED}: codeSigning",
        ),
        (
            text().replace(
                "[certificate_profiles.device]",
                '[certificate_profiles.device]\ncertificate_policies = ["1.2.3", "1.2.4 http://c"]',
            ),
            f"profile_id: {UNSIGNED_POLICIES}: 1.2.3, 1.2.4",
        ),
        (
            text().replace(
                "[certificate_profiles.device]", "[certificate_profiles.device]\nmust_staple = true"
            ),
            "profile_id: must_staple of device requires ocsp: issuer local adds no OCSP URL",
        ),
        (
            text()
            .replace("[issuers.local]", f"[issuers.local]\n{PARTITIONS}")
            .replace(
                "[certificate_profiles.device]",
                '[certificate_profiles.device]\ncrl_distribution_points = "http://c/local.crl"',
            ),
            f"profile_id: {BOTH_POINTS}",
        ),
        (
            text().replace(f'"{MARKER}"', "[]"),
            NO_VERIFIER,
        ),
        (
            text().replace(f'"{MARKER}"', '["", ""]'),
            NO_VERIFIER,
        ),
        (
            text().replace('"ra.key"', '["ra.key", "old.key"]'),
            "ra_key_path: must have one key for each certificate",
        ),
    ],
)
def test_a_reference_to_nothing_is_named(tmp_path: Path, changed: str, complaint: str) -> None:
    assert refused(tmp_path, changed) == f"profiles.corp-2.{complaint}"


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ("crl_partitions = 8", "crl_partition_urls: set both crl_partitions and"),
        ('crl_partition_urls = "http://c/crl/local"', "crl_partition_urls: set both"),
        (PARTITIONS.replace("[8, 4]", "[8, 8]"), "crl_partitions: names a number twice"),
        (PARTITIONS.replace("[8, 4]", "1"), "crl_partitions"),
        (PARTITIONS.replace("[8, 4]", "[8, 257]"), "crl_partitions"),
        (PARTITIONS.replace("[8, 4]", "true"), "crl_partitions"),
        (PARTITIONS.replace("[8, 4]", '"8"'), "crl_partitions"),
        (PARTITIONS.replace("http:", "ldap:"), "crl_partition_urls"),
    ],
)
def test_partitions_that_could_not_be_published_are_refused(
    tmp_path: Path, keys: str, complaint: str
) -> None:
    changed = text().replace("[issuers.local]", f"[issuers.local]\n{keys}")

    assert refused(tmp_path, changed).startswith(f"issuers.local.{complaint}")


def test_one_number_of_partitions_is_a_list_of_one(tmp_path: Path) -> None:
    keys = PARTITIONS.replace("[8, 4]", "8")
    changed = text().replace("[issuers.local]", f"[issuers.local]\n{keys}")
    issuer = loaded(tmp_path, changed).partitioned()["local"]

    assert (issuer.crl_partitions, issuer.crl_partition_urls) == ((8,), ("http://c/crl/local",))


def test_a_default_profile_must_exist(tmp_path: Path) -> None:
    changed = text().replace("[gateway]", '[gateway]\ndefault_profile = "home"')

    assert refused(tmp_path, changed) == "gateway.default_profile: no such profile: home"


def test_a_reserved_path_id_is_refused(tmp_path: Path) -> None:
    assert "reserved" in refused(tmp_path, text().replace("corp-2", "intune"))


def test_there_must_be_a_profile(tmp_path: Path) -> None:
    assert refused(tmp_path, without("profiles.corp-2") + "\n[profiles]").startswith("profiles: ")


def test_what_is_no_toml_is_refused(tmp_path: Path) -> None:
    for changed in ("[bus\n", f'challenge = "{MARKER}\n', f"challenge = {MARKER}\n"):
        assert refused(tmp_path, changed).startswith("not TOML: ")


def test_a_file_of_other_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=re.escape("c.toml: not TOML")):
        load(tmp_path / "c.toml", {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml: No such file"):
        load(tmp_path / "absent.toml", {})


@pytest.mark.parametrize(
    "changed",
    [
        text().replace(f'"{MARKER}"', f'{{ value = "{MARKER}" }}'),
        text().replace(f'"{MARKER}"', f'["{MARKER}", 7]'),
        text().replace("challenge_password", "challenge_passwort"),
        text().replace("[profiles.corp-2]", f'[profiles.corp-2]\nlegacy = "{MARKER}"'),
        text().replace("[profiles.corp-2]", f'[profiles.corp-2]\nreply_budget = "{MARKER}"'),
    ],
    ids=["a table", "a wrong element", "a misspelt key", "in another key", "in a duration"],
)
def test_a_secret_never_stands_in_a_complaint(tmp_path: Path, changed: str) -> None:
    assert "profiles.corp-2" in refused(tmp_path, changed)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("extended_key_usages", '["clientauth"]'),
        ("key_usages", '["digitalsignature"]'),
        ("key_usages", "[]"),
        ("extended_key_usages", "[]"),
        ("key_types", '["rsa2048"]'),
        ("sans", '["email"]'),
        ("ocsp", '["https://o.example"]'),
        ("subject_patterns", '["cn=*"]'),
        ("san_patterns", '["dns:**"]'),
        ("san_patterns", '["ip:192.0.2.1/24"]'),
        ("ocsp", '["http://"]'),
        ("ca_issuers", '["http://a b"]'),
        ("ca_issuers", '["ldap://a"]'),
        ("certificate_policies", '["1.2.3 ftp://c"]'),
        ("certificate_policies", '["1.2.3 https://c https://d"]'),
        ("certificate_policies", '["1"]'),
        ("certificate_policies", '["0.99.1"]'),
        ("certificate_policies", '["1.2.3", "1.2.3 https://c"]'),
        ("certificate_policies", '["basic"]'),
    ],
)
def test_a_misspelt_name_in_a_certificate_profile_is_refused(
    tmp_path: Path, key: str, value: str
) -> None:
    """At start: else it breaks every enrollment, or is silently no part of any certificate."""
    changed = text().replace(
        "[certificate_profiles.device]", f"[certificate_profiles.device]\n{key} = {value}"
    )

    assert refused(tmp_path, changed).startswith(f"certificate_profiles.device.{key}")


@pytest.mark.parametrize("shards", ["[]", '["a.b"]', '[""]', '["a b"]', '["*"]'])
def test_a_shard_that_is_no_subject_token_is_refused(tmp_path: Path, shards: str) -> None:
    """At start: else requests have nowhere to go."""
    complaint = refused(tmp_path, text() + f"\n[[log.epochs]]\nshards = {shards}\n")

    assert complaint.startswith("log.epochs.0.shards")


# The environment


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("ISSUER_ID", "local", "local"),
        ("CHALLENGE_PASSWORD", "other", ("other",)),
        ("LEGACY", "yes", True),
        ("REPLY_BUDGET", "90s", 90.0),
        ("RA_CERT_PATH", "other.pem", (Path("other.pem"),)),
    ],
)
def test_a_variable_overrides_a_key_of_a_profile_with_a_hyphen(
    tmp_path: Path, variable: str, value: str, expected: Any
) -> None:
    configuration = loaded(tmp_path, None, **{f"SCEPSTREAM_PROFILE_CORP_2_{variable}": value})

    assert getattr(configuration.profiles["corp-2"], variable.lower()) == expected


def test_a_variable_sets_only_the_profile_that_it_names(tmp_path: Path) -> None:
    other = text().partition(PROFILE)[2]
    both = text() + "\n[profiles.corp]\n" + other
    configuration = loaded(
        tmp_path,
        both,
        SCEPSTREAM_PROFILE_CORP_LEGACY="1",
        SCEPSTREAM_PROFILE_CORP_2_REPLY_BUDGET="1s",
    )
    corp, corp_2 = configuration.profiles["corp"], configuration.profiles["corp-2"]

    assert (corp.legacy, corp.reply_budget) == (True, 10)
    assert (corp_2.legacy, corp_2.reply_budget) == (False, 1)


def test_variables_override_the_sections(tmp_path: Path) -> None:
    configuration = loaded(
        tmp_path,
        None,
        SCEPSTREAM_BUS_URL="nats://other:1",
        SCEPSTREAM_GATEWAY_BODY_LIMIT="5000",
        SCEPSTREAM_GATEWAY_DEFAULT_PROFILE="corp-2",
        SCEPSTREAM_LOG_RETRY_WINDOW="1h",
        SCEPSTREAM_TRACING_SAMPLE_RATIO="0.5",
        SCEPSTREAM_CONFIG="not a setting",
        OTHER_VARIABLE="not ours",
    )

    assert configuration.bus.url == ("nats://other:1",)
    assert configuration.gateway.body_limit == 5000
    assert configuration.gateway.default_profile == "corp-2"
    assert configuration.log.retry_window == 3600
    assert configuration.tracing.sample_ratio == 0.5


def test_a_list_of_addresses_can_be_set_by_a_variable(tmp_path: Path) -> None:
    """As one value is a list of one for every other list."""
    configuration = loaded(tmp_path, None, SCEPSTREAM_GATEWAY_TRUSTED_PROXIES="192.0.2.1")

    assert configuration.gateway.trusted_proxies == ("192.0.2.1",)


@pytest.mark.parametrize("value", ["proxy.example", "10.0.0.1/8", "192.0.2.1:80"])
def test_a_proxy_that_is_neither_address_nor_network_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(SettingsError, match="neither an address nor a network") as caught:
        loaded(tmp_path, None, SCEPSTREAM_GATEWAY_TRUSTED_PROXIES=value)
    assert "gateway.trusted_proxies" in str(caught.value)
    assert f'"{value}"' in str(caught.value)


@pytest.mark.parametrize("value", ["true", "TRUE", "1", "yes", "Yes", " true "])
def test_true_is_written_in_many_ways(tmp_path: Path, value: str) -> None:
    configuration = loaded(tmp_path, None, SCEPSTREAM_PROFILE_CORP_2_LEGACY=value)

    assert configuration.profiles["corp-2"].legacy is True


@pytest.mark.parametrize("value", ["false", "False", "0", "no", "NO"])
def test_false_is_written_in_many_ways(tmp_path: Path, value: str) -> None:
    changed = text() + "legacy = true"
    configuration = loaded(tmp_path, changed, SCEPSTREAM_PROFILE_CORP_2_LEGACY=value)

    assert configuration.profiles["corp-2"].legacy is False


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("PROFILE_CORP_2_LEGACY", MARKER, "SCEPSTREAM_PROFILE_CORP_2_LEGACY: not true or false"),
        ("PROFILE_CORP_2_LEGACY", "", "SCEPSTREAM_PROFILE_CORP_2_LEGACY: not true or false"),
        ("GATEWAY_BODY_LIMIT", MARKER, "SCEPSTREAM_GATEWAY_BODY_LIMIT: not a whole number"),
        ("GATEWAY_BODY_LIMIT", "-1", "SCEPSTREAM_GATEWAY_BODY_LIMIT: not a whole number"),
        ("GATEWAY_BODY_LIMIT", "1", "gateway.body_limit: "),
        ("PROFILE_CORP_2_REPLY_BUDGET", MARKER, "profiles.corp-2.reply_budget: "),
    ],
)
def test_a_variable_that_does_not_parse_is_named_and_not_quoted(
    tmp_path: Path, variable: str, value: str, complaint: str
) -> None:
    assert refused(tmp_path, None, **{f"SCEPSTREAM_{variable}": value}).startswith(complaint)


@pytest.mark.parametrize(
    "name",
    ["UNHEARD", "", "BUS", "BUS_URLL", "PROFILE_OTHER_LEGACY", "PROFILE_CORP_2",
     "PROFILE_CORP_2_UNHEARD",
     "PROFILE_CORP_2_", "VERSION", "DIRECTORY", "ISSUERS_LOCAL_MAX_TTL", "PROFILE_LEGACY"],
)  # fmt: skip
def test_an_unknown_variable_is_named_and_not_quoted(tmp_path: Path, name: str) -> None:
    complaint = refused(tmp_path, None, **{f"SCEPSTREAM_{name}": MARKER})

    assert complaint == f"SCEPSTREAM_{name}: no such setting"


@pytest.mark.parametrize(
    ("changed", "variable"),
    [
        ("profiles = 3\n" + without("profiles.corp-2"), "SCEPSTREAM_PROFILE_CORP_2_LEGACY"),
        ("bus = 3\n" + without("bus"), "SCEPSTREAM_BUS_URL"),
        (
            "profiles = { corp-2 = 3 }\n" + without("profiles.corp-2"),
            "SCEPSTREAM_PROFILE_CORP_2_LEGACY",
        ),
    ],
)
def test_a_variable_over_what_is_no_table_is_a_wrong_file_not_a_crash(
    tmp_path: Path, changed: str, variable: str
) -> None:
    assert refused(tmp_path, changed, **{variable: "yes"})


# What each service reads


@pytest.fixture
def complete(
    tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey
) -> Path:
    return configurations.write_all(tmp_path, rsa_key, ec_key)


def read_by_all(path: Path) -> list[Any]:
    configuration = load(path, {})
    return [
        gateway.read_settings(configuration, NOW),
        validator.read_settings(configuration, NOW),
        issuer.read_settings(configuration),
        audit.read_settings(configuration),
    ]


def test_every_service_finds_its_keys(complete: Path) -> None:
    gate, valid, issue, keep = read_by_all(complete)

    assert set(gate.validators) == set(issue.validators) == {VALIDATOR.id}
    assert set(gate.issuers) == set(valid.issuers) == set(issue.trusted_issuers) == {ISSUING.id}
    assert set(valid.operators) == set(issue.operators) == {OPERATOR.id}
    assert keep.signer.id == OPERATOR.id
    assert (valid.signer.id, issue.signer.id) == (VALIDATOR.id, ISSUING.id)
    assert gate.sealing_key_id == OPENING_ID
    assert set(valid.opening_keys) == {OPENING_ID}
    assert passwords_of(valid.access["corp-2"]) == (MARKER,)
    assert keep.database_url == f"sqlite:///{complete.parent}/audit.db"
    assert set(keep.streams) == {"ENROLL_0", "CERTS", "OPS", "DEAD_LETTERS"}


def test_a_shard_planned_far_ahead_is_none_of_the_streams_to_prove(complete: Path) -> None:
    """It may not have been made yet."""
    with complete.open("a") as file:
        for at, shard in ((0, "0"), (1, "1"), (10**11, "planned")):
            file.write(f'\n[[log.epochs]]\neffective_at = {at}\nshards = ["{shard}"]\n')

    keep = read_by_all(complete)[3]
    assert {s for s in keep.streams if s.startswith("ENROLL_")} == {"ENROLL_0", "ENROLL_1"}


def test_a_gateway_holds_no_challenge(complete: Path) -> None:
    assert MARKER not in repr(read_by_all(complete)[0])


@pytest.mark.parametrize(
    "file",
    ["gateway.nkey", "validator.nkey", "issuer.nkey", "audit.nkey", "validator.key", "issuer.key",
     "audit.key", "opening.key", "ca.key", "ca.secret", "ra.key"],
)  # fmt: skip
@pytest.mark.parametrize("mode", [0o660, 0o604])
def test_a_key_file_that_others_may_read_is_named(complete: Path, file: str, mode: int) -> None:
    (complete.parent / file).chmod(mode)

    with pytest.raises(SettingsError, match=f"{file}: mode is {mode:04o}, must be 0600"):
        read_by_all(complete)


@pytest.mark.parametrize(
    "file",
    ["gateway.nkey", "validator.pub", "issuer.pub", "audit.pub", "opening.pub", "validator.key",
     "opening.key", "issuer.key", "audit.key", "ca.pem", "ca.key", "ra.pem", "ra.key", "ca.secret"],
)  # fmt: skip
def test_a_missing_file_of_a_service_is_named(complete: Path, file: str) -> None:
    (complete.parent / file).unlink()

    with pytest.raises(SettingsError, match=f"{file}: No such file"):
        read_by_all(complete)


@pytest.mark.parametrize(
    ("file", "kind"),
    [("validator.key", "an Ed25519 key"), ("issuer.key", "an Ed25519 key"),
     ("audit.key", "an Ed25519 key"), ("audit.pub", "an Ed25519 public key"),
     ("opening.key", "an X25519 key"),
     ("validator.pub", "an Ed25519 public key"), ("opening.pub", "an X25519 public key")],
)  # fmt: skip
def test_a_key_of_another_kind_is_named(complete: Path, file: str, kind: str) -> None:
    other = "ra" + Path(file).suffix
    content = (complete.parent / other).read_bytes()
    (complete.parent / file).write_bytes(content)

    with pytest.raises(SettingsError, match=f"{file}: must be {kind}"):
        read_by_all(complete)


@pytest.mark.parametrize("file", ["validator.key", "validator.pub", "ca.pem", "ra.pem"])
def test_a_file_of_something_else_is_named_and_not_quoted(complete: Path, file: str) -> None:
    (complete.parent / file).write_text(MARKER)

    with pytest.raises(SettingsError) as error:
        read_by_all(complete)
    assert file in str(error.value)
    assert MARKER not in str(error.value)


def test_a_gateway_names_the_profile_whose_ra_is_wrong(complete: Path) -> None:
    (complete.parent / "ra.pem").unlink()

    with pytest.raises(SettingsError, match="profile corp-2: "):
        gateway.read_settings(load(complete, {}), NOW)


@pytest.mark.parametrize(
    "url",
    ["", "no url", f"postgresql://user:{MARKER}@:port/x", f"mysql://user:{MARKER}@db/audit"],
)
def test_a_database_url_that_makes_no_sense_is_refused_without_its_password(
    complete: Path, url: str
) -> None:
    configuration = load(complete, {"SCEPSTREAM_AUDIT_DATABASE_URL": url})

    with pytest.raises(SettingsError, match=r"audit\.database_url") as error:
        audit.read_settings(configuration)
    assert MARKER not in str(error.value)


@pytest.mark.parametrize(
    "url", ["sqlite:////var/lib/audit.db", f"postgresql://user:{MARKER}@db/audit"]
)
def test_other_database_urls_stay_as_they_are(complete: Path, url: str) -> None:
    configuration = load(complete, {"SCEPSTREAM_AUDIT_DATABASE_URL": url})

    assert audit.read_settings(configuration).database_url == url


# Notices of certificates that expire


def noticing(complete: Path, keys: str) -> Configuration:
    """With these keys of the audit service."""
    complete.write_text(complete.read_text().replace("[issuers.local]", f"{keys}\n[issuers.local]"))
    return load(complete, {})


def test_without_a_url_nobody_is_notified_of_certificates_that_expire(complete: Path) -> None:
    assert audit.read_settings(load(complete, {})).expiry_webhook is None


def test_the_expiry_webhook_is_read_with_its_secret_and_its_times(complete: Path) -> None:
    secret = complete.parent / "hook.secret"
    secret.write_text(f"{MARKER}\n")
    secret.chmod(0o600)
    keys = 'expiry_webhook_url = "https://hooks.example/x"\nexpiry_webhook_before = "36h"\n'
    found = noticing(complete, keys + 'expiry_webhook_secret_path = "hook.secret"\n')
    webhook = audit.read_settings(found).expiry_webhook

    assert webhook is not None
    assert (webhook.endpoint.secret, webhook.before) == (MARKER.encode(), (36 * 3600,))
    assert webhook.endpoint.tls is not None
    assert MARKER not in repr(webhook)


@pytest.mark.parametrize(
    "url", ["http://hooks.example/x", "ftp://127.0.0.1/x", "https://me:pw@hooks.example/x", "x"]
)
def test_certificates_are_told_of_over_tls_alone(complete: Path, url: str) -> None:
    with pytest.raises(SettingsError, match=r"audit\.expiry_webhook_url: must be https://"):
        noticing(complete, f'expiry_webhook_url = "{url}"\n')


@pytest.mark.parametrize("before", ["[]", '"soon"', "30", '["30d", "1 week"]'])
def test_a_time_before_expiry_that_is_none_is_named(complete: Path, before: str) -> None:
    with pytest.raises(SettingsError, match=r"audit\.expiry_webhook_before"):
        noticing(complete, f"expiry_webhook_before = {before}\n")


def test_a_secret_that_is_too_short_or_open_to_others_is_refused(complete: Path) -> None:
    secret = complete.parent / "hook.secret"
    keys = (
        'expiry_webhook_url = "http://127.0.0.1:1/x"\nexpiry_webhook_secret_path = "hook.secret"\n'
    )
    configuration = noticing(complete, keys)
    for content, mode in (("short", 0o600), (MARKER, 0o644)):
        secret.write_text(content)
        secret.chmod(mode)
        with pytest.raises(SettingsError, match=r"hook\.secret") as error:
            audit.read_settings(configuration)
        assert content not in str(error.value).replace("shorter", "")
