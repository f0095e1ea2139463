"""A request and its answer as values, and who may ask for what."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from cli.fake_microsoft.judge import GUID
from cli.fake_microsoft.model import Token
from cli.fake_microsoft.world import World, guid

_BEARER: Final = "Bearer "


@dataclass(frozen=True)
class Call:
    """A request: parameters of its path and query, headers by their lower-case names, body."""

    method: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    base: str

    @property
    def correlation_id(self) -> str:
        """The client-request-id, if it is a GUID: nothing else enters the journal."""
        given = self.headers.get("client-request-id", "")
        return given if GUID.fullmatch(given) else ""


@dataclass(frozen=True)
class Answer:
    """An answer; `body` is JSON or bytes, `notes` are fields of the journal's entry."""

    status: int
    body: Any
    notes: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        """Return the bytes of the body."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class DeniedError(Exception):
    """Raised with the answer to a request that is refused."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def graph_error(world: World, call: Call, status: int, code: str, message: str) -> DeniedError:
    """Return an error in the form of Graph."""
    inner = {
        "date": datetime.fromtimestamp(world.now(), UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        "request-id": guid(),
        "client-request-id": call.correlation_id,
    }
    body = {"error": {"code": code, "message": message, "innerError": inner}}
    return DeniedError(Answer(status, body, {"note": message, "code": code}))


def intune_error(status: int, code: str, message: str, **notes: Any) -> DeniedError:
    """Return an error in the form of Intune's services: JSON in JSON."""
    inner = {"_version": 3, "Message": message, "CustomApiErrorPhrase": "", "RetryAfter": None}
    text = json.dumps(inner, indent=2).replace("\n", "\r\n")
    body = {"error": {"code": code, "message": text}}
    return DeniedError(Answer(status, body, {"note": message, "code": code, **notes}))


def bearer(world: World, call: Call) -> Token | None:
    """Return the valid access token of a request, or None."""
    value = call.headers.get("authorization", "")
    token = world.tokens.get(value.removeprefix(_BEARER)) if value.startswith(_BEARER) else None
    return token if token is not None and token.expires > world.now() else None


def any_bearer(world: World, call: Call) -> str:
    """Return the tenant of a request's token, valid or not; empty if there is none."""
    value = call.headers.get("authorization", "").removeprefix(_BEARER)
    return world.tokens[value].tenant if value in world.tokens else ""
