"""Keys for renewal, approval, rollover, replies and mTLS: what they mean to each service."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.gateway import settings as gateway
from services.issuer import settings as issuer
from services.validator import settings as validator
from services.validator.gates import RenewalPolicy
from shared.config.load import SettingsError, load
from shared.config.sections import Configuration
from shared.x509.name_patterns import read_san_pattern, read_subject_pattern
from shared.x509.policies import CertificatePolicy
from tests.support import pki
from tests.support.world import NOW
from tests.unit.shared import configurations
from tests.unit.shared.configurations import MARKER

ISSUER = "[issuers.local]\n"
PROFILE = "[profiles.corp-2]\n"
GATEWAY = "[gateway]\n"
CERTIFICATE = "[certificate_profiles.device]\n"
HEADERS = {
    "issuer": ISSUER,
    "profile": PROFILE,
    "gateway": GATEWAY,
    "certificate": CERTIFICATE,
    "validator": "[validator]\n",
}
OLD_KEY = ec.derive_private_key(71, ec.SECP256R1())
NEXT_KEY = ec.derive_private_key(72, ec.SECP256R1())
Configured = Callable[..., Configuration]


@pytest.fixture
def configured(
    tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey
) -> Configured:
    """The complete configuration with more keys in its tables: table -> lines."""
    path = configurations.write_all(tmp_path, rsa_key, ec_key)
    text = path.read_text()

    def made(**tables: str) -> Configuration:
        found = text
        for table, lines in tables.items():
            header = HEADERS[table]
            names = {line.partition("=")[0].strip() for line in lines.splitlines()}
            start = found.index(header) + len(header)
            end = found.find("\n[", start)
            end = len(found) if end < 0 else end
            kept = [
                line
                for line in found[start:end].splitlines()
                if line.partition("=")[0].strip() not in names
            ]
            found = found[:start] + "\n".join([lines, *kept]) + "\n" + found[end:]
        path.write_text(found)
        return load(path, {})

    return made


def policy(configuration: Configuration) -> Any:
    return validator.read_settings(configuration, NOW).policies["corp-2"]


def served(configuration: Configuration) -> gateway.Profile:
    return gateway.read_settings(configuration, NOW).profiles["corp-2"]


def complaint(configured: Configured, **tables: str) -> str:
    """What is said of a configuration that cannot be used; never a secret."""
    with pytest.raises(SettingsError) as error:
        configured(**tables)
    assert MARKER not in str(error.value)
    return str(error.value)


# Renewal and approval


def test_by_default_renewals_are_allowed_in_the_last_third_with_the_same_names(
    configured: Configured,
) -> None:
    found = policy(configured())

    assert found.renewal == RenewalPolicy()
    assert not found.manual
    assert served(configured()).renewal


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("renewal = false", RenewalPolicy(allowed=False)),
        ('renewal_window = "30d"', RenewalPolicy(window=30 * 86400)),
        ('renewal_window = "0s"', RenewalPolicy(window=0)),
        ('renewal_grace = "1h"', RenewalPolicy(grace=3600)),
        ("renewal_challenge = true", RenewalPolicy(challenge=True)),
        ('renewal_names = "any"', RenewalPolicy(any_names=True)),
        ("renewal_key_reuse = true", RenewalPolicy(key_reuse=True)),
    ],
)
def test_each_renewal_key_is_one_rule(
    configured: Configured, lines: str, expected: RenewalPolicy
) -> None:
    assert policy(configured(profile=lines)).renewal == expected


def test_where_renewal_is_switched_off_the_gateway_does_not_offer_it(
    configured: Configured,
) -> None:
    assert not served(configured(profile="renewal = false")).renewal


@pytest.mark.parametrize(("value", "manual"), [("manual", True), ("auto", False)])
def test_approval_is_manual_or_automatic(
    configured: Configured,
    value: str,
    manual: bool,  # noqa: FBT001 - a case
) -> None:
    assert policy(configured(profile=f'approval = "{value}"')).manual is manual


@pytest.mark.parametrize(
    "lines", ['approval = "ask"', 'renewal_names = "some"', "renewal_window = 30", "renewal = 7"]
)
def test_other_values_are_refused(configured: Configured, lines: str) -> None:
    assert f"profiles.corp-2.{lines.partition(' ')[0]}" in complaint(configured, profile=lines)


# Certificate profiles


def test_what_a_certificate_profile_adds_reaches_validators_and_issuers(
    configured: Configured,
) -> None:
    lines = (
        'ca_issuers = "http://ca.example/a.cer"\n'
        'ocsp = ["http://o.example/", "http://p.example/"]\n'
        "must_staple = true\n"
        'certificate_policies = ["1.2.3.4", "1.2.3.5 https://cps.example/"]'
    )
    ceiling = 'certificate_policies = ["1.2.3.5", "1.2.3.4", "2.5.29.32.0"]'
    found = configured(certificate=lines, issuer=ceiling)
    read = policy(found)

    assert read.ca_issuers == ("http://ca.example/a.cer",)
    assert read.ocsp == ("http://o.example/", "http://p.example/")
    assert read.must_staple
    assert read.certificate_policies == (
        CertificatePolicy("1.2.3.4", ""),
        CertificatePolicy("1.2.3.5", "https://cps.example/"),
    )
    ceilings = issuer.read_settings(found).issuers["local"].current.ceilings
    assert ceilings.certificate_policies == {"1.2.3.5", "1.2.3.4", "2.5.29.32.0"}


def test_blocked_keys_are_read_from_every_list(configured: Configured, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("ab" * 32)
    (tmp_path / "b").write_text("0123456789abcdef0123 # Debian")
    lines = 'blocked_keys_path = ["a", "b"]'

    assert len(validator.read_settings(configured(validator=lines), NOW).blocked_keys) == 2
    (tmp_path / "b").write_text("not a digest")
    with pytest.raises(SettingsError, match="b: line 1: "):
        validator.read_settings(configured(validator=lines), NOW)


def test_patterns_of_names_reach_the_gates(configured: Configured) -> None:
    found = policy(configured(certificate='subject_patterns = "CN=a*"\nsan_patterns = ["dns:b*"]'))

    assert found.subject_patterns == (read_subject_pattern("CN=a*"),)
    assert found.san_patterns == (read_san_pattern("dns:b*"),)


@pytest.mark.parametrize(
    ("lines", "complaint_"),
    [
        ('key_types = ["ec:p256"]\nkey_usages = ["keyEncipherment"]', "allows only EC keys"),
        ('max_ttl = "500ms"', "max_ttl: Input should be greater than or equal to 1"),
    ],
)
def test_a_profile_that_could_never_issue_does_not_start(
    configured: Configured, lines: str, complaint_: str
) -> None:
    assert complaint_ in complaint(configured, certificate=lines)


def test_a_profile_with_ec_keys_and_a_usage_for_them_starts(configured: Configured) -> None:
    lines = 'key_types = ["ec:p256"]\nkey_usages = ["keyEncipherment", "nonRepudiation"]'

    assert policy(configured(certificate=lines)).key_types == {"ec:p256"}


# CAs


def test_one_pin_is_a_list_of_one_and_several_are_kept_in_order(configured: Configured) -> None:
    one, other = configured().profiles["corp-2"].ca_spki_sha256[0], "cd" * 32
    found = configured(profile=f'ca_spki_sha256 = ["{one}", "{other}"]')

    assert policy(found).ca_spki_sha256 == served(found).ca_spki_sha256 == (one, other)


@pytest.mark.parametrize("value", ["[]", '["ab"]', '""', "7"])
def test_what_is_no_pin_is_refused(configured: Configured, value: str) -> None:
    lines = f"ca_spki_sha256 = {value}"

    assert "profiles.corp-2.ca_spki_sha256" in complaint(configured, profile=lines)


@pytest.fixture
def rollover(tmp_path: Path) -> Path:
    """The files of the CAs before and after."""
    for name, key, subject in (("old", OLD_KEY, "Old CA"), ("next", NEXT_KEY, "Next CA")):
        pki.write_key(tmp_path / f"{name}.key", key)
        pki.write_certificate(tmp_path / f"{name}.pem", pki.make_root(key, subject))
    return tmp_path


PREVIOUS = 'ca_cert_path = ["ca.pem", "old.pem"]\nca_key_path = ["ca.key", "old.key"]'
PLANNED = 'next_ca_cert_path = "next.pem"\nnext_ca_key_path = "next.key"'


def test_an_issuer_has_current_previous_and_planned_ca(
    configured: Configured, rollover: Path
) -> None:
    found = configured(issuer=f"{PREVIOUS}\n{PLANNED}")
    authorities = issuer.read_settings(found).issuers["local"]

    assert rollover == found.directory
    assert authorities.current.pin == found.profiles["corp-2"].ca_spki_sha256[0]
    assert [ca.key for ca in authorities.previous] != []
    assert [ca.certificate for ca in authorities.previous] == [
        pki.x509.load_pem_x509_certificate((rollover / "old.pem").read_bytes())
    ]
    assert authorities.planned is not None
    assert authorities.planned.pin not in {ca.pin for ca in authorities.active}
    assert authorities.next_signed


def test_an_issuer_with_one_ca_has_none_before_and_after(configured: Configured) -> None:
    authorities = issuer.read_settings(configured()).issuers["local"]

    assert (authorities.previous, authorities.planned, authorities.next_signed) == ((), None, b"")
    assert authorities.crl_validity == 7 * 86400


def test_the_validity_of_crls_is_configured(configured: Configured) -> None:
    found = configured(issuer='crl_validity = "1d"')

    assert issuer.read_settings(found).issuers["local"].crl_validity == 86400


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            'ca_cert_path = ["ca.pem", "old.pem"]',
            "issuers.local.ca_key_path: must have one key for each",
        ),
        (
            'ca_key_path = ["ca.key", "old.key"]',
            "issuers.local.ca_key_path: must have one key for each",
        ),
        ('next_ca_cert_path = "next.pem"', "issuers.local.next_ca_key_path"),
        ('next_ca_key_path = "next.key"', "issuers.local.next_ca_key_path"),
    ],
)
def test_a_ca_certificate_without_its_key_is_refused(
    configured: Configured, lines: str, expected: str
) -> None:
    assert expected in complaint(configured, issuer=lines)


def test_the_key_of_another_ca_is_refused(configured: Configured, rollover: Path) -> None:
    assert rollover
    crossed = PREVIOUS.replace('"ca.key", "old.key"', '"old.key", "ca.key"')

    with pytest.raises(SettingsError, match=r"old\.key: is not the key of .*ca\.pem"):
        issuer.read_settings(configured(issuer=crossed))


# Replies


@pytest.mark.parametrize(
    ("lines", "digest", "cipher"),
    [
        ("legacy = false", "sha256", "aes128"),
        ("legacy = true", "md5", "des"),
        ('reply_digest = "sha512"\nreply_cipher = "aes256"', "sha512", "aes256"),
        ('legacy = true\nreply_digest = "sha1"\nreply_cipher = "des3"', "sha1", "des3"),
    ],
)
def test_floors_of_replies_follow_from_legacy_unless_they_are_set(
    configured: Configured, lines: str, digest: str, cipher: str
) -> None:
    found = served(configured(profile=lines))

    assert (found.floor_digest.name, found.floor_cipher.name) == (digest, cipher)


@pytest.mark.parametrize("lines", ['reply_digest = "sha3"', 'reply_cipher = "rc4"'])
def test_an_unknown_floor_is_refused(configured: Configured, lines: str) -> None:
    assert f"profiles.corp-2.{lines.partition(' ')[0]}" in complaint(configured, profile=lines)


def test_a_gateway_holds_challenges_only_where_it_must_open_requests_by_them(
    configured: Configured,
) -> None:
    assert served(configured()).passwords == ()
    assert served(configured(profile="password_recipients = true")).passwords == (MARKER,)


# TLS


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    pki.write_key(tmp_path / "tls.key", OLD_KEY)
    made = pki.make_certificate(OLD_KEY.public_key(), OLD_KEY, subject="gateway")
    pki.write_certificate(tmp_path / "tls.pem", made)
    pki.write_certificate(tmp_path / "clients.pem", pki.make_root(OLD_KEY), pki.make_root(NEXT_KEY))
    return tmp_path


TLS = 'tls_cert_path = "tls.pem"\ntls_key_path = "tls.key"'
MTLS = 'mtls_enabled = true\nmtls_client_ca_trust_bundle_path = "clients.pem"'


def test_a_profile_with_mtls_has_its_bundle(configured: Configured, tls: Path) -> None:
    found = gateway.read_settings(configured(gateway=TLS, profile=MTLS), NOW)

    assert found.tls is not None
    assert found.tls.certificate == tls / "tls.pem"
    assert len(found.profiles["corp-2"].mtls_bundle) == 2
    assert found.client_cas() == found.profiles["corp-2"].mtls_bundle


def test_a_bundle_without_mtls_is_not_used(configured: Configured, tls: Path) -> None:
    assert tls
    lines = MTLS.replace("true", "false")

    assert served(configured(profile=lines)).mtls_bundle == ()


def test_mtls_needs_a_bundle(configured: Configured) -> None:
    found = complaint(configured, profile="mtls_enabled = true")

    assert "profiles.corp-2.mtls_client_ca_trust_bundle_path: required with mtls_enabled" in found


def test_a_bundle_of_nothing_but_expired_cas_is_refused(configured: Configured, tls: Path) -> None:
    past = pki.START + pki.dt.timedelta(days=1)
    pki.write_certificate(tls / "clients.pem", pki.make_root(OLD_KEY, end=past))

    with pytest.raises(SettingsError, match=r"clients\.pem: every certificate has expired"):
        served(configured(profile=MTLS))


@pytest.mark.parametrize("mode", [0o660, 0o604])
def test_a_tls_key_that_others_may_read_is_refused(
    configured: Configured, tls: Path, mode: int
) -> None:
    (tls / "tls.key").chmod(mode)

    with pytest.raises(SettingsError, match=r"tls\.key: mode is"):
        served(configured(gateway=TLS))


@pytest.mark.parametrize("lines", ['tls_cert_path = "tls.pem"', 'tls_key_path = "tls.key"'])
def test_half_a_tls_pair_is_refused(configured: Configured, tls: Path, lines: str) -> None:
    """Else the operator believes that there is TLS."""
    assert tls

    with pytest.raises(SettingsError, match="tls_"):
        served(configured(gateway=lines))
