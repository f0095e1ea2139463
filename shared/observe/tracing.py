"""OpenTelemetry traces across services, carried by `traceparent` in event headers.

Where no endpoint is configured nothing is traced, and the extra `tracing` is not needed.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from shared.observe.otlp import Kind, Otlp

TRACEPARENT: Final = "traceparent"  # W3C Trace Context s3.2
_active: "Otlp | None" = None


class MissingExtraError(Exception):
    """Raised where tracing is configured and not installed."""


@contextmanager
def tracing(endpoint: str | None, ratio: float, service: str, name: str) -> Iterator[None]:
    """Trace a share (`ratio`, 0 to 1) of what happens in a block, to an OTLP endpoint.

    `MissingExtraError` where the extra `tracing` is not installed.
    """
    global _active  # noqa: PLW0603 - one for the process, like the metrics
    if endpoint is None:
        yield
        return
    try:
        from shared.observe.otlp import Otlp  # noqa: PLC0415 - only with the extra
    except ImportError:
        raise MissingExtraError("install the extra scepstream[tracing]") from None
    _active = Otlp.to(endpoint, ratio, service, name)
    try:
        yield
    finally:
        stopped, _active = _active, None
        stopped.stop()


@contextmanager
def span(name: str, kind: "Kind", parent: Mapping[str, str] | None = None) -> Iterator[None]:
    """One service's work on a request, or on a message (`parent`: its headers)."""
    if _active is None:
        yield
        return
    with _active.span(name, kind, parent or {}):
        yield


@contextmanager
def batch(name: str, messages: Iterable[Mapping[str, str]]) -> Iterator[None]:
    """One service's work on many messages (their headers) at once."""
    if _active is None:
        yield
        return
    with _active.batch(name, messages):
        yield


def annotate(**attributes: str | int) -> None:
    """Say more of the current span; never what is secret."""
    if _active is not None:
        _active.annotate(attributes)


def carrier() -> dict[str, str]:
    """The headers that let whoever reads a message go on with the current trace."""
    return _active.carrier() if _active is not None else {}


def carried(headers: Mapping[str, str]) -> dict[str, str]:
    """What of a message's headers is handed on where its reader makes no span of its own."""
    return {TRACEPARENT: headers[TRACEPARENT]} if TRACEPARENT in headers else {}
