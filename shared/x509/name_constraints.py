"""Names that the CAs of a chain exclude (RFC 5280 s4.2.1.10). Pure.

Every verifier rejects a certificate with such a name, so none is issued. The constraints of each CA
hold, a trust anchor's too, as OpenSSL has it. Checked are dNSName, rfc822Name, URI, iPAddress and
directoryName. Verifiers disagree about the other kinds, about a dNSName in a common name, and about
constraints that do not parse: those are left to them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from shared.limits import shortened
from shared.scep.asn1 import (
    CONSTRUCTED_0,
    SEQUENCE,
    SET,
    Der,
    object_identifier,
)
from shared.scep.certificate import read_certificate, read_extension
from shared.scep.errors import ScepError
from shared.x509.names import name_text, read_attributes, read_rdn

_NAME_CONSTRAINTS: Final = object_identifier("2.5.29.30")
_EXCLUDED: Final = CONSTRUCTED_0 | 1
_MAIL, _DNS, _DIRECTORY, _URI, _IP = 0x81, 0x82, 0xA4, 0x86, 0x87
_LABELS: Final = {
    _MAIL: "rfc822Name",
    _DNS: "dNSName",
    _DIRECTORY: "directoryName",
    _URI: "URI",
    _IP: "iPAddress",
}

_Subtree = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class NameConstraints:
    """The (tag, contents) of the subtrees in a CA's certificate, and the CA's name for display."""

    ca: str
    permitted: tuple[_Subtree, ...]
    excluded: tuple[_Subtree, ...]

    def problem(self, tag: int, contents: bytes) -> str:
        """Return how a name breaks the constraints, "" if it does not."""
        matches = _MATCHERS[tag]
        permitted = [base for kind, base in self.permitted if kind == tag]
        excluded = [base for kind, base in self.excluded if kind == tag]
        if tag == _URI and (permitted or excluded) and not _uri_host(contents):
            return f"has no host, and {self.ca} has name constraints for URIs"
        if any(matches(contents, base) for base in excluded):
            return f"is excluded by the name constraints of {self.ca}"
        if permitted and not any(matches(contents, base) for base in permitted):
            return f"is outside the name constraints of {self.ca}"
        return ""


@lru_cache(maxsize=64)
def name_constraints(chain: tuple[bytes, ...]) -> tuple[NameConstraints, ...]:
    """Return the constraints of each CA (DER) of a chain that has any."""
    return tuple(found for ca in chain if (found := _read(ca)) is not None)


def excluded_subject(
    subject: bytes, constraints: Sequence[NameConstraints], *, has_sans: bool
) -> str:
    """Return how a subject (DER) breaks the constraints, "" if it does not.

    Without subjectAltNames, a mail address in it counts as one.
    """
    names = list(_subject_names(subject, has_sans=has_sans)) if constraints else ()
    return _problem(names, constraints)


def excluded_sans(value: bytes, constraints: Sequence[NameConstraints]) -> str:
    """Return how a subjectAltName (DER) breaks the constraints, "" if it does not."""
    names: list[tuple[str, int, bytes]] = []
    entries = Der(value).enter(SEQUENCE)
    while constraints and entries.more():
        tag, contents = entries.any()
        if tag in _LABELS:
            names.append((f'{_LABELS[tag]} "{_shown(tag, contents)}"', tag, contents))
    return _problem(names, constraints)


def _problem(
    names: Sequence[tuple[str, int, bytes]], constraints: Sequence[NameConstraints]
) -> str:
    for label, tag, contents in names:
        for each in constraints:
            if problem := each.problem(tag, contents):
                return shortened(f"{label} {problem}")
    return ""


def _subject_names(subject: bytes, *, has_sans: bool) -> Iterator[tuple[str, int, bytes]]:
    """Yield (label, tag, contents) of what a subject counts as; an empty one is no name."""
    rdns = Der(subject).enter(SEQUENCE)
    if rdns.more():
        yield f'subject "{name_text(subject)}"', _DIRECTORY, subject
    if not has_sans:
        for each in read_attributes(subject):
            if each.kind == "emailAddress":
                yield f'emailAddress "{each.text}"', _MAIL, each.contents


def _read(ca: bytes) -> NameConstraints | None:
    try:
        value = read_extension(ca, _NAME_CONSTRAINTS)
        if value is None:
            return None
        outer = Der(value)
        inner = outer.enter(SEQUENCE)
        outer.finish()
        permitted = _subtrees(inner, CONSTRUCTED_0)
        excluded = _subtrees(inner, _EXCLUDED)
        return NameConstraints(name_text(read_certificate(ca).subject), permitted, excluded)
    except ScepError:
        return None


def _subtrees(inner: Der, tag: int) -> tuple[_Subtree, ...]:
    """Return the bases of the kinds that are checked; minimum and maximum are not used."""
    if not inner.next_is(tag):
        return ()
    subtrees, found = inner.enter(tag), list[_Subtree]()
    while subtrees.more():
        kind, contents = subtrees.enter(SEQUENCE).any()
        if kind in _LABELS and (kind != _IP or len(contents) in (8, 32)):
            found.append((kind, contents))
    return tuple(found)


def _in_host(host: bytes, base: bytes) -> bool:
    """Match a dNSName: the host of the constraint and all below; with a dot, only those below."""
    host, base = host.lower(), base.lower()
    return not base or host == base or host.endswith(base if base[:1] == b"." else b"." + base)


def _in_domain(host: bytes, base: bytes) -> bool:
    """Match the host of a mail address or URI: with a dot all below, else the host alone."""
    host, base = host.lower(), base.lower()
    return not base or (host.endswith(base) if base[:1] == b"." else host == base)


def _in_mailbox(mail: bytes, base: bytes) -> bool:
    local, _, host = mail.rpartition(b"@")
    wanted, at, domain = base.rpartition(b"@")
    if at:
        return (local, host.lower()) == (wanted, domain.lower())
    return _in_domain(host, base)


def _in_uri(uri: bytes, base: bytes) -> bool:
    return _in_domain(_uri_host(uri), base)


def _uri_host(uri: bytes) -> bytes:
    """Return the host name of a URI, b"" if it has none; an address is none."""
    try:
        host = urlsplit(uri.decode("ascii")).hostname or ""
    except ValueError:
        return b""
    return b"" if _is_address(host) else host.encode()


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _in_network(address: bytes, base: bytes) -> bool:
    half = len(base) // 2
    if len(address) != half:
        return False
    network, mask = base[:half], base[half:]
    return all(a & m == n & m for a, n, m in zip(address, network, mask, strict=True))


def _in_directory(name: bytes, base: bytes) -> bool:
    """Match a Name (DER) that begins with the RDNs of the constraint."""
    try:
        rdns, wanted = _rdns(name), _rdns(base)
    except ScepError:
        return False
    return rdns[: len(wanted)] == wanted


@lru_cache(maxsize=256)
def _rdns(name: bytes) -> tuple[frozenset[tuple[str, str]], ...]:
    """Return the RDNs of a Name (DER), folded for comparison (RFC 5280 s7.1)."""
    rdns, found = Der(name).enter(SEQUENCE), list[frozenset[tuple[str, str]]]()
    while rdns.more():
        attributes = read_rdn(rdns.enter(SET))
        found.append(frozenset((a.kind, " ".join(a.text.casefold().split())) for a in attributes))
    return tuple(found)


def _shown(tag: int, contents: bytes) -> str:
    if tag == _IP and len(contents) in (4, 16):
        return str(ip_address(contents))
    if tag == _DIRECTORY:
        try:
            return name_text(contents)
        except ScepError:
            return contents.hex()
    return contents.decode("ascii", "backslashreplace")


_MATCHERS: Final[dict[int, Callable[[bytes, bytes], bool]]] = {
    _MAIL: _in_mailbox,
    _DNS: _in_host,
    _DIRECTORY: _in_directory,
    _URI: _in_uri,
    _IP: _in_network,
}
