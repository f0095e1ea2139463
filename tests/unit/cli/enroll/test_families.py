"""What `enroll --as` builds for each family, decoded with asn1crypto."""

import re
from dataclasses import dataclass
from typing import Any

import pytest
from asn1crypto import algos, cms, core, csr
from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from cli.enroll import enrollment
from cli.enroll.authority import Authority
from cli.enroll.client import Exchange, Style
from cli.enroll.command import _family
from cli.enroll.enrollment import EnrollmentRequest, ask
from cli.enroll.families import ANDROID, APPLE, DEFAULT, FAMILIES, WINDOWS, Family
from cli.enroll.identity import (
    Identity,
    RequestError,
    make_csr,
    make_identity,
    self_signed,
    signed_by,
)
from shared.scep.certificate import read_certificate
from shared.scep.certrep import PkiStatus
from shared.scep.envelope import read_envelope
from shared.scep.pkimessage import DecryptionKey, MessageType, unwrap_content_key
from shared.x509.csr import read_csr, verify_self_signature
from tests.support import pki
from tests.support.world import NOW

MODERN = frozenset({"AES", "POSTPKIOPERATION", "SHA-256"})
OLD = frozenset({"POSTPKIOPERATION"})
TRANSACTION, NONCE = "2.16.840.1.113733.1.9.7", "2.16.840.1.113733.1.9.5"
MICROSOFT = "1.3.6.1.4.1.311"
CHALLENGE = "1.2.840.113549.1.9.7"
BLOB = "MIIHzAYJ+/8=" * 20


class Values(core.SetOf):
    """The values of an attribute that asn1crypto does not know."""

    _child_spec = core.Any


class Pair(core.Sequence):
    """[MS-WCCE] 2.2.2.7.10."""

    _fields = [("name", core.BMPString), ("value", core.BMPString)]  # noqa: RUF012 - asn1crypto writes into it


class ClientInfo(core.Sequence):
    """[MS-WCCE] 2.2.2.7.4."""

    _fields = [  # noqa: RUF012 - asn1crypto writes into it
        ("client", core.Integer),
        ("machine", core.UTF8String),
        ("user", core.UTF8String),
        ("process", core.UTF8String),
    ]


class Provider(core.Sequence):
    """[MS-WCCE] 2.2.2.7.2."""

    _fields = [("spec", core.Integer), ("name", core.BMPString), ("signature", core.BitString)]  # noqa: RUF012 - asn1crypto writes into it


class SentError(Exception):
    """Carries what would have been sent."""


class Wire:
    """A server that answers nothing and keeps what it is sent."""

    def pki_operation(self, message: bytes, **_: object) -> bytes:
        raise SentError(message)


@dataclass(frozen=True)
class Request:
    """A device's message, taken apart."""

    message: cms.SignedData
    envelope: cms.EnvelopedData
    csr: csr.CertificationRequest
    der: bytes

    @property
    def attributes(self) -> dict[str, Any]:
        signed = self.message["signer_infos"][0]["signed_attrs"]
        return {each["type"].native: each["values"][0] for each in signed}

    @property
    def signer(self) -> asn1.Certificate:
        return self.message["certificates"][0].chosen

    @property
    def csr_attributes(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for each in self.csr["certification_request_info"]["attributes"]:
            values = each["values"]
            known = values if isinstance(values, core.SetOf) else Values.load(values.dump())
            found.setdefault(each["type"].dotted, []).extend(known)
        return found

    @property
    def extensions(self) -> dict[str, asn1.Extension]:
        (wanted,) = self.csr_attributes["1.2.840.113549.1.9.14"]
        return {each["extn_id"].native: each for each in wanted}

    @property
    def key_transport(self) -> algos.AlgorithmIdentifier:
        return self.envelope["recipient_infos"][0].chosen["key_encryption_algorithm"]


@pytest.fixture(scope="module")
def signer_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def build(rsa_key: rsa.RSAPrivateKey, signer_key: rsa.RSAPrivateKey) -> Any:
    """Builds the request of a family for a server with some capabilities."""
    ca = pki.make_root(rsa_key)
    ra = read_certificate(pki.der(ca))

    def identity(family: Family) -> Identity:
        form = family.signer
        made = make_identity(rsa_key, "device-1", NOW, key_id=form.key_id)
        if form.name is None:
            return made
        return signed_by(made, self_signed(signer_key, form.name, NOW, key_id=form.key_id))

    def build(
        family: Family, caps: frozenset[str] = MODERN, challenge: str | None = BLOB
    ) -> Request:
        made = identity(family)
        authority = Authority(ca, ra, (), (ca,))
        exchange = Exchange(Wire(), authority, made, caps, Style(family=family))  # type: ignore[arg-type]
        wanted = make_csr(made, challenge, ["dns:a.example"], family.csr)
        with pytest.raises(SentError) as sent:
            exchange.send(MessageType.PKCS_REQ, wanted)
        message = cms.ContentInfo.load(sent.value.args[0])["content"]
        content = message["encap_content_info"]["content"].native
        envelope = read_envelope(content)
        key = unwrap_content_key(envelope, [DecryptionKey(rsa_key, ra)], bytes(32))
        der = envelope.decrypt(key)
        found = csr.CertificationRequest.load(der)
        return Request(message, cms.ContentInfo.load(content)["content"], found, der)

    return build


@pytest.mark.parametrize("family", [DEFAULT, *FAMILIES.values()], ids=["default", *FAMILIES])
def test_the_csr_of_every_family_proves_possession_and_is_read_by_the_server(
    build: Any, family: Family
) -> None:
    found = read_csr(build(family).der)

    verify_self_signature(found)
    assert found.challenge == BLOB
    assert [name.value for name in found.sans] == ["a.example"]


@pytest.mark.parametrize(
    ("family", "pattern", "nonce"),
    [
        (DEFAULT, r"[0-9a-f]{64}", 16),
        (WINDOWS, r"[0-9a-f]{40}", 16),
        (APPLE, r"[0-9A-F]{40}", 8),
        (ANDROID, r"[0-9a-f]{40}", 16),
    ],
)
def test_transaction_and_nonce_have_the_familys_form(
    build: Any, family: Family, pattern: str, nonce: int
) -> None:
    attributes = build(family).attributes

    transaction = core.PrintableString.load(attributes[TRANSACTION].dump())
    assert re.fullmatch(pattern, transaction.native)
    assert len(core.OctetString.load(attributes[NONCE].dump()).native) == nonce


@pytest.mark.parametrize(
    ("family", "caps", "expected"),
    [
        (DEFAULT, MODERN, ("aes128_cbc", "sha256", "rsaes_pkcs1v15")),
        (WINDOWS, MODERN, ("aes256_cbc", "sha256", "rsaes_oaep")),
        (WINDOWS, OLD, ("tripledes_3key", "sha1", "rsaes_pkcs1v15")),
        (APPLE, MODERN, ("aes128_cbc", "sha256", "rsaes_pkcs1v15")),
        (APPLE, OLD, ("tripledes_3key", "sha1", "rsaes_pkcs1v15")),
        (ANDROID, MODERN, ("aes256_cbc", "sha256", "rsaes_pkcs1v15")),
    ],
)
def test_algorithms_are_the_familys_choice_of_what_the_server_offers(
    build: Any, family: Family, caps: frozenset[str], expected: tuple[str, str, str]
) -> None:
    found = build(family, caps)
    cipher = found.envelope["encrypted_content_info"]["content_encryption_algorithm"]
    digest = found.message["signer_infos"][0]["digest_algorithm"]
    transport = found.key_transport["algorithm"].native
    named = (cipher["algorithm"].native, digest["algorithm"].native, transport)

    assert named == expected


def test_windows_signs_with_a_certificate_whose_key_identifier_is_critical(build: Any) -> None:
    found = build(WINDOWS)
    (extension,) = [
        each
        for each in found.signer["tbs_certificate"]["extensions"]
        if each["extn_id"].native == "authority_key_identifier"
    ]

    assert extension["critical"].native is True
    info = found.csr["certification_request_info"]
    assert found.signer.public_key.dump() == info["subject_pk_info"].dump()
    assert found.signer.subject == info["subject"]


def pairs(found: Request) -> dict[str, str]:
    """The pairs of name and value that a CSR holds."""
    values = found.csr_attributes[f"{MICROSOFT}.13.2.1"]
    made = [Pair.load(each.dump(), strict=True) for each in values]
    return {pair["name"].native: pair["value"].native for pair in made}


def test_a_windows_csr_carries_microsofts_attributes_and_a_bmpstring(build: Any) -> None:
    found = build(WINDOWS)
    attributes = found.csr_attributes

    (version,) = attributes[f"{MICROSOFT}.13.2.3"]
    assert core.IA5String.load(version.dump()).native.startswith("10.0.")
    (client,) = attributes[f"{MICROSOFT}.21.20"]
    assert ClientInfo.load(client.dump(), strict=True)["process"].native == "omadmclient.exe"
    (provider,) = attributes[f"{MICROSOFT}.13.2.2"]
    assert Provider.load(provider.dump(), strict=True)["name"].native.startswith("Microsoft")
    assert pairs(found) == {"ValidityPeriod": "Years", "ValidityPeriodUnits": "1"}
    assert read_csr(found.der).validity == 365 * 86400
    (password,) = attributes[CHALLENGE]
    assert password.chosen.tag == core.BMPString.tag
    usage = found.extensions["key_usage"]
    assert usage["critical"].native is True
    assert usage["extn_value"].native == {"digital_signature", "key_encipherment"}
    assert found.extensions["extended_key_usage"]["extn_value"].native == ["client_auth"]
    assert {"key_identifier", "1.3.6.1.4.1.311.21.10"} <= set(found.extensions)


def test_an_apple_csr_has_version_2_and_attributes_out_of_order(build: Any) -> None:
    found = build(APPLE)
    info = found.csr["certification_request_info"]
    attributes = [each.dump() for each in info["attributes"]]

    assert info["version"].contents == b"\x02"
    assert attributes != sorted(attributes)
    assert len(attributes) == 2
    (password,) = found.csr_attributes[CHALLENGE]
    assert password.chosen.tag == core.PrintableString.tag
    assert found.extensions["key_usage"]["extn_value"].native == {"digital_signature"}
    assert "extended_key_usage" not in found.extensions
    with pytest.raises(ValueError, match=r"[Vv]ersion|SetOrdering"):
        x509.load_der_x509_csr(found.der)


def test_an_apple_signer_is_separate_and_called_mdm_scep_signer(build: Any) -> None:
    found = build(APPLE)
    info = found.csr["certification_request_info"]

    names = list(found.signer.subject.native.items())
    assert names == [("common_name", "MDM SCEP SIGNER"), ("country_name", "US")]
    assert found.signer.public_key.dump() != info["subject_pk_info"].dump()
    assert found.signer.hash_algo == "sha256"


def test_an_android_csr_asks_for_usages_and_swaps_the_validity(build: Any) -> None:
    found = build(ANDROID)

    assert pairs(found) == {"ValidityPeriod": "1", "ValidityPeriodUnits": "Years"}
    assert read_csr(found.der).validity == 365 * 86400
    assert found.extensions["extended_key_usage"]["extn_value"].native == ["client_auth"]
    usage = found.extensions["key_usage"]["extn_value"].native
    assert usage == {"digital_signature", "key_encipherment"}


def test_a_challenge_that_no_printablestring_holds_is_a_utf8string(build: Any) -> None:
    (password,) = build(APPLE, challenge="pass_w\u00f6rd*").csr_attributes[CHALLENGE]

    assert password.chosen.tag == core.UTF8String.tag
    assert password.native == "pass_w\u00f6rd*"


@pytest.mark.parametrize("challenge", ["x" * 16 * 1024, "y" * 32 * 1024])
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_longest_challenge_goes_into_every_csr(
    build: Any, family: Family, challenge: str
) -> None:
    assert read_csr(build(family, challenge=challenge).der).challenge == challenge


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h/scep/a", "http://h/scep/a/pkiclient.exe"),
        ("http://h/scep/a/", "http://h/scep/a/pkiclient.exe"),
        ("http://h/scep/a/pkiclient.exe", "http://h/scep/a/pkiclient.exe"),
        ("http://h/scep/a?x=1", "http://h/scep/a/pkiclient.exe?x=1"),
    ],
)
def test_windows_appends_pkiclient_exe_to_the_url(url: str, expected: str) -> None:
    assert WINDOWS.server(url).url == expected
    assert APPLE.server(url).url == url


@pytest.mark.parametrize(("family", "seconds"), [(WINDOWS, [300, 300, 300]), (APPLE, [0, 10, 10])])
def test_a_family_polls_three_times_while_the_reply_is_pending(
    family: Family, seconds: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    clock = [0.0]

    def sleep(wait: float) -> None:
        slept.append(wait)
        clock[0] += wait

    monkeypatch.setattr(enrollment.time, "sleep", sleep)
    monkeypatch.setattr(enrollment.time, "monotonic", lambda: clock[0])
    exchange = Pending(Style(family=family))

    reply = ask(exchange, EnrollmentRequest(MessageType.PKCS_REQ, b"", 3600))  # type: ignore[arg-type]

    assert reply.status is PkiStatus.PENDING
    assert (slept, exchange.polls) == (seconds, 3)


def test_poll_for_ends_a_familys_polling_early(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(
        enrollment.time, "sleep", lambda wait: clock.__setitem__(0, clock[0] + wait)
    )
    monkeypatch.setattr(enrollment.time, "monotonic", lambda: clock[0])
    exchange = Pending(Style(family=WINDOWS))

    ask(exchange, EnrollmentRequest(MessageType.PKCS_REQ, b"", 400))  # type: ignore[arg-type]

    assert (exchange.polls, clock[0]) == (2, 400)


@dataclass
class Pending:
    """An exchange whose every reply is PENDING."""

    style: Style
    polls: int = 0
    decrypts: bool = True
    cipher: Any = WINDOWS.cipher.preferred
    digest: Any = WINDOWS.digest.preferred

    def send(self, *_: object) -> Any:
        return self

    def poll(self) -> Any:
        self.polls += 1
        return self

    status = PkiStatus.PENDING


@pytest.mark.parametrize(("name", "key"), [("apple", "rsa:3072"), ("windows", "ec:p256")])
def test_a_key_that_the_family_cannot_have_is_refused(name: str, key: str) -> None:
    with pytest.raises(RequestError, match=f"--key {key}: --as {name} has one of rsa:2048"):
        _family(name, key)


def test_an_unknown_family_is_refused_with_those_there_are() -> None:
    with pytest.raises(RequestError, match="choose one of windows, apple, android"):
        _family("cisco", "rsa:2048")
