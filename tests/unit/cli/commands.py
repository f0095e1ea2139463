"""`scepstream` commands, run in this process."""

import subprocess
from collections.abc import Mapping

from typer.testing import CliRunner

from cli.__main__ import app


def command(
    *arguments: str, env: Mapping[str, str | None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Exit status and output; an exception that is no exit is the test's."""
    done = CliRunner().invoke(app, arguments, env=env)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """What a command that failed says: one line, and exit status 1."""
    said = done.stderr + done.stdout
    assert done.returncode == 1, said
    assert said.endswith("\n")
    assert len(said.splitlines()) == 1, said
    assert "Traceback" not in said
    return said.removesuffix("\n")
