"""Installs a package of this folder as its users do."""

import subprocess
import sys
from pathlib import Path

from tests.plugins import PLUGINS


def install(package: str, folder: Path) -> Path:
    """Build and install it into a folder, to be put on PYTHONPATH."""
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation")
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder)]
    source = folder.parent / f"{package}-source"  # building leaves files beside the sources
    source.mkdir()
    for path in (PLUGINS / package).iterdir():
        if path.is_file():
            (source / path.name).write_bytes(path.read_bytes())
    subprocess.run([*command, str(source)], check=True, timeout=120)
    return folder
