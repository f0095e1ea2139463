"""Certificate authorities of other kinds, and RA certificates that come to their end."""

import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from cli.up.authority import RA_LIFETIME, Authority, make_ca, make_ra, pem
from cli.up.firststart import first_start
from cli.up.layout import Layout, write_private
from shared.config.keys import read_ca_key_file, read_certificates
from shared.scep.certrep import read_certificates as read_certificates_of
from tests.support.requests import Device, Endpoint, ask, certificate, der, enroll, opened
from tests.support.system import System, running, scepstream
from tests.support.tools import need

DAYS_LEFT = 10


def verify(directory: Path, leaf: x509.Certificate, root: x509.Certificate, *between: bytes) -> str:
    """What openssl's strictest reading says of the leaf: "OK" or its complaint."""
    openssl = need("openssl", "openssl")
    (directory / "leaf.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
    (directory / "root.pem").write_bytes(root.public_bytes(Encoding.PEM))
    (directory / "between.pem").write_bytes(b"".join(between))
    command = [openssl, "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "root.pem"]
    command += ["-untrusted", "between.pem"] if between else []
    done = subprocess.run(
        [*command, "leaf.pem"], cwd=directory, capture_output=True, text=True, check=False
    )
    return "OK" if done.returncode == 0 else done.stdout + done.stderr


def enroll_by_cli(system: System, out: Path, trusted: Path) -> x509.Certificate:
    """The certificate that `scepstream enroll` writes."""
    done = system.cli(
        "enroll", system.url(), "--challenge", system.challenge(), "--cn", "by-cli",
        "--san", "dns:by-cli.example", "--ca-file", str(trusted), "--out", str(out),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return x509.load_pem_x509_certificate((out / "cert.pem").read_bytes())


def sub_ca(
    directory: Path, curve: ec.EllipticCurve
) -> tuple[Authority, Authority, tuple[str, ...]]:
    """(root, sub-CA, the options of `up` that name it)."""
    now = time.time()
    root, start = make_ca("rsa:2048", now), datetime.fromtimestamp(now, UTC) - timedelta(hours=1)
    key = ec.generate_private_key(curve)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "A sub-CA")])
    root_usage = root.certificate.extensions.get_extension_for_class(x509.KeyUsage)
    made = (
        x509.CertificateBuilder(root.certificate.subject, name, key.public_key(), 4711)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1000))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(root_usage.value, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root.key.public_key()),
            critical=False,
        )
        .sign(root.key, hashes.SHA256())
    )
    sub = Authority(made, key)
    chain, key_file = directory / "chain.pem", directory / "sub.key"
    chain.write_bytes(b"".join(ca.certificate.public_bytes(Encoding.PEM) for ca in (sub, root)))
    write_private(key_file, pem(key))
    return root, sub, ("--ca-cert", str(chain), "--ca-key", str(key_file))


def test_an_elliptic_ca_enrolls_and_its_certificates_stand_up_to_openssl(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--ca", "ec:p256") as system:
        demo = Endpoint.of(system)
        key = demo.ca.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP256R1)
        mine = enroll(demo, Device.new())
        other = enroll_by_cli(system, tmp_path / "out", system.ca_file)
    for leaf in (mine, other):
        assert verify(tmp_path, leaf, demo.ca) == "OK"
        assert leaf.signature_algorithm_oid == x509.SignatureAlgorithmOID.ECDSA_WITH_SHA256
        assert leaf.not_valid_after_utc <= demo.ca.not_valid_after_utc


def test_a_sub_ca_of_ones_own_enrolls_and_its_chain_stands_up_to_openssl(tmp_path: Path) -> None:
    root, sub, options = sub_ca(tmp_path, ec.SECP256R1())
    (tmp_path / "root-alone.pem").write_bytes(root.certificate.public_bytes(Encoding.PEM))
    with running(tmp_path / "data", *options) as system:
        demo = Endpoint.of(system)
        assert demo.certificates[2:] == (der(sub.certificate), der(root.certificate))
        reply = ask(demo, (device := Device.new()).enrollment(demo))
        leaf, *chain = read_certificates_of(opened(device, reply))
        assert tuple(chain) == demo.certificates[2:]
        mine = x509.load_der_x509_certificate(leaf)
        other = enroll_by_cli(system, tmp_path / "out", tmp_path / "root-alone.pem")
    between = sub.certificate.public_bytes(Encoding.PEM)
    for leaf in (mine, other):
        assert verify(tmp_path, leaf, root.certificate, between) == "OK"
        assert leaf.not_valid_after_utc <= sub.certificate.not_valid_after_utc


def test_a_rsa_ca_s_certificates_stand_up_to_openssl(
    system: System, demo: Endpoint, tmp_path: Path
) -> None:
    assert verify(tmp_path, enroll(demo, Device.new()), demo.ca) == "OK"
    leaf = enroll_by_cli(system, tmp_path / "out", system.ca_file)
    assert verify(tmp_path, leaf, demo.ca) == "OK"


def _about_to_end(data: Path) -> tuple[Layout, x509.Certificate]:
    """A data directory as it is when the RA certificates have a few days left; the CA."""
    layout, now = Layout(data), time.time()
    first_start(layout, "rsa:2048", None, 4222, now)
    ca = Authority(
        read_certificates(layout.ca_cert)[0], read_ca_key_file(layout.root / "ca" / "ca.key")
    )
    made_at = now - (RA_LIFETIME - timedelta(days=DAYS_LEFT)).total_seconds()
    for use in ("signing", "encryption"):
        write_private(layout.ra(use), make_ra(ca, use, made_at))
    return layout, ca.certificate


def test_ra_certificates_about_to_end_are_renewed_and_the_old_key_still_decrypts(
    tmp_path: Path,
) -> None:
    layout, ca = _about_to_end(tmp_path / "data")
    old = {use: read_certificates(layout.ra(use))[0] for use in ("signing", "encryption")}
    with running(layout.root) as system:
        demo = Endpoint.of(system)
        signing, encryption, _ = map(x509.load_der_x509_certificate, demo.certificates)
        for new, use in ((signing, "signing"), (encryption, "encryption")):
            new.verify_directly_issued_by(ca)
            assert new.public_key() != old[use].public_key()
            assert new.not_valid_after_utc - old[use].not_valid_after_utc > timedelta(days=700)
        enroll(demo, Device.new())
        # A device that cached GetCACert: it encrypts to the old certificate.
        cached = Endpoint(demo.url, demo.challenge, (demo.signing, der(old["encryption"]), der(ca)))
        device = Device.new("cached")
        reply = ask(demo, device.enrollment(cached))
        certificate(demo, device, reply)
    output = (tmp_path / "data.out").read_text()
    for use in ("signing", "encryption"):
        assert f"renewed the RA {use} certificate" in output


def test_a_ca_of_another_kind_is_refused_in_one_sentence(tmp_path: Path) -> None:
    done = scepstream("up", "--data", str(tmp_path / "data"), "--ca", "rsa:1024")
    assert done.returncode == 1
    assert "choose one of" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_ca_key_that_cannot_be_used_is_refused_before_anything_is_made_of_it(
    tmp_path: Path,
) -> None:
    """Else the directory holds a CA that never starts, and the right key is not looked at."""
    _, _, options = sub_ca(tmp_path, ec.SECP384R1())
    ports = ("--port", "0", "--admin-port", "0")
    done = scepstream("up", "--data", str(tmp_path / "data"), *ports, *options)
    assert done.returncode == 1
    assert "P-256" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not Layout(tmp_path / "data").version.exists()
