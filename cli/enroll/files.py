"""The files in which the client keeps its keys, certificate and chain."""

import os
from dataclasses import dataclass
from pathlib import Path

from cli.enroll.identity import RequestError


@dataclass(frozen=True)
class Files:
    """The files of one device; `check` refuses to overwrite them without `force`."""

    directory: Path
    force: bool

    @property
    def key(self) -> Path:
        """The private key, mode 0600."""
        return self.directory / "key.pem"

    @property
    def renewal_key(self) -> Path:
        """The private key of a pending renewal, until it has a certificate."""
        return self.directory / "renewal-key.pem"

    @property
    def signer_key(self) -> Path:
        """The private key that signs messages if it is not the device's own, mode 0600."""
        return self.directory / "signer-key.pem"

    @property
    def certificate(self) -> Path:
        """The device's certificate."""
        return self.directory / "cert.pem"

    @property
    def chain(self) -> Path:
        """The CA and the certificates above it."""
        return self.directory / "chain.pem"

    def check(self, *, keep_key: bool) -> None:
        """Refuse to overwrite existing files, before anything is sent."""
        taken = [self.certificate, self.chain] + ([] if keep_key else [self.key])
        for path in taken:
            if path.exists() and not self.force:
                raise RequestError(f"{path} already exists; --force overwrites it")

    def write(self, path: Path, data: bytes) -> None:
        """Write a file; keys are readable by their owner only."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            mode = 0o600 if path in (self.key, self.renewal_key, self.signer_key) else 0o644
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as out:
                os.fchmod(out.fileno(), mode)  # an existing file keeps its mode otherwise
                out.write(data)
        except OSError as error:
            raise RequestError(f"{path}: {error.strerror}") from None

    def read(self, path: Path) -> bytes:
        """Read a file that an earlier run wrote."""
        try:
            return path.read_bytes()
        except OSError as error:
            raise RequestError(f"{path}: {error.strerror}") from None
