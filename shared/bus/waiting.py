"""Retrying until JetStream answers: a cluster that has just started first elects its leaders."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.errors import APIError

_log = structlog.get_logger()
_WAIT_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 0.5
# JSClusterNoPeers, JSInsufficientResources, JSClusterNotAvail, JSClusterNotLeader,
# JSClusterNotActive, JSStreamGeneral (nats-server's errors.json): they end as nodes join.
_PASSING: Final = frozenset({10005, 10023, 10008, 10009, 10006, 10051})
_T = TypeVar("_T")


async def until_it_answers(call: Callable[[], Awaitable[_T]], seconds: float = _WAIT_SECONDS) -> _T:
    """Return what `call` returns; repeat it while the cluster has no leader to answer it.

    Raises the last such error once `seconds` have passed, any other error at once.
    """
    loop = asyncio.get_running_loop()
    deadline, logged = loop.time() + seconds, False
    while True:
        try:
            return await call()
        except (NatsTimeoutError, NoRespondersError, APIError) as error:
            passing = not isinstance(error, APIError) or error.err_code in _PASSING
            if not passing or loop.time() >= deadline:
                raise
            if not logged:
                _log.info("cluster_not_ready", error=str(error)[:100])
                logged = True
        await asyncio.sleep(_RETRY_SECONDS)
