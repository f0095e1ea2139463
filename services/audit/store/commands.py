"""Kinds and results of operators' commands, as the database has them. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from shared.log.enrollment import TERMINAL, State


class Command(StrEnum):
    """A command that an operator can give, or a validator for a connection (WITHDRAW)."""

    APPROVE = "approve"
    DENY = "deny"
    REVOKE = "revoke"
    WITHDRAW = "withdraw"
    SETTLE_ORPHAN = "settle-orphan"
    RELOAD_TRUST = "reload-trust"
    RELOAD_RA = "reload-ra"
    RETRY = "retry"
    RESUME = "resume"
    CREATE_CHALLENGE = "create-challenge"
    CANCEL_CHALLENGE = "cancel-challenge"
    CREATE_TOKEN = "create-token"  # noqa: S105 - the name of a command, not a token
    REVOKE_TOKEN = "revoke-token"  # noqa: S105 - likewise


class Result(StrEnum):
    """The result of a command, according to the log."""

    DONE = "done"
    REFUSED = "refused"
    WAITING = "waiting"


_ABOUT_ENROLLMENTS: Final = frozenset(
    {Command.APPROVE, Command.DENY, Command.RETRY, Command.RESUME}
)


def result(row: Mapping[str, Any]) -> Result:
    """Return the result of a command's row that has the `state` of its enrollment.

    A command that expects no answer is done.
    """
    if row["kind"] in _ABOUT_ENROLLMENTS and row["enrollment"] is not None:
        if row["state"] not in TERMINAL:
            return Result.WAITING
        denied = row["kind"] == Command.DENY
        return Result.DONE if (row["state"] == State.ISSUED) is not denied else Result.REFUSED
    if row["refused"]:
        return Result.REFUSED
    # A command from before replicas were named expects 0: one answer was enough.
    needed = max(row["expected"], 1) if row["expected"] is not None else 0
    return Result.DONE if row["answered"] >= needed else Result.WAITING
