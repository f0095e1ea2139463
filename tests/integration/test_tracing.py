"""One enrollment is one trace through all services; without a collector nothing is lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from cli.up.layout import write_private
from tests.integration.collector import Collector, collecting
from tests.support.prepared import add_profiles, command, prepared
from tests.support.requests import (
    Device,
    Endpoint,
    ask,
    ended,
    enroll,
    logged,
    recorded,
    send,
)
from tests.support.system import System, running, wait_until


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


def trace_to(config: Path, endpoint: str) -> None:
    table = f'\n[tracing]\nendpoint = "{endpoint}"\n'
    write_private(config, config.read_bytes() + table.encode())


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[System]:
    layout = prepared(tmp_path_factory.mktemp("traced") / "data")
    add_profiles(layout, {"manual": {"approval": "manual"}})
    trace_to(layout.config, collector.endpoint)
    with running(layout.root) as found:
        yield found


def test_an_enrollment_is_one_trace_from_the_gateway_to_the_record(
    traced: System, collector: Collector
) -> None:
    demo, device = Endpoint.of(traced), Device.new()
    enroll(demo, device)
    enrollment = recorded(traced, device, "issued")["enrollment"]
    names = {"gateway PKIOperation", "validator request", "issuer verdict"}
    spans = wait_until(
        lambda: found if names <= (found := collector.of(enrollment)).keys() else None, 30, "spans"
    )

    gateway, validator, issuer = (
        spans[name] for name in ("gateway PKIOperation", "validator request", "issuer verdict")
    )
    assert gateway.span.parent_span_id == b""
    assert validator.span.parent_span_id == gateway.span.span_id
    assert issuer.span.parent_span_id == validator.span.span_id
    assert gateway.span.kind == Span.SPAN_KIND_SERVER
    assert {validator.span.kind, issuer.span.kind} == {Span.SPAN_KIND_CONSUMER}
    assert [t.service for t in (gateway, validator, issuer)] == [
        "scepstream-gateway", "scepstream-validator", "scepstream-issuer",
    ]  # fmt: skip
    assert issuer.replica == "issuer-0"
    assert gateway.attributes["scepstream.profile"] == "demo"
    assert all(t.span.status.code == Status.STATUS_CODE_UNSET for t in spans.values())
    assert wait_until(lambda: records(collector, gateway.span.trace_id), 30, "a record")


def records(collector: Collector, trace_id: bytes) -> list[Span]:
    """What the audit service wrote of a trace: in it, or linked to it."""
    told = [t.span for t in collector.told if t.span.name == "audit record"]
    return [
        each
        for each in told
        if trace_id in {each.trace_id, *(link.trace_id for link in each.links)}
    ]


def test_what_an_operator_decides_goes_on_in_the_devices_trace(
    traced: System, collector: Collector
) -> None:
    manual, device = Endpoint.of(traced, "manual"), Device.new()
    ask(manual, request := device.enrollment(manual))
    enrollment = recorded(traced, device, "held")["enrollment"]
    config = ("--config", str(traced.config))
    assert command("approve", device.transaction.decode(), *config).returncode == 0
    ended(manual, request)
    names = {"gateway PKIOperation", "validator request", "validator decision", "issuer verdict"}
    spans = wait_until(
        lambda: found if names <= (found := collector.of(enrollment)).keys() else None, 30, "spans"
    )

    held, decided = spans["validator request"].span, spans["validator decision"].span
    assert decided.parent_span_id == held.span_id


def test_a_refusal_is_traced_and_no_secret_is(traced: System, collector: Collector) -> None:
    demo, device = Endpoint.of(traced), Device.new()
    secret = traced.run["profiles"]["demo"]["challenge"]
    ask(demo, device.enrollment(demo, device.csr("not-the-password-at-all")))
    enrollment = recorded(traced, device, "rejected")["enrollment"]
    wait_until(lambda: "validator request" in collector.of(enrollment), 30, "spans")
    ((trace_id, *_),) = [{t.span.trace_id for t in collector.of(enrollment).values()}]
    wait_until(lambda: records(collector, trace_id), 30, "a record")

    assert collector.bodies
    for body in collector.bodies:
        assert secret.encode() not in body
        assert b"not-the-password-at-all" not in body
        assert traced.run["admin_token"].encode() not in body


def test_a_client_cannot_say_which_trace_it_is_in(traced: System, collector: Collector) -> None:
    demo, device = Endpoint.of(traced), Device.new()
    theirs = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    url, body = f"{demo.url}?operation=PKIOperation", device.enrollment(demo).body
    assert send("POST", url, content=body, headers={"traceparent": theirs}).status_code == 200
    enrollment = recorded(traced, device, "issued")["enrollment"]
    spans = wait_until(lambda: collector.of(enrollment), 30, "spans")

    assert bytes.fromhex(theirs.split("-")[1]) not in {t.span.trace_id for t in spans.values()}


def test_a_collector_that_is_away_costs_no_enrollment_and_one_line_of_log(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    layout = prepared(tmp_path_factory.mktemp("untraced") / "data")
    with collecting() as gone:
        endpoint = gone.endpoint
    trace_to(layout.config, endpoint)
    with running(layout.root) as system:
        for _ in range(3):
            enroll(Endpoint.of(system), Device.new())
        wait_until(lambda: logged(system, "trace_export_failed", "gateway-0"), 30, "a complaint")

        complaints = logged(system, "trace_export_failed", "gateway-0")
        assert len(complaints) <= 3
        assert {(c["service"], c["name"]) for c in complaints} == {("gateway", "gateway-0")}
    for log in (layout.root / "logs").glob("*.log"):
        lines = log.read_text().splitlines()
        assert all(line.startswith("{") for line in lines if "nats" not in log.name), log.name
