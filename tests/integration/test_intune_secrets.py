"""No challenge, client secret or access token is anywhere in what a system writes or says."""

from collections.abc import Iterator

from shared.scep.errors import FailInfo
from tests.integration.intune_devices import (
    MINTED,
    Intune,
    Managed,
    in_state,
    managed,
    refusal,
    spellings,
)
from tests.support.requests import listed, recorded, send, shown


def test_challenges_and_credentials_are_found_nowhere(intune: Intune) -> None:
    every = [managed(intune) for _ in range(4)]
    every[0].certificate(intune)
    intune.fake.answer(every[1].device.transaction.decode(), "ChallengeExpired")
    assert refusal(every[1].enroll(intune)) is FailInfo.BAD_TIME
    intune.fake.answer(every[2].device.transaction.decode(), "Success", "Unknown")
    assert refusal(every[2].enroll(intune)) is FailInfo.BAD_REQUEST
    denied = in_state(intune, compliance_state="noncompliant")
    assert refusal(denied.enroll(intune, "plain")) is FailInfo.BAD_REQUEST
    intune.failure_notified(denied.device)
    intune.fake.fault("validate", "html")
    assert refusal(every[3].enroll(intune)) is FailInfo.BAD_REQUEST
    recorded(intune.system, every[0].device, "issued")
    recorded(intune.system, every[1].device, "rejected")
    recorded(intune.system, every[2].device, "failed")

    # Challenges begin alike, and end in padding: what is between them is their own.
    secrets = [challenge[-200:-100] for challenge in MINTED]
    secrets += [each.secret for each in intune.fake.tenants.values()]
    secrets += intune.fake.access_tokens
    assert len(secrets) > 8
    patterns = {spelling for secret in secrets for spelling in spellings(secret)}
    name = every[0].device.name.encode()
    places = dict(said(intune, every[:2]))
    assert [place for place, text in places.items() if name in text]  # the search finds things
    assert {place for place, text in places.items() for each in patterns if each in text} == set()


def said(intune: Intune, ones: list[Managed]) -> Iterator[tuple[str, bytes]]:
    """What the system has written to files, and answers: by place."""
    system = intune.system
    files = [*system.data.rglob("*"), system.data.parent / f"{system.data.name}.out"]
    for path in files:
        if path.is_file():
            yield str(path), path.read_bytes()
    for url in system.run["metrics_urls"].values():
        yield url, send("GET", url).content
    yield "list", repr(listed(system)).encode()
    for one in ones:
        yield one.device.name, repr(shown(system, one.device.transaction.decode())).encode()
