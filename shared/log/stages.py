"""The stages of an enrollment. Pure."""

from enum import StrEnum
from typing import Final

ATTEMPT: Final = "enroll.{shard}.{profile}.{transaction}.{csr}.{attempt}"


class Stage(StrEnum):
    """The stages, each the last token of its subjects; each has one writer role."""

    REQUEST = "request"
    HOLD = "hold"
    DECISION = "decision"
    VERDICT = "verdict"
    ORDER = "order"
    OUTCOME = "outcome"
    CONFIRMATION = "confirmation"
