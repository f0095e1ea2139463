import base64
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.tls import (
    Contexts,
    TlsFiles,
    is_client_of,
    read_client_cert,
    server_context,
)
from shared.config.load import SettingsError
from tests.support import pki

NOW = pki.START.timestamp() + 1000
KEY = ec.derive_private_key(51, ec.SECP256R1())
CA_KEY = ec.derive_private_key(52, ec.SECP256R1())
OTHER_KEY = ec.derive_private_key(53, ec.SECP256R1())
CA = pki.der(pki.make_root(CA_KEY))
OTHER = pki.der(pki.make_root(OTHER_KEY, "Other CA"))
NAMESAKE = pki.der(pki.make_root(OTHER_KEY))


def client(key: ec.EllipticCurvePrivateKey = CA_KEY, issuer: str = "Test CA") -> bytes:
    made = pki.make_certificate(KEY.public_key(), key, subject="client", issuer=issuer)
    return pki.der(made)


def moment(seconds: float) -> pki.dt.datetime:
    return pki.START + pki.dt.timedelta(seconds=seconds)


# Whose client it is


@pytest.mark.parametrize("bundle", [(CA,), (OTHER, CA), (CA, OTHER)])
def test_a_client_of_any_ca_of_the_bundle_comes_in(bundle: tuple[bytes, ...]) -> None:
    assert is_client_of(client(), bundle, NOW)


@pytest.mark.parametrize("bundle", [(), (OTHER,), (NAMESAKE,)])
def test_a_client_of_no_ca_of_the_bundle_stays_out(bundle: tuple[bytes, ...]) -> None:
    """TLS lets every profile's clients in: each profile looks at its own bundle."""
    assert not is_client_of(client(), bundle, NOW)


def test_a_client_that_only_names_the_ca_stays_out() -> None:
    assert not is_client_of(client(OTHER_KEY), (CA,), NOW)


def test_a_client_of_the_cas_key_under_another_name_stays_out() -> None:
    assert not is_client_of(client(CA_KEY, "Other CA"), (CA,), NOW)


def test_a_self_signed_client_stays_out() -> None:
    assert not is_client_of(client(KEY, "client"), (CA,), NOW)


@pytest.mark.parametrize(
    ("at", "expected"),
    [(99, False), (100, True), (101, True), (199, True), (200, True), (201, False)],
)
def test_a_client_comes_in_from_its_first_to_its_last_second(at: int, expected: bool) -> None:  # noqa: FBT001 - a case
    made = pki.make_certificate(
        KEY.public_key(), CA_KEY, subject="client", start=moment(100), end=moment(200)
    )

    assert is_client_of(pki.der(made), (CA,), pki.START.timestamp() + at) is expected


@pytest.mark.parametrize("certificate", [b"", b"\x30\x00", b"junk", client()[:-1], client() + b"x"])
def test_what_is_no_certificate_stays_out(certificate: bytes) -> None:
    assert not is_client_of(certificate, (CA,), NOW)


def test_a_client_of_an_rsa_ca_comes_in(rsa_key: rsa.RSAPrivateKey) -> None:
    made = pki.make_certificate(KEY.public_key(), rsa_key, subject="client")

    assert is_client_of(pki.der(made), (pki.der(pki.make_root(rsa_key)),), NOW)


# A proxy's Client-Cert header


@given(st.binary(max_size=100))
def test_a_client_cert_header_holds_the_certificates_bytes(certificate: bytes) -> None:
    header = f":{base64.b64encode(certificate).decode()}:"

    assert read_client_cert(header) == certificate
    assert read_client_cert(f"  {header} ") == certificate


@pytest.mark.parametrize(
    "header",
    ["", ":", "AAAA", ":AAAA", "AAAA:", ":AAA:", ":A=AA:", ":AA\nAA:", ":AA-_:", ":AAAA:;x=1",
     ":AAAA:, :AAAA:", '"AAAA"', ":\u00e4AAA:", "-----BEGIN CERTIFICATE-----"],
)  # fmt: skip
def test_any_other_client_cert_header_is_none(header: str) -> None:
    """RFC 9440 s2.2 knows one form, a byte sequence; nginx's own escaped PEM is not it."""
    assert read_client_cert(header) is None


@given(st.text() | st.text().map(lambda text: f":{text}:"))
def test_any_header_gives_bytes_or_none(header: str) -> None:
    assert isinstance(read_client_cert(header), bytes | None)


# Contexts


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    key = pki.write_key(tmp_path / "tls.key", KEY)
    made = pki.make_certificate(KEY.public_key(), CA_KEY, subject="gateway")
    return TlsFiles(pki.write_certificate(tmp_path / "tls.pem", made), key)


def test_the_tls_listener_asks_for_no_client_certificate(files: TlsFiles) -> None:
    """Windows and macOS give up where one is asked for."""
    contexts = Contexts.of(files, [CA])

    assert contexts.tls.verify_mode is ssl.CERT_NONE
    assert contexts.mutual.verify_mode is ssl.CERT_OPTIONAL
    assert contexts.tls.minimum_version is ssl.TLSVersion.TLSv1_2
    assert contexts.mutual.minimum_version is ssl.TLSVersion.TLSv1_2


def test_client_cas_are_added_while_it_runs(files: TlsFiles) -> None:
    contexts = Contexts.of(files, [CA])
    contexts.load(files, [CA, OTHER])

    assert set(contexts.mutual.get_ca_certs(binary_form=True)) == {CA, OTHER}
    assert contexts.tls.get_ca_certs() == []


def test_a_key_that_does_not_fit_is_refused_and_the_old_pair_kept(
    files: TlsFiles, tmp_path: Path
) -> None:
    contexts = Contexts.of(files, [])
    other = TlsFiles(files.certificate, pki.write_key(tmp_path / "other.key", OTHER_KEY))

    with pytest.raises(SettingsError, match=r"tls\.pem.*other\.key"):
        contexts.load(other, [])
    contexts.load(files, [])


@pytest.mark.parametrize("missing", ["certificate", "key"])
def test_a_missing_file_is_a_settings_error(files: TlsFiles, missing: str) -> None:
    getattr(files, missing).unlink()

    with pytest.raises(SettingsError):
        server_context(files)


def shaken(server: ssl.SSLContext, own: tuple[Path, Path] | None = None) -> bytes | None:
    """The client certificate that the server saw, after a handshake in memory."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if own is not None:
        context.load_cert_chain(*own)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        context.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(10):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[1].getpeercert(binary_form=True)


@pytest.mark.parametrize("issued_by", [CA_KEY, None])
def test_the_mtls_listener_takes_clients_with_a_certificate_and_without(
    files: TlsFiles, tmp_path: Path, issued_by: ec.EllipticCurvePrivateKey | None
) -> None:
    """Without one the application says 401, which devices understand; TLS alerts they do not."""
    contexts = Contexts.of(files, [CA])
    if issued_by is None:
        assert shaken(contexts.mutual) is None
        return
    key = pki.write_key(tmp_path / "client.key", KEY)
    certificate = pki.write_certificate(
        tmp_path / "client.pem", x509.load_der_x509_certificate(client())
    )

    seen = shaken(contexts.mutual, (certificate, key))
    assert seen == x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(
        pki.Encoding.DER
    )
