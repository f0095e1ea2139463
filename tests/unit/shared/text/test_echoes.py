"""A secret is found in foreign text however it is written there."""

import base64
import html
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.text import echoes as subject
from shared.text.echoes import echoes

SECRET = "p+ss/w\"or'd<&>ä\U0001f511%2b-Z9"

WRITTEN: dict[str, Callable[[str], str]] = {
    "as it is": lambda s: s,
    "html": html.escape,
    "html twice": lambda s: html.escape(html.escape(s)),
    "html numbers": lambda s: "".join(f"&#{ord(c)};" for c in s),
    "html hex": lambda s: "".join(f"&#x{ord(c):x};" for c in s),
    "json": lambda s: json.dumps(s)[1:-1],
    "json in json": lambda s: json.dumps(json.dumps(s)),
    "json, each character": lambda s: "".join(
        f"\\u{int.from_bytes(unit, 'big'):04x}"
        for data in [s.encode("utf-16-be")]
        for unit in (data[i : i + 2] for i in range(0, len(data), 2))
    ),
    "json as some write it": lambda s: s.replace("+", "\\u002b").replace("/", "\\/"),
    "braces": lambda s: "".join(f"\\u{{{ord(c):x}}}" for c in s),
    "bytes": lambda s: "".join(f"\\x{ord(c):02x}" if ord(c) < 128 else c for c in s),
    "percent": quote,
    "percent, nothing safe": lambda s: quote(s, safe=""),
    "percent, more safe": lambda s: quote(s, safe="/+'&<>"),
    "percent, lower case": lambda s: quote(s, safe="").lower(),
    "percent, each byte": lambda s: "".join(f"%{byte:02X}" for byte in s.encode()),
    "form": quote_plus,
    "percent in html": lambda s: html.escape(quote(s, safe="'")),
    "html in json": lambda s: json.dumps(html.escape(s)),
    "upper case": str.upper,
    "with blanks": " ".join,
    "with zero width": "\ufeff".join,
    "full width": lambda s: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in s),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64url": lambda s: base64.urlsafe_b64encode(s.encode()).decode().rstrip("="),
    "hex": lambda s: s.encode().hex(),
    "hex with colons": lambda s: s.encode().hex(":"),
    "hex with blanks": lambda s: s.encode().hex(" "),
    "hex with hyphens": lambda s: s.encode().hex("-"),
    "a prefix": lambda s: s[:8],
    "an end": lambda s: s[-8:],
    "a prefix in html": lambda s: html.escape(s[:8]),
}


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize(
    "before",
    ["", " ", "no: [ ", "&amp; ", "GET /api/", "https://h.example/cb/", "id-", "f", "fe", "a/b"],
)
def test_a_secret_is_found_in_every_form(write: Callable[[str], str], before: str) -> None:
    assert echoes(f"{before}{write(SECRET)} is wrong", ["another-secret", SECRET])


@pytest.mark.parametrize("text", ["", "not in the inventory", "HTTP 403", "p+ss w", "&#x;%zz\\u\\"])
def test_other_text_holds_none(text: str) -> None:
    assert not echoes(text, [SECRET, "", "  "])
    assert not echoes(text, [])


@pytest.mark.parametrize(
    ("secret", "text", "found"),
    [
        ("abc", "say abc", True),
        ("abc", "say ab", False),
        ("abcdef", "say abcd", True),
        ("abcdef", "say abc", False),
        ("abcdefghijkl", "say abcdef", True),
        ("abcdefghijkl", "say abcde", False),
        ("abcdefghijklmnopqrst", "say abcdefgh", True),
        ("abcdefghijklmnopqrst", "say abcdefg", False),
    ],
)
def test_a_part_counts_from_half_or_eight_characters_on(
    secret: str, text: str, *, found: bool
) -> None:
    assert echoes(text, [secret]) is found


def test_a_secret_that_looks_encoded_is_found_decoded() -> None:
    assert echoes("the token a+b/c=d is unknown", ["a%2Bb%2Fc%3Dd"])


@given(st.text(), st.text())
def test_no_text_makes_an_error(text: str, secret: str) -> None:
    echoes(text, [secret])
    assert not secret.strip() or echoes(secret, [secret]) or not secret.isprintable()


def test_what_decodes_again_and_again_is_taken_for_an_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these decodes to something else in every order."""
    monkeypatch.setattr(subject, "_MOST_FORMS", 32)
    assert not echoes("%2541 is not in the inventory", ["a secret"])
    assert echoes("%2525252526amp;\\\\u0026#37;25&amp;amp;amp;" * 20, ["a secret"])


def test_a_secret_without_end_is_taken_for_one() -> None:
    assert echoes("not in the inventory", ["x" * 10_000])


def test_the_work_does_not_grow_with_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """A challenge is as long as its sender likes: its parts are looked up, not searched."""
    asked: list[int] = []
    parts = subject._parts
    monkeypatch.setattr(
        subject, "_parts", lambda text, length: asked.append(len(text)) or parts(text, length)
    )
    secret = "".join(map(chr, range(0x4E00, 0x4E00 + 4000)))
    assert not echoes("unknown device &amp;amp; CN=%2541%2542 bm90aGluZw==", [secret])

    assert sum(asked) < 200_000
