"""Packages of other people, built and installed beside scepstream: devices enroll with them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from cli.up.layout import write_private
from tests.integration.prepared_ import add_profiles, prepared
from tests.plugins.install import install
from tests.plugins.voucher.scepstream_voucher import voucher
from tests.system import System, running

KEY: Final = b"k3y-of-the-v0uchers"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("plugins")
    site = install("voucher", folder / "site")
    layout = prepared(folder / "data")
    write_private(layout.config.parent / "voucher.key", KEY)
    add_profiles(layout, {"inventory": {"challenge_password": []}})
    text = layout.config.read_text()
    table = '\n[profiles.inventory.verifier.voucher]\nkey_path = "voucher.key"\n'
    write_private(layout.config, (text + table).encode())
    path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    with running(layout.root, env={"PYTHONPATH": path}) as found:
        yield found


def enroll(system: System, name: str, challenge: str, out: Path) -> str:
    """What a device of this name is told."""
    done = system.cli(
        "enroll", system.url("inventory"), "--cn", name, "--challenge", challenge,
        "--ca-file", str(system.ca_file), "--out", str(out),
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_a_device_enrolls_with_a_challenge_of_an_installed_verifier(
    system: System, tmp_path: Path
) -> None:
    assert enroll(system, "printer-1", voucher(KEY, "printer-1"), tmp_path / "own") == ""
    said = enroll(system, "printer-2", voucher(KEY, "printer-1"), tmp_path / "anothers")

    assert "BAD_MESSAGE_CHECK the voucher is not for this common name" in said
    shown = system.cli("audit", "show", "printer-2", "--config", str(system.config)).stdout
    assert "the voucher is not for this common name" in shown
