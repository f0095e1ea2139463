"""Interprets a webhook's answer: only an explicit approval passes the gate. Pure.

Of a refusal, one sentence is recorded: it comes from a field in which services usually give the
reason, and is withheld if it repeats a secret of the request. A body of any other form is not
recorded, because an error page may quote the whole request.
"""

from http import HTTPStatus
from typing import Final

from services.validator.challenges.jws import MalformedTokenError, read_object
from services.validator.challenges.proved import LOOKED_UP_CLAIMS, proved
from services.validator.challenges.verifier import ChallengeResult, passed, refused
from shared.log.reasons import Reason
from shared.text.echoes import echoes
from shared.text.printable import visible

_BOM: Final = b"\xef\xbb\xbf"
# Fields that give a reason: RFC 9457 (detail, title), OAuth (error_description), common names.
_WORDS: Final = ("reason", "detail", "message", "error_description", "error", "title")
_MOST: Final = 200
WITHHELD: Final = "detail withheld: it repeats a secret"


def check_answer(status: int, content: bytes, secrets: tuple[str, ...] = ()) -> ChallengeResult:
    """Allow for status 200 and a JSON object whose `allow` is true; refuse everything else.

    `secrets` are the challenge and the endpoint's credentials: a sentence that repeats one is not
    recorded.
    """
    content = content.removeprefix(_BOM)
    try:
        answer = read_object(content, "answer")
    except MalformedTokenError as error:
        told = str(error) if status == HTTPStatus.OK else f"HTTP {status}"
        return denied("denied by the webhook", told)
    if status == HTTPStatus.OK and answer.get("allow") is True:
        claims = proved(answer.get("claims"), LOOKED_UP_CLAIMS)
        return ChallengeResult((passed("challenge", "allowed by the webhook"),), claims=claims)
    words = (answer.get(name) for name in _WORDS)
    said = next((each for each in words if isinstance(each, str) and each.strip()), "")
    told = "" if status == HTTPStatus.OK else f"HTTP {status}"
    compared = ": ".join(filter(None, (told, recordable(said, secrets))))
    return denied("denied by the webhook", compared)


def denied(detail: str, compared: str = "") -> ChallengeResult:
    """Return the refusal of a challenge that a webhook did not allow."""
    return refused("challenge", Reason.WEBHOOK_DENIED, detail, compared)


def recordable(said: str, secrets: tuple[str, ...]) -> str:
    """Return another party's sentence as an event may hold it, or WITHHELD.

    The sentence is cut before it is searched, so that a part of a secret that the cut leaves is
    found like any other.
    """
    cut = said if len(said) <= _MOST else f"{said[:_MOST]}..."
    return WITHHELD if echoes(cut, secrets) else visible(cut)
