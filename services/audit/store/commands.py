"""What operators can order and what comes of it, as the database says it. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from shared.log.enrollment import TERMINAL, State


class Command(StrEnum):
    """What an operator can order."""

    APPROVE = "approve"
    DENY = "deny"
    REVOKE = "revoke"
    RELOAD_TRUST = "reload-trust"
    RELOAD_RA = "reload-ra"
    RETRY = "retry"
    RESUME = "resume"
    CREATE_CHALLENGE = "create-challenge"
    CANCEL_CHALLENGE = "cancel-challenge"
    CREATE_TOKEN = "create-token"  # noqa: S105 - a word, no token
    REVOKE_TOKEN = "revoke-token"  # noqa: S105 - likewise


class Result(StrEnum):
    """What came of an order, by what the log tells."""

    DONE = "done"
    REFUSED = "refused"
    WAITING = "waiting"


_ABOUT_ENROLLMENTS: Final = frozenset(
    {Command.APPROVE, Command.DENY, Command.RETRY, Command.RESUME}
)


def result(row: Mapping[str, Any]) -> Result:
    """Of an order's row with the `state` of its enrollment; what wants no answer is done."""
    if row["kind"] in _ABOUT_ENROLLMENTS and row["enrollment"] is not None:
        if row["state"] not in TERMINAL:
            return Result.WAITING
        denied = row["kind"] == Command.DENY
        return Result.DONE if (row["state"] == State.ISSUED) is not denied else Result.REFUSED
    if row["refused"]:
        return Result.REFUSED
    # From before replicas were named, one answer was enough.
    wanted = max(row["expected"], 1) if row["expected"] is not None else 0
    return Result.DONE if row["answered"] >= wanted else Result.WAITING
