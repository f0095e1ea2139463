"""Spans that are children of what a message carries, and nothing at all without an endpoint."""

import asyncio
import socket
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import StatusCode

from shared.config.sections import TracingSection
from shared.observe import tracing as subject
from shared.observe.otlp import Otlp
from shared.observe.tracing import (
    MissingExtraError,
    annotate,
    batch,
    carried,
    carrier,
    span,
    tracing,
)

pytestmark = pytest.mark.slow

SOON = 5.0
NOWHERE = "http://127.0.0.1:9/v1/traces"


def kept(ratio: float = 1.0) -> tuple[Otlp, InMemorySpanExporter]:
    """Spans that are kept, and not sent."""
    provider, found = TracerProvider(sampler=ParentBasedTraceIdRatio(ratio)), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(found))
    return Otlp(provider), found


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What is traced in a test, instead of on the network."""
    active, found = kept()
    monkeypatch.setattr(subject, "_active", active)
    return found


def made(spans: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {each.name: each for each in spans.get_finished_spans()}


def test_a_message_carries_the_span_that_it_was_written_in(spans: InMemorySpanExporter) -> None:
    with span("first", "server"):
        headers = carrier()
    with span("second", "consumer", headers):
        pass
    first, second = made(spans)["first"], made(spans)["second"]

    assert headers.keys() == {"traceparent"}
    assert first.parent is None
    assert first.context is not None
    assert second.parent is not None
    assert second.parent.span_id == first.context.span_id
    assert second.context is not None
    assert second.context.trace_id == first.context.trace_id


def test_a_span_inside_another_that_begins_a_trace_begins_one(spans: InMemorySpanExporter) -> None:
    """As of a server whose task was begun by another's."""
    with span("outer", "server"), span("inner", "server"):
        pass

    assert made(spans)["inner"].parent is None


def test_a_batch_is_in_the_first_sampled_trace_and_linked_to_others(
    spans: InMemorySpanExporter,
) -> None:
    unsampled, _ = kept(0.0)
    with unsampled.span("one", "server", {}):
        without = unsampled.carrier()
    sampled = []
    for i in range(40):
        with span(f"one-{i}", "server"):
            sampled.append(carrier())
    with batch("all", [{}, {"traceparent": "nonsense"}, *[without] * 40, *sampled]):
        pass

    found, ones = made(spans)["all"], [made(spans)[f"one-{i}"].context for i in range(40)]
    assert found.parent is not None
    assert found.parent.span_id == ones[0].span_id
    assert [link.context.span_id for link in found.links] == [one.span_id for one in ones[1:32]]


@pytest.mark.parametrize("messages", [[], [{}], [{"traceparent": "nonsense"}]])
def test_a_batch_of_which_nothing_is_traced_is_not(
    spans: InMemorySpanExporter, messages: list[dict[str, str]]
) -> None:
    with batch("all", messages):
        pass

    assert made(spans) == {}


def test_what_is_handed_on_is_the_place_in_the_trace_alone() -> None:
    assert carried({"traceparent": "00-ab", "Scepstream-Key": "k"}) == {"traceparent": "00-ab"}
    assert carried({"Scepstream-Key": "k"}) == {}


def test_an_error_is_told_by_its_type_alone(spans: InMemorySpanExporter) -> None:
    def fails() -> None:
        raise ValueError("s3cret")

    with pytest.raises(ValueError, match="s3cret"), span("failing", "server"):
        fails()
    found = made(spans)["failing"]

    assert (found.status.status_code, found.status.description) == (StatusCode.ERROR, "ValueError")
    assert found.events == ()
    assert "s3cret" not in found.to_json()


async def test_a_cancelled_span_ends(spans: InMemorySpanExporter) -> None:
    async def work() -> None:
        with span("cancelled", "server"):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert made(spans)["cancelled"].status.description == "CancelledError"


def test_attributes_are_ours_by_name(spans: InMemorySpanExporter) -> None:
    with span("one", "server"):
        annotate(profile="demo", deliveries=2)

    assert made(spans)["one"].attributes == {
        "scepstream.profile": "demo",
        "scepstream.deliveries": 2,
    }


def test_outside_of_a_span_nothing_is_carried(spans: InMemorySpanExporter) -> None:
    annotate(profile="demo")

    assert carrier() == {}
    assert made(spans) == {}


@given(value=st.text(max_size=80), more=st.text(max_size=80))
def test_whatever_a_message_carries_its_span_is_made(value: str, more: str) -> None:
    active, _ = kept()
    headers = {"traceparent": value, "tracestate": more}
    with active.batch("many", [headers]), active.span("one", "consumer", headers):
        assert active.carrier()


def test_what_is_not_sampled_says_so_to_the_next_service() -> None:
    active, found = kept(0.0)
    with active.span("one", "server", {}):
        headers = active.carrier()

    flags = int(headers["traceparent"].rpartition("-")[2], 16)
    assert made(found) == {}
    assert flags & 1 == 0  # W3C Trace Context s3.2.2.5


def test_a_service_that_stops_does_not_wait_for_a_collector() -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # takes connections, and never answers
    before = set(threading.enumerate())
    with silent:
        active = Otlp.to(f"http://127.0.0.1:{silent.getsockname()[1]}/", 1.0, "gateway", "g")
        for _ in range(2000):
            with active.span("one", "server", {}):
                pass
        started = time.monotonic()
        active.stop()
        stopped = time.monotonic()
    # The exporter's thread draws random waits, which Hypothesis would find in a later test.
    for thread in set(threading.enumerate()) - before:
        thread.join()

    assert stopped - started < SOON


def test_without_an_endpoint_nothing_is_traced_and_nothing_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "shared.observe.otlp", None)
    with tracing(None, 1.0, "gateway", "gateway-0"), span("one", "server"):
        annotate(profile="demo")
        assert carrier() == {}


def test_without_the_extra_an_endpoint_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shared.observe.otlp", None)
    with pytest.raises(MissingExtraError, match="install the extra"):
        tracing(NOWHERE, 1.0, "gateway", "gateway-0").__enter__()


@pytest.mark.parametrize(
    "endpoint", ["", "127.0.0.1:4318", "ftp://a/b", "http://user:secret@host/v1/traces", "http://"]
)
def test_an_endpoint_is_a_plain_url(endpoint: str) -> None:
    with pytest.raises(ValueError, match="endpoint") as error:
        TracingSection(endpoint=endpoint)

    assert "secret" not in str(error.value)
