"""The machine on which the figures were measured."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import cryptography
from cryptography.hazmat.backends.openssl import backend


@dataclass(frozen=True, slots=True)
class Machine:
    cores: int
    processor: str
    kernel: str
    python: str
    cryptography: str
    openssl: str


def machine() -> Machine:
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        processor=_processor(),
        kernel=platform.release(),
        python=platform.python_version(),
        cryptography=cryptography.__version__,
        openssl=backend.openssl_version_text(),
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
