"""OpenTelemetry traces across services, carried by `traceparent` in event headers.

Without an endpoint nothing is traced, and the extra `tracing` is not needed.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from shared.observe.otlp import Kind, Otlp

TRACEPARENT: Final = "traceparent"  # W3C Trace Context s3.2
_active: "Otlp | None" = None


class MissingExtraError(Exception):
    """Raised if tracing is configured but not installed."""


@contextmanager
def tracing(endpoint: str | None, ratio: float, service: str, name: str) -> Iterator[None]:
    """Send a share (`ratio`, 0 to 1) of the traces that begin in a block to an OTLP endpoint.

    `MissingExtraError` if the extra `tracing` is not installed.
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
    """Trace a service's work on one request or message; `parent` is its headers."""
    if _active is None:
        yield
        return
    with _active.span(name, kind, parent or {}):
        yield


@contextmanager
def batch(name: str, messages: Iterable[Mapping[str, str]]) -> Iterator[None]:
    """Trace a service's work on a batch of messages, given by their headers."""
    if _active is None:
        yield
        return
    with _active.batch(name, messages):
        yield


def annotate(**attributes: str | int) -> None:
    """Set attributes of the current span; never secrets."""
    if _active is not None:
        _active.annotate(attributes)


def carrier() -> dict[str, str]:
    """Return the headers with which the reader of a message continues the current trace."""
    return _active.carrier() if _active is not None else {}


def carried(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the trace headers to pass on if the reader of a message creates no span itself."""
    return {TRACEPARENT: headers[TRACEPARENT]} if TRACEPARENT in headers else {}
