"""What is particular to Google CAS; the contract of all connectors is tested elsewhere."""

import ipaddress
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from services.issuer.connectors.connector import (
    AnswerLostError,
    CaUnavailableError,
    Issued,
    Order,
    Prepared,
    Refused,
    RevocationRefusedError,
)
from services.issuer.received import misissued
from shared.config.load import SettingsError
from shared.log.events.commands import RevocationReason
from shared.log.events.enrollment import TemplateExtension
from tests.issuers import google_cas
from tests.issuers.building import build, free_port, secret_file
from tests.issuers.fake_google_cas import POOL, FakeGoogleCas, GoogleError, key_file
from tests.issuers.orders import order
from tests.issuers.serving import serving
from tests.support import pki
from tests.unit.shared import configurations

COMPROMISE = RevocationReason.KEY_COMPROMISE


@dataclass
class Setup:
    folder: Path
    fake: FakeGoogleCas
    url: str
    connector: Any

    def order(self, **changes: Any) -> Order:
        return order(self.fake.ca.certificate, **changes)

    def another(self, **options: Any) -> Any:
        url = options.pop("url", self.url)
        return google_cas.connector(self.folder, self.fake, url, f"{self.url}/token", **options)

    async def serial(self) -> str:
        """The serial number of a new certificate."""
        result = await self.connector.issue(self.order(), Prepared())
        return pki.certificate_serial(result.certificate).hex()


@pytest.fixture
async def cas(
    tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey
) -> AsyncIterator[Setup]:
    configurations.write_all(tmp_path, rsa_key, ec_key)
    fake = FakeGoogleCas()
    async with serving(fake.app) as port:
        url = f"http://127.0.0.1:{port}"
        connector = google_cas.connector(tmp_path, fake, url, f"{url}/token")
        yield Setup(tmp_path, fake, url, connector)
        await connector.close()


def with_names(cas: Setup, *names: x509.GeneralName) -> Order:
    usages = cas.order().template.extensions[:2]
    value = x509.SubjectAlternativeName(names).public_bytes()
    sans = TemplateExtension(oid="2.5.29.17", critical=False, value=value)
    return cas.order(extensions=(*usages, sans))


def other_name(value: bytes) -> x509.GeneralName:
    return x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), value)


def fits(cas: Setup, asked: Order, result: Any) -> str:
    assert isinstance(result, Issued), result
    current = cas.connector.current
    return misissued(
        asked.template, current.ceilings, current.chain[0], result.certificate, int(time.time())
    )


def name(*attributes: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


@pytest.mark.parametrize(
    ("subject", "mode"),
    [
        (
            name((NameOID.COUNTRY_NAME, "DE"), (NameOID.COMMON_NAME, "d")),
            "DEFAULT",
        ),
        (name((NameOID.COMMON_NAME, "d"), (NameOID.SERIAL_NUMBER, "7")), "RDN_SEQUENCE"),
        (
            name((NameOID.ORGANIZATIONAL_UNIT_NAME, "a"), (NameOID.ORGANIZATIONAL_UNIT_NAME, "b")),
            "RDN_SEQUENCE",
        ),
        (
            x509.Name(
                [
                    x509.RelativeDistinguishedName(
                        [
                            x509.NameAttribute(NameOID.COMMON_NAME, "d"),
                            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
                        ]
                    )
                ]
            ),
            "RDN_SEQUENCE",
        ),
        (name(), "DEFAULT"),
    ],
)  # fmt: skip
async def test_subjects_are_described_field_by_field_or_as_rdns(
    cas: Setup, subject: x509.Name, mode: str
) -> None:
    asked = cas.order(subject=subject.public_bytes())
    result = await cas.connector.issue(asked, Prepared())

    assert fits(cas, asked, result) == ""
    assert cas.fake.asked[-1]["subjectMode"] == mode


async def test_every_kind_of_name_that_google_takes_is_passed(cas: Setup) -> None:
    asked = with_names(
        cas,
        x509.DNSName("d.example"),
        x509.RFC822Name("a@d.example"),
        x509.UniformResourceIdentifier("urn:uuid:1"),
        x509.IPAddress(ipaddress.ip_address("2001:db8::7")),
        other_name(b"\x0c\x01a"),
    )
    assert isinstance(cas.connector.prepare(asked), Prepared)

    assert fits(cas, asked, await cas.connector.issue(asked, Prepared())) == ""


@pytest.mark.parametrize("odd", [other_name(b"\x16\x01a"), x509.DirectoryName(name())])
async def test_other_names_are_refused_before_anything_is_recorded(
    cas: Setup, odd: x509.GeneralName
) -> None:
    asked = with_names(cas, x509.DNSName("d.example"), odd)
    refused = cas.connector.prepare(asked)

    assert isinstance(refused, Refused)
    assert await cas.connector.issue(asked, Prepared()) == refused
    assert cas.fake.asked == []


async def test_usages_are_named_as_google_does(cas: Setup) -> None:
    _, _, sans = cas.order().template.extensions
    usage = pki.key_usage("digital_signature", "content_commitment", "key_agreement")
    purposes = x509.ExtendedKeyUsage(
        [x509.ObjectIdentifier(oid) for oid in (pki.CLIENT_AUTH, "1.3.6.1.5.5.7.3.17")]
    )
    extensions = (
        TemplateExtension(oid="2.5.29.15", critical=True, value=usage.public_bytes()),
        TemplateExtension(oid="2.5.29.37", critical=False, value=purposes.public_bytes()),
        sans,
    )
    asked = cas.order(extensions=extensions)
    assert fits(cas, asked, await cas.connector.issue(asked, Prepared())) == ""

    assert cas.fake.asked[-1]["config"]["x509Config"]["keyUsage"] == {
        "baseKeyUsage": {
            "digitalSignature": True, "contentCommitment": True, "keyAgreement": True,
        },
        "extendedKeyUsage": {"clientAuth": True},
        "unknownExtendedKeyUsages": [{"objectIdPath": [1, 3, 6, 1, 5, 5, 7, 3, 17]}],
    }  # fmt: skip


async def test_the_csr_stays_here(cas: Setup) -> None:
    assert not cas.connector.needs_csr
    await cas.connector.issue(cas.order(), Prepared())

    assert set(cas.fake.asked[-1]) == {"lifetime", "subjectMode", "config"}


async def test_a_certificate_ends_a_little_earlier_than_approved(cas: Setup) -> None:
    asked = cas.order()
    result = await cas.connector.issue(asked, Prepared())
    made = x509.load_der_x509_certificate(result.certificate)

    assert 290 <= asked.template.not_after - made.not_valid_after_utc.timestamp() <= 310


async def test_a_validity_that_is_over_is_refused(cas: Setup) -> None:
    asked = cas.order(not_after=int(time.time()) - 1)

    assert isinstance(await cas.connector.issue(asked, Prepared()), Refused)


async def test_a_template_of_google_is_named_in_full(cas: Setup) -> None:
    templated = cas.another(template="devices")
    await templated.issue(cas.order(), Prepared())

    place = POOL.partition("/caPools/")[0]
    assert cas.fake.asked[-1]["certificateTemplate"] == f"{place}/certificateTemplates/devices"
    await templated.close()


async def test_in_a_pool_that_stores_nothing_nothing_is_ordered(cas: Setup) -> None:
    cas.fake.tier = "DEVOPS"
    for call in (cas.connector.issue(cas.order(), Prepared()), cas.connector.find(cas.order())):
        with pytest.raises(CaUnavailableError, match="Enterprise"):
            await call

    assert cas.fake.asked == []


async def test_an_order_that_is_there_already_is_returned(cas: Setup) -> None:
    asked = cas.order()
    first = await cas.connector.issue(asked, Prepared())

    assert await cas.connector.issue(asked, Prepared()) == first
    assert len(cas.fake.certificates) == 1


async def test_a_certificate_for_another_key_is_no_answer(cas: Setup) -> None:
    asked, other = cas.order(), cas.order()
    await cas.connector.issue(other, Prepared())
    made = dict(cas.fake.certificates[f"scep-{other.key}"])
    made["name"] = f"{POOL}/certificates/scep-{asked.key}"
    cas.fake.certificates[f"scep-{asked.key}"] = made

    with pytest.raises(AnswerLostError, match="device's key"):
        await cas.connector.find(asked)


async def test_an_answer_about_another_certificate_is_none(cas: Setup) -> None:
    asked, other = cas.order(), cas.order()
    await cas.connector.issue(other, Prepared())
    cas.fake.certificates[f"scep-{asked.key}"] = cas.fake.certificates[f"scep-{other.key}"]

    with pytest.raises(AnswerLostError, match="this ID"):
        await cas.connector.find(asked)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (GoogleError(400, "FAILED_PRECONDITION", "not enabled"), CaUnavailableError),
        (GoogleError(404, "NOT_FOUND", "no CA"), CaUnavailableError),
        (GoogleError(429, "RESOURCE_EXHAUSTED", "quota"), CaUnavailableError),
        (GoogleError(403, "PERMISSION_DENIED", "no"), CaUnavailableError),
        (GoogleError(503, "UNAVAILABLE", "later"), CaUnavailableError),
        (GoogleError(500, "INTERNAL", "?"), AnswerLostError),
        (GoogleError(504, "DEADLINE_EXCEEDED", "?"), AnswerLostError),
        (GoogleError(409, "ABORTED", "?"), AnswerLostError),
        (GoogleError(409, "ALREADY_EXISTS", "but not readable"), AnswerLostError),
    ],
)
async def test_errors_say_whether_an_order_was_placed(
    cas: Setup, error: GoogleError, kind: type[Exception]
) -> None:
    cas.fake.answers.append(error)

    with pytest.raises(kind):
        await cas.connector.issue(cas.order(), Prepared())


async def test_a_token_that_google_no_longer_accepts_is_replaced(cas: Setup) -> None:
    await cas.connector.check()
    cas.fake.tokens.clear()
    cas.connector.credentials._since -= 3600
    with pytest.raises(CaUnavailableError, match="401"):
        await cas.connector.check()

    await cas.connector.check()
    assert cas.fake.token_calls == 2


async def test_a_new_token_is_not_replaced_at_every_failure(cas: Setup) -> None:
    await cas.connector.check()
    cas.fake.tokens.clear()
    for _ in range(2):
        with pytest.raises(CaUnavailableError, match="401"):
            await cas.connector.check()

    assert cas.fake.token_calls == 1


async def test_a_token_endpoint_that_is_away_orders_nothing(cas: Setup) -> None:
    path = secret_file(cas.folder, "away.json", key_file(f"http://127.0.0.1:{free_port()}/token"))
    away = cas.another(credentials_path=path)

    with pytest.raises(CaUnavailableError, match="no token"):
        await away.issue(cas.order(), Prepared())
    await away.close()


async def test_the_check_names_a_ca_that_is_not_enabled(cas: Setup) -> None:
    cas.fake.state = "DISABLED"

    with pytest.raises(CaUnavailableError, match="DISABLED"):
        await cas.connector.check()


async def test_the_check_names_a_ca_that_is_not_the_pinned_one(cas: Setup) -> None:
    cas.fake.ca.certificate = pki.make_root(ec.generate_private_key(ec.SECP256R1()))

    with pytest.raises(CaUnavailableError, match="ca_cert_path"):
        await cas.connector.check()


async def test_the_check_names_a_pool_that_is_not_there(cas: Setup) -> None:
    elsewhere = cas.another(pool="others")

    with pytest.raises(CaUnavailableError, match="check project"):
        await elsewhere.check()
    await elsewhere.close()


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("unspecified", "REVOCATION_REASON_UNSPECIFIED"),
        ("keyCompromise", "KEY_COMPROMISE"),
        ("affiliationChanged", "AFFILIATION_CHANGED"),
        ("superseded", "SUPERSEDED"),
        ("cessationOfOperation", "CESSATION_OF_OPERATION"),
        ("privilegeWithdrawn", "PRIVILEGE_WITHDRAWN"),
    ],
)
async def test_reasons_are_passed_on(cas: Setup, reason: str, said: str) -> None:
    serial = await cas.serial()
    await cas.connector.revoke(serial, cas.connector.current.pin, RevocationReason(reason))

    assert list(cas.fake.ca.revoked.values()) == [said]


@pytest.mark.parametrize("listed", ["0abc", "abc"])
async def test_a_serial_number_is_found_with_and_without_a_leading_zero(
    cas: Setup, monkeypatch: pytest.MonkeyPatch, listed: str
) -> None:
    monkeypatch.setattr(x509, "random_serial_number", lambda: 0xABC)
    serial = await cas.serial()
    (made,) = cas.fake.certificates.values()
    made["certificateDescription"]["subjectDescription"]["hexSerialNumber"] = listed
    other = cas.another()  # another issuer, which has not issued it
    await other.revoke(serial, cas.connector.current.pin, COMPROMISE)

    assert await cas.fake.ca.is_revoked(serial)
    await other.close()


async def test_a_certificate_that_is_not_in_searches_yet_is_revoked_by_its_issuer(
    cas: Setup,
) -> None:
    serial = await cas.serial()
    cas.fake.listed = lambda _: {}  # type: ignore[method-assign]
    other = cas.another()
    with pytest.raises(RevocationRefusedError):
        await other.revoke(serial, cas.connector.current.pin, COMPROMISE)
    await cas.connector.revoke(serial, cas.connector.current.pin, COMPROMISE)

    assert await cas.fake.ca.is_revoked(serial)
    await other.close()


async def test_a_certificate_of_another_ca_in_the_pool_is_left_alone(
    cas: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(x509, "random_serial_number", lambda: 0xABCD)
    await cas.serial()
    other = pki.make_certificate(
        cas.fake.ca.key.public_key(), ec.generate_private_key(ec.SECP256R1()), serial=0xABCD
    )
    (made,) = cas.fake.certificates.values()
    text = x509.load_der_x509_certificate(pki.der(other))
    made["pemCertificate"] = text.public_bytes(pki.Encoding.PEM).decode()

    with pytest.raises(RevocationRefusedError, match="no such certificate"):
        await cas.connector.revoke("00abcd", cas.connector.current.pin, COMPROMISE)
    assert cas.fake.ca.revoked == {}


async def test_a_revocation_that_another_issuer_made_meanwhile_succeeds(cas: Setup) -> None:
    serial = await cas.serial()
    revoke = cas.fake.revoke

    def twice(found: str, body: dict[str, Any]) -> dict[str, Any]:
        revoke(found, body)
        return revoke(found, body)

    cas.fake.revoke = twice  # type: ignore[method-assign]
    await cas.connector.revoke(serial, cas.connector.current.pin, COMPROMISE)

    assert await cas.fake.ca.is_revoked(serial)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"project": "a/b"}, "options.project"),
        ({"pool": "../x"}, "options.pool"),
        ({"url": "http://cas.example"}, "options.url"),
        ({"token": "x"}, "no such option"),
        ({"credentials_path": "none"}, "No such file"),
    ],
)
async def test_options_that_do_not_fit_are_named(
    cas: Setup, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        cas.another(**options)


@pytest.mark.parametrize(
    "text", ["{", "[]", json.dumps({"type": "service_account", "private_key": "k3y-material"})]
)
async def test_a_file_that_is_no_service_account_is_named_and_not_quoted(
    cas: Setup, text: str
) -> None:
    path = secret_file(cas.folder, "odd.json", text)
    with pytest.raises(SettingsError, match=r"odd\.json") as raised:
        cas.another(credentials_path=path)

    assert "k3y" not in str(raised.value)


async def test_a_key_that_others_may_read_is_refused(cas: Setup) -> None:
    path = cas.folder / secret_file(cas.folder, "open.json", key_file(f"{cas.url}/token"))
    path.chmod(0o644)

    with pytest.raises(SettingsError, match="0644"):
        cas.another(credentials_path="open.json")


def default_credentials(cas: Setup) -> Any:
    options = {
        "project": "example-project", "location": "europe-west3", "pool": "devices",
        "authority": "ca-1", "url": cas.url,
    }  # fmt: skip
    return build(cas.folder, "google-cas", cas.fake.ca.certificate, options)


async def test_application_default_credentials_are_used(
    cas: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cas.folder / secret_file(cas.folder, "adc.json", key_file(f"{cas.url}/token"))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    connector = default_credentials(cas)

    assert "accepted" in await connector.check()
    await connector.close()


async def test_without_default_credentials_nothing_is_ordered(
    cas: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(cas.folder / "none.json"))
    connector = default_credentials(cas)

    with pytest.raises(CaUnavailableError, match="credentials_path"):
        await connector.issue(cas.order(), Prepared())
    await connector.close()


async def test_without_google_auth_the_extra_is_named(
    cas: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "google.oauth2.service_account", None)

    with pytest.raises(SettingsError, match=r"scepstream\[google\]"):
        cas.another()
