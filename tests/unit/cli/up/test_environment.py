"""What of the environment each child of `up` is given."""

from pathlib import Path
from typing import Final

import pytest

from cli.up.environment import WITHHELD, environment_of
from shared.config.load import load
from tests.unit.shared.configurations import text, write

DATABASE: Final = "SCEPSTREAM_AUDIT_DATABASE_URL"
PASSWORD: Final = "SCEPSTREAM_PROFILE_CORP_2_CHALLENGE_PASSWORD"
HOOK: Final = "SCEPSTREAM_PROFILE_CORP_2_WEBHOOK_SECRET"
BEARER: Final = "SCEPSTREAM_PROFILE_CORP_2_WEBHOOK_BEARER_TOKEN"
GIVEN: Final = {
    "PATH": "/bin",
    "SCEPSTREAM_GATEWAY_BODY_LIMIT": "5000",
    "SCEPSTREAM_SECRETS_DIR": "/run/secrets",
    DATABASE: "postgresql://keeper:s3cret@db/scep",
    PASSWORD: "a password",
    HOOK: "a secret of the hook",
    BEARER: "a token",
}
SECRETS: Final = (DATABASE, PASSWORD, HOOK, BEARER)


@pytest.mark.parametrize(
    ("role", "secrets"),
    [("validator", {PASSWORD, HOOK, BEARER}), ("audit", {DATABASE}), ("gateway", set()),
     ("issuer", set())],
)  # fmt: skip
def test_a_role_gets_the_secrets_that_it_needs_and_no_others(
    tmp_path: Path, role: str, secrets: set[str]
) -> None:
    path = write(tmp_path)
    found = environment_of(role, load(path, {}), GIVEN)

    assert {name for name in SECRETS if found[name] == GIVEN[name]} == secrets
    others = {name: value for name, value in GIVEN.items() if name not in SECRETS}
    assert others.items() <= found.items()
    variables = {n: v for n, v in found.items() if n != "SCEPSTREAM_SECRETS_DIR"}
    profile = load(path, variables).profiles["corp-2"]  # it can still read the configuration
    assert profile.challenge_password == ("a password" if PASSWORD in secrets else WITHHELD,)


def test_nats_server_gets_none_of_the_settings(tmp_path: Path) -> None:
    assert environment_of("nats", load(write(tmp_path), {}), GIVEN) == {"PATH": "/bin"}


def test_a_gateway_gets_a_password_that_it_opens_requests_with(tmp_path: Path) -> None:
    path = write(tmp_path, text() + "password_recipients = true")
    found = environment_of("gateway", load(path, {}), GIVEN)

    assert found[PASSWORD] == GIVEN[PASSWORD]
    assert found[HOOK] == WITHHELD
