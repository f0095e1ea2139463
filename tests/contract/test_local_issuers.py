"""What `local` promises with every kind of key: a sub-CA, RSA and ECDSA, in a file and in a token.

It is not in `test_issuers.py`, because its CA keeps nothing that could be found again: the serial
number is on the log before it signs, and issuing again gives the same certificate.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.issuer.ceilings import beyond_ceilings
from services.issuer.connectors.connector import Issued, Order, Prepared
from services.issuer.connectors.local import SigningError
from services.issuer.crl import CrlHead, RevokedEntry, write_entry
from services.issuer.lints import lint
from services.issuer.received import misissued
from shared.config.load import SettingsError
from shared.config.pkcs11 import TokenUnavailableError
from shared.log.events.commands import RevocationReason
from shared.log.events.enrollment import TemplateExtension
from shared.scep.certificate import read_certificate
from tests.issuers.local import LocalLab, key_of, lab
from tests.issuers.orders import order
from tests.support.softhsm import Token, make_token
from tests.support.templates import KEY_USAGE
from tests.unit.shared import configurations

DAY = 86400
KINDS = ("rsa", "ec")
Keys = tuple[rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey]


@pytest.fixture(scope="module")
def keys() -> Keys:
    return rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Token]:
    found = make_token(tmp_path_factory.mktemp("hsm"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in found.env.items():
            patch.setenv(name, value)
        yield found


@pytest.fixture(scope="module", params=["rsa", "ec", "rsa in a token", "ec in a token"])
def local(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    keys: Keys,
    token: Token,
) -> LocalLab:
    kind, _, place = request.param.partition(" ")
    return made(tmp_path_factory.mktemp("local"), keys, kind, token if place else None)


def made(folder: Path, keys: Keys, kind: str, token: Token | None, **changes: Any) -> LocalLab:
    configurations.write_all(folder, *keys)
    return lab(folder, key_of(kind), token, **changes)


async def issued(local: LocalLab, asked: Order) -> bytes:
    prepared = local.connector.prepare(asked)
    assert isinstance(prepared, Prepared)
    result = await local.connector.issue(asked, prepared)
    assert isinstance(result, Issued)
    assert read_certificate(result.certificate).serial == prepared.serial
    return result.certificate


async def test_the_certificate_is_the_one_that_was_ordered_and_its_chain_ends_at_the_root(
    local: LocalLab,
) -> None:
    asked = order(local.ca)
    der = await issued(local, asked)
    current = local.connector.current
    approved_at = asked.template.not_before + 600

    assert misissued(asked.template, current.ceilings, current.chain[0], der, approved_at) == ""
    assert not [finding for finding in lint(der) if finding.is_error]
    leaf, sub, root = map(x509.load_der_x509_certificate, (der, *current.chain))
    leaf.verify_directly_issued_by(sub)
    sub.verify_directly_issued_by(root)
    assert (sub, root) == (local.ca, local.root)
    assert local.connector.ca_chain().certificates == current.chain


async def test_an_order_that_is_repeated_gives_the_same_certificate(local: LocalLab) -> None:
    asked = order(local.ca)
    first = x509.load_der_x509_certificate(await issued(local, asked))
    again = x509.load_der_x509_certificate(await issued(local, asked))
    other = replace(asked, enrollment=asked.enrollment + "1")

    assert first.tbs_certificate_bytes == again.tbs_certificate_bytes
    assert read_certificate(await issued(local, other)).serial.hex() != f"{first.serial_number:x}"
    assert await local.connector.find(asked) is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"not_after": 2**31}, "the validity is longer than this issuer allows"),
        ({"not_after": 2**33}, "the certificate would outlive its CA"),
        ({"ca_spki_sha256": "00" * 32}, "the verdict is for another CA key"),
        ({"extensions": (KEY_USAGE,)}, "key usages are missing"),
        ({"spki": b"no key"}, "the public key does not parse"),
    ],
)
def test_what_is_beyond_the_configured_ceilings_is_refused(
    local: LocalLab, changes: dict[str, Any], problem: str
) -> None:
    ceilings = local.connector.current.ceilings

    assert beyond_ceilings(order(local.ca).template, ceilings) == ""
    assert beyond_ceilings(order(local.ca, **changes).template, ceilings) == problem


def test_an_extended_key_usage_is_signed_only_if_it_is_configured(local: LocalLab) -> None:
    signing = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CODE_SIGNING])
    usage = TemplateExtension(oid="2.5.29.37", critical=False, value=signing.public_bytes())
    asked, ceilings = (
        order(local.ca, extensions=(KEY_USAGE, usage)),
        local.connector.current.ceilings,
    )
    wider = replace(ceilings, extended_key_usages=frozenset({"1.3.6.1.5.5.7.3.3"}))

    assert beyond_ceilings(asked.template, ceilings) == (
        "extended key usage not permitted by this issuer"
    )
    assert beyond_ceilings(asked.template, wider) == ""


async def test_an_order_for_another_ca_is_never_signed(local: LocalLab) -> None:
    other = order(local.root)
    assert local.connector.pinned(other.template.ca_spki_sha256) is None
    with pytest.raises(SigningError):
        local.connector.prepare(other)
    with pytest.raises(SigningError):
        await local.connector.issue(other, Prepared())


def test_its_crl_is_signed_by_the_sub_ca(local: LocalLab) -> None:
    entry = RevokedEntry(b"\x40", 1, RevocationReason.SUPERSEDED)
    der = local.connector.current.sign_crl(CrlHead(1, 1, 2), {entry.serial: write_entry(entry)})
    crl = x509.load_der_x509_crl(der)
    key = local.ca.public_key()
    assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)

    assert crl.is_signature_valid(key)
    assert [each.serial_number for each in crl] == [0x40]


async def test_a_key_that_works_passes_the_check(local: LocalLab) -> None:
    assert await local.connector.check() == "the CA's key signs"


# A token that is not there


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_that_vanishes_signs_nothing_and_everything_again_when_it_is_back(
    tmp_path: Path, keys: Keys, token: Token, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.config.pkcs11._START_SECONDS", 0.0)
    in_token = made(tmp_path, keys, kind, token)
    asked = order(in_token.ca)
    before = x509.load_der_x509_certificate(await issued(in_token, asked))
    token.vanish()
    try:
        for _ in range(2):
            with pytest.raises(TokenUnavailableError):
                await issued(in_token, asked)
            with pytest.raises(TokenUnavailableError):
                in_token.connector.current.sign_crl(CrlHead(1, 1, 2), {})
            with pytest.raises(TokenUnavailableError):
                await in_token.connector.check()
    finally:
        token.come_back()
    after = x509.load_der_x509_certificate(await issued(in_token, asked))

    assert after.tbs_certificate_bytes == before.tbs_certificate_bytes
    after.verify_directly_issued_by(in_token.ca)
    assert await in_token.connector.check() == "the CA's key signs"


async def test_every_key_of_a_token_signs_as_itself_after_it_was_away(
    tmp_path: Path, keys: Keys, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handles are numbered anew, so that an old one may name another key."""
    monkeypatch.setattr("shared.config.pkcs11._START_SECONDS", 0.0)
    labs = []
    for number, kind in enumerate(("rsa", "ec", "rsa")):
        folder = tmp_path / str(number)
        folder.mkdir()
        labs.append(made(folder, keys, kind, token))
    for each in labs:
        await issued(each, order(each.ca))
    token.vanish()
    try:
        for _ in range(2):
            with pytest.raises(TokenUnavailableError):
                await issued(labs[0], order(labs[0].ca))
    finally:
        token.come_back()
    await issued(labs[0], order(labs[0].ca))
    for each in reversed(labs):
        found = x509.load_der_x509_certificate(await issued(each, order(each.ca)))
        found.verify_directly_issued_by(each.ca)


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_in_the_token_that_is_not_the_cas_is_refused(
    tmp_path: Path, keys: Keys, token: Token, kind: str
) -> None:
    found = made(tmp_path, keys, kind, token)
    with pytest.raises(SettingsError, match=r"sub\.pem"):
        lab(tmp_path, key_of(kind), None, ca_key_path=found.key_path)
