"""Read a service's part of the configuration in a separate process.

A gateway faces the Internet. If it read a file that holds the secrets of all services, they would
be in its memory whether it uses them or not. So another process reads the file, the environment
and the secrets directory, and returns only the gateway's part.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from shared.config.load import SettingsError, effective_table, parse
from shared.config.parts import part_of
from shared.config.sections import Configuration
from shared.log.roles import Role

_SECONDS: Final = 60


def load_apart(path: Path, role: Role) -> Configuration:
    """Return a role's configuration, read by a child process; `SettingsError` names the file."""
    command = [sys.executable, "-m", "shared.config.apart", role, str(path)]
    try:
        done = subprocess.run(  # noqa: S603 - our own program
            command, capture_output=True, check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SettingsError(f"{path}: cannot be read: {type(error).__name__}") from None
    if done.returncode != 0:
        sentence = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise SettingsError(sentence[-1] if sentence else f"{path}: cannot be read")
    return parse(json.loads(done.stdout), path)


def main(role: str, path: Path) -> int:
    """Print a role's part of the configuration as JSON and return the exit status."""
    try:
        part = part_of(effective_table(path), Role(role))
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    json.dump(part, sys.stdout, default=str)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
