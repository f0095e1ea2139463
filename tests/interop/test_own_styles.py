"""`scepstream enroll` in every manner of writing that it has an option for."""

from pathlib import Path

import pytest

from tests.interop.clients import Finished, new_name, told
from tests.support.system import System

STYLES = [
    ("demo", "--cipher aes256-gcm --digest sha512 --transport oaep-sha256 --get"),
    ("demo", "--cipher aes128-gcm --ber --pss"),
    ("demo", "--cipher aes192 --digest sha384 --transport oaep --ber --get"),
    ("demo", "--key ec:p256"),
    ("legacy", "--cipher des --digest md5"),
    ("legacy", "--cipher des3 --digest sha1 --ber"),
]


def enroll(system: System, profile: str, out: Path, *options: str) -> Finished:
    return system.cli(
        "enroll", system.url(profile), "--challenge", system.challenge(profile),
        "--cn", new_name("style"), "--out", str(out), *options,
    )  # fmt: skip


@pytest.mark.parametrize(("profile", "options"), STYLES)
def test_a_device_of_any_style_enrolls(
    system: System, tmp_path: Path, profile: str, options: str
) -> None:
    done = enroll(system, profile, tmp_path / "out", *options.split())
    assert done.returncode == 0, told(done)
    assert (tmp_path / "out" / "cert.pem").exists()


@pytest.mark.parametrize("option", ["--cipher", "--digest", "--transport"])
def test_an_unknown_name_is_an_error_that_names_the_choices(
    system: System, tmp_path: Path, option: str
) -> None:
    done = enroll(system, "demo", tmp_path / "out", option, "rot13")
    assert done.returncode == 1
    assert f"{option} rot13: choose one of " in done.stderr


def test_the_capabilities_are_shown_and_nothing_is_asked_for(system: System) -> None:
    done = system.cli("enroll", system.url("legacy"), "--caps")
    assert done.returncode == 0, told(done)
    assert "RENEWAL" in done.stdout
    assert "sent" not in done.stdout
