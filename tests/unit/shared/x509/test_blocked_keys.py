"""Lists of blocked keys, in both formats; OpenSSL says what Debian's digests are of."""

import hashlib
import subprocess
import tracemalloc
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from shared.config.keys import read_blocked_keys
from shared.config.load import SettingsError
from shared.limits import BLOCKED_KEYS, BLOCKED_KEYS_BYTES
from shared.x509.blocked_keys import BlockedKeys, read_digests, usual_spki
from tests.support import pki

EC_SPKI = pki.spki(ec.derive_private_key(9, ec.SECP256R1()).public_key())


def debian_entry(key: rsa.RSAPrivateKey, directory: Path) -> str:
    """What the package openssl-blacklist lists of a key, by the tools that it was made with."""
    path = pki.write_key(directory / "weak.key", key)
    shown = subprocess.run(
        ["openssl", "rsa", "-in", path, "-noout", "-modulus"], capture_output=True, check=True
    )
    return hashlib.sha1(shown.stdout, usedforsecurity=False).hexdigest()[20:]


def listed(*lines: str) -> BlockedKeys:
    return BlockedKeys.of(set(read_digests("\n".join(lines).encode())))


def test_a_key_is_found_by_the_digest_of_its_spki() -> None:
    digest = hashlib.sha256(EC_SPKI).hexdigest()

    assert listed(digest).problem(EC_SPKI) == "the key is on the list of blocked keys"
    assert listed(digest.upper() + "  # seen on the net").problem(EC_SPKI) != ""
    assert listed("ab" * 32).problem(EC_SPKI) == ""
    assert listed().problem(EC_SPKI) == ""


def test_a_key_is_found_however_its_csr_spells_it() -> None:
    usual = EC_SPKI
    key = load_der_public_key(usual)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    point = key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    algorithm = usual[2:23]
    compressed = b"\x30\x39" + algorithm + b"\x03\x22\x00" + point
    again = load_der_public_key(compressed)

    assert isinstance(again, ec.EllipticCurvePublicKey)
    assert usual_spki(again) == usual


def test_a_weak_key_is_found_by_the_entry_of_debians_package(
    rsa_key: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    entry, spki = debian_entry(rsa_key, tmp_path), pki.spki(rsa_key.public_key())
    other = "0" * 19 + "1"

    assert "CVE-2008-0166" in listed("# RSA-2048", other, entry).problem(spki)
    assert listed(other).problem(spki) == ""
    assert listed(entry).problem(EC_SPKI) == ""


def test_every_key_of_a_long_list_is_found_and_no_other() -> None:
    digests = [hashlib.sha256(bytes([n])).digest() for n in range(200)]
    found = BlockedKeys.of({*digests[::2], *(d[:10] for d in digests[::2])})

    assert [d in found.spki for d in digests] == [True, False] * 100
    assert [d[:10] in found.debian for d in digests] == [True, False] * 100
    assert len(found) == 200


def test_debians_whole_list_takes_little_memory() -> None:
    digests = {hashlib.sha1(n.to_bytes(4, "big")).digest()[:10] for n in range(300_000)}
    tracemalloc.start()
    found = BlockedKeys.of(digests)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(found) == 300_000
    assert kept < 3.1 * 10**6


@pytest.mark.parametrize("line", ["deadbeef", "g" * 64, "ab" * 16, "ab:" * 31 + "ab"])
def test_a_line_that_is_no_digest_is_named_with_its_file(tmp_path: Path, line: str) -> None:
    path = tmp_path / "blocked"
    path.write_text(f"# keys\n\n{'ab' * 32}\n{line}\n")

    with pytest.raises(SettingsError, match="blocked: line 4: not 64 hex digits"):
        read_blocked_keys([path])


def test_a_file_that_is_missing_or_too_long_is_named(tmp_path: Path) -> None:
    with (tmp_path / "long").open("wb") as file:
        file.truncate(BLOCKED_KEYS_BYTES + 1)

    with pytest.raises(SettingsError, match="long: longer than"):
        read_blocked_keys([tmp_path / "long"])
    with pytest.raises(SettingsError, match="none: No such file"):
        read_blocked_keys([tmp_path / "none"])


def test_lists_have_a_most_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(BlockedKeys.of({bytes(32), bytes(10)})) < BLOCKED_KEYS
    monkeypatch.setattr("shared.config.keys.BLOCKED_KEYS", 2)
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(hashlib.sha256(name.encode()).hexdigest())

    assert len(read_blocked_keys([tmp_path / "a", tmp_path / "b"])) == 2
    with pytest.raises(SettingsError, match="c: more than 2 blocked keys in all"):
        read_blocked_keys([tmp_path / "a", tmp_path / "b", tmp_path / "c"])
