"""Errors of commands: one line, to standard error, and exit status 1."""

import time
from pathlib import Path

import pytest

from cli.up.firststart import first_start
from cli.up.layout import Layout
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


@pytest.mark.parametrize("verb", ["list", "add device", "revoke device"])
def test_a_database_that_does_not_answer_is_one_line(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCEPSTREAM_AUDIT_DATABASE_URL", "postgresql://user:hidden@127.0.0.1:1/x")
    layout = Layout(tmp_path / "data")
    first_start(layout, "ec:p256", None, 4222, time.time())
    done = command("audit", "token", *verb.split(), "--config", str(layout.config))

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "the database cannot be used: OperationalError\n"
