"""What Intune asks to revoke is revoked, and reported only once the CRL says so."""

import pytest
from cryptography import x509

from cli.fake_microsoft.model import Result
from shared.scep.certrep import PkiStatus
from tests.integration.intune_devices import Intune, given_out, managed, revoked
from tests.support.prepared import tell_to_reload
from tests.support.requests import Device, Endpoint, enroll
from tests.support.system import wait_until

NOT_FOUND = (False, "CertificateNotFoundError")
DONE = (True, "None")


def pull(intune: Intune) -> None:
    """Have validators pull now: they do after each reload."""
    tell_to_reload(intune.system, "validator")


def results(intune: Intune, contexts: list[str], tenant: str = "contoso") -> dict[str, Result]:
    """The uploaded results of these requests, once there is one of each."""

    def found() -> dict[str, Result] | None:
        every = {each.context: each for each in intune.fake.uploaded(tenant)}
        return every if every.keys() >= set(contexts) else None

    return wait_until(found, 25, "the results")


@pytest.fixture(autouse=True)
def usual(intune: Intune) -> None:
    intune.fake.switch(upload_answer=True, pascal_case=False)


def test_requests_are_carried_out_and_reported_after_the_crl_says_so(intune: Intune) -> None:
    ours = [managed(intune).certificate(intune) for _ in range(3)]
    other = managed(intune, "fabrikam").certificate(intune, "fabrikam")
    unmanaged = enroll(Endpoint.of(intune.system, "demo"), Device.new())
    intune.fake.switch(pascal_case=True)
    expected = {
        colons(ours[0]): DONE,
        f"0x{ours[1].serial_number:X}": DONE,
        f"00{ours[2].serial_number:x}": DONE,
        f"{ours[0].serial_number:X}": DONE,  # asked for twice
        f"{other.serial_number:X}": NOT_FOUND,
        f"{unmanaged.serial_number:X}": NOT_FOUND,
        "DEADBEEF": NOT_FOUND,
        "no serial": NOT_FOUND,
    }
    asked = {intune.fake.queue_revocation("contoso", each).context: each for each in expected}
    pull(intune)

    found = results(intune, list(asked))
    assert revoked(intune, [each.serial_number for each in ours])
    assert {
        asked[c]: (r.succeeded, r.error_code) for c, r in found.items() if c in asked
    } == expected
    assert intune.fake.queued("contoso") == []
    for each in (other, unmanaged):
        assert not revoked(intune, [each.serial_number])
    assert given_out(intune, other.serial_number, "fabrikam").status is PkiStatus.SUCCESS


def test_a_request_whose_report_intune_does_not_confirm_is_reported_again(
    intune: Intune,
) -> None:
    found = managed(intune).certificate(intune)
    intune.fake.switch(upload_answer=False)
    asked = intune.fake.queue_revocation("contoso", f"{found.serial_number:X}")
    before = len(intune.fake.journal("upload"))
    pull(intune)
    wait_until(lambda: len(intune.fake.journal("upload")) > before, 25, "an upload")
    assert revoked(intune, [found.serial_number])
    assert intune.fake.queued("contoso") == [asked]

    intune.fake.switch(upload_answer="true")
    pull(intune)
    assert results(intune, [asked.context])[asked.context].succeeded
    intune.fake.queue_revocation("contoso", f"{found.serial_number:X}", context=asked.context)
    intune.fake.switch(upload_answer=True)
    before = len(intune.fake.uploaded("contoso"))
    pull(intune)
    wait_until(lambda: len(intune.fake.uploaded("contoso")) > before, 25, "another report")
    assert intune.fake.uploaded("contoso")[-1].succeeded


def colons(found: x509.Certificate) -> str:
    """A serial as Windows shows it."""
    text = f"{found.serial_number:x}"
    text = text.zfill(len(text) + len(text) % 2)
    return ":".join(text[at : at + 2] for at in range(0, len(text), 2))
