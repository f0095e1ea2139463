"""The environment of scepreq: its own packages, pinned by hash, and one mended dependency."""

import fcntl
import hashlib
import shutil
import sys
from pathlib import Path

from tests.interop.clients import succeed

HERE = Path(__file__).parent
LOCK = HERE / "scepreq.lock"
ENVIRONMENT = HERE.parents[1] / ".interop" / "scepreq"
INSTALL_SECONDS = 240

# oscrypto 1.3.0 reads one digit for each part of OpenSSL's version: 3.0.19 is none to it.
VERSIONS = {
    r"'\\b(\\d\\.\\d\\.\\d[a-z]*)\\b'": r"'\\b(\\d+\\.\\d+\\.\\d+[a-z]*)\\b'",
    r"'(?<=LibreSSL )(\\d\\.\\d(\\.\\d)?)\\b'": r"'(?<=LibreSSL )(\\d+\\.\\d+(\\.\\d+)?)\\b'",
}


def scepreq_python() -> Path:
    """The Python to run it with; the environment is made at its first use, and kept."""
    ENVIRONMENT.parent.mkdir(exist_ok=True)
    with (ENVIRONMENT.parent / "scepreq.mutex").open("w") as mutex:
        fcntl.flock(mutex, fcntl.LOCK_EX)
        if not is_current():
            make()
        mend_oscrypto()
    return ENVIRONMENT / "bin" / "python"


def is_current() -> bool:
    """Whether it was made to its end, from this lock file, for this Python."""
    return stamp().exists() and stamp().read_text() == wanted()


def stamp() -> Path:
    return ENVIRONMENT / "made-from"


def wanted() -> str:
    return f"{sys.version}\n{hashlib.sha256(LOCK.read_bytes()).hexdigest()}\n"


def make() -> None:
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    parent = ENVIRONMENT.parent
    succeed([sys.executable, "-m", "venv", ENVIRONMENT], parent, seconds=INSTALL_SECONDS)
    pip = [ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "--quiet", "--require-hashes"]
    succeed([*pip, "-r", LOCK], parent, seconds=INSTALL_SECONDS)
    stamp().write_text(wanted())


def mend_oscrypto() -> None:
    found = sorted(ENVIRONMENT.glob("lib/python*/site-packages/oscrypto/_openssl"))
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
