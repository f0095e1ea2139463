"""How clients are run: bounded, output captured, and shown when something else came of it."""

import secrets
import subprocess
from collections.abc import Sequence
from pathlib import Path

Finished = subprocess.CompletedProcess[str]
CLIENT_SECONDS = 60


def run(
    command: Sequence[str | Path],
    folder: Path,
    env: dict[str, str] | None = None,
    seconds: float = CLIENT_SECONDS,
) -> Finished:
    """Run a client in a folder of its own to its end, whatever that is."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder, env=env, capture_output=True, text=True, check=False,
        timeout=seconds, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def succeed(
    command: Sequence[str | Path],
    folder: Path,
    env: dict[str, str] | None = None,
    seconds: float = CLIENT_SECONDS,
) -> Finished:
    """Run a client that must end well."""
    return ended(run(command, folder, env, seconds), 0)


def ended(done: Finished, *statuses: int) -> Finished:
    """The run, where its exit status is one of these; else a failure with all it said."""
    assert done.returncode in statuses, told(done)
    return done


def told(done: Finished) -> str:
    """Everything about a run."""
    command = " ".join(map(str, done.args))
    return f"{command}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"


def new_name(client: str) -> str:
    """A common name that no other test uses: the system keeps its record for the session."""
    return f"{client}-{secrets.token_hex(6)}"
