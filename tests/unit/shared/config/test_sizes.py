"""How sizes are written in the configuration."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.bus.topology import Quota
from shared.config.fields import write_size
from shared.config.sections import LogSection

KEY = "max_bytes_enrollments"


@pytest.mark.parametrize(
    ("text", "size"),
    [("1KiB", 1024), ("256MiB", 256 * 2**20), ("16GiB", 2**34), ("2TiB", 2**41), ("unlimited", 0)],
)
def test_a_size_is_read_and_written(text: str, size: int) -> None:
    assert LogSection.model_validate({KEY: text}).max_bytes_enrollments == size
    assert write_size(size) == text


@pytest.mark.parametrize(
    "value", [0, 1024, "0", "0MiB", "none", "", "16GB", "16 GiB", "-1GiB", "1.5GiB", None, True]
)
def test_no_limit_is_had_by_the_word_alone(value: object) -> None:
    with pytest.raises(ValidationError, match="unlimited"):
        LogSection.model_validate({KEY: value})


@given(st.integers(1, 999), st.sampled_from(["KiB", "MiB", "GiB", "TiB"]))
def test_what_is_written_is_read_again(number: int, unit: str) -> None:
    size = LogSection.model_validate({KEY: f"{number}{unit}"}).max_bytes_enrollments

    assert LogSection.model_validate({KEY: write_size(size)}).max_bytes_enrollments == size


def test_every_class_of_streams_has_a_key_and_a_limit() -> None:
    assert all(getattr(LogSection(), f"max_bytes_{quota}") > 0 for quota in Quota)
