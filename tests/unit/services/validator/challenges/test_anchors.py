"""Bundles of connectors' certificates: whole and fit for use, or a sentence naming the file."""

import base64
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from services.validator.challenges.anchors import AnchorFiles
from services.validator.challenges.token import AnchorPool
from shared.config.load import SettingsError
from tests.support import pki
from tests.support.world import NOW

SIGNING = ec.derive_private_key(77, ec.SECP256R1())
FIRST = ec.derive_private_key(78, ec.SECP256R1())
SECOND = ec.derive_private_key(79, ec.SECP256R1())
NAME = b"connector-1"


def moment(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def made(key: Any = FIRST, subject: str = NAME.decode(), **options: Any) -> x509.Certificate:
    return pki.make_certificate(key.public_key(), SIGNING, subject=subject, **options)


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def pem_of(der: bytes, label: str = "CERTIFICATE") -> bytes:
    lines = base64.encodebytes(der).replace(b"\n", b"")
    body = b"\n".join(lines[i : i + 64] for i in range(0, len(lines), 64))
    return b"-----BEGIN %s-----\n%s\n-----END %s-----\n" % (
        label.encode(), body, label.encode(),
    )  # fmt: skip


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "connectors.pem"
        path.write_bytes(data)
        return path

    return write


def read(path: Path, now: float = NOW) -> AnchorPool:
    return AnchorFiles(path).read(now)


def complaint(path: Path, now: float = NOW) -> str:
    """What is said of a file that cannot be used; it names the file."""
    with pytest.raises(SettingsError) as error:
        read(path, now)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


# Good ones


def test_every_certificate_of_a_bundle_is_an_anchor(
    bundle: Callable[[bytes], Path], rsa_key: rsa.RSAPrivateKey
) -> None:
    end = moment(NOW + 86400)
    pool = read(bundle(pem(made(end=end), made(rsa_key, "connector-2"))))

    first, second = pool.common
    assert (first.subject, second.subject) == ("CN=connector-1", "CN=connector-2")
    assert (first.not_before, first.not_after) == (int(pki.START.timestamp()), NOW + 86400)
    assert first.key == FIRST.public_key()
    assert second.key == rsa_key.public_key()
    assert pool.tenants == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data,
        lambda data: data.rstrip(b"\n"),
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: b"subject=CN = connector-1\n\n" + data,
        lambda data: data + b"\n\n",
        lambda data: data.replace(b"-----END CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n\n"),
    ],
)
def test_line_ends_and_text_between_certificates_do_not_matter(
    bundle: Callable[[bytes], Path], change: Callable[[bytes], bytes]
) -> None:
    data = pem(made(), made(SECOND, "connector-2"))

    assert len(read(bundle(change(data))).common) == 2


def test_one_certificate_in_der_is_read_as_well(bundle: Callable[[bytes], Path]) -> None:
    one = made()
    digest = read(bundle(pem(one))).sha256
    found = read(bundle(one.public_bytes(Encoding.DER)))
    assert [anchor.key for anchor in found.common] == [FIRST.public_key()]
    assert found.sha256 == digest
    assert read(bundle(b"\xef\xbb\xbf" + pem(one))).sha256 == digest


def test_der_that_is_cut_or_goes_on_is_no_certificate(bundle: Callable[[bytes], Path]) -> None:
    der = made().public_bytes(Encoding.DER)
    for data in (der[:-1], der + b"\0", der + der, b"0", b"0\x80\0\0", der[:20]):
        complaint(bundle(data))


def test_the_digest_tells_bundles_apart(bundle: Callable[[bytes], Path]) -> None:
    one, two = made(), made(SECOND, "connector-2")
    digests = [read(bundle(pem(*each))).sha256 for each in ((one,), (two,), (one, two), (two, one))]

    assert len(set(digests)) == 4
    assert read(bundle(b"\n" + pem(one))).sha256 == digests[0]


def test_a_certificate_that_is_not_valid_yet_is_no_mistake(bundle: Callable[[bytes], Path]) -> None:
    """The next one may be put beside the present one long before its time."""
    (anchor,) = read(bundle(pem(made(start=moment(NOW + 86400))))).common

    assert not anchor.valid(NOW)
    assert anchor.valid(NOW + 86400)


# Files that are no bundle


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "No such file" in complaint(tmp_path / "no.pem")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    complaint(tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"no certificate\n",
        b"\x00\xff" * 100,
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nbm8gREVS\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n",
        b"-----END CERTIFICATE-----\n",
        pem_of(pki.der(made()), "CERTIFICATE REQUEST"),
        pem_of(pki.spki(FIRST.public_key()), "PUBLIC KEY"),
        pki.private_pem(FIRST),
        pem(made()).replace(b"-----\n", b"-----\n ", 1).replace(b"BEGIN", b"BEGAN"),
    ],
)
def test_what_holds_no_certificate_is_refused(bundle: Callable[[bytes], Path], data: bytes) -> None:
    complaint(bundle(data))


def test_one_broken_certificate_among_good_ones_refuses_all(
    bundle: Callable[[bytes], Path],
) -> None:
    broken = pem_of(pki.der(made(SECOND))[:-20] + bytes(21))

    complaint(bundle(pem(made()) + broken))
    complaint(bundle(broken + pem(made())))


@pytest.mark.parametrize(
    "key",
    [
        pki.private_pem(FIRST),
        FIRST.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")
        ),
        FIRST.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_certificate_with_its_key_is_refused(
    bundle: Callable[[bytes], Path],
    key: bytes,
    first: bool,  # noqa: FBT001 - a case
) -> None:
    """The connector's key has no place on a validator; the file is the wrong one."""
    data = key + pem(made()) if first else pem(made()) + key

    assert "PRIVATE" not in complaint(bundle(data))


def test_a_file_cut_anywhere_is_refused_but_between_its_certificates(
    bundle: Callable[[bytes], Path],
) -> None:
    """A cut exactly between two certificates looks like a bundle of one: nothing can tell.

    So may one that only lost the last line's end. Everywhere else a half-written file is no file.
    """
    data = pem(made(), made(SECOND, "connector-2"))
    between = data.index(b"-----BEGIN", 1)
    accepted: dict[int, list[int]] = {}
    for cut in range(len(data) + 1):
        try:
            pool = read(bundle(data[:cut]))
        except SettingsError:
            continue
        accepted.setdefault(len(pool.common), []).append(cut)

    assert accepted == {1: [between - 1, between], 2: [len(data) - 1, len(data)]}


# Certificates that are not fit


@pytest.mark.parametrize("ended", [0, 1, 86400])
def test_an_expired_certificate_is_refused_and_named(
    bundle: Callable[[bytes], Path], ended: int
) -> None:
    said = complaint(bundle(pem(made(end=moment(NOW - ended)))))

    assert "CN=connector-1" in said
    assert "expired" in said


def test_a_certificate_is_good_to_its_last_second(bundle: Callable[[bytes], Path]) -> None:
    path = bundle(pem(made(end=moment(NOW + 1))))

    assert len(read(path, NOW + 0.9).common) == 1
    complaint(path, NOW + 1)


def test_one_expired_certificate_among_good_ones_refuses_all(
    bundle: Callable[[bytes], Path],
) -> None:
    expired = made(SECOND, "connector-old", end=moment(NOW - 1))

    assert "CN=connector-old" in complaint(bundle(pem(made(), expired)))


WEAK = {
    "RSA of 1024 bits": rsa.generate_private_key(65537, 1024),
    "P-384": ec.derive_private_key(80, ec.SECP384R1()),
    "P-521": ec.derive_private_key(80, ec.SECP521R1()),
    "secp256k1": ec.derive_private_key(80, ec.SECP256K1()),
    "Ed25519": ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)),
    "DSA": dsa.generate_private_key(1024),
}


@pytest.mark.parametrize("key", WEAK.values(), ids=WEAK)
def test_a_key_that_signs_no_token_we_take_is_refused(
    bundle: Callable[[bytes], Path], key: Any
) -> None:
    said = complaint(bundle(pem(made(), made(key, "connector-weak"))))

    assert "CN=connector-weak" in said
    assert "P-256" in said


EC_KEY = bytes.fromhex("06072a8648ce3d0201")
P256 = bytes.fromhex("06082a8648ce3d030107")
UNREADABLE = {
    "a kind of key that nobody knows": (EC_KEY, bytes.fromhex("06072a8648ce3d0277")),
    "a curve that nobody knows": (P256, bytes.fromhex("06082a8648ce3d030177")),
    "a point that is not on its curve": (
        pki.spki(FIRST.public_key())[-64:], bytes(63) + b"\x07",
    ),
    "a name that is no text": (NAME, b"connector\xff\xfe"),
}  # fmt: skip


@pytest.mark.parametrize(("found", "instead"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_certificate_that_reads_as_far_as_it_must_is_an_anchor_or_a_sentence(
    bundle: Callable[[bytes], Path], found: bytes, instead: bytes
) -> None:
    """Nothing else may come of a file: an unexpected error would stop every later reload."""
    der = pki.der(made())
    assert der.count(found) == 1

    complaint(bundle(pem_of(der.replace(found, instead))))


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_any_wrong_byte_in_a_certificate_gives_anchors_or_a_sentence(
    bundle: Callable[[bytes], Path],
) -> None:
    good = pki.der(made())
    unexpected = set()
    for position in range(len(good)):
        for change in (0x01, 0x80, good[position], good[position] ^ 0xFF):  # also 00 and FF
            der = bytearray(good)
            der[position] ^= change
            try:
                read(bundle(pem_of(bytes(der))))
            except SettingsError:
                pass
            except Exception as error:  # noqa: BLE001 - which ones there are is the question
                unexpected.add(type(error).__name__)

    assert unexpected == set()


# Tenants


@pytest.fixture
def files(tmp_path: Path) -> AnchorFiles:
    """A bundle for all and one for each of two tenants."""
    for number, name in enumerate(("all", "a", "b")):
        key = ec.derive_private_key(90 + number, ec.SECP256R1())
        pki.write_certificate(tmp_path / f"{name}.pem", made(key, f"connector-{name}"))
    tenants = {f"tenant-{name}": tmp_path / f"{name}.pem" for name in ("b", "a")}
    return AnchorFiles(tmp_path / "all.pem", tenants)


def subjects(pool: AnchorPool, issuer: str) -> list[str]:
    return [anchor.subject for anchor in pool.of(issuer)]


def test_a_tenants_tokens_are_verified_by_its_own_bundle_and_all_others_by_the_common_one(
    files: AnchorFiles,
) -> None:
    pool = files.read(NOW)

    assert subjects(pool, "tenant-a") == ["CN=connector-a"]
    assert subjects(pool, "tenant-b") == ["CN=connector-b"]
    for issuer in ("tenant-c", "", "TENANT-A", "tenant-a "):
        assert subjects(pool, issuer) == ["CN=connector-all"]


@pytest.mark.parametrize("name", ["all", "a", "b"])
@pytest.mark.parametrize("data", [None, b"", b"garbage"])
def test_one_bundle_that_cannot_be_read_refuses_all(
    files: AnchorFiles, tmp_path: Path, name: str, data: bytes | None
) -> None:
    path = tmp_path / f"{name}.pem"
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)

    with pytest.raises(SettingsError) as error:
        files.read(NOW)
    assert str(path) in str(error.value)


def test_the_digest_says_which_bundle_is_whose(files: AnchorFiles, tmp_path: Path) -> None:
    """Two replicas of which one has the tenants' bundles the wrong way round do not agree."""
    swapped = AnchorFiles(
        files.common, {"tenant-a": tmp_path / "b.pem", "tenant-b": tmp_path / "a.pem"}
    )
    renamed = AnchorFiles(
        files.common, {"tenant-c": tmp_path / "a.pem", "tenant-d": tmp_path / "b.pem"}
    )
    digests = {each.read(NOW).sha256 for each in (files, swapped, renamed)}

    assert len(digests) == 3
