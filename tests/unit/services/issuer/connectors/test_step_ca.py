"""The connector `step-ca`: its tokens, what a template can express, and odd answers."""

import ipaddress
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.issuer.connectors.connector import (
    AnswerLostError,
    CaUnavailableError,
    Issued,
    Order,
    Prepared,
    Recovery,
    Refused,
    RevocationRefusedError,
)
from services.issuer.connectors.step_ca import StepCaConnector
from services.issuer.received import misissued
from shared.config.load import SettingsError
from shared.log.events.commands import RevocationReason
from shared.log.events.enrollment import TemplateExtension
from tests.issuers.building import build, free_port, secret_file
from tests.issuers.fake_step_ca import NAME, FakeStepCa
from tests.issuers.orders import CHALLENGE, again, order
from tests.issuers.serving import serving
from tests.issuers.step_ca import connector, private
from tests.support import pki
from tests.unit.shared import configurations

UPN: Final = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x05u@x.y")


@pytest.fixture
def folder(tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey) -> Path:
    configurations.write_all(tmp_path, rsa_key, ec_key)
    return tmp_path


@pytest.fixture
def fake() -> FakeStepCa:
    return FakeStepCa()


@asynccontextmanager
async def connected(folder: Path, fake: FakeStepCa) -> AsyncIterator[StepCaConnector]:
    async with serving(fake.app()) as port:
        made = connector(folder, fake, f"http://127.0.0.1:{port}")
        assert isinstance(made, StepCaConnector)
        yield made
        await made.close()


@asynccontextmanager
async def answering(folder: Path, fake: FakeStepCa, answer: Response) -> AsyncIterator[Any]:
    """The connector with a server that has one answer to everything."""

    async def same(_: Request) -> Response:
        return answer

    app = Starlette(routes=[Route("/{path:path}", same, methods=["GET", "POST"])])
    async with serving(app) as port:
        made = connector(folder, fake, f"http://127.0.0.1:{port}")
        yield made
        await made.close()


def named(
    ca: x509.Certificate,
    subject: x509.Name,
    *names: x509.GeneralName,
    asked: x509.Name | None = None,
) -> Order:
    """An order with this subject and these names; the CSR asks for `asked`, if given."""
    key = ec.generate_private_key(ec.SECP256R1())
    sans = x509.SubjectAlternativeName(names)
    csr = (
        x509.CertificateSigningRequestBuilder(asked or subject)
        .add_extension(sans, critical=False)
        .sign(key, hashes.SHA256())
    )
    found = order(ca)
    others = [e for e in found.template.extensions if e.oid != "2.5.29.17"]
    san = TemplateExtension(oid="2.5.29.17", critical=False, value=sans.public_bytes())
    made = order(
        ca,
        subject=subject.public_bytes(),
        spki=pki.spki(key.public_key()),
        extensions=(*others, san),
    )
    return replace(made, csr=csr.public_bytes(Encoding.DER))


def refusal(folder: Path, fake: FakeStepCa, **options: Any) -> str:
    values = {"url": "http://127.0.0.1:9", "provisioner": NAME} | options
    with pytest.raises(SettingsError) as error:
        build(folder, "step-ca", fake.ca.certificate, values)
    return str(error.value)


def claims_of(made: StepCaConnector) -> dict[str, Any]:
    """The claims of a token for `sign` that the connector makes."""
    return jwt.decode(
        made._token("sign", {}), ECKey.import_key(dict(made.provisioner.public))
    ).claims


async def test_a_token_says_who_asks_for_what_and_is_used_once(
    folder: Path, fake: FakeStepCa
) -> None:
    asked = order(fake.ca.certificate, "a.example")
    async with connected(folder, fake) as made:
        for _ in range(2):
            prepared = made.prepare(asked)
            assert isinstance(prepared, Prepared)
            assert isinstance(await made.issue(asked, prepared), Issued)
        await made.revoke("0a", made.current.pin, RevocationReason.SUPERSEDED)

    first, second, third = fake.tokens
    assert len({token["jti"] for token in fake.tokens}) == 3
    assert first["sub"] == second["sub"] == "a.example"
    assert first["sans"] == ["a.example"]
    assert first["exp"] - first["iat"] == 300
    assert abs(first["iat"] - time.time()) < 30
    assert first["scepstream"] == {
        "subject": {
            "commonName": "a.example",
            "extraNames": [{"type": "2.5.4.3", "value": "a.example"}],
        },
        "sans": [{"type": "dns", "value": "a.example"}],
        "keyUsage": ["digitalSignature", "keyEncipherment"],
        "extKeyUsage": [pki.CLIENT_AUTH],
    }
    assert third["sub"] == "10"
    assert "scepstream" not in third
    assert fake.ca.revoked == {"a": "4"}


async def test_every_name_that_a_template_can_express_is_in_the_certificate(
    folder: Path, fake: FakeStepCa
) -> None:
    ca = fake.ca.certificate
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "a"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "b"),
            x509.NameAttribute(NameOID.COMMON_NAME, "a.example"),
        ]
    )
    sans = (
        x509.DNSName("a.example"),
        x509.RFC822Name("a@a.example"),
        x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
        x509.UniformResourceIdentifier("urn:uuid:1-2"),
        UPN,
    )
    asked = named(ca, subject, *sans)
    async with connected(folder, fake) as made:
        prepared = made.prepare(asked)
        assert isinstance(prepared, Prepared)
        result = await made.issue(asked, prepared)

    assert isinstance(result, Issued)
    approved = asked.template.not_before + 600
    current = made.current
    found = result.certificate
    assert not misissued(asked.template, current.ceilings, current.chain[0], found, approved)
    assert fake.tokens[0]["sans"] == [
        "a.example", "a@a.example", "2001:db8::1", "urn:uuid:1-2",
    ]  # fmt: skip


async def test_a_certificate_without_a_common_name_has_a_token_with_a_subject(
    folder: Path, fake: FakeStepCa
) -> None:
    asked = named(fake.ca.certificate, x509.Name([]), x509.DNSName("a.example"))
    async with connected(folder, fake) as made:
        prepared = made.prepare(asked)
        assert isinstance(prepared, Prepared)
        assert isinstance(await made.issue(asked, prepared), Issued)
    assert fake.tokens[0]["sub"] == "a.example"


def test_what_no_template_can_express_is_refused_before_it_is_ordered(
    folder: Path, fake: FakeStepCa
) -> None:
    made = connector(folder, fake, "http://127.0.0.1:9")
    ca, name = fake.ca.certificate, pki.name("a")
    pair = x509.RelativeDistinguishedName(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "a"),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, "1"),
        ]
    )
    for asked, said in (
        (named(ca, x509.Name([pair])), "an RDN with several attributes"),
        (named(ca, name, x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))), "RegisteredID"),
        (named(ca, name, x509.DirectoryName(name)), "DirectoryName"),
        (
            named(ca, name, x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x02\x01\x01")),
            "not a UTF8String",
        ),
    ):
        found = made.prepare(asked)
        assert isinstance(found, Refused)
        assert said in found.detail


async def test_a_csr_that_asks_for_another_name_is_refused_in_the_cas_words(
    folder: Path, fake: FakeStepCa
) -> None:
    asked = named(fake.ca.certificate, pki.name("a"), asked=pki.name("b"))
    async with connected(folder, fake) as made:
        found = await made.issue(asked, Prepared())

    assert isinstance(found, Refused)
    assert "does not contain the valid common name - got b, want a" in found.detail


@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"crt": 5}', '{"crt": "-----BEGIN"}', '{"crt": ""}', "crt"]
)
async def test_an_answer_without_a_certificate_leaves_the_outcome_unknown(
    folder: Path, fake: FakeStepCa, status: int, content: str
) -> None:
    async with answering(folder, fake, Response(content, status)) as made:
        with pytest.raises(AnswerLostError):
            await made.issue(order(fake.ca.certificate), Prepared())


async def test_a_proxy_that_forbids_the_call_is_no_refusal_of_the_ca(
    folder: Path, fake: FakeStepCa
) -> None:
    async with answering(folder, fake, Response("<html>no</html>", 403)) as made:
        with pytest.raises(CaUnavailableError, match="something before the CA"):
            await made.issue(order(fake.ca.certificate), Prepared())


async def test_a_url_without_a_ca_is_named(folder: Path, fake: FakeStepCa) -> None:
    async with answering(folder, fake, Response("", 404)) as made:
        with pytest.raises(CaUnavailableError, match="no step-ca at the URL"):
            await made.issue(order(fake.ca.certificate), Prepared())
        with pytest.raises(CaUnavailableError, match="no step-ca at the URL"):
            await made.revoke("0a", made.current.pin, RevocationReason.SUPERSEDED)
        with pytest.raises(CaUnavailableError, match="no step-ca at the URL"):
            await made.check()


async def test_a_revocation_that_the_ca_does_not_take_is_refused_in_its_words(
    folder: Path, fake: FakeStepCa
) -> None:
    answer = JSONResponse({"status": 403, "message": "not this one"}, 403)
    async with answering(folder, fake, answer) as made:
        with pytest.raises(RevocationRefusedError, match="not this one"):
            await made.revoke("0a", made.current.pin, RevocationReason.SUPERSEDED)


async def test_every_reason_is_revoked_or_refused(folder: Path, fake: FakeStepCa) -> None:
    async with connected(folder, fake) as made:
        for number, reason in enumerate(RevocationReason, 1):
            if reason in (RevocationReason.CERTIFICATE_HOLD, RevocationReason.REMOVE_FROM_CRL):
                with pytest.raises(RevocationRefusedError, match="suspend"):
                    await made.revoke(f"{number:02x}", made.current.pin, reason)
            else:
                await made.revoke(f"{number:02x}", made.current.pin, reason)
    assert set(fake.ca.revoked.values()) == {"0", "1", "3", "4", "5", "9"}


async def test_the_check_names_what_would_spoil_certificates(
    folder: Path, fake: FakeStepCa
) -> None:
    async with connected(folder, fake) as made:
        assert "healthy" in await made.check()
        fake.options = {"x509": {"templateFile": "templates/device.tpl"}}
        await made.check()
        for attribute, value, said in (
            ("options", {}, "no X.509 template"),
            ("claims", {"disableSmallstepExtensions": False}, "disableSmallstepExtensions"),
            ("claims", None, "disableSmallstepExtensions"),
            ("key", ECKey.generate_key("P-256"), "is not that of the provisioner"),
        ):
            setattr(fake, attribute, value)
            with pytest.raises(CaUnavailableError, match=said):
                await made.check()


async def test_the_check_names_a_ca_that_is_another_one(folder: Path, fake: FakeStepCa) -> None:
    async with connected(folder, fake) as made:
        fake.ca.certificate = FakeStepCa().ca.certificate
        with pytest.raises(CaUnavailableError, match="no root of the CA"):
            await made.check()
    for content in ('{"status": "error"}', '{"status": 1}', "{}", "ok"):
        async with answering(folder, fake, Response(content)) as other:
            with pytest.raises(CaUnavailableError):
                await other.check()
    async with answering(
        folder, fake, Response('{"status": "ok", "crts": ["x"], "nextCursor": "1"}')
    ) as other:
        with pytest.raises(CaUnavailableError, match="list of roots"):
            await other.check()


async def test_a_provisioner_that_the_ca_does_not_have_is_named(
    folder: Path, fake: FakeStepCa
) -> None:
    async with serving(fake.app()) as port:
        path = secret_file(folder, "key.jwk", private(fake.key))
        options = {
            "url": f"http://127.0.0.1:{port}", "provisioner": "other",
            "provisioner_key_path": path,
        }  # fmt: skip
        made = build(folder, "step-ca", fake.ca.certificate, options)
        with pytest.raises(CaUnavailableError, match='no JWK provisioner with the name "other"'):
            await made.check()
        await made.close()


async def test_no_order_can_be_found(folder: Path, fake: FakeStepCa) -> None:
    made = connector(folder, fake, "http://127.0.0.1:9")

    assert made.recovery is Recovery.BLIND
    with pytest.raises(AnswerLostError):
        await made.find(again(order(fake.ca.certificate)), "4711")


@pytest.mark.parametrize(
    ("url", "audience", "expected"),
    [
        ("https://ca.example:9000", None, "https://ca.example:9000/1.0/sign"),
        ("http://127.0.0.1:9000/", None, "https://127.0.0.1:9000/1.0/sign"),
        ("https://proxy.example/ca", "https://ca.example/", "https://ca.example/1.0/sign"),
    ],
)
def test_the_audience_is_the_name_of_the_ca(
    folder: Path, fake: FakeStepCa, url: str, audience: str | None, expected: str
) -> None:
    path = secret_file(folder, "key.jwk", private(fake.key))
    options = {"url": url, "provisioner": NAME, "provisioner_key_path": path}
    options |= {"audience": audience} if audience else {}
    made = build(folder, "step-ca", fake.ca.certificate, options)

    assert isinstance(made, StepCaConnector)
    assert claims_of(made)["aud"] == expected


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ECKey.generate_key("P-384"), "ES384"),
        (ECKey.generate_key("P-521"), "ES512"),
        (RSAKey.generate_key(2048), "RS256"),
    ],
)
def test_tokens_are_signed_as_the_key_requires(
    folder: Path, fake: FakeStepCa, key: ECKey | RSAKey, algorithm: str
) -> None:
    path = secret_file(folder, "key.jwk", json.dumps(key.as_dict(private=True)))
    options = {
        "url": f"http://127.0.0.1:{free_port()}", "provisioner": NAME,
        "provisioner_key_path": path,
    }  # fmt: skip
    made = build(folder, "step-ca", fake.ca.certificate, options)
    assert isinstance(made, StepCaConnector)
    found = jwt.decode(made._token("sign", {}), key, algorithms=[algorithm])

    assert found.header == {"typ": "JWT", "alg": algorithm, "kid": key.thumbprint()}
    assert found.claims["iss"] == NAME


def test_options_that_do_not_fit_are_named_and_no_key_is_shown(
    folder: Path, fake: FakeStepCa
) -> None:
    whole = fake.key.as_dict(private=True)
    d = str(whole["d"])
    public = json.dumps(fake.key.as_dict(private=False))
    for text, said in (
        (public, "not the private key of an EC or RSA provisioner"),
        (json.dumps(OctKey.generate_key(256).as_dict(private=True)), "not the private key"),
        (json.dumps(OKPKey.generate_key("Ed25519").as_dict(private=True)), "not the private key"),
        (json.dumps(whole | {"crv": "P-999"}), "not a JWK in JSON"),
        (
            json.dumps(ECKey.generate_key("secp256k1").as_dict(private=True)),
            "not the private key of an EC or RSA provisioner",
        ),
        (json.dumps({"d": d}), "not a JWK in JSON"),
        (d, "not a JWK in JSON"),
        (f'["{d}"]', "not a JWK in JSON"),
    ):
        path = secret_file(folder, "key.jwk", text)
        found = refusal(folder, fake, provisioner_key_path=path)
        assert said in found
        assert d not in found
    (folder / "key.jwk").chmod(0o644)
    assert "0644" in refusal(folder, fake, provisioner_key_path="key.jwk")
    assert "provisioner_key_path: required" in refusal(folder, fake)
    path = secret_file(folder, "key.jwk", private(fake.key))
    assert "audience: " in refusal(folder, fake, provisioner_key_path=path, audience="ca.example")


async def test_no_key_and_no_token_is_shown(folder: Path, fake: FakeStepCa) -> None:
    asked = order(fake.ca.certificate)
    async with connected(folder, fake) as made:
        prepared = made.prepare(asked)
        assert isinstance(await made.issue(asked, Prepared()), Issued)
        shown = repr(made) + repr(prepared)
    assert str(fake.key.as_dict(private=True)["d"]) not in shown
    assert CHALLENGE not in shown
