"""OpenTelemetry spans, exported by OTLP over HTTP. Needs the extra `tracing`."""

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Kind = Literal["server", "consumer"]
_KINDS: Final[Mapping[Kind, SpanKind]] = {
    "server": SpanKind.SERVER,
    "consumer": SpanKind.CONSUMER,
}
_TRACE_CONTEXT: Final = TraceContextTextMapPropagator()
_EXPORT_SECONDS: Final = 2
_STOP_SECONDS: Final = 2
_MOST_LINKS: Final = 32


class _Once(logging.Handler):
    """Logs each of the exporter's messages once: a collector may be unreachable for long."""

    def __init__(self) -> None:
        """Bind the context of the service: the exporter's threads do not have it."""
        super().__init__(logging.WARNING)
        self.said: set[str] = set()
        self.log = structlog.get_logger().bind(**structlog.contextvars.get_contextvars())

    def emit(self, record: logging.LogRecord) -> None:
        """Log a message as a line of the service."""
        if record.msg not in self.said:
            self.said.add(record.msg)
            self.log.warning("trace_export_failed", detail=record.getMessage()[:200])


@dataclass(frozen=True)
class Otlp:
    """The tracer of this process."""

    provider: TracerProvider

    @classmethod
    def to(cls, endpoint: str, ratio: float, service: str, name: str) -> "Otlp":
        """Return a replica's tracer; `ratio` (0 to 1) is the share of new traces to sample."""
        complaints = logging.getLogger("opentelemetry")
        complaints.handlers, complaints.propagate = [_Once()], False
        names = {"service.name": f"scepstream-{service}", "service.instance.id": name}
        provider = TracerProvider(
            sampler=ParentBasedTraceIdRatio(ratio),
            resource=Resource.create(names),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_SECONDS)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider)

    @contextmanager
    def span(self, name: str, kind: Kind, parent: Mapping[str, str]) -> Iterator[None]:
        """Trace a block as a span; of an error, only the type is recorded."""
        # The extracted context is empty if `parent` has no valid trace context.
        with self._begun(name, kind, _TRACE_CONTEXT.extract(parent), ()):
            yield

    @contextmanager
    def batch(self, name: str, messages: Iterable[Mapping[str, str]]) -> Iterator[None]:
        """Trace a block in the first sampled trace of these messages, with links to the others.

        There is no span if none is sampled.
        """
        places = [place for place in map(_place, messages) if place.trace_flags.sampled]
        if not places:
            yield
            return
        first, others = set_span_in_context(NonRecordingSpan(places[0])), places[1:_MOST_LINKS]
        with self._begun(name, "consumer", first, others):
            yield

    @contextmanager
    def _begun(
        self, name: str, kind: Kind, parent: Context, others: Sequence[SpanContext]
    ) -> Iterator[None]:
        with self.provider.get_tracer("scepstream").start_as_current_span(
            name,
            parent,
            _KINDS[kind],
            links=[Link(place) for place in others],
            record_exception=False,
            set_status_on_exception=False,
        ) as current:
            try:
                yield
            except BaseException as error:
                current.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise

    def annotate(self, attributes: Mapping[str, str | int]) -> None:
        """Set attributes of the current span."""
        current = get_current_span()
        for name, value in attributes.items():
            current.set_attribute(f"scepstream.{name}", value)

    def carrier(self) -> dict[str, str]:
        """Return the current span as headers; none if there is no span."""
        found: dict[str, str] = {}
        _TRACE_CONTEXT.inject(found)
        return found

    def stop(self) -> None:
        """Send the remaining spans, with a short limit: stopping a service must not take long."""
        sending = threading.Thread(target=self.provider.shutdown, daemon=True)
        sending.start()
        sending.join(_STOP_SECONDS)


def _place(headers: Mapping[str, str]) -> SpanContext:
    """Return the span in which a message was written; an invalid one if the headers name none."""
    return get_current_span(_TRACE_CONTEXT.extract(headers)).get_span_context()
