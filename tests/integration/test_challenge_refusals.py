"""Every refusal of a challenge: what the device hears, what the record and the metrics say.

And that no challenge, good or bad, is to be found anywhere afterwards.
"""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from shared.scep.certrep import CertRep, PkiStatus
from shared.scep.errors import FailInfo
from tests.integration.test_secrets import Secret, files, leaks
from tests.support import messages as m
from tests.support.prepared import add_profiles, command, configure, prepared
from tests.support.requests import (
    Device,
    Endpoint,
    ask,
    certificate,
    counted,
    recorded,
    send,
    shown,
)
from tests.support.signed_challenges import mint, p256
from tests.support.system import System, running, wait_until
from tests.support.tokens import claims, connector_key, token

AUDIENCE: Final = "https://scep.example"
MIXED: Final = "AStaticPasswordOfTheMixedProfile"
# What was said to a system in the course of these tests.
SAID: Final[set[str]] = set()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    layout = prepared(tmp_path_factory.mktemp("refusals") / "data")
    configure(layout.config, "profiles.corp", intune_audience=AUDIENCE)
    signed = {"intune_enabled": True, "intune_connector_cert_path": "connector/connector.pem"}
    plugin = "tests.integration.device_states:answer"
    add_profiles(
        layout,
        {
            "mixed": signed | {"challenge_password": MIXED},
            "asking": signed | {"challenge_password": [], "device_state": plugin},
        },
    )
    with running(layout.root, "--validators", "2") as found:
        yield found


def good(system: System, device: Device, **changes: Any) -> str:
    return token(system, device, aud=AUDIENCE, **changes)


def aged(system: System, device: Device, iat: int, exp: int) -> str:
    now = int(time.time())
    return good(system, device, iat=now + iat, exp=now + exp)


def used(system: System, device: Device) -> str:
    """A token that another key has used."""
    found, endpoint, other = good(system, device), Endpoint.of(system, "corp"), Device.new()
    enrolled(system, endpoint, other, found, name=device.name)
    return found


def often(system: System, device: Device) -> str:
    """The fourth token of a device today."""
    endpoint, subject = Endpoint.of(system, "corp"), f"often-{device.name}"
    for _ in range(3):
        other = Device(device.identity)
        enrolled(system, endpoint, other, good(system, other, sub=subject))
    return good(system, device, sub=subject)


def one_time(system: System, *options: str) -> str:
    config = ("--config", str(system.config))
    done = command("challenge", "new", "--profile", "corp", *config, *options)
    assert done.returncode == 0, done.stderr
    SAID.add(done.stdout.strip())
    return done.stdout.strip()


def cancelled(system: System, device: Device) -> str:
    found = one_time(system, "--cn", device.name)
    options = ("--profile", "corp", "--config", str(system.config))
    lines = command("challenge", "list", *options, "--json").stdout.splitlines()
    (line,) = (each for each in map(json.loads, lines) if each["cn"] == device.name)
    assert command("challenge", "cancel", line["id"], *options).returncode == 0
    return found


def used_one_time(system: System, _: Device) -> str:
    found, endpoint = one_time(system), Endpoint.of(system, "corp")
    enrolled(system, endpoint, Device.new(), found)
    return found


def request(endpoint: Endpoint, device: Device, challenge: str, name: str = "") -> CertRep:
    SAID.add(challenge)
    subject = m.name((m.COMMON_NAME, m.UTF8, (name or device.name).encode()))
    return ask(endpoint, device.enrollment(endpoint, device.csr(challenge, subject=subject)))


def enrolled(
    system: System, endpoint: Endpoint, device: Device, challenge: str, name: str = ""
) -> None:
    """One that is let in, and counted as such."""
    before = total(system, "success")
    certificate(endpoint, device, request(endpoint, device, challenge, name))
    wait_until(lambda: total(system, "success") == before + 1, 10, "a counted success")


def total(system: System, result: str, **labels: str) -> float:
    """How often a result was counted, by all replicas together."""
    urls = {name: url for name, url in system.run["metrics_urls"].items() if "gateway" not in name}
    name = "scepstream_challenges_total"
    return sum(counted(url, name, result=result, **labels) for url in urls.values())


Make = Callable[[System, Device], str]
BY: Final = {"signature": "signed", "challenge": "one_time"}
REFUSALS: Final[list[tuple[str, FailInfo, str, Make]]] = [
    ("malformed", FailInfo.BAD_REQUEST, "signature", lambda s, d: good(s, d) + "."),
    ("malformed", FailInfo.BAD_REQUEST, "version", lambda s, d: good(s, d, nonce=None)),
    ("signature_invalid", FailInfo.BAD_MESSAGE_CHECK, "signature",
     lambda _, d: mint(claims(d, aud=AUDIENCE), p256())),
    ("signature_invalid", FailInfo.BAD_MESSAGE_CHECK, "signature",
     lambda s, d: mint(claims(d), connector_key(s), header={"alg": "none"})),
    ("unknown_version", FailInfo.BAD_REQUEST, "version", lambda s, d: good(s, d, version="v9")),
    ("not_yet_valid", FailInfo.BAD_TIME, "time", lambda s, d: aged(s, d, 600, 1200)),
    ("expired", FailInfo.BAD_TIME, "time", lambda s, d: aged(s, d, -600, -120)),
    ("expired", FailInfo.BAD_TIME, "time", lambda s, d: aged(s, d, -3700, 600)),
    ("wrong_audience", FailInfo.BAD_MESSAGE_CHECK, "audience", lambda s, d: token(s, d, aud="x")),
    ("wrong_audience", FailInfo.BAD_MESSAGE_CHECK, "audience", token),
    ("claim_mismatch", FailInfo.BAD_REQUEST, "binding",
     lambda s, d: good(s, d, device_name="another")),
    ("claim_mismatch", FailInfo.BAD_REQUEST, "binding",
     lambda s, d: good(s, d, san_dns=["a.example"])),
    ("replay", FailInfo.BAD_MESSAGE_CHECK, "replay", used),
    ("rate_limited", FailInfo.BAD_REQUEST, "device_rate", often),
    ("challenge_wrong", FailInfo.BAD_MESSAGE_CHECK, "challenge",
     lambda _s, _d: "OT-00000-00000-00000-00000-00000"),
    ("claim_mismatch", FailInfo.BAD_REQUEST, "challenge",
     lambda s, _: one_time(s, "--cn", "another")),
    ("challenge_wrong", FailInfo.BAD_MESSAGE_CHECK, "challenge", cancelled),
    ("replay", FailInfo.BAD_MESSAGE_CHECK, "replay", used_one_time),
]  # fmt: skip


@pytest.mark.parametrize(("label", "fail_info", "gate", "make"), REFUSALS)
def test_a_refusal_reaches_device_record_and_metrics(
    system: System, label: str, fail_info: FailInfo, gate: str, make: Make
) -> None:
    device = Device.new()
    challenge = make(system, device)
    kind = "one_time" if challenge.startswith("OT-") else "signed"
    before = total(system, label, profile="corp", kind=kind)
    reply = request(Endpoint.of(system, "corp"), device, challenge)

    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, fail_info)
    assert reply.fail_info_text
    line = recorded(system, device, "rejected")
    assert (line["result"], line["device"]) == (label, f"CN={device.name}")
    (event,) = (e for e in shown(system, line["enrollment"]) if e["type"] == "EnrollmentRejected")
    assert (event["reason"], event["detail"]) == (label, reply.fail_info_text)
    assert event["facts"]["challenge"] == kind
    assert [each["passed"] for each in event["gates"]][-1] is False
    assert event["gates"][-1]["gate"] == gate
    assert total(system, label, profile="corp", kind=kind) == before + 1


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("ill", "the device's state does not allow enrollment"),
        ("broken", "the device-state check failed"),
    ],
)
def test_gate_nine_asks_a_plug_in_and_stays_shut_without_a_yes(
    system: System, subject: str, text: str
) -> None:
    endpoint, healthy, ill = Endpoint.of(system, "asking"), Device.new(), Device.new()
    enrolled(system, endpoint, healthy, token(system, healthy, sub=f"healthy-{healthy.name}"))
    reply = request(endpoint, ill, token(system, ill, sub=f"{subject}-{ill.name}"))

    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_REQUEST)
    assert reply.fail_info_text == text
    assert recorded(system, ill, "rejected")["result"] == "device_state_failed"


def test_in_mixed_mode_the_form_of_the_challenge_decides(system: System) -> None:
    endpoint = Endpoint.of(system, "mixed")
    enrolled(system, endpoint, Device.new(), MIXED)
    enrolled(system, endpoint, device := Device.new(), token(system, device))
    wrong = {
        "x" * 200 + ".": "challenge_wrong",  # one dot
        "x." * 2 + "x" * 196: "challenge_wrong",  # 200 bytes
        "x." * 2 + "x" * 197: "malformed",  # 201 bytes and two dots: a token, and no good one
    }
    for challenge, label in wrong.items():
        refused = Device.new()
        assert request(endpoint, refused, challenge).status is PkiStatus.FAILURE
        assert recorded(system, refused, "rejected")["result"] == label


def test_a_profile_without_a_password_has_none_that_works(system: System) -> None:
    endpoint = Endpoint.of(system, "corp")
    for challenge in ("", " ", "None", system.challenge("demo")):
        device = Device.new()
        reply = ask(endpoint, device.enrollment(endpoint, device.csr(challenge)))
        assert reply.status is PkiStatus.FAILURE


def test_the_record_says_who_vouched_and_what_was_compared(system: System) -> None:
    device, endpoint = Device.new(), Endpoint.of(system, "corp")
    enrolled(system, endpoint, device, good(system, device, sub="guid-7"))
    events = shown(system, recorded(system, device, "issued")["enrollment"])
    (verdict,) = (e for e in events if e["type"] == "EnrollmentApproved")
    gates = {gate["gate"]: gate["detail"] for gate in verdict["gates"]}

    names = ["signature", "version", "time", "audience", "binding", "replay", "device_rate"]
    assert list(gates)[-len(names) :] == names
    assert gates["signature"] == "RS256 by CN=scepstream connector"
    assert gates["audience"] == f"pinned {AUDIENCE}, token says {AUDIENCE}"
    assert (verdict["claim"]["subject"], verdict["claim"]["issuer"]) == (
        "guid-7",
        "scepstream connector",
    )


def test_no_challenge_is_found_anywhere_afterwards(system: System) -> None:
    """Neither whole nor by the part that makes it good: the signature of a token."""
    device, endpoint = Device.new(), Endpoint.of(system, "corp")
    enrolled(system, endpoint, device, good(system, device))
    request(endpoint, other := Device.new(), good(system, device))
    recorded(system, other, "rejected")
    parts = {part for said in SAID for part in (said, said.rpartition(".")[2])}
    hidden = [Secret(part) for part in sorted(parts) if len(part) > 20 and part != MIXED]
    assert hidden
    places = dict(files(system))
    places |= {url: send("GET", url).content for url in system.run["metrics_urls"].values()}
    config = ("--config", str(system.config))
    every = command("audit", "list", "--json", *config).stdout.splitlines()
    for line in every:
        name = json.loads(line)["enrollment"]
        places[name] = command("audit", "show", name, "--json", *config).stdout.encode()
    found = {
        place: sorted(how)
        for place, data in places.items()
        for secret in hidden
        if (how := leaks(data, secret, 1))
    }
    assert found == {}
    assert len(places) > len(every) > 2
