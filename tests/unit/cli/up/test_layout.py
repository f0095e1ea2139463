import subprocess
import sys
from pathlib import Path

import pytest

from cli.up import layout
from cli.up.layout import VERSION, Layout, UpError, open_directory, write_private

HOLD = """
import sys, pathlib
from cli.up.layout import open_directory
open_directory(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def refused(root: Path) -> str:
    with pytest.raises(UpError) as error:
        open_directory(root)
    assert str(root) in str(error.value)
    return str(error.value)


def test_a_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    layout = open_directory(tmp_path / "a" / "data")

    assert layout.root == tmp_path / "a" / "data"
    assert layout.root.stat().st_mode & 0o777 == 0o700


def test_an_empty_directory_and_one_of_ours_are_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ours = tmp_path / "ours"
    ours.mkdir()
    (ours / "VERSION").write_text(f"{VERSION}\n")
    (ours / "audit.db").touch()

    assert open_directory(tmp_path / "empty").version.exists() is False
    assert open_directory(ours).version.exists()


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").touch()

    assert "is neither empty nor a scepstream data directory" in refused(tmp_path)


def test_a_first_start_that_was_killed_is_taken_up_again(tmp_path: Path) -> None:
    (tmp_path / ".first-start").touch()
    (tmp_path / "keys").mkdir()

    assert open_directory(tmp_path).marker.exists()


def test_a_first_start_killed_while_it_wrote_its_first_file_is_taken_up_again(
    tmp_path: Path,
) -> None:
    """`write_private` makes a file beside the one it then replaces."""
    marker = Layout(tmp_path).marker
    marker.with_name(f".{marker.name}.new").touch()

    assert open_directory(tmp_path).root == tmp_path


@pytest.mark.parametrize("version", ["2", "", "1.0", "0"])
def test_a_directory_of_another_version_is_refused(tmp_path: Path, version: str) -> None:
    (tmp_path / "VERSION").write_text(version)

    assert f"has version {version}, but this program requires version {VERSION}" in refused(
        tmp_path
    )


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert "cannot write to the data directory" in refused(tmp_path / "file")


def test_below_a_file_there_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert "cannot write to the data directory" in refused(tmp_path / "file" / "data")


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    open_directory(tmp_path)

    assert "in use by another" in refused(tmp_path)


def test_a_directory_whose_user_was_killed_is_free(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert "in use by another" in refused(tmp_path)
        holder.kill()
        holder.wait()

    assert open_directory(tmp_path).root == tmp_path


def test_private_files_are_readable_to_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "key"
    write_private(path, b"one")
    write_private(path, b"two")

    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["key"]


def test_a_private_file_that_others_could_read_before_is_private_after(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_private(path, b"new")

    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722, 0o1777])
def test_a_directory_that_others_may_write_to_gets_no_keys(tmp_path: Path, mode: int) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(mode)

    with pytest.raises(UpError, match=f"has mode {mode:04o}, so others may write to it"):
        open_directory(data)
    assert list(data.iterdir()) == []


def test_a_directory_of_another_user_gets_no_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.setattr(layout.os, "geteuid", lambda: data.stat().st_uid + 1)

    with pytest.raises(UpError, match="is owned by user"):
        open_directory(data)
    assert list(data.iterdir()) == []
