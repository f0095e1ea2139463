"""The page of all limits, generated from the table that enforces them."""

from typing import Final

from shared.limits import bounds

_INTRODUCTION: Final = """\
# Limits

Everything that enters the system has a bound. This page is generated from `shared/limits.py`, the
table that the code enforces; a test fails if they differ. Bounds that operators can change are keys
of the [configuration](configuration.md).

| limit | value | of | beyond it |
|---|---|---|---|
"""


def render() -> str:
    """Return the page as Markdown."""
    rows = (
        f"| `{name}` | {int(bound)} {bound.unit} | {bound.of} | {bound.beyond} |\n"
        for name, bound in bounds().items()
    )
    return _INTRODUCTION + "".join(rows)
