"""A SoftHSM token of a test's own."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.tools import need

MODULE: Final = "/usr/lib/softhsm/libsofthsm2.so"
PIN: Final = "1234"


@dataclass(frozen=True)
class Token:
    """A token of the test's own, and its PIN's file."""

    folder: Path

    @property
    def env(self) -> dict[str, str]:
        return {"SOFTHSM2_CONF": str(self.folder / "softhsm2.conf")}

    def uri(self, label: str, pin: str = "pin") -> str:
        query = f"module-path={MODULE}&pin-source={self.folder / pin}"
        return f"pkcs11:token=scep;object={label}?{query}"

    def util(self, *options: str) -> None:
        subprocess.run(
            [need("softhsm2-util", "softhsm2"), *options],
            env={**os.environ, **self.env}, check=True, capture_output=True, timeout=60,
        )  # fmt: skip

    def take(self, label: str, number: int, pem: Path) -> None:
        """Import a key, public half and all."""
        self.util(
            "--import", str(pem), "--token", "scep", "--label", label, "--id", f"{number:02x}",
            "--pin", PIN,
        )  # fmt: skip

    def vanish(self) -> None:
        """Take the token away from running programs."""
        (self.folder / "tokens").rename(self.folder / "away")

    def come_back(self) -> None:
        (self.folder / "away").rename(self.folder / "tokens")


def make_token(folder: Path) -> Token:
    """An empty token with the label "scep", and files with PINs: pin, wrong and open."""
    found = Token(folder)
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(
        f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n"
    )
    for name, pin in (("pin", PIN), ("wrong", "9999"), ("open", PIN)):
        (folder / name).write_text(pin)
        (folder / name).chmod(0o644 if name == "open" else 0o600)
    found.util("--init-token", "--free", "--label", "scep", "--pin", PIN, "--so-pin", "5678")
    return found
