"""The page that says what each credential can do says what was tried."""

from pathlib import Path

from tests.security.matrix import PAGE, measured_table, rewritten


def test_the_page_says_what_each_credential_can_do(tmp_path: Path) -> None:
    page = PAGE.read_text()

    assert page == rewritten(page, measured_table(tmp_path))
