"""Whatever a system writes, shows or passes on is searched for its secrets, in every form.

The searcher itself is proven first: it finds what is planted.
"""

import base64
import json
import os
import re
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from shared.log.roles import Role
from shared.scep.certrep import PkiStatus, read_reply
from tests.chaos.killer import pids
from tests.support import messages as m
from tests.support.requests import (
    Device,
    Endpoint,
    ask,
    connection,
    enroll,
    listed,
    recorded,
    sealed,
    send,
)
from tests.support.system import System, running

CONFIGURATION: Final = frozenset({"run.json", "scepstream.toml"})
WRONG: Final = "WrongChallengeMarker4711"


# The searcher

_RUN: Final = re.compile(rb"[A-Za-z0-9+/_-]{16,}")
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_NESTED: Final = 3


@dataclass(frozen=True)
class Secret:
    """What must not be found but in the places allowed, and how it may be written."""

    text: str
    allowed: frozenset[str] = frozenset()

    @cached_property
    def forms(self) -> dict[str, bytes]:
        """Every direct form: they are looked for in bytes as they are."""
        clear = self.text.encode()
        return {
            "clear": clear,
            "hex": clear.hex().encode(),
            "HEX": clear.hex().upper().encode(),
            "UTF-16BE": self.text.encode("utf-16-be"),
            "UTF-16LE": self.text.encode("utf-16-le"),
            "JSON escapes": "".join(f"\\u{ord(c):04x}" for c in self.text).encode(),
            **{f"base64 at {at}": _aligned(clear, at) for at in range(3)},
        }


def _aligned(clear: bytes, at: int) -> bytes:
    """The base64 characters that depend on the secret alone, `at` bytes into a group."""
    encoded = base64.b64encode(bytes(at) + clear)
    first = -(-at * 8 // 6)
    return encoded[first : (at + len(clear)) * 8 // 6]


def leaks(data: bytes, secret: Secret, depth: int = _NESTED) -> set[str]:
    """How the secret stands in the data: directly, or `depth` times inside base64."""
    plain = data.replace(b"\\/", b"/")
    standard = plain.translate(_STANDARD)
    found = {name for name, form in secret.forms.items() if form in data or form in standard}
    if depth:
        for decoded in _decoded(plain):
            found |= {f"base64 of {name}" for name in leaks(decoded, secret, depth - 1)}
    return found


def _decoded(data: bytes) -> Iterator[bytes]:
    """What the base64 runs of the data hold, wherever in a run a group of four begins."""
    for run in _RUN.findall(data):
        standard = run.translate(_STANDARD)
        for offset in range(4):
            group = standard[offset:]
            group = group[:-1] if len(group) % 4 == 1 else group
            yield base64.b64decode(group + b"=" * (-len(group) % 4))


PLANTED: Final[dict[str, Callable[[bytes], bytes]]] = {
    "clear": lambda s: s,
    "hex": lambda s: s.hex().encode(),
    "HEX": lambda s: s.hex().upper().encode(),
    "UTF-16BE": lambda s: s.decode().encode("utf-16-be"),
    "UTF-16LE": lambda s: s.decode().encode("utf-16-le"),
    "escaped in JSON": lambda s: "".join(f"\\u{c:04x}" for c in s).encode(),
    "BMPString in base64": lambda s: base64.b64encode(b"x" + s.decode().encode("utf-16-be")),
    "hex in base64": lambda s: base64.b64encode(b"xy" + s.hex().encode()),
    "base64 in JSON in base64": lambda s: base64.b64encode(
        json.dumps({"key": base64.b64encode(b"der" + s).decode()}).encode()
    ),
    "base64 with escaped slashes": lambda s: base64.b64encode(
        b"\xff\xff\xff" + base64.b64encode(b"\xff" * 3 + s)
    ).replace(b"/", b"\\/"),
    **{
        f"base64 {before} bytes in, {after} before the end": (
            lambda s, b=before, a=after: base64.b64encode(bytes(b) + s + bytes(a))
        )
        for before in range(3)
        for after in range(3)
    },
    **{
        f"base64url {before} bytes in": (
            lambda s, b=before: base64.urlsafe_b64encode(b"\xfb\xff\xfe" * 9 + bytes(b) + s)
        )
        for before in range(3)
    },
    **{
        f"base64 after {count} other characters": (
            lambda s, n=count: b"abcd"[:n] + base64.b64encode(b"\x01" + s)
        )
        for count in range(4)
    },
}


@pytest.mark.parametrize("form", PLANTED)
def test_the_searcher_finds_what_is_planted(form: str) -> None:
    secret = Secret("k3Yz0PqLmN8vRtW2xAbCdEfG")
    planted = PLANTED[form](secret.text.encode())

    assert leaks(b"\x00 {" + planted + b"}\n", secret)
    assert leaks(planted, secret)


@pytest.mark.parametrize("form", PLANTED)
def test_the_searcher_takes_no_other_secret_for_it(form: str) -> None:
    other = PLANTED[form](b"k3Yz0PqLmN9vRtW2xAbCdEfG")

    assert leaks(other, Secret("k3Yz0PqLmN8vRtW2xAbCdEfG")) == set()


# A system, and everything said to it that might be repeated


@pytest.fixture(scope="module")
def talked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system of its own, made under the usual umask, after all of `talk`."""
    before = os.umask(0o022)
    try:
        with running(tmp_path_factory.mktemp("secrets") / "data") as system:
            for profile in ("demo", "legacy"):
                talk(system, Endpoint.of(system, profile))
            yield system
    finally:
        os.umask(before)


def talk(system: System, endpoint: Endpoint) -> None:
    """Right and wrong challenges, in good, bad and broken requests."""
    by_command(system, endpoint, 0)
    by_command(system, replace(endpoint, challenge=WRONG), 3)
    enroll(endpoint, Device.new(), cipher="aes128")
    enroll(endpoint, Device.new(), digest="sha512")
    for wrong in (WRONG, endpoint.challenge + WRONG, endpoint.challenge[1:] + "0"):
        reply = ask(endpoint, (device := Device.new()).enrollment(endpoint, device.csr(wrong)))
        assert reply.status is PkiStatus.FAILURE
    for body in tampered(endpoint):
        assert is_refused(endpoint.post(body)), body.hex()
    for url in misplaced(endpoint):
        assert is_refused(send("GET", url)), url
    mention_in_headers(endpoint)
    ask_the_api(system, endpoint)
    shout(endpoint)
    enroll(endpoint, last := Device.new())
    recorded(system, last, "issued")  # and with it all that came before it


def by_command(system: System, endpoint: Endpoint, status: int) -> None:
    """`scepstream enroll`: its exit status, and what it says of the challenge: nothing."""
    out = system.data.parent / Device.new().name
    options = ("--challenge", endpoint.challenge, "--cn", out.name, "--out", str(out))
    done = system.cli("enroll", endpoint.url, *options)
    assert done.returncode == status, done.stderr
    assert endpoint.challenge not in done.stdout + done.stderr


def tampered(endpoint: Endpoint) -> Iterator[bytes]:
    """Requests with the right challenge that do not verify, do not open or make no sense."""
    secret, device = endpoint.challenge.encode(), Device.new()
    csr = device.csr(endpoint.challenge)
    whole = device.enrollment(endpoint, csr).body
    yield from (flipped(whole, -1), flipped(whole, len(whole) // 3), whole[:-100])
    yield device.enrollment(endpoint, digested=secret).body
    yield device.enrollment(endpoint, flipped(csr, -1)).body
    yield device.enrollment(endpoint, secret).body
    yield device.request(csr).body  # an envelope was forgotten
    in_clear = sealed(endpoint, b"", ciphertext=csr + bytes(-len(csr) % 16))
    yield device.request(in_clear).body
    yield device.request(sealed(endpoint, csr), b"17").body
    yield device.request(sealed(endpoint, csr), secret).body
    attribute = m.challenge(m.PRINTABLE, secret)
    yield m.signed(b"", device.identity, [attribute, *m.cms_attributes(b"")])
    yield from (secret, base64.b64encode(secret), b"\x30\x80" + secret, csr)


def flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def misplaced(endpoint: Endpoint) -> Iterator[str]:
    """The challenge where clients put it by mistake."""
    secret, base = endpoint.challenge, endpoint.url.rpartition("/")[0]
    yield f"{base}/{secret}?operation=GetCACaps"
    yield f"{base}/{secret}?operation=PKIOperation&message={secret}"
    yield f"{endpoint.url}?operation={secret}"
    yield f"{endpoint.url}?operation=PKIOperation&message={secret}"
    yield f"{endpoint.url}?operation=PKIOperation&challenge={secret}"
    yield f"{endpoint.url}?challenge={secret}"


def mention_in_headers(endpoint: Endpoint) -> None:
    """A request that is answered, whose headers say too much."""
    names = ("authorization", "user-agent", "x-forwarded-for", "traceparent", "x-request-id")
    headers = dict.fromkeys(names, endpoint.challenge)
    assert send("GET", f"{endpoint.url}?operation=GetCACaps", headers=headers).is_success
    garbage = send("POST", f"{endpoint.url}?operation=PKIOperation", headers=headers)
    assert is_refused(garbage)


def ask_the_api(system: System, endpoint: Endpoint) -> None:
    """With the right token and with challenges for tokens and elsewhere."""
    url = f"{system.run['admin_url']}/api/v1/enrollments"
    right = {"authorization": f"Bearer {system.run['admin_token']}"}
    assert send("GET", url, headers=right).is_success
    for secret in (endpoint.challenge, WRONG):
        wrong = send("GET", url, headers={"authorization": f"Bearer {secret}"})
        assert wrong.status_code == 401
        assert send("GET", f"{url}/{secret}", headers=right).status_code == 404
        assert send("GET", url, headers=right, params={"search": secret}).is_success


def shout(endpoint: Endpoint) -> None:
    """No HTTP at all."""
    with connection(endpoint) as opened:
        opened.send(endpoint.challenge.encode(), b"\r\n\r\n")
        assert opened.socket.recv(4096).startswith(b"HTTP/1.1 400 ")


def is_refused(response: httpx.Response) -> bool:
    """An HTTP error of the client's, or a CertRep that says no."""
    if response.status_code in (400, 404):
        return True
    return response.is_success and read_reply(response.content).status is PkiStatus.FAILURE


# What is searched, and for what


def secrets_of(system: System) -> list[Secret]:
    """Every challenge that was said, right or wrong; and what opens the other doors."""
    run, keys = system.run, system.data / "keys"
    said = [each["challenge"] for each in run["profiles"].values() if each["challenge"]]
    challenges = [Secret(each, CONFIGURATION) for each in said]
    token = Secret(run["admin_token"], frozenset({"run.json", "admin-token"}))
    seeds = [
        Secret((keys / f"{role}.nkey").read_text().strip(), frozenset({f"keys/{role}.nkey"}))
        for role in Role
    ]
    return [*challenges, Secret(WRONG), token, *seeds]


def assert_clean(system: System, places: Iterable[tuple[str, bytes]]) -> None:
    """No secret where it must not be; the message names place and form, and no secret."""
    secrets, searched, found = secrets_of(system), 0, []
    for place, data in places:
        searched += bool(data)
        for number, secret in enumerate(secrets):
            if place not in secret.allowed and (how := leaks(data, secret)):
                found.append(f"secret {number} in {place}: {', '.join(sorted(how))}")
    assert found == []
    assert searched


def files(system: System) -> Iterator[tuple[str, bytes]]:
    """Every file of the data directory; those that come and go in the meantime may be missed."""
    for path in system.data.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file():
                yield str(path.relative_to(system.data)), path.read_bytes()


def test_files_hold_challenges_only_where_they_are_configured(talked: System) -> None:
    assert_clean(talked, files(talked))

    found = dict(files(talked))
    for profile in ("demo", "legacy"):
        secret = Secret(talked.challenge(profile))
        assert {place for place, data in found.items() if leaks(data, secret)} == CONFIGURATION


def test_the_files_that_were_searched_hold_the_enrollments(talked: System) -> None:
    found = dict(files(talked))
    stored = b"".join(data for place, data in found.items() if "ENROLL_0/msgs/" in place)
    database = b"".join(data for place, data in found.items() if place.startswith("audit.db"))

    for line in listed(talked):
        assert line["enrollment"].encode() in stored
        assert line["enrollment"].encode() in database
    assert found["logs/gateway-0.log"].count(b'"event": "refused"') > 10
    assert {f"logs/{name}.log" for name in talked.run["metrics_urls"]} <= found.keys()


def test_rows_hold_no_secret(talked: System) -> None:
    """The database as SQL shows it: in the file a value may be cut by a page's end."""

    def rows() -> Iterator[tuple[str, bytes]]:
        address = f"file:{talked.data / 'audit.db'}?mode=ro"
        with closing(sqlite3.connect(address, uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            tables = connection.execute("select name from sqlite_master where type = 'table'")
            for (table,) in tables.fetchall():
                for row in connection.execute(f"select * from {table}"):
                    for name in row.keys():  # noqa: SIM118 - a row is no mapping
                        yield f"{table}.{name}", as_bytes(row[name])

    assert_clean(talked, rows())


def as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def test_metrics_hold_no_secret(talked: System) -> None:
    run = talked.run
    urls = {*run["metrics_urls"].values(), f"{run['admin_url']}/metrics"}
    texts = [(url, send("GET", url)) for url in sorted(urls)]

    assert all(b"scepstream_" in response.content for _, response in texts)
    assert_clean(talked, ((url, response.content) for url, response in texts))


def test_the_record_shows_no_secret(talked: System) -> None:
    every = {(line["profile"], line["state"]): line["enrollment"] for line in listed(talked)}
    assert set(every) == {(p, s) for p in ("demo", "legacy") for s in ("issued", "rejected")}
    options = ("--config", str(talked.config))
    commands = [("list", "--json"), ("show", every["demo", "rejected"])]
    commands += [("show", name, "--json") for name in every.values()]
    outputs = [(command[0], talked.cli("audit", *command, *options)) for command in commands]

    assert all(done.returncode == 0 and not done.stderr for _, done in outputs)
    assert_clean(talked, ((name, done.stdout.encode()) for name, done in outputs))


def test_processes_are_not_told_secrets_where_others_can_read_them(talked: System) -> None:
    numbers = [*pids(talked.run).values(), talked.run["pids"]["supervisor"]]
    names = [f"/proc/{pid}/{name}" for pid in numbers for name in ("cmdline", "environ")]

    assert_clean(talked, ((name, Path(name).read_bytes()) for name in names))


def test_nobody_else_can_read_the_data(talked: System) -> None:
    """Not even where the umask would let them."""
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in talked.data.rglob("*")}

    assert stat.S_IMODE(talked.data.stat().st_mode) == 0o700
    assert {str(path): oct(mode) for path, mode in modes.items() if mode & 0o077} == {}
    for name in CONFIGURATION:
        assert modes[talked.data / name] == 0o600
