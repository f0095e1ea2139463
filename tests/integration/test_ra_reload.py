"""RA keys of every shape, exchanged while the gateways serve."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from cli.up.authority import Authority, make_ra, pem
from cli.up.layout import Layout, write_private
from shared.config.keys import read_ca_key_file, read_certificates
from shared.scep.certrep import PkiStatus
from shared.scep.errors import FailInfo
from tests.integration.test_api import Api
from tests.support import messages as m
from tests.support.prepared import configure, tell_to_reload
from tests.support.requests import (
    Device,
    Endpoint,
    ask,
    certificate,
    der,
    enroll,
    logged,
    recipient_info,
    sealed,
)
from tests.support.system import System, running, wait_until

FIRST = ["ra/signing.pem", "ra/encryption.pem"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One gateway with few profiles: what it reloads is read soon."""
    with running(tmp_path_factory.mktemp("reloaded") / "data") as found:
        yield found


@pytest.fixture(scope="module")
def ca(alone: System) -> Authority:
    layout = Layout(alone.data)
    key = read_ca_key_file(layout.root / "ca" / "ca.key")
    return Authority(read_certificates(layout.ca_cert)[0], key)


@pytest.fixture(scope="module")
def identity() -> m.Identity:
    """One key for many transactions."""
    return Device.new().identity


@pytest.fixture
def device(identity: m.Identity) -> Device:
    return Device(identity)


def write_pair(system: System, name: str, data: bytes) -> str:
    write_private(system.data / "ra" / f"{name}.pem", data)
    return f"ra/{name}.pem"


def use(system: System, *pairs: str, event: str = "reloaded") -> None:
    """Give the profile these pairs, and wait for the gateway's word on them."""
    configure(system.config, "profiles.legacy", ra_cert_path=list(pairs), ra_key_path=list(pairs))
    hang_up(system, event)


def hang_up(system: System, event: str = "reloaded") -> None:
    before = len(logged(system, event))
    tell_to_reload(system, "gateway")
    wait_until(lambda: len(logged(system, event)) > before, 20, event)


@pytest.fixture(scope="module")
def original(alone: System) -> str:
    """The configuration of the start."""
    return alone.config.read_text()


@pytest.fixture(autouse=True)
def _as_before(alone: System, original: str) -> None:
    """Whatever the test before left."""
    if alone.config.read_text() != original:
        write_private(alone.config, original.encode())
        hang_up(alone)


def combined(ca: Authority, *, usage: bool = True) -> bytes:
    """One pair that signs and decrypts: by both usages, or by saying none."""
    key = rsa.generate_private_key(65537, 2048)
    start = datetime.fromtimestamp(time.time(), UTC) - timedelta(minutes=1)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "RA")])
    builder = x509.CertificateBuilder(
        ca.certificate.subject,
        name,
        key.public_key(),
        x509.random_serial_number(),
        start,
        start + timedelta(days=30),
    )
    if usage:
        both = dict.fromkeys(("digital_signature", "key_encipherment"), True)
        others = dict.fromkeys(
            (
                "content_commitment",
                "data_encipherment",
                "key_agreement",
                "key_cert_sign",
                "crl_sign",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        builder = builder.add_extension(x509.KeyUsage(**both, **others), critical=True)
    made = builder.sign(ca.key, hashes.SHA256())
    return made.public_bytes(Encoding.PEM) + pem(key)


def key_id(certificate: x509.Certificate) -> bytes:
    found = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return found.value.digest


# Pairs


@pytest.mark.parametrize("usage", [True, False])
def test_one_pair_signs_and_decrypts(
    alone: System, ca: Authority, device: Device, *, usage: bool
) -> None:
    use(alone, write_pair(alone, "combined", combined(ca, usage=usage)))
    shown = Endpoint.of(alone, "legacy")
    response = shown.get("GetCACert")
    assert response.headers["content-type"] == "application/x-x509-ca-ra-cert"
    assert len(shown.certificates) == 2
    ra, issuing = shown.certificates
    both = Endpoint(shown.url, shown.challenge, (ra, ra, issuing), shown.metrics_url)
    enroll(both, device)


def test_the_newest_pair_is_shown_and_the_older_ones_still_decrypt(
    alone: System, ca: Authority, device: Device
) -> None:
    before = Endpoint.of(alone, "legacy")
    now = time.time()
    later = [
        write_pair(alone, f"later-{u}", make_ra(ca, u, now)) for u in ("signing", "encryption")
    ]
    both = write_pair(alone, "combined", combined(ca))
    use(alone, *FIRST, *later, both)
    shown = Endpoint.of(alone, "legacy")
    assert len(shown.certificates) == 2
    ra, issuing = shown.certificates
    for signing, encrypting in ((ra, ra), before.certificates[:2]):
        cached = Endpoint(shown.url, shown.challenge, (signing, encrypting, issuing))
        enroll(cached, Device(device.identity))


def test_a_pair_whose_time_has_not_come_is_not_shown_but_decrypts(
    alone: System, ca: Authority, device: Device
) -> None:
    before = Endpoint.of(alone, "legacy")
    future = make_ra(ca, "encryption", time.time() + 7200)
    use(alone, *FIRST, write_pair(alone, "future", future))
    shown = Endpoint.of(alone, "legacy")
    assert shown.certificates == before.certificates
    early = x509.load_pem_x509_certificate(future).public_bytes(Encoding.DER)
    enroll(
        Endpoint(shown.url, shown.challenge, (shown.signing, early, der(ca.certificate))), device
    )


# Recipients


def recipients(endpoint: Endpoint) -> dict[str, bytes]:
    """The RecipientInfos that name, or fail to name, the RA."""
    info = recipient_info(endpoint)
    ra = endpoint.encryption
    named = m.tlv(m.SEQ, ra.issuer.public_bytes(), m.integer(ra.serial_number))
    assert info.count(named) == 1
    rest = info[info.index(named) + len(named) :]
    by_key_id = m.tlv(m.SEQ, m.integer(2), m.tlv(0x80, key_id(ra)), rest)
    unknown_key_id = m.tlv(m.SEQ, m.integer(2), m.tlv(0x80, bytes(20)), rest)
    other = m.tlv(m.SEQ, ra.issuer.public_bytes(), m.integer(4711))
    ca = endpoint.ca
    the_ca = m.tlv(m.SEQ, ca.issuer.public_bytes(), m.integer(ca.serial_number))
    return {
        "issuer and serial": info,
        "key identifier": by_key_id,
        "an unknown key identifier": unknown_key_id,
        "an unknown serial": m.tlv(m.SEQ, m.integer(0), other, rest),
        "the CA's serial": m.tlv(m.SEQ, m.integer(0), the_ca, rest),
    }


CASES = (
    "issuer and serial",
    "key identifier",
    "an unknown key identifier",
    "an unknown serial",
    "the CA's serial",
)


@pytest.mark.parametrize("case", CASES)
def test_a_recipient_is_found_by_any_name_and_tried_where_it_is_unknown(
    alone: System, ca: Authority, device: Device, case: str
) -> None:
    use(alone, *FIRST, write_pair(alone, "older", make_ra(ca, "encryption", time.time() - 9999)))
    endpoint = Endpoint.of(alone, "legacy")
    content = sealed(endpoint, device.csr(endpoint.challenge), recipient=recipients(endpoint)[case])
    certificate(endpoint, device, ask(endpoint, device.request(content)))


def test_the_ra_may_be_one_of_several_recipients(alone: System, device: Device) -> None:
    endpoint = Endpoint.of(alone, "legacy")
    stranger = m.recipient(Device.new("stranger").identity)
    content = m.enveloped(device.csr(endpoint.challenge), stranger, recipient_info(endpoint))
    certificate(endpoint, device, ask(endpoint, device.request(content)))


def test_what_no_key_opens_is_a_bad_message_check(alone: System, device: Device) -> None:
    endpoint = Endpoint.of(alone, "legacy")
    content = sealed(endpoint, device.csr(""), recipient=m.recipient(device.identity))
    reply = ask(endpoint, device.request(content))
    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_MESSAGE_CHECK)


# What is refused at a reload


def _weak(ca: Authority) -> bytes:
    pair = Device.new("weak", 1024).identity
    made = m.certificate("weak", pair.key.public_key(), None, 7).sign(ca.key, hashes.SHA256())
    return made.public_bytes(Encoding.PEM) + pair.key_pem


def _elliptic(ca: Authority) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    made = m.certificate("ec", key.public_key(), None, 8).sign(ca.key, hashes.SHA256())
    return made.public_bytes(Encoding.PEM) + pem(key)


BAD = {
    "rubbish": lambda _: b"rubbish",
    "nothing": lambda _: b"",
    "a certificate without its key": lambda ca: ca.certificate.public_bytes(Encoding.PEM),
    "another key": lambda ca: (
        ca.certificate.public_bytes(Encoding.PEM) + Device.new().identity.key_pem
    ),
    "a weak key": _weak,
    "an EC key": _elliptic,
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_pair_keeps_the_old_ones_and_says_so_in_the_log(
    alone: System, ca: Authority, device: Device, case: str
) -> None:
    before = Endpoint.of(alone, "legacy")
    bad = write_pair(alone, "bad", BAD[case](ca))
    use(alone, *FIRST, bad, event="reload_refused")
    line = logged(alone, "reload_refused")[-1]
    assert "bad.pem" in line["detail"]
    assert "PRIVATE KEY" not in str(line)
    assert Endpoint.of(alone, "legacy").certificates == before.certificates
    enroll(before, device)


def test_a_key_file_that_others_may_read_is_refused(alone: System, device: Device) -> None:
    before = Endpoint.of(alone, "legacy")
    path = alone.data / "ra" / "signing.pem"
    path.chmod(0o644)
    try:
        hang_up(alone, "reload_refused")
    finally:
        path.chmod(0o600)
    assert "0644" in logged(alone, "reload_refused")[-1]["detail"]
    enroll(before, device)


@pytest.mark.parametrize("text", ["this is no TOML [", "version = 2\n"])
def test_a_broken_configuration_changes_nothing(alone: System, device: Device, text: str) -> None:
    before, good = Endpoint.of(alone, "legacy"), alone.config.read_text()
    write_private(alone.config, f"{text}\n{good}".encode())
    try:
        hang_up(alone, "reload_refused")
    finally:
        write_private(alone.config, good.encode())
    enroll(before, device)


def test_a_missing_file_is_named(alone: System, device: Device) -> None:
    use(alone, *FIRST, "ra/none.pem", event="reload_refused")
    assert str(Path("ra") / "none.pem") in logged(alone, "reload_refused")[-1]["detail"]
    enroll(Endpoint.of(alone, "legacy"), device)


# By the API


def test_an_operator_has_every_gateway_read_its_ra_anew(alone: System, ca: Authority) -> None:
    api = Api(alone.run["admin_url"], alone.run["admin_token"])
    pair = write_pair(alone, "ordered", combined(ca))
    configure(alone.config, "profiles.legacy", ra_cert_path=[pair], ra_key_path=[pair])
    done = api.post("/api/v1/admin/scep/reload-ra", path_id="legacy")

    assert done.status_code == 200, done.text
    expected = [{"name": "gateway-0", "reloaded": True, "error": None}]
    assert done.json()["replicas"] == expected
    shown = x509.load_der_x509_certificate(Endpoint.of(alone, "legacy").signing)
    assert shown.subject.rfc4514_string() == "CN=RA"


def test_a_gateway_that_cannot_read_its_ra_keeps_the_old_one_and_says_why(
    alone: System,
) -> None:
    api = Api(alone.run["admin_url"], alone.run["admin_token"])
    before = Endpoint.of(alone, "legacy").certificates
    missing = ["ra/missing.pem"]
    configure(alone.config, "profiles.legacy", ra_cert_path=missing, ra_key_path=missing)
    done = api.post("/api/v1/admin/scep/reload-ra", path_id="legacy")

    assert done.status_code == 502
    (replica,) = done.json()["replicas"]
    assert (replica["name"], replica["reloaded"]) == ("gateway-0", False)
    assert "missing.pem" in replica["error"]
    assert Endpoint.of(alone, "legacy").certificates == before


def test_only_a_profile_that_there_is_can_be_reloaded(alone: System) -> None:
    api = Api(alone.run["admin_url"], alone.run["admin_token"])

    assert api.post("/api/v1/admin/scep/reload-ra", path_id="nobody").status_code == 404
