"""Errors of commands: one line, to standard error, and exit status 1."""

import pytest

from tests.unit.cli.commands import command

MISSING = "/nonexistent/scepstream.toml"
COMMANDS = (
    f"audit list --config {MISSING}",
    f"audit show device-1 --config {MISSING}",
    f"audit verify --config {MISSING}",
    f"audit token list --config {MISSING}",
    f"audit replay --into sqlite:// --config {MISSING}",
    f"config check --config {MISSING}",
    f"config import-certctl --env-file {MISSING}",
    f"ca revoke 41 --config {MISSING}",
    "ca next --data /nonexistent",
    f"challenge list --profile corp --config {MISSING}",
    "provision server --keys /nonexistent --store /nonexistent",
    f"provision streams --nkey {MISSING} --config {MISSING}",
    f"approve device-1 --config {MISSING}",
    f"anchors reload --profile corp --config {MISSING}",
)


@pytest.mark.parametrize("line", COMMANDS)
def test_an_error_goes_to_standard_error(line: str) -> None:
    done = command(*line.split())

    assert (done.returncode, done.stdout) == (1, "")
    assert "/nonexistent" in done.stderr
    assert len(done.stderr.splitlines()) == 1
