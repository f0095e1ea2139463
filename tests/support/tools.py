"""Programs of system packages that tests use."""

import os
import shutil
from typing import Final

import pytest

LEFT_OUT: Final = "left out for want of "


def need(program: str, package: str) -> str:
    """The path of a program of a system package.

    Where it is missing the test is left out and said so at the end; under TEST_REQUIRE=all,
    which `make check` sets, it fails.
    """
    extra = ("/usr/lib/certmonger", "/usr/sbin", "/sbin")
    path = shutil.which(program) or shutil.which(program, path=":".join(extra))
    if path is not None:
        return path
    if os.environ.get("TEST_REQUIRE") == "all":
        pytest.fail(f"{program} is missing: install the package {package}")
    pytest.skip(f"{LEFT_OUT}{program} (package {package})")
