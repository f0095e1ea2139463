"""The commands of docs/intune.md, run as they stand but for addresses."""

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.prepared import prepared
from tests.support.system import running, wait_until
from tests.support.tools import need

ROOT = Path(__file__).parents[2]
REFUSED = 3


def scripts() -> list[str]:
    """The shell blocks of the section about the fake."""
    page = (ROOT / "docs/intune.md").read_text()
    section = page[page.index("## Try it") : page.index("## Set up the app")]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


class Terminal:
    """A directory like the one of the page, with `scepstream` on the path."""

    def __init__(self, directory: Path, scep_url: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.directory, self.scep_url = directory, scep_url
        place = directory / ".venv" / "bin"
        place.mkdir(parents=True)
        (place / "activate").write_text(f"PATH={shlex.quote(str(place))}:$PATH\n")
        program = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m cli "$@"\n'
        (place / "scepstream").write_text(program)
        (place / "scepstream").chmod(0o755)

    def start(self, script: str) -> subprocess.Popen[str]:
        script = script.replace("http://127.0.0.1:8080/scep", self.scep_url)
        script = f". .venv/bin/activate\n{script.replace('8443', str(self.port))}"
        return subprocess.Popen(
            ["sh", "-e", "-c", script], cwd=self.directory, text=True, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, script: str, status: int = 0) -> str:
        process = self.start(script)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == status, output
        return output


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    need("curl", "curl")
    layout = prepared(tmp_path / "data")
    with running(layout.root) as system:
        yield Terminal(tmp_path, system.run["scep_url"])


def test_the_whole_flow_is_tried_without_a_tenant(terminal: Terminal) -> None:
    up, serve, connect, enroll, revoke, refuse = scripts()
    assert up == "make up\n"
    fake = terminal.start(serve.replace("scepstream fake", "exec scepstream fake"))
    try:
        written = terminal.directory / "data/microsoft/intune.toml"
        wait_until(
            lambda: written.exists() and "fabrikam" in written.read_text(), 60, "the fake's tenants"
        )

        connected = terminal.run(connect)
        enrolled = terminal.run(enroll)
        revoked = terminal.run(revoke)
        refused = terminal.run(refuse, status=REFUSED)
    finally:
        fake.terminate()
        fake.communicate(timeout=30)

    assert "ok: ScepRequestValidationFEService" in connected
    assert '"kind":"success"' in enrolled
    assert '"succeeded":true' in revoked
    assert "Intune did not accept the certificate: ChallengeExpired" in refused
