"""What every endpoint works with, and who is asking."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import Engine

from services.audit.admin.auth import Level, Operator, operator_of
from services.audit.admin.problems import ProblemError
from services.audit.office import Office
from services.audit.settings import Settings
from shared.bus.core import Bus
from shared.sections import Configuration

_BEARER: Final = HTTPBearer(auto_error=False, description="A token of `scepstream audit token`.")
_CHALLENGE: Final = {"www-authenticate": "Bearer"}


@dataclass(frozen=True)
class Desk:
    """The service's parts; `configuration` reads the file anew, `clock` gives Unix seconds."""

    engine: Engine
    bus: Bus
    settings: Settings
    configuration: Callable[[], Configuration]
    clock: Callable[[], float]

    def office(self, operator: Operator) -> Office:
        """Where this operator gives orders."""
        return Office.of(self.bus, self.settings, self.configuration(), operator.name)

    def order_name(self) -> str:
        """A name that no other order has."""
        return secrets.token_hex(8)


def desk_of(request: Request) -> Desk:
    """The application's desk."""
    found: Any = request.app.state.desk
    assert isinstance(found, Desk)
    return found


def allowed(wanted: Level) -> Callable[..., Awaitable[Operator]]:
    """A dependency: 401 without a good token, 403 below the level."""

    async def check(
        desk: Annotated[Desk, Depends(desk_of)],
        credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
    ) -> Operator:
        if credentials is None:
            raise ProblemError(401, "a bearer token is needed", _CHALLENGE)
        operator = await asyncio.to_thread(operator_of, desk.engine, credentials.credentials)
        if operator is None:
            raise ProblemError(401, "the token is not known", _CHALLENGE)
        if not operator.level.covers(wanted):
            raise ProblemError(
                403, f"this needs the level {wanted}, the token has {operator.level}"
            )
        return operator

    return check


AtDesk = Annotated[Desk, Depends(desk_of)]
Viewer = Annotated[Operator, Depends(allowed(Level.VIEWER))]
Doer = Annotated[Operator, Depends(allowed(Level.OPERATOR))]
Admin = Annotated[Operator, Depends(allowed(Level.ADMIN))]
