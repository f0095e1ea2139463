import base64
import time
from itertools import product
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.routes import (
    Target,
    crl_of,
    decode_message,
    operation_of,
    query_values,
    target_of,
)

SUFFIXES = ("/pkiclient.exe", "/cgi-bin/pkiclient.exe", "/certsrv/mscep/mscep.dll")
PIN = "0123456789abcdef" * 4
MESSAGE = bytes(range(251, 256)) * 40  # its base64 is full of + and /


def endings() -> list[str]:
    """What clients append: every suffix in any case, with and without a slash, and twice."""
    once = [s for suffix in SUFFIXES for s in (suffix, suffix.upper(), suffix.title())]
    twice = [a + b for a, b in product(SUFFIXES, SUFFIXES)]
    return [e + slash for e in ("", *once, *twice) for slash in ("", "/")]


@pytest.mark.parametrize("ending", endings())
def test_a_profile_is_found_under_every_suffix(ending: str) -> None:
    assert target_of(f"/scep/corp{ending}", "home") == Target("corp")
    assert target_of(f"/scep{ending}", "home") == Target("home")
    assert target_of(f"/scep{ending}", None) == Target(None)


@pytest.mark.parametrize("ending", [e for e in endings() if e.strip("/")])
def test_a_suffix_at_the_root_is_the_default_profile(ending: str) -> None:
    assert target_of(ending, "home") == Target("home")
    assert target_of(ending, None) == Target(None)


@pytest.mark.parametrize(
    "ending", ["/pkiclient.exe/pkiclient.exe/pkiclient.exe/", "//", "/pkiclient.exe//"]
)
def test_what_is_appended_more_than_twice_is_cut_off_too(ending: str) -> None:
    assert target_of(f"/scep/corp{ending}", None) == Target("corp")


@pytest.mark.parametrize("name", ["a", "0", "corp-2", "a-b-c", "x" * 63])
def test_path_ids_are_taken_as_they_are(name: str) -> None:
    assert target_of(f"/scep/{name}", None) == Target(name)


@pytest.mark.parametrize(
    "path",
    ["", "/", "//", "/other", "/scepx", "/scep/-corp", "/scep/corp-", "/scep/a/b", "/scep/a_b",
     "/scep/corp/other", "/scep/corp/pkiclient.exe/other", "/x/scep/corp", "/scep/corp%20",
     "/scep/corp\n", "/scep/../corp", "/pkiclient.exe/corp", "/scep-mtls", "/scep-mtls/a/b",
     "scep/corp", "/scep/corp/xpkiclient.exe", "/scep/\u0661"],
)  # fmt: skip
def test_any_other_path_names_no_profile(path: str) -> None:
    assert target_of(path, "home") == Target(None)


def test_a_path_of_nothing_but_suffixes_takes_no_time() -> None:
    """64 KiB of them are one request line; the work must grow with the line, not its square."""
    before = time.process_time()
    target_of("/scep/corp" + "/pkiclient.exe" * 4600, None)

    assert time.process_time() - before < 0.1


# The query


def test_values_are_raw_and_the_first_of_each_name_counts() -> None:
    found = query_values(b"operation=PKIOperation&message=a%2Bb+c=&MESSAGE=other&flag")

    assert found == {b"operation": b"PKIOperation", b"message": b"a%2Bb+c=", b"flag": b""}


def test_an_empty_query_has_no_operation() -> None:
    assert operation_of(query_values(b"")) is None


@pytest.mark.parametrize("name", ["GetCACaps", "GetCACert", "GetNextCACert", "PKIOperation"])
def test_operations_are_known_in_any_case(name: str) -> None:
    for given_name in (name, name.lower(), name.upper()):
        assert operation_of(query_values(f"operation={given_name}".encode())) == name


@pytest.mark.parametrize(
    "query",
    [
        b"operation=",
        b"operation=Other",
        b"operation=PKIOperation%20",
        b"operation=\xff",
        b"op=GetCACert",
    ],
)
def test_other_operations_are_none(query: bytes) -> None:
    assert operation_of(query_values(query)) is None


@pytest.mark.parametrize("message", [b"", b"&message=", b"&message=0", b"&message=CAIdentifier"])
def test_the_message_never_selects_an_operation(message: bytes) -> None:
    assert operation_of(query_values(b"operation=GetCACert" + message)) == "GetCACert"


# The message of a GET


def standard() -> bytes:
    return base64.b64encode(MESSAGE)


def lines(data: bytes, end: str) -> bytes:
    return end.encode().join(data[i : i + 64] for i in range(0, len(data), 64))


@pytest.mark.parametrize(
    "raw",
    [
        quote(standard(), safe="").encode(),
        standard(),
        standard().replace(b"+", b"%20"),
        standard().replace(b"+", b" "),
        base64.urlsafe_b64encode(MESSAGE),
        lines(standard(), "%0A"),
        lines(standard(), "%0D%0A"),
        lines(standard(), "\n") + b"%0A",
        lines(standard(), "%09"),
        standard().rstrip(b"="),
        base64.urlsafe_b64encode(MESSAGE).rstrip(b"="),
        quote(lines(standard(), "\r\n"), safe="").encode().replace(b"%3D", b""),
    ],
    ids=["escaped", "unescaped plus", "plus as %20", "plus as space", "base64url", "%0A", "%0D%0A",
         "bare newlines", "tabs", "no padding", "base64url, no padding", "everything"],
)  # fmt: skip
def test_base64_is_read_as_clients_write_it(raw: bytes) -> None:
    assert b"+" in standard()
    assert b"/" in standard()
    assert decode_message(raw) == MESSAGE


@given(st.binary(max_size=200), st.booleans(), st.booleans())
def test_any_message_survives_any_alphabet_and_padding(
    message: bytes,
    url: bool,  # noqa: FBT001 - drawn
    padded: bool,  # noqa: FBT001 - drawn
) -> None:
    encoded = base64.urlsafe_b64encode(message) if url else base64.b64encode(message)

    assert decode_message(encoded if padded else encoded.rstrip(b"=")) == message


@pytest.mark.parametrize(
    "raw",
    [
        b"A",
        b"AAAAA",
        b"AA!A",
        b"AA=A",
        b"A=AA",
        b"%00AAA",
        b"AAA\xff",
        b"AAAA.",
        b"<AAA",
        b"AA%3D%3DAA",
    ],
)
def test_what_is_no_base64_is_no_message(raw: bytes) -> None:
    assert decode_message(raw) is None


def test_no_message_is_empty() -> None:
    assert decode_message(b"") == b""
    assert decode_message(b"%0A") == b""


@given(st.binary(max_size=300))
def test_any_bytes_give_a_message_or_none(raw: bytes) -> None:
    assert isinstance(decode_message(raw), bytes | None)
    assert operation_of(query_values(raw)) in (
        None, "GetCACaps", "GetCACert", "GetNextCACert", "PKIOperation",
    )  # fmt: skip


# CRLs


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/crl/local.crl", ("local", "", "")), ("/crl/a-1.crl", ("a-1", "", "")),
     (f"/crl/local/{PIN}.crl", ("local", PIN, "")),
     (f"/crl/local/{PIN}/8-3.crl", ("local", PIN, "8-3"))],
)  # fmt: skip
def test_a_crls_path_names_issuer_key_and_partition(
    path: str, expected: tuple[str, str, str]
) -> None:
    assert crl_of(path) == expected


@pytest.mark.parametrize(
    "path",
    ["/crl", "/crl/.crl", "/crl/local", "/crl/local.crl/", "/crl/Local.crl", "/crl/a_b.crl",
     "/crl/-a.crl", "/crl/local/.crl", f"/crl/local/{PIN[1:]}.crl", f"/crl/local/{PIN.upper()}.crl",
     f"/crl/local/{PIN}/.crl", f"/crl/local/{PIN}/8.crl", f"/crl/local/{PIN}/8-3-1.crl",
     f"/crl/local/{PIN}/1000-3.crl", "/crl/local/8-3.crl",
     f"/crl/local/{PIN}.crl\n", "/scep/crl/local.crl", "/crl/../local.crl", "/scep/crl"],
)  # fmt: skip
def test_any_other_path_names_no_crl(path: str) -> None:
    assert crl_of(path) is None


# The mTLS sibling


@pytest.mark.parametrize("ending", endings())
def test_the_mtls_sibling_of_a_profile_is_found_under_every_suffix(ending: str) -> None:
    assert target_of(f"/scep-mtls/corp{ending}", "home") == Target("corp", mtls=True)


@pytest.mark.parametrize("path", ["/scep-mtls", "/scep-mtls/", "/scep-mtls/pkiclient.exe"])
def test_the_default_profile_has_no_mtls_sibling(path: str) -> None:
    assert target_of(path, "home") == Target(None)
