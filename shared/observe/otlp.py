"""Spans by OpenTelemetry, sent by OTLP over HTTP: what the extra `tracing` is for."""

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
    """What the exporter complains of, once for each complaint: a collector may be away for long."""

    def __init__(self) -> None:
        """Nothing was said yet; the threads that send do not know whose they are."""
        super().__init__(logging.WARNING)
        self.said: set[str] = set()
        self.log = structlog.get_logger().bind(**structlog.contextvars.get_contextvars())

    def emit(self, record: logging.LogRecord) -> None:
        """One line like all others of the service."""
        if record.msg not in self.said:
            self.said.add(record.msg)
            self.log.warning("tracing_complains", detail=record.getMessage()[:200])


@dataclass(frozen=True)
class Otlp:
    """The spans of this process."""

    provider: TracerProvider

    @classmethod
    def to(cls, endpoint: str, ratio: float, service: str, name: str) -> "Otlp":
        """Of this replica of a service, this part of the traces that begin here."""
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
        """A span for the length of a block; of an error its type alone is told."""
        # What is extracted is empty where there is nothing, or nonsense.
        with self._begun(name, kind, _TRACE_CONTEXT.extract(parent), ()):
            yield

    @contextmanager
    def batch(self, name: str, messages: Iterable[Mapping[str, str]]) -> Iterator[None]:
        """In the first trace of these that is sampled, and linked to the others; else none."""
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
        """Attributes of the current span."""
        current = get_current_span()
        for name, value in attributes.items():
            current.set_attribute(f"scepstream.{name}", value)

    def carrier(self) -> dict[str, str]:
        """The current span as headers, none where there is none."""
        found: dict[str, str] = {}
        _TRACE_CONTEXT.inject(found)
        return found

    def stop(self) -> None:
        """Send what is left, if it can be sent soon: a service that stops waits for nobody."""
        sending = threading.Thread(target=self.provider.shutdown, daemon=True)
        sending.start()
        sending.join(_STOP_SECONDS)


def _place(headers: Mapping[str, str]) -> SpanContext:
    """The span that a message was written in; one that is not valid where it names none."""
    return get_current_span(_TRACE_CONTEXT.extract(headers)).get_span_context()
