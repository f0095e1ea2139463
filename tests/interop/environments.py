"""Environments of client libraries: their own packages, pinned by hash, one of them mended."""

import fcntl
import hashlib
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.interop.clients import succeed

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / ".interop"
INSTALL_SECONDS = 240

# oscrypto 1.3.0 reads one digit for each part of OpenSSL's version: 3.0.19 is none to it.
VERSIONS = {
    r"'\\b(\\d\\.\\d\\.\\d[a-z]*)\\b'": r"'\\b(\\d+\\.\\d+\\.\\d+[a-z]*)\\b'",
    r"'(?<=LibreSSL )(\\d\\.\\d(\\.\\d)?)\\b'": r"'(?<=LibreSSL )(\\d+\\.\\d+(\\.\\d+)?)\\b'",
}


@dataclass(frozen=True)
class Environment:
    """The environment of a library: made from <name>.lock beside this file."""

    name: str

    @property
    def folder(self) -> Path:
        return ENVIRONMENTS / self.name

    @property
    def lock(self) -> Path:
        return HERE / f"{self.name}.lock"

    @property
    def stamp(self) -> Path:
        return self.folder / "made-from"

    def python(self) -> Path:
        """The Python to run it with; the environment is made at its first use, and kept."""
        ENVIRONMENTS.mkdir(exist_ok=True)
        with (ENVIRONMENTS / f"{self.name}.mutex").open("w") as mutex:
            fcntl.flock(mutex, fcntl.LOCK_EX)
            if not (self.stamp.exists() and self.stamp.read_text() == self._wanted()):
                self._make()
            mend_oscrypto(self.folder)
        return self.folder / "bin" / "python"

    def _wanted(self) -> str:
        """What it was made from, to its end: this lock file, for this Python."""
        return f"{sys.version}\n{hashlib.sha256(self.lock.read_bytes()).hexdigest()}\n"

    def _make(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        succeed([sys.executable, "-m", "venv", self.folder], ENVIRONMENTS, seconds=INSTALL_SECONDS)
        pip = [self.folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
        options = ["--require-hashes", "-r", self.lock]
        succeed([*pip, *options], ENVIRONMENTS, seconds=INSTALL_SECONDS)
        self.stamp.write_text(self._wanted())


def mend_oscrypto(environment: Path) -> None:
    found = sorted(environment.glob("lib/python*/site-packages/oscrypto/_openssl"))
    assert len(found) == 1, f"oscrypto is not where it should be: {found}"
    for variant in ("cffi", "ctypes"):
        mend(found[0] / f"_libcrypto_{variant}.py")


def mend(path: Path) -> None:
    """Put the wider patterns in, unless they are there; anything else fails."""
    text = path.read_text()
    for narrow, wide in VERSIONS.items():
        count = (text.count(narrow), text.count(wide))
        assert count in {(1, 0), (0, 1)}, f"{path} is not oscrypto 1.3.0's: {narrow} {count}"
        text = text.replace(narrow, wide)
    path.write_text(text)
