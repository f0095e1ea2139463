"""What a webhook's answer means: only a clear yes is one; a no is recorded in its words. Pure."""

import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from services.validator.challenges.jws import MalformedTokenError, read_object
from services.validator.challenges.verifier import Verified, passed, refused
from shared.printable import visible
from shared.reasons import Reason

_BOM: Final = b"\xef\xbb\xbf"
# Where services say why: RFC 9457 (detail, title), OAuth (error_description), and what is usual.
_WORDS: Final = ("reason", "detail", "message", "error_description", "error", "title")
_MOST: Final = 200


def judge_answer(status: int, content: bytes, secrets: tuple[str, ...] = ()) -> Verified:
    """200 and a JSON object whose `allow` is true; nothing else opens the gate.

    `secrets` are taken out of what is recorded of the other side's words.
    """
    content = content.removeprefix(_BOM)
    try:
        answer = read_object(content, "answer")
    except MalformedTokenError as error:
        if status == HTTPStatus.OK:
            return denied("the webhook does not allow it", str(error))
        text = content.decode("utf-8", "replace").strip()
        return denied("the webhook does not allow it", _told(status, text, secrets))
    if status == HTTPStatus.OK and answer.get("allow") is True:
        return Verified((passed("challenge", "allowed by the webhook"),))
    words = (answer.get(name) for name in _WORDS)
    said = next((each for each in words if isinstance(each, str) and each.strip()), "")
    return denied("the webhook does not allow it", _told(status, said, secrets))


def denied(detail: str, compared: str = "") -> Verified:
    """A challenge that a webhook did not allow."""
    return refused("challenge", Reason.WEBHOOK_DENIED, detail, compared)


def _told(status: int, said: str, secrets: tuple[str, ...]) -> str:
    """Status and words, as far as they fit; what was asked with stands in no record."""
    for secret in _spellings(secrets):
        said = said.replace(secret, "***")
    said = visible(said)
    said = said if len(said) <= _MOST else f"{said[:_MOST]}..."
    status_told = "" if status == HTTPStatus.OK else f"HTTP {status}"
    return ": ".join(filter(None, (status_told, said)))


def _spellings(secrets: tuple[str, ...]) -> Iterator[str]:
    """As an answer may repeat them; the longest first, so that no part of one is left."""
    found = set()
    for secret in filter(None, secrets):
        found |= {secret, secret.strip(), quote(secret, safe=""), json.dumps(secret)[1:-1]}
        found.add(json.dumps(secret, ensure_ascii=False)[1:-1])
    yield from sorted(filter(None, found), key=len, reverse=True)
