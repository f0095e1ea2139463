"""Alert rules and dashboard ask for metrics, labels and values that there are."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from services.validator.microsoft.model import Problem
from shared.log.reasons import Reason
from shared.observe import metrics as telemetry

ROOT: Final = Path(__file__).parents[2]
METRICS: Final = {
    name + suffix: set(metric._labelnames)
    for metric in vars(telemetry).values()
    if isinstance(metric, MetricWrapperBase)
    for name in [metric._name]
    for suffix in ("_total" if metric._type == "counter" else "", "_bucket", "_count")
}
_SELECTOR: Final = re.compile(r"(scepstream_\w+)(?:\{([^}]*)\})?")
_GROUPING: Final = re.compile(r"\bby \(([^)]*)\)")
_MATCHER: Final = re.compile(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"')


def rules() -> list[dict[str, str]]:
    document = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, object]]:
    document = json.loads((ROOT / "deploy/grafana/scepstream.json").read_text())
    found: list[dict[str, object]] = document["panels"]
    return found


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    for panel in panels():
        targets = panel["targets"]
        assert isinstance(targets, list)
        yield from (target["expr"] for target in targets)


@pytest.mark.parametrize("expression", list(expressions()))
def test_an_expression_names_metrics_and_labels_that_there_are(expression: str) -> None:
    asked = _SELECTOR.findall(expression)
    if "up{" not in expression:
        assert asked
    allowed = {"le"}
    for metric, matchers in asked:
        labels = METRICS[metric]
        allowed |= labels
        assert {name for name, _ in _MATCHER.findall(matchers)} <= labels
    for grouping in _GROUPING.findall(expression):
        assert set(grouping.split(", ")) <= allowed


def test_results_that_are_waited_for_can_come() -> None:
    known = {*Reason, *Problem, "success", "approved", "held", "refused"}
    known |= {"confirmed", "failed"}  # of confirmations
    for expression in expressions():
        for name, value in _MATCHER.findall(expression):
            if name in ("result", "reason"):
                assert set(value.split("|")) <= known


def test_every_suggested_alert_is_there() -> None:
    names = {rule["alert"] for rule in rules()}

    assert len(names) == len(rules())
    assert {"SignatureInvalid", "ClaimMismatch", "ReplayClimbing", "RateLimited", "BusLag",
            "CertificateExpires", "DeadLetters"} <= names  # fmt: skip
    assert all(rule["annotations"] for rule in rules())


def test_every_metric_is_on_the_dashboard_or_in_an_alert() -> None:
    asked = {name for each in expressions() for name, _ in _SELECTOR.findall(each)}
    made = {
        metric._name + ("_total" if metric._type == "counter" else "")
        for metric in vars(telemetry).values()
        if isinstance(metric, MetricWrapperBase)
    }
    left_out = {"scepstream_requests_total", "scepstream_outcomes_total"}

    asked = {name.removesuffix("_bucket").removesuffix("_count") for name in asked}
    assert asked == made - left_out
