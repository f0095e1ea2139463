"""Reads a service's part of the configuration in a process of its own.

A gateway faces the Internet. Were it to read a file that holds everybody's secrets, they would be
in its memory, used or not. So another process reads the file, the environment and the directory of
secrets, and hands over the part that is the gateway's.
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
    """Read the configuration of a role; `SettingsError` names the file and the key."""
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
    """Print the part of a role as JSON; the exit status."""
    try:
        part = part_of(effective_table(path), Role(role))
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    json.dump(part, sys.stdout, default=str)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
