"""Verifiers as configured: what fits together, what their files must be, what comes of them.

Whatever is wrong is said before a port opens, with the profile and the file (or the key).
"""

import datetime as dt
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from services.validator import settings as validator
from services.validator.access import Access
from services.validator.challenges.token import TokenRules
from shared.config.load import SettingsError, load
from shared.config.sections import Configuration
from tests.support import pki
from tests.support.accesses import passwords_of, webhook_of
from tests.support.world import NOW
from tests.unit.shared import configurations
from tests.unit.shared.changed import PROFILE, armoured, change, of_unknown_kind
from tests.unit.shared.configurations import MARKER

Keys = dict[str, Any]
P256_KEY: Final = ec.derive_private_key(91, ec.SECP256R1())
P384_KEY: Final = ec.derive_private_key(92, ec.SECP384R1())
ED25519_KEY: Final = Ed25519PrivateKey.from_private_bytes(b"e" * 32)
HOOK: Final = "https://hook.example/scep"
ONE_TIME: Final = "OT-01234-56789-ABCDE-FGHJK-MNPQR"
SIGNED: Final[Keys] = {"intune_enabled": True, "intune_connector_cert_path": "anchors.pem"}
NO_PASSWORD: Final[Keys] = {"challenge_password": None}
PAST: Final = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def config(tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey) -> Path:
    """A complete configuration, and beside it a bundle of one good anchor."""
    pki.write_certificate(tmp_path / "anchors.pem", anchor(P256_KEY))
    return configurations.write_all(tmp_path, rsa_key, ec_key)


@pytest.fixture(scope="session")
def short_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024)


def anchor(key: Any, subject: str = "connector", **dates: Any) -> x509.Certificate:
    return pki.make_certificate(key.public_key(), P256_KEY, subject=subject, **dates)


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def configured(config: Path, **keys: Any) -> Configuration:
    return load(change(config, **keys), {})


def access(config: Path, **keys: Any) -> Access:
    return validator.read_settings(configured(config, **keys), NOW).access[PROFILE]


def complaint(read: Callable[[], Any]) -> str:
    """What is said of a configuration that cannot be used; never a secret."""
    with pytest.raises(SettingsError) as error:
        read()
    assert MARKER not in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def refused(config: Path, **keys: Any) -> str:
    """What `load` says, less the file's name."""
    return complaint(lambda: configured(config, **keys)).removeprefix(f"{config}: ")


def refused_file(config: Path, file: str, **keys: Any) -> str:
    """What the validator says of a file: the profile and the file stand in it."""
    found = complaint(lambda: access(config, **keys))
    assert PROFILE in found
    assert str(config.parent / file) in found or f" {file}" in found
    return found


# Which verifiers a profile has


@pytest.mark.parametrize(
    ("keys", "kinds"),
    [
        ({}, {"static"}),
        ({"challenge_password": ["", MARKER]}, {"static"}),
        (SIGNED | NO_PASSWORD, {"signed"}),
        (SIGNED, {"static", "signed"}),
        ({"one_time_enabled": True} | NO_PASSWORD, {"one_time"}),
        ({"webhook_url": HOOK} | NO_PASSWORD, {"webhook"}),
        (SIGNED | {"webhook_url": HOOK, "one_time_enabled": True} | NO_PASSWORD,
         {"signed", "webhook", "one_time"}),
        (SIGNED | {"one_time_enabled": True}, {"static", "signed", "one_time"}),
    ],
)  # fmt: skip
def test_a_profile_has_the_verifiers_that_are_configured(
    config: Path, keys: Keys, kinds: set[str]
) -> None:
    found = access(config, **keys)

    assert set(found.kinds) == set(configured(config).profiles[PROFILE].verifiers) == kinds


@pytest.mark.parametrize(
    "keys",
    [NO_PASSWORD, {"challenge_password": ""}, {"challenge_password": ["", ""]},
     NO_PASSWORD | {"notify_webhook_url": HOOK}, NO_PASSWORD | {"intune_enabled": False},
     NO_PASSWORD | SIGNED | {"intune_enabled": False}],
)  # fmt: skip
def test_a_profile_without_a_verifier_is_refused(config: Path, keys: Keys) -> None:
    assert refused(config, **keys) == (
        f"profiles.{PROFILE}.challenge_password: the profile has no verifier: "
        "set challenge_password or enable another verifier"
    )


def test_a_profile_of_tokens_alone_has_no_password_that_works(config: Path) -> None:
    assert passwords_of(access(config, **SIGNED, challenge_password=["", ""])) == ()


def test_several_passwords_are_good_while_they_rotate(config: Path) -> None:
    assert passwords_of(access(config, challenge_password=["old", "", "new"])) == ("old", "new")


@pytest.mark.parametrize("secret", [MARKER, "k3y-of-the-webhook-hmac", "b3arer-t0ken"])
def test_neither_access_nor_configuration_shows_a_secret(config: Path, secret: str) -> None:
    keys = {"webhook_secret": "k3y-of-the-webhook-hmac", "webhook_bearer_token": "b3arer-t0ken"}
    configuration = configured(config, notify_webhook_url=HOOK, **keys)

    assert secret not in repr(configuration)
    assert secret not in repr(validator.read_settings(configuration, NOW).access)


# What does not fit together


@pytest.mark.parametrize(
    ("key", "keys"),
    [
        ("webhook_url", {"webhook_url": HOOK}),
        ("challenge_password", {"one_time_enabled": True, "challenge_password": [ONE_TIME]}),
        ("challenge_password", {"one_time_enabled": True, "challenge_password": ["a", ONE_TIME]}),
        ("password_recipients", SIGNED | NO_PASSWORD | {"password_recipients": True}),
        ("password_recipients",
         SIGNED | {"password_recipients": True, "challenge_password": ["", ""]}),
        ("intune_connector_cert_path", {"intune_enabled": True}),
        ("intune_connector_cert_path",
         {"intune_enabled": True, "intune_tenant_cert_paths": {}}),
        ("intune_clock_skew_tolerance", SIGNED | {"intune_clock_skew_tolerance": "60m"}),
        ("intune_clock_skew_tolerance", SIGNED | {"intune_clock_skew_tolerance": "61m"}),
        ("intune_clock_skew_tolerance", SIGNED | {"intune_challenge_validity": "60s"}),
        ("webhook_client_key_path", {"webhook_client_cert_path": "ra.pem"}),
        ("webhook_client_key_path", {"webhook_client_key_path": "ra.key"}),
        ("webhook_secret", {"webhook_secret": "x" * 15}),
        ("webhook_secret", {"webhook_secret": ""}),
        ("webhook_bearer_token", {"webhook_bearer_token": "t\u00f6ken"}),
        ("webhook_bearer_token", {"webhook_bearer_token": "token\n"}),
        ("webhook_bearer_token", {"webhook_bearer_token": "to\rken"}),
        ("webhook_bearer_token", {"webhook_bearer_token": "to\x00ken"}),
    ],
)  # fmt: skip
def test_keys_that_do_not_fit_together_are_named(config: Path, key: str, keys: Keys) -> None:
    assert refused(config, **keys).startswith(f"profiles.{PROFILE}.{key}: ")


@pytest.mark.parametrize(
    "keys",
    [
        {"challenge_password": [ONE_TIME]},
        {"one_time_enabled": True, "challenge_password": [ONE_TIME.lower()]},
        {"one_time_enabled": True, "challenge_password": [ONE_TIME + "-"]},
        SIGNED | {"intune_clock_skew_tolerance": "59s", "intune_challenge_validity": "60s"},
        SIGNED | {"intune_clock_skew_tolerance": "0s", "intune_challenge_validity": "1s"},
        {"intune_enabled": False, "intune_clock_skew_tolerance": "60m"},
        {"webhook_secret": "x" * 16},
        {"challenge_password": "", "webhook_url": HOOK},
        {"password_recipients": True},
        {"notify_webhook_url": HOOK},
    ],
)
def test_keys_that_fit_together_are_taken(config: Path, keys: Keys) -> None:
    assert configured(config, **keys).profiles[PROFILE].verifiers


@pytest.mark.parametrize("key", ["webhook_url", "notify_webhook_url"])
@pytest.mark.parametrize(
    "url",
    ["http://hook.example/", "http://192.0.2.1/", "http://127.0.0.1.example/", "ftp://localhost/",
     "hook.example", "//hook.example/", "", " ", "https://", "https:///path", "https://:443/",
     "https://user@hook.example/", "https://user:pass@hook.example/", "https://@hook.example/",
     "https://hook.example:port/", "https://hook.example:99999/", "https://[::1/", "file:///x",
     "http://localhost.example/", "http://0.0.0.0/"],
)  # fmt: skip
def test_a_challenge_goes_nowhere_unprotected(config: Path, key: str, url: str) -> None:
    keys = {**NO_PASSWORD, "one_time_enabled": True, key: url}

    assert refused(config, **keys) == (
        f"profiles.{PROFILE}.{key}: must be https://, or http:// on loopback"
    )


@pytest.mark.parametrize("key", ["webhook_url", "notify_webhook_url"])
@pytest.mark.parametrize(
    "url",
    ["https://hook.example", "https://hook.example:8443/a?b=c", "HTTPS://hook.example/",
     "https://192.0.2.1/", "https://[2001:db8::1]/", "http://127.0.0.1:8080/", "http://[::1]:1/",
     "http://localhost/", "http://LOCALHOST:80/"],
)  # fmt: skip
def test_a_protected_url_is_taken(config: Path, key: str, url: str) -> None:
    keys = {**NO_PASSWORD, "one_time_enabled": True, key: url}

    assert getattr(configured(config, **keys).profiles[PROFILE], key) == url


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("intune_challenge_validity", "0s"),
        ("intune_challenge_validity", "-1s"),
        ("intune_challenge_validity", 60),
        ("intune_clock_skew_tolerance", "-1s"),
        ("intune_per_device_rate_limit_24h", -1),
        ("intune_per_device_rate_limit_24h", 1001),
        ("intune_per_device_rate_limit_24h", 1.5),
        ("intune_per_device_rate_limit_24h", "three"),
        ("intune_enabled", "maybe"),
        ("intune_audience", 7),
        ("intune_tenant_cert_paths", "anchors.pem"),
        ("intune_tenant_cert_paths", {"tenant": 7}),
        ("unclaimed_sans", "some"),
        ("allowed_subject_attributes", ["CommonName"]),
        ("allowed_subject_attributes", "ou"),
        ("allowed_subject_attributes", ["OU", "any"]),
        ("allowed_subject_attributes", ["1"]),
        ("device_state_timeout", "0s"),
        ("one_time_enabled", 7),
        ("webhook_timeout", "0s"),
        ("webhook_concurrency", 0),
        ("webhook_concurrency", 257),
        ("webhook_bearer_token", 7),
    ],
)
def test_a_value_out_of_bounds_is_named(config: Path, key: str, value: Any) -> None:
    assert refused(config, **(SIGNED | {key: value})).startswith(f"profiles.{PROFILE}.{key}")


# What comes of it


def test_defaults_of_tokens_are_those_that_operators_know(config: Path) -> None:
    found = access(config, **SIGNED).signed

    assert found is not None
    assert (found.limit, found.device_state) == (3, None)
    assert found.rules == TokenRules(
        audience=None, validity=3600, tolerance=60, allow_unclaimed=False
    )


def test_each_key_of_tokens_is_one_rule(config: Path) -> None:
    found = access(
        config,
        **SIGNED,
        intune_audience="https://scep.example/corp",
        intune_challenge_validity="90m",
        intune_clock_skew_tolerance="0s",
        intune_per_device_rate_limit_24h=0,
        unclaimed_sans="allow",
        allowed_subject_attributes=["OU", "2.5.4.12"],
    ).signed

    assert found is not None
    assert found.limit == 0
    assert found.rules == TokenRules(
        "https://scep.example/corp", 5400, 0, True, frozenset({"OU", "2.5.4.12"})
    )


@pytest.mark.parametrize(
    ("variable", "value", "key", "expected"),
    [
        ("INTUNE_ENABLED", "TRUE", "intune_enabled", True),
        ("INTUNE_CONNECTOR_CERT_PATH", "a.pem", "intune_connector_cert_path", Path("a.pem")),
        ("INTUNE_AUDIENCE", "https://x/", "intune_audience", "https://x/"),
        ("INTUNE_CHALLENGE_VALIDITY", "24h", "intune_challenge_validity", 86400.0),
        ("INTUNE_CLOCK_SKEW_TOLERANCE", "90s", "intune_clock_skew_tolerance", 90.0),
        ("INTUNE_PER_DEVICE_RATE_LIMIT_24H", "0", "intune_per_device_rate_limit_24h", 0),
        ("ONE_TIME_ENABLED", "Yes", "one_time_enabled", True),
        ("NOTIFY_WEBHOOK_URL", HOOK, "notify_webhook_url", HOOK),
        ("WEBHOOK_SECRET", "x" * 16, "webhook_secret", "x" * 16),
        ("WEBHOOK_BEARER_TOKEN", "t", "webhook_bearer_token", "t"),
        ("WEBHOOK_CONCURRENCY", "7", "webhook_concurrency", 7),
        ("DEVICE_STATE_TIMEOUT", "2s", "device_state_timeout", 2.0),
        ("RENEWAL_CHALLENGE", "no", "renewal_challenge", False),
    ],
)
def test_verifiers_can_be_set_by_the_variables_that_operators_know(
    config: Path, variable: str, value: str, key: str, expected: Any
) -> None:
    change(config, **SIGNED)
    found = load(config, {f"SCEPSTREAM_PROFILE_CORP_2_{variable}": value})

    assert getattr(found.profiles[PROFILE], key) == expected


@pytest.mark.parametrize(
    ("key", "value"), [("intune_challenge_validity", "500ms"), ("renewal_window", "500ms")]
)
def test_less_than_a_second_does_not_become_no_limit_at_all(
    config: Path, key: str, value: str
) -> None:
    """A cap of 0 is none, and a window of 0 is always open: so it is refused, or still closed."""
    keys: Keys = {"intune_clock_skew_tolerance": "0s"} | SIGNED | {key: value}
    try:
        settings = validator.read_settings(configured(config, **keys), NOW)
    except SettingsError as error:
        assert key in str(error)  # noqa: PT017 - either will do
        return
    signed = settings.access[PROFILE].signed

    assert signed is not None
    assert signed.rules.validity > 0
    assert settings.policies[PROFILE].renewal.window != 0


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, False),
        ({"one_time_enabled": True} | NO_PASSWORD, False),
        (SIGNED, True),
        ({"webhook_url": HOOK} | NO_PASSWORD, True),
        (SIGNED | {"renewal_challenge": False}, False),
        ({"renewal_challenge": True}, True),
    ],
)
def test_a_renewal_needs_a_challenge_where_somebody_outside_can_be_asked(
    config: Path,
    keys: Keys,
    expected: bool,  # noqa: FBT001 - a case
) -> None:
    found = validator.read_settings(configured(config, **keys), NOW)

    assert found.policies[PROFILE].renewal.challenge is expected


def test_webhooks_have_their_own_urls_and_share_the_rest(config: Path) -> None:
    keys = {"webhook_secret": "k" * 16, "webhook_bearer_token": "t", "webhook_timeout": "3s"}
    found = access(
        config, **NO_PASSWORD, **keys, webhook_url=HOOK, notify_webhook_url="http://127.0.0.1:9/"
    )

    hook = webhook_of(found)
    assert hook is not None
    assert found.notify is not None
    assert (hook.url, found.notify.url) == (HOOK, "http://127.0.0.1:9/")
    assert hook.tls is not None
    assert found.notify.tls is None
    for each in (hook, found.notify):
        assert (each.secret, each.bearer, each.timeout) == (b"k" * 16, "t", 3.0)


# Anchors


def test_every_anchor_of_every_bundle_counts(config: Path, rsa_key: rsa.RSAPrivateKey) -> None:
    bundle = anchor(rsa_key, "a"), anchor(P256_KEY, "b")
    pki.write_certificate(config.parent / "anchors.pem", *bundle)
    pki.write_certificate(config.parent / "tenant.pem", anchor(rsa_key, "c"))
    tenants = {"https://sts.example/1": "tenant.pem", "2": str(config.parent / "anchors.pem")}
    found = access(config, **SIGNED, intune_tenant_cert_paths=tenants).signed

    assert found is not None
    assert [a.subject for a in found.pool.common] == ["CN=a", "CN=b"]
    assert [a.subject for a in found.pool.of("https://sts.example/1")] == ["CN=c"]
    assert found.pool.of("2") == found.pool.of("another") == found.pool.common


def test_tenants_bundles_alone_are_enough_and_no_other_tenant_is_trusted(config: Path) -> None:
    pki.write_certificate(config.parent / "tenant.pem", anchor(P256_KEY, "c"))
    keys = {"intune_enabled": True, "intune_tenant_cert_paths": {"tenant": "tenant.pem"}}
    found = access(config, **keys).signed

    assert found is not None
    assert [a.subject for a in found.pool.of("tenant")] == ["CN=c"]
    assert found.pool.of("another") == ()


def test_text_between_the_certificates_of_a_bundle_is_no_harm(config: Path) -> None:
    one, other = pem(anchor(P256_KEY, "a")), pem(anchor(P256_KEY, "b"))
    data = b"# connector in Oslo\n" + one.replace(b"\n", b"\r\n") + b"\n\n# and in Bergen\n" + other
    (config.parent / "anchors.pem").write_bytes(data)
    found = access(config, **SIGNED).signed

    assert found is not None
    assert len(found.pool.common) == 2


BROKEN: Final = {
    "nothing": b"",
    "garbage": MARKER.encode(),
    "other bytes": bytes(range(256)),
    "a key": pki.private_pem(P256_KEY),
    "a public key": pki.public_pem(P256_KEY.public_key()),
    "a certificate and its key": pem(anchor(P256_KEY)) + pki.private_pem(P256_KEY),
    "half a certificate": pem(anchor(P256_KEY))[:-60],
    "one and a half": pem(anchor(P256_KEY)) + pem(anchor(P256_KEY))[:300],
    "one and an end": pem(anchor(P256_KEY)) + b"-----END CERTIFICATE-----\n",
    "one and a broken one": pem(anchor(P256_KEY)) + armoured("CERTIFICATE", b"\x30\x00"),
    "DER that is cut": pki.der(anchor(P256_KEY))[:-1],
    "expired": pem(anchor(P256_KEY, end=PAST)),
    "one of two expired": pem(anchor(P256_KEY)) + pem(anchor(P256_KEY, end=PAST)),
    "on P-384": pem(anchor(P384_KEY)),
    "Ed25519": pem(anchor(ED25519_KEY)),
    "of an unknown kind of key": armoured(
        "CERTIFICATE", of_unknown_kind(pki.der(anchor(P256_KEY)))
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_bundle_that_will_not_do_is_named_with_its_profile(config: Path, kind: str) -> None:
    (config.parent / "anchors.pem").write_bytes(BROKEN[kind])

    refused_file(config, "anchors.pem", **SIGNED)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_tenants_bundle_that_will_not_do_is_named_with_its_profile(
    config: Path, kind: str
) -> None:
    (config.parent / "tenant.pem").write_bytes(BROKEN[kind])

    refused_file(config, "tenant.pem", **SIGNED, intune_tenant_cert_paths={"t": "tenant.pem"})


def test_a_short_rsa_key_in_a_bundle_is_named_with_its_profile(
    config: Path, short_key: rsa.RSAPrivateKey
) -> None:
    bundle = anchor(P256_KEY, "good"), anchor(short_key, "short")
    pki.write_certificate(config.parent / "anchors.pem", *bundle)
    found = refused_file(config, "anchors.pem", **SIGNED)

    assert "CN=short" in found
    assert "2048" in found


@pytest.mark.parametrize("path", ["absent.pem", ".", "absent/anchors.pem"])
def test_a_bundle_that_is_not_there_is_named_with_its_profile(config: Path, path: str) -> None:
    keys = SIGNED | {"intune_connector_cert_path": path}
    refused_file(config, "" if path == "." else path, **keys)


def test_which_anchor_expired_and_when_is_said(config: Path) -> None:
    bundle = anchor(P256_KEY, "good"), anchor(P256_KEY, "old one", end=PAST)
    pki.write_certificate(config.parent / "anchors.pem", *bundle)
    found = refused_file(config, "anchors.pem", **SIGNED)

    assert "CN=old one" in found
    assert "2025-01-01" in found


def test_an_anchor_is_good_until_its_end(config: Path) -> None:
    end = dt.datetime.fromtimestamp(NOW, dt.UTC)
    pki.write_certificate(config.parent / "anchors.pem", anchor(P256_KEY, end=end))
    configuration = configured(config, **SIGNED)

    assert validator.read_settings(configuration, NOW - 1).access
    assert "expired" in complaint(lambda: validator.read_settings(configuration, NOW + 1))


def test_anchors_without_tokens_are_not_looked_at(config: Path) -> None:
    keys = SIGNED | {"intune_enabled": False, "intune_connector_cert_path": "absent.pem"}

    assert access(config, **keys).signed is None


# Webhooks' files

CLIENT: Final = {"webhook_client_cert_path": "hook.pem", "webhook_client_key_path": "hook.key"}


@pytest.fixture
def hook(config: Path) -> Path:
    """A webhook's client pair and CAs."""
    pki.write_key(config.parent / "hook.key", P256_KEY)
    pki.write_certificate(config.parent / "hook.pem", anchor(P256_KEY))
    pki.write_certificate(config.parent / "roots.pem", pki.make_root(P256_KEY))
    return change(config, **NO_PASSWORD, webhook_url=HOOK, webhook_ca_path="roots.pem", **CLIENT)


def test_a_webhook_trusts_its_own_cas_alone(hook: Path) -> None:
    found = webhook_of(access(hook))

    assert found is not None
    assert found.tls is not None
    assert len(found.tls.get_ca_certs()) == 1


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("roots.pem", None),
        ("roots.pem", b""),
        ("roots.pem", b"\n"),
        ("roots.pem", MARKER.encode()),
        ("roots.pem", b"\xff\xfe"),
        ("roots.pem", pki.private_pem(P256_KEY)),
        ("hook.pem", None),
        ("hook.pem", b""),
        ("hook.pem", MARKER.encode()),
        ("hook.pem", pem(anchor(P384_KEY))),
        ("hook.key", None),
        ("hook.key", b""),
        ("hook.key", MARKER.encode()),
        ("hook.key", pki.private_pem(P384_KEY)),
    ],
)
def test_a_webhooks_file_that_will_not_do_is_named_with_its_profile(
    hook: Path, file: str, content: bytes | None
) -> None:
    """An empty file of CAs above all: else every CA of the system is trusted in their stead."""
    (hook.parent / file).unlink()
    if content is not None:
        (hook.parent / file).write_bytes(content)
        (hook.parent / file).chmod(0o600)

    refused_file(hook, file)


@pytest.mark.parametrize("mode", [0o660, 0o604, 0o644])
def test_a_webhooks_key_that_others_may_read_is_named_with_its_profile(
    hook: Path, mode: int
) -> None:
    (hook.parent / "hook.key").chmod(mode)

    assert f"mode is {mode:04o}" in refused_file(hook, "hook.key")


# Device state


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that modules are found in."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_plug_in_is_loaded_with_its_time_limit(config: Path, plugins: Path) -> None:
    source = "async def state(question):\n    return question\n"
    (plugins / "plug_in_that_loads.py").write_text(source)
    keys = {"device_state": "plug_in_that_loads:state", "device_state_timeout": "2s"}
    found = access(config, **SIGNED, **keys).signed

    assert found is not None
    assert found.device_state is not None
    assert found.device_state.plugin is sys.modules["plug_in_that_loads"].state
    assert found.device_state.timeout == 2.0


@pytest.mark.parametrize(
    "place",
    [":", "os", "os:", ":path", "os:unheard", "os:sep", "no_such_module:state", "a b:c",
     "..os:path", "os.path:join:x", "plug_in_that_fails:state", "plug_in_of_no_python:state"],
)  # fmt: skip
def test_a_plug_in_that_cannot_be_had_is_named_with_its_profile(
    config: Path, plugins: Path, place: str
) -> None:
    (plugins / "plug_in_that_fails.py").write_text(f"raise RuntimeError({MARKER!r})\n")
    (plugins / "plug_in_of_no_python.py").write_text(MARKER)
    found = complaint(lambda: access(config, **SIGNED, device_state=place))

    assert found.startswith(f"profile {PROFILE}: device_state: {place}")
