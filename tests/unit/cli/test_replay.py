"""`audit replay --into`: a database that cannot be used is one line, not a traceback."""

import pytest

from tests.unit.cli.commands import command

SECRET = "pass-word-in-the-url"


@pytest.mark.parametrize(
    "url", ["nonsense://x", "no url", f"mysql://user:{SECRET}@db/x", f"sqlite+nonsense:///{SECRET}"]
)
def test_a_url_of_no_database_is_a_wrong_option(url: str) -> None:
    done = command("audit", "replay", "--into", url)

    assert done.returncode == 2
    assert "--into: not a database URL" in done.stderr
    assert SECRET not in done.stderr + done.stdout


def test_a_database_that_does_not_answer_is_named_without_its_password() -> None:
    url = f"postgresql://user:{SECRET}@127.0.0.1:1/x"
    done = command("audit", "replay", "--into", url)

    assert done.returncode == 1
    assert done.stderr == "--into: the database cannot be used: OperationalError\n"
    assert SECRET not in done.stderr + done.stdout
