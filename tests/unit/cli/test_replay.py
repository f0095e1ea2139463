"""`audit replay --into`: a database that cannot be used is one line, not a traceback."""

import re
from pathlib import Path

import pytest

from tests.unit.cli.commands import command

SECRET = "pass-word-in-the-url"


@pytest.mark.parametrize(
    "url", ["nonsense://x", "no url", f"mysql://user:{SECRET}@db/x", f"sqlite+nonsense:///{SECRET}"]
)
def test_a_url_of_no_database_is_a_wrong_option(url: str) -> None:
    done = command("audit", "replay", "--into", url)

    assert done.returncode == 2
    assert re.search(r"--into: (not a|unsupported) database URL;", done.stderr)
    assert SECRET not in done.stderr + done.stdout


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+pysqlite"])
def test_a_url_of_sqlite_is_taken(scheme: str, tmp_path: Path) -> None:
    url = f"{scheme}:///{tmp_path}/replayed.db"
    done = command("audit", "replay", "--into", url, "--config", f"{tmp_path}/none.toml")

    assert (done.returncode, done.stderr) == (
        1,
        f"{tmp_path}/none.toml: No such file or directory\n",
    )
    assert (tmp_path / "replayed.db").exists()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_database_that_does_not_answer_is_named_without_its_password(scheme: str) -> None:
    url = f"{scheme}://user:{SECRET}@127.0.0.1:1/x"
    done = command("audit", "replay", "--into", url)

    assert done.returncode == 1
    assert done.stderr == "--into: the database cannot be used: OperationalError\n"
    assert SECRET not in done.stderr + done.stdout


def test_a_file_that_is_no_database_keeps_its_mode(tmp_path: Path) -> None:
    other = tmp_path / "passwd"
    other.write_text("root:x:0:0:root:/root:/bin/bash\n" * 40)
    other.chmod(0o644)
    done = command("audit", "replay", "--into", f"sqlite:///{other}")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "--into: the database cannot be used: DatabaseError\n"
    assert other.stat().st_mode & 0o777 == 0o644
