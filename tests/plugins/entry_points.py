"""An installed package, as far as `importlib.metadata` looks."""

from pathlib import Path


def declare(folder: Path, group: str, name: str, value: str, package: str = "some") -> Path:
    """Write a package with one entry point; the folder is to be put on sys.path."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")
    return folder
