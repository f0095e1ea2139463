"""Alert rules as Prometheus itself reads them: each fires on what it is about, and not before."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.support.tools import need

RULES: Final = Path(__file__).parents[2] / "deploy/prometheus/alerts.yml"


@dataclass(frozen=True)
class Case:
    """Values a minute of a series, when the alert has fired, when not yet, and what it is about."""

    alert: str
    series: str
    values: str
    fires: int
    labels: dict[str, str]
    quiet: int = 0
    value: str = ""


def challenges(result: str) -> str:
    return f'scepstream_challenges_total{{profile="corp",kind="signed",result="{result}"}}'


def calls(result: str) -> str:
    labels = f'connection="contoso",operation="validate",result="{result}"'
    return f"scepstream_microsoft_calls_total{{{labels}}}"


CONTOSO: Final = {"connection": "contoso"}
CREDENTIAL: Final = 'scepstream_certificate_expiry_days{kind="credential",name="contoso"}'
CORP: Final = {"profile": "corp"}
RA: Final = {"kind": "ra", "name": "corp"}
EXPIRY: Final = 'scepstream_certificate_expiry_days{kind="ra",name="corp"}'
BUNDLE: Final = 'scepstream_anchor_bundle_expiry_days{profile="corp",bundle="tenant contoso"}'
CASES: Final = (
    Case("SignatureInvalid", challenges("signature_invalid"), "0x10 1+1x100", 20, CORP, 13),
    Case("ClaimMismatch", challenges("claim_mismatch"), "0x10 1+1x200", 90, CORP, 60),
    Case("ReplayClimbing", challenges("replay"), "0x60 0+1x60 60+5x200", 190, CORP, 60),
    Case("RateLimited", challenges("rate_limited"), "0x10 1+1x10 11x100", 20, CORP, 9),
    Case("CertificateExpires", EXPIRY, "31x10 29x200", 80, RA, 60, "29"),
    Case("CertificateExpiresSoon", EXPIRY, "8x10 6x200", 12, RA, 9, "6"),
    Case("AnchorsExpire", BUNDLE, "31x10 29x200", 80,
         {"profile": "corp", "bundle": "tenant contoso"}, 60, "29"),
    Case("DevicesNotRenewed", 'scepstream_certificates_not_renewed{profile="corp"}',
         "0x10 3x200", 80, CORP, 60, "3"),
    Case("ExpiryNoticesFail", 'scepstream_expiry_notices_total{accepted="false"}',
         "0x10 0+1x100", 40, {}, 12),
    Case("BusLag", 'scepstream_bus_lag{stream="ENROLL_0",consumer="audit"}', "1000x10 1001x100", 20,
         {"stream": "ENROLL_0", "consumer": "audit"}, 13, "1001"),
    Case("ServiceStalled", 'scepstream_oldest_waiting_seconds{role="issuer"}', "0x5 61x100", 8,
         {"role": "issuer"}, 5, "1m 1s"),
    Case("DeadLetters", 'scepstream_dead_letters_total{role="validator"}', "0x5 1x200", 8,
         {"role": "validator"}, 5),
    Case("PossibleOrphans", "scepstream_orphans_open", "0x5 2x200", 40, {}, 25, "2"),
    Case("AttemptsResumed", 'scepstream_resumes_ordered_total{stage="verdict",give_up="false"}',
         "0x5 1x200", 8, {"stage": "verdict"}, 5),
    Case("NotAuthentic", 'scepstream_security_events_total{stage="verdict"}', "0x5 1x200", 8,
         {"stage": "verdict"}, 5),
    Case("Failures", 'scepstream_failures_total{role="audit"}', "0x5 1+1x100", 30,
         {"role": "audit"}, 12),
    Case("ConnectionsFull", 'scepstream_connections_closed_total{cause="room"}', "0x5 1x200", 8,
         {}, 5),
    Case("LogFilling", 'scepstream_stream_fill_ratio{stream="ENROLL_0"}', "0.5x10 0.7x100", 25,
         {"stream": "ENROLL_0"}, 15),
    Case("ServiceDown", 'up{job="scepstream",instance="gateway-0"}', "1x5 0x100", 9,
         {"job": "scepstream", "instance": "gateway-0"}, 6),
    Case("IntuneChallengeForged", 'scepstream_security_events_total{stage="intune_challenge"}',
         "0x5 1x200", 8, {}, 5),
    Case("MicrosoftUnavailable",
         'scepstream_microsoft_breaker_open{connection="contoso",service="Graph"}',
         "0x5 1x100", 15, CONTOSO | {"service": "Graph"}, 8),
    Case("MicrosoftRefusesUs", calls("permission"), "0x5 1x200", 8,
         CONTOSO | {"result": "permission"}, 5),
    Case("MicrosoftWithoutSuccess", calls("outage"), "0x10 1+1x100", 30, CONTOSO, 15),
    Case("CredentialExpires", CREDENTIAL, "31x10 29x200", 80, {"name": "contoso"}, 60, "29"),
    Case("CredentialExpiresSoon", CREDENTIAL, "8x10 6x200", 12, {"name": "contoso"}, 9, "6"),
    Case("ConfirmationsFail",
         'scepstream_confirmations_total{connection="contoso",result="failed"}',
         "0x5 1x200", 8, CONTOSO, 5),
    Case("RevocationPullFails", 'scepstream_revocation_pull_failing{connection="contoso"}',
         "0x5 1x200", 40, CONTOSO, 25),
    Case("RevocationsOpen", 'scepstream_revocation_requests_open{connection="contoso"}',
         "0x5 2x200", 40, CONTOSO, 25, "2"),
)  # fmt: skip


def rules() -> dict[str, dict[str, Any]]:
    document = yaml.safe_load(RULES.read_text())
    return {rule["alert"]: rule for group in document["groups"] for rule in group["rules"]}


def promtool(*arguments: str) -> str:
    """What it says; it fails the test where it finds anything wrong."""
    program = need("promtool", "prometheus")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def told(text: str, case: Case) -> str:
    """An annotation as it comes out."""
    text = re.sub(r"{{ \$labels\.(\w+) }}", lambda found: case.labels[found[1]], text)
    return re.sub(r"{{ \$value( \| \w+)? }}", case.value, text)


def asked_at(alert: str, minutes: int, *fired: dict[str, Any]) -> dict[str, Any]:
    """What is to have fired by then."""
    return {"eval_time": f"{minutes}m", "alertname": alert, "exp_alerts": list(fired)}


def document(series: list[dict[str, str]], asked: list[dict[str, Any]]) -> dict[str, Any]:
    """A test as promtool reads it."""
    told = {"interval": "1m", "input_series": series, "alert_rule_test": asked}
    return {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [told]}


def test_prometheus_takes_every_rule() -> None:
    assert f"{len(rules())} rules found" in promtool("check", "rules", str(RULES))


def test_every_alert_has_a_case() -> None:
    assert sorted(case.alert for case in CASES) == sorted(rules())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_when_it_is_time_and_not_before(tmp_path: Path, case: Case) -> None:
    rule = rules()[case.alert]
    fired = {
        "exp_labels": case.labels | rule["labels"],
        "exp_annotations": {k: told(v, case) for k, v in rule["annotations"].items()},
    }
    asked = [asked_at(case.alert, case.quiet), asked_at(case.alert, case.fires, fired)]
    series = [{"series": case.series, "values": case.values}]
    path = tmp_path / "case.yml"
    path.write_text(yaml.safe_dump(document(series, asked)))

    assert "SUCCESS" in promtool("test", "rules", str(path))


def test_a_service_that_works_on_others_does_not_stand_still(tmp_path: Path) -> None:
    """One message that is given back again and again is no reason to wake anybody."""
    series = [
        {"series": 'scepstream_oldest_waiting_seconds{role="issuer"}', "values": "61x100"},
        {"series": 'scepstream_handling_seconds_count{role="issuer"}', "values": "0+1x100"},
    ]
    path = tmp_path / "case.yml"
    path.write_text(yaml.safe_dump(document(series, [asked_at("ServiceStalled", 50)])))

    assert "SUCCESS" in promtool("test", "rules", str(path))
