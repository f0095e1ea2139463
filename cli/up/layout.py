"""Paths in the data directory, and how files are written there."""

import fcntl
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VERSION: Final = "1"

_LOCK_TRIES: Final = 5
_LOCK_SECONDS: Final = 0.02


class UpError(Exception):
    """Raised if `up` cannot continue; the message is the line that the user reads."""


@dataclass(frozen=True)
class Layout:
    """Paths below one data directory."""

    root: Path

    @property
    def version(self) -> Path:
        """Exists once a first start is complete."""
        return self.root / "VERSION"

    @property
    def marker(self) -> Path:
        """Exists during a first start."""
        return self.root / ".first-start"

    @property
    def config(self) -> Path:
        """The configuration that the services read."""
        return self.root / "scepstream.toml"

    @property
    def run_file(self) -> Path:
        """What is running, for users and tools."""
        return self.root / "run.json"

    @property
    def ports(self) -> Path:
        """Ports that earlier starts chose and that are kept."""
        return self.root / "ports.json"

    @property
    def admin_token(self) -> Path:
        """The API token of the first admin."""
        return self.root / "admin-token"

    @property
    def nats_config(self) -> Path:
        """nats-server's configuration."""
        return self.root / "nats" / "nats-server.conf"

    @property
    def nats_store(self) -> Path:
        """The directory of the event log."""
        return self.root / "nats" / "jetstream"

    @property
    def ca_cert(self) -> Path:
        """The CA certificate, for clients to pin."""
        return self.root / "ca" / "ca.pem"

    @property
    def connector(self) -> Path:
        """The directory of the stand-in connector's certificate and key."""
        return self.root / "connector"

    def key(self, name: str) -> Path:
        """Return the path of a role's key file."""
        return self.root / "keys" / name

    def ra(self, name: str) -> Path:
        """Return the path of an RA pair: one file, so that one rename replaces both parts."""
        return self.root / "ra" / f"{name}.pem"

    def log(self, name: str) -> Path:
        """Return the path of a process's log."""
        return self.root / "logs" / f"{name}.log"


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, atomically and synced to disk."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def open_directory(root: Path) -> Layout:
    """Create the data directory if necessary, check it, and lock it while this process lives."""
    layout = Layout(root.resolve())
    try:
        layout.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(layout.root.stat(), root)
        lock = os.open(layout.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UpError(f"cannot write to the data directory {root}: {error.strerror}") from None
    if not _locked(lock):
        raise UpError(f"the data directory {root} is in use by another `scepstream up`")
    _check_version(layout, root)
    return layout


def _locked(lock: int) -> bool:
    """Take the lock; try again for a moment, because `is_running` takes it too."""
    for _ in range(_LOCK_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_LOCK_SECONDS)
    return False


def is_running(layout: Layout) -> bool:
    """Return whether an `up` runs on the data directory: run.json may be of one that was killed."""
    try:
        lock = os.open(layout.root / "lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _check_owner(status: os.stat_result, root: Path) -> None:
    """Reject a directory that another user could write to, and so replace keys in it."""
    if status.st_uid != os.geteuid():
        raise UpError(
            f"the data directory {root} is owned by user {status.st_uid}, who could read"
            f" its keys: run this as that user, or chown it to user {os.geteuid()}"
        )
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o022:
        raise UpError(
            f"the data directory {root} has mode {mode:04o}, so others may write to"
            " it; run chmod 0700 on it"
        )


def _check_version(layout: Layout, root: Path) -> None:
    if layout.version.exists():
        found = layout.version.read_text().strip()
        if found != VERSION:
            raise UpError(
                f"the data directory {root} has version {found},"
                f" but this program requires version {VERSION}"
            )
        return
    foreign = {p.name for p in layout.root.iterdir()} - {
        "lock",
        layout.marker.name,
        f".{layout.marker.name}.new",
    }
    if foreign and not layout.marker.exists():
        raise UpError(f"{root} is neither empty nor a scepstream data directory")
