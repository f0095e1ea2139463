"""What is particular to AWS Private CA; the contract of all connectors is tested elsewhere."""

import asyncio
import base64
import ipaddress
import logging
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import Loader
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from services.issuer.connectors.aws_pca import KIND
from services.issuer.connectors.connector import (
    AnswerLostError,
    CaUnavailableError,
    Issued,
    Order,
    Pending,
    Prepared,
    Refused,
    RevocationRefusedError,
    UnknownOutcome,
)
from services.issuer.received import misissued
from shared.config.load import SettingsError, load
from shared.log.events.commands import RevocationReason
from shared.log.events.enrollment import TemplateExtension
from tests.issuers import aws_pca
from tests.issuers.building import build, free_port, secret_file
from tests.issuers.fake_aws_pca import ARN, AwsError, FakeAwsPca
from tests.issuers.orders import CHALLENGE, again, order
from tests.issuers.serving import serving
from tests.support import pki
from tests.unit.shared import configurations
from tests.unit.shared.changed import change

LOADER = Loader()
OTHER_ARN = ARN.replace("1234-1234", "1234-9999")
COMPROMISE = RevocationReason.KEY_COMPROMISE


@dataclass
class Setup:
    folder: Path
    fake: FakeAwsPca
    url: str
    connector: Any

    def order(self, **changes: Any) -> Order:
        return order(self.fake.ca.certificate, **changes)

    def another(self, **options: Any) -> Any:
        url = options.pop("url", self.url)
        return aws_pca.connector(self.folder, self.fake, url, **options)

    def asked(self) -> dict[str, Any]:
        """The parameters of the newest order."""
        return [each for name, each in self.fake.received if name == "IssueCertificate"][-1]


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions share the parsed models of AWS's APIs."""
    monkeypatch.setattr("botocore.loaders.create_loader", lambda *_: LOADER)


@pytest.fixture
async def aws(
    tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey
) -> AsyncIterator[Setup]:
    configurations.write_all(tmp_path, rsa_key, ec_key)
    fake = FakeAwsPca({aws_pca.KEY: aws_pca.SECRET})
    async with serving(fake.app) as port:
        url = f"http://127.0.0.1:{port}"
        connector = aws_pca.connector(tmp_path, fake, url)
        yield Setup(tmp_path, fake, url, connector)
        await connector.close()


def san(*names: x509.GeneralName) -> TemplateExtension:
    value = x509.SubjectAlternativeName(names).public_bytes()
    return TemplateExtension(oid="2.5.29.17", critical=False, value=value)


def with_names(aws: Setup, *names: x509.GeneralName, **changes: Any) -> Order:
    """An order whose approved subjectAltNames are not those of its CSR."""
    usages = aws.order().template.extensions[:2]
    sans = (san(*names),) if names else ()
    return aws.order(extensions=(*usages, *sans), **changes)


def fits(aws: Setup, asked: Order, result: Any) -> str:
    assert isinstance(result, Issued), result
    current = aws.connector.current
    return misissued(
        asked.template, current.ceilings, current.chain[0], result.certificate, int(time.time())
    )


async def test_an_order_is_pending_until_aws_has_signed(aws: Setup) -> None:
    aws.fake.unfinished = 3
    asked = aws.order()
    pending = await aws.connector.issue(asked, Prepared())

    assert isinstance(pending, Pending)
    assert pending.handle.startswith(f"{ARN}/certificate/")
    assert await aws.connector.find(again(asked), pending.handle) == pending
    found = await aws.connector.find(again(asked), pending.handle)
    assert fits(aws, asked, found) == ""


@pytest.mark.parametrize(
    "error",
    [
        AwsError("ThrottlingException", "Rate exceeded"),
        AwsError("ResourceNotFoundException", "not yet"),
        AwsError("InternalFailure", "", 500),
        AwsError("AccessDeniedException", "not authorized to perform: acm-pca:GetCertificate"),
    ],
)
async def test_a_placed_order_never_looks_as_if_it_were_not(aws: Setup, error: AwsError) -> None:
    aws.fake.answers["GetCertificate"] = [error, error]
    asked = aws.order()
    result = await aws.connector.issue(asked, Prepared())

    assert isinstance(result, Pending)
    aws.fake.answers.clear()
    assert isinstance(await aws.connector.find(asked, result.handle), Issued)


async def test_a_request_that_failed_at_aws_is_refused(aws: Setup) -> None:
    aws.fake.answers["GetCertificate"] = [AwsError("RequestFailedException", "It failed")]

    result = await aws.connector.issue(aws.order(), Prepared())
    assert result == Refused("It failed (RequestFailedException)")


async def test_the_order_says_everything_but_the_key(aws: Setup) -> None:
    asked = aws.order()
    await aws.connector.issue(asked, Prepared())
    sent = aws.asked()

    assert sent["IdempotencyToken"] == asked.key
    assert sent["TemplateArn"].endswith("template/BlankEndEntityCertificate_APIPassthrough/V1")
    assert sent["Validity"] == {"Type": "ABSOLUTE", "Value": asked.template.not_after}
    assert sent["ValidityNotBefore"] == {"Type": "ABSOLUTE", "Value": asked.template.not_before}
    assert sent["ApiPassthrough"] == {
        "Extensions": {
            "KeyUsage": {"DigitalSignature": True, "KeyEncipherment": True},
            "ExtendedKeyUsage": [{"ExtendedKeyUsageType": "CLIENT_AUTH"}],
        }
    }


async def test_other_usages_are_passed_by_oid(aws: Setup) -> None:
    usages = x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.3.6.1.5.5.7.3.17")])
    key_usage, _, sans = aws.order().template.extensions
    purpose = TemplateExtension(oid="2.5.29.37", critical=False, value=usages.public_bytes())
    asked = aws.order(extensions=(key_usage, purpose, sans))
    await aws.connector.issue(asked, Prepared())

    passed = aws.asked()["ApiPassthrough"]["Extensions"]["ExtendedKeyUsage"]
    assert passed == [{"ExtendedKeyUsageObjectIdentifier": "1.3.6.1.5.5.7.3.17"}]


async def test_approved_names_win_over_those_of_the_csr(aws: Setup) -> None:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
            x509.NameAttribute(NameOID.COMMON_NAME, "approved"),
        ]
    )
    asked = with_names(
        aws,
        x509.DNSName("approved.example"),
        x509.RFC822Name("a@approved.example"),
        x509.UniformResourceIdentifier("urn:uuid:1"),
        x509.IPAddress(ipaddress.ip_address("192.0.2.7")),
        subject=subject.public_bytes(),
    )
    assert isinstance(aws.connector.prepare(asked), Prepared)

    assert fits(aws, asked, await aws.connector.issue(asked, Prepared())) == ""


def upn() -> x509.GeneralName:
    return x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x01a")


async def test_names_that_aws_cannot_take_are_refused_before_anything_is_recorded(
    aws: Setup,
) -> None:
    rdn = x509.RelativeDistinguishedName(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "a"),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, "1"),
        ]
    )
    for asked in (
        with_names(aws),
        with_names(aws, upn()),
        aws.order(subject=x509.Name([rdn]).public_bytes()),
        aws.order(subject=x509.Name([]).public_bytes()),
    ):
        refused = aws.connector.prepare(asked)
        assert isinstance(refused, Refused)
        assert await aws.connector.issue(asked, Prepared()) == refused
    assert aws.fake.received == []


async def test_aws_forgets_a_token_later_than_the_connector_says(aws: Setup) -> None:
    asked = aws.order()
    await aws.connector.issue(asked, Prepared())
    lifetime = aws.connector.token_lifetime
    aws.fake.clock = lambda: time.time() + lifetime
    await aws.connector.issue(asked, Prepared())
    assert len(aws.fake.certificates) == 1

    aws.fake.clock = lambda: time.time() + 301
    await aws.connector.issue(asked, Prepared())
    assert len(aws.fake.certificates) == 2


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (AwsError("ThrottlingException", "Rate exceeded"), CaUnavailableError, "Rate exceeded"),
        (AwsError("LimitExceededException", "Quota"), CaUnavailableError, "Quota"),
        (AwsError("ServiceUnavailableException", "", 503), CaUnavailableError, "later"),
        (AwsError("InvalidStateException", "DISABLED"), CaUnavailableError, "DISABLED"),
        (AwsError("ResourceNotFoundException", "none"), CaUnavailableError, "authority_arn"),
        (AwsError("AccessDeniedException", "User: x may not"), CaUnavailableError, "User: x"),
        (AwsError("ExpiredTokenException", "t0ken"), CaUnavailableError, "ExpiredToken"),
        (AwsError("InvalidSignatureException", "t0ken", 403), CaUnavailableError, "credentials"),
        (AwsError("InternalFailure", "", 500), AnswerLostError, "500"),
        (AwsError("SomethingNewException", "?"), AnswerLostError, "SomethingNewException"),
    ],
)
async def test_errors_say_whether_an_order_was_placed(
    aws: Setup, error: AwsError, kind: type[Exception], said: str
) -> None:
    aws.fake.answers["IssueCertificate"] = [error]
    with pytest.raises(kind, match=said) as raised:
        await aws.connector.issue(aws.order(), Prepared())

    assert "t0ken" not in str(raised.value)


async def test_an_arn_of_another_ca_is_no_answer(aws: Setup) -> None:
    aws.fake.on_IssueCertificate = lambda _: {  # type: ignore[method-assign]
        "CertificateArn": f"{OTHER_ARN}/certificate/1"
    }

    with pytest.raises(AnswerLostError, match="no ARN"):
        await aws.connector.issue(aws.order(), Prepared())


async def test_an_answer_without_a_certificate_is_none(aws: Setup) -> None:
    asked = aws.order()
    aws.fake.unfinished = 2
    pending = await aws.connector.issue(asked, Prepared())
    aws.fake.on_GetCertificate = lambda _: {"Certificate": "?"}  # type: ignore[method-assign]

    with pytest.raises(AnswerLostError, match="no certificate"):
        await aws.connector.find(asked, pending.handle)


@pytest.mark.parametrize("handle", ["", f"{OTHER_ARN}/certificate/1", f"{ARN}/certificate/../1"])
async def test_without_an_arn_of_the_ca_the_outcome_stays_unknown(aws: Setup, handle: str) -> None:
    assert isinstance(await aws.connector.find(aws.order(), handle), UnknownOutcome)
    assert aws.fake.received == []


async def test_aws_that_does_not_answer_in_time_leaves_the_outcome_unknown(aws: Setup) -> None:
    writers = []
    server = await asyncio.start_server(lambda _, w: writers.append(w), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    slow = build(
        aws.folder,
        "aws-pca",
        aws.fake.ca.certificate,
        dict(aws.connector.options.model_dump(exclude_unset=True, mode="json")) | {"url": url},
        "1s",
    )
    with pytest.raises(AnswerLostError, match="ReadTimeoutError"):
        await slow.issue(aws.order(), Prepared())

    assert len(writers) == 1
    writers[0].close()
    server.close()
    await slow.close()


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("unspecified", "UNSPECIFIED"),
        ("keyCompromise", "KEY_COMPROMISE"),
        ("affiliationChanged", "AFFILIATION_CHANGED"),
        ("superseded", "SUPERSEDED"),
        ("cessationOfOperation", "CESSATION_OF_OPERATION"),
        ("privilegeWithdrawn", "PRIVILEGE_WITHDRAWN"),
    ],
)
async def test_reasons_are_passed_on(aws: Setup, reason: str, said: str) -> None:
    result = await aws.connector.issue(aws.order(), Prepared())
    serial = pki.certificate_serial(result.certificate).hex()
    await aws.connector.revoke(serial, aws.connector.current.pin, RevocationReason(reason))

    assert list(aws.fake.ca.revoked.values()) == [said]


async def test_certificates_of_previous_cas_are_revoked_at_their_own_arn(aws: Setup) -> None:
    before = pki.make_root(ec.generate_private_key(ec.SECP256R1()), "Before")
    pki.write_certificate(aws.folder / "before.pem", before)
    options = aws.connector.options.model_dump(exclude_unset=True, mode="json")
    path = change(
        aws.folder / "scepstream.toml",
        "issuers.outside",
        kind="aws-pca",
        ca_cert_path=["outside.pem", "before.pem"],
        options=options | {"previous_arns": [OTHER_ARN]},
    )
    configuration = load(path, {})
    rotated = KIND.build(configuration, "outside", configuration.issuers["outside"])
    result = await aws.connector.issue(aws.order(), Prepared())
    serial = pki.certificate_serial(result.certificate).hex()
    aws.fake.arn = OTHER_ARN
    with pytest.raises(RevocationRefusedError):
        await rotated.revoke(serial, rotated.current.pin, COMPROMISE)
    await rotated.revoke(serial, pki.pin(before), COMPROMISE)

    assert await aws.fake.ca.is_revoked(serial)
    await rotated.close()


async def test_an_unknown_ca_needs_its_arn(aws: Setup) -> None:
    with pytest.raises(RevocationRefusedError, match="previous_arns"):
        await aws.connector.revoke("4711", "00" * 32, COMPROMISE)


@pytest.mark.parametrize("code", ["RequestInProgressException", "RequestFailedException"])
async def test_a_revocation_that_may_succeed_later_is_retried(aws: Setup, code: str) -> None:
    aws.fake.answers["RevokeCertificate"] = [AwsError(code, "?")]

    with pytest.raises(CaUnavailableError):
        await aws.connector.revoke("4711", aws.connector.current.pin, COMPROMISE)


async def test_the_check_names_a_ca_that_is_not_active(aws: Setup) -> None:
    aws.fake.status = "DISABLED"

    with pytest.raises(CaUnavailableError, match="DISABLED"):
        await aws.connector.check()


async def test_the_check_names_a_ca_that_is_not_the_pinned_one(aws: Setup) -> None:
    aws.fake.ca.certificate = pki.make_root(ec.generate_private_key(ec.SECP256R1()))

    with pytest.raises(CaUnavailableError, match="ca_cert_path"):
        await aws.connector.check()


async def test_the_check_names_a_ca_of_short_lived_certificates(aws: Setup) -> None:
    aws.fake.mode = "SHORT_LIVED_CERTIFICATE"

    assert "7 days" in await aws.connector.check()


async def test_without_credentials_nothing_is_ordered(
    aws: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ROLE_ARN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(aws.folder / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(aws.folder / "none"))
    options = {"authority_arn": ARN, "url": aws.url}
    bare = build(aws.folder, "aws-pca", aws.fake.ca.certificate, options)

    with pytest.raises(CaUnavailableError, match="no AWS credentials"):
        await bare.issue(aws.order(), Prepared())
    await bare.close()


async def test_a_role_that_cannot_be_assumed_counts_as_not_ordered(
    aws: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    path = secret_file(
        aws.folder,
        "role.credentials",
        "[base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = b4se-secret\n"
        "[role]\nrole_arn = arn:aws:iam::123456789012:role/issuer\nsource_profile = base\n",
    )
    role = aws.another(profile="role", credentials_path=path)

    with pytest.raises(CaUnavailableError, match="cannot be obtained") as raised:
        await role.issue(aws.order(), Prepared())
    assert "b4se" not in str(raised.value) + repr(role)
    await role.close()


async def test_requests_are_not_logged(aws: Setup, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    asked = aws.order()
    await aws.connector.issue(asked, Prepared())

    assert CHALLENGE not in caplog.text
    assert base64.b64encode(asked.csr)[:40].decode() not in caplog.text
    assert aws_pca.SECRET not in caplog.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"authority_arn": "arn:aws:acm:eu-central-1:1:certificate/1"}, "authority_arn"),
        ({"profile": "nobody"}, "options.profile"),
        ({"url": "http://pca.example"}, "options.url"),
        ({"template": "EndEntityCertificate/V1"}, "options.template"),
        ({"signing_algorithm": "MD5"}, "signing_algorithm"),
        ({"secret_access_key": "x"}, "no such option"),
        ({"previous_arns": [OTHER_ARN]}, "previous_arns"),
        ({"credentials_path": "none"}, "No such file"),
    ],
)
async def test_options_that_do_not_fit_are_named(
    aws: Setup, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        aws.another(**options)


async def test_credentials_that_others_may_read_are_refused(aws: Setup) -> None:
    path = aws.folder / secret_file(aws.folder, "open", "[issuer]\n")
    path.chmod(0o644)

    with pytest.raises(SettingsError, match="0644"):
        aws.another(credentials_path="open")


async def test_without_boto3_the_extra_is_named(
    aws: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "boto3.session", None)

    with pytest.raises(SettingsError, match=r"scepstream\[aws\]"):
        aws.another()


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "SHA256WITHECDSA"),
        (ec.generate_private_key(ec.SECP384R1()), "SHA384WITHECDSA"),
        (ec.generate_private_key(ec.SECP521R1()), "SHA512WITHECDSA"),
        (None, "SHA256WITHRSA"),
    ],
)
async def test_the_signing_algorithm_fits_the_key_of_the_ca(
    aws: Setup, rsa_key: rsa.RSAPrivateKey, key: ec.EllipticCurvePrivateKey | None, algorithm: str
) -> None:
    ca = pki.make_root(key or rsa_key)
    made: Any = build(aws.folder, "aws-pca", ca, {"authority_arn": ARN})

    assert made.signing_algorithm == algorithm
