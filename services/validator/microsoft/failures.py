"""Why an answer of Microsoft cannot be used, as an error for callers and operators."""

from typing import Final

from services.validator.microsoft import hints
from services.validator.microsoft.channel import Reply
from services.validator.microsoft.model import MicrosoftUnavailableError, Problem
from services.validator.microsoft.parsing import read_error_code
from services.validator.microsoft.retrying import LOST, UNREACHED

_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_THROTTLED: Final = 429
_SERVER_ERRORS: Final = range(500, 600)


def unavailable(service: str, reply: Reply, permission: str = "") -> MicrosoftUnavailableError:
    """Return the error for a reply that is not a usable answer.

    `permission` is the hint if the service denies the call.
    """
    kind, detail, hint = _described(service, reply, permission)
    return MicrosoftUnavailableError(kind, detail, hint, sent=reply.sent)


def _described(service: str, reply: Reply, permission: str) -> tuple[Problem, str, str]:
    code = read_error_code(reply.content)
    status = f"{reply.status} {code}" if code else f"{reply.status}"
    if reply.status in (UNREACHED, LOST):
        hint = hints.UNREACHABLE if reply.status == UNREACHED else ""
        return Problem.OUTAGE, f"{service}: {reply.why}", hint
    if reply.status == _UNAUTHORIZED:
        return Problem.CREDENTIALS, f"{service} does not accept the token ({status})", permission
    if reply.status == _FORBIDDEN:
        return Problem.PERMISSION, f"{service} does not permit the call ({status})", permission
    if reply.status == _THROTTLED:
        return Problem.OUTAGE, f"{service} asks for fewer calls ({status})", ""
    if reply.status in _SERVER_ERRORS:
        return Problem.OUTAGE, f"{service} failed ({status})", ""
    return Problem.PROTOCOL, f"{service} answered {status}", ""
