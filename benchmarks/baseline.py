"""Another commit of this repository, to measure beside the working tree."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.target import ROOT


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """Check the commit out into a temporary directory; it runs with this environment's packages."""
    with tempfile.TemporaryDirectory(prefix="baseline-") as folder:
        tree = Path(folder) / "tree"
        _git("clone", "--quiet", "--no-checkout", str(ROOT), str(tree))
        _git("-C", str(tree), "checkout", "--quiet", commit_of(commit))
        yield tree


def commit_of(name: str) -> str:
    """Return the full hash of a commit."""
    return _git("-C", str(ROOT), "rev-parse", "--verify", f"{name}^{{commit}}")


def current() -> str:
    """Return the short hash of the commit that is checked out."""
    return _git("-C", str(ROOT), "rev-parse", "--short", "HEAD")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()
