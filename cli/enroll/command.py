"""The `enroll` command, from its options to files and an exit status."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import typer
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cli.enroll import options as o
from cli.enroll.authority import Authority, UntrustedError, check_pin, read_authority
from cli.enroll.client import (
    CIPHER_NAMES,
    DIGEST_NAMES,
    TRANSPORTS,
    BadReplyError,
    Exchange,
    Style,
)
from cli.enroll.console import ERROR, UNREACHABLE, fail, say
from cli.enroll.csr import Key
from cli.enroll.enrollment import EnrollmentRequest, ask, finish
from cli.enroll.families import DEFAULT, FAMILIES, Family
from cli.enroll.files import Files
from cli.enroll.http import Server, ServerError, UnreachableError
from cli.enroll.identity import (
    Identity,
    RequestError,
    key_pem,
    make_csr,
    make_identity,
    make_key,
    make_renewal_csr,
    names_of,
    read_key,
    renewing,
    self_signed,
    signed_by,
    signer_of,
)
from cli.enroll.queries import get_cert as ask_cert
from cli.enroll.queries import get_crl as ask_crl
from cli.enroll.queries import get_next_ca
from cli.enroll.signed_challenge import ChallengeSource
from shared.runtime.process import now
from shared.scep.cacaps import read_caps
from shared.scep.errors import ScepError
from shared.scep.pkimessage import MessageType
from shared.x509.loading import loading
from shared.x509.names import name_text

_T = TypeVar("_T")
_SIGNER_NAME: Final = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "SCEP signer")])


def enroll(
    url: o.Url,
    cn: o.Cn = "",
    challenge: o.Challenge = None,
    connector: o.ConnectorDir = None,
    device_id: o.DeviceId = None,
    audience: o.Audience = None,
    san: o.San = None,
    key: o.KeyKind = "rsa:2048",
    signer_key: o.SignerKey = None,
    out: o.Out = None,
    ca_file: o.CaFile = None,
    fingerprint: o.Fingerprint = None,
    force: o.Force = False,
    poll: o.Poll = False,
    poll_for: o.PollFor = 600,
    renew: o.Renew = False,
    reuse_key: o.ReuseKey = False,
    as_pkcs_req: o.AsPkcsReq = False,
    get_cert: o.GetCert = None,
    get_crl: o.GetCrl = False,
    next_ca: o.NextCa = False,
    caps: o.Caps = False,
    cipher: o.Cipher = None,
    digest: o.DigestName = None,
    transport: o.Transport = None,
    pss: o.Pss = False,
    ber: o.Ber = False,
    get: o.Get = False,
    family: o.As = None,
) -> None:
    """Act as a SCEP client: enroll, renew, poll or query. Every reply is verified.

    Exit status: 0 issued or answered, 1 error, 3 refused, 4 pending, 5 unreachable.
    """
    device = o.Device(cn, challenge, tuple(san or ()), key, signer_key)
    files = Files(out or Path(re.sub(r"[^\w.-]", "_", cn) or "."), force)
    try:
        style = _style(cipher, digest, transport, _family(family, key), ber=ber, get=get)
        device = _challenged(device, _source(connector, device_id, audience), files, renew=renew)
        session = Session(url, ca_file, fingerprint, device, files, style, pss)
        questions = o.Questions(get_cert, get_crl, next_ca, caps)
        renewal = o.Renewal(renew, reuse_key, as_pkcs_req)
        raise typer.Exit(session.run(questions, renewal, o.Waiting(poll, poll_for)))
    except UnreachableError as error:
        raise fail(UNREACHABLE, str(error)) from None
    except (ServerError, UntrustedError, BadReplyError, RequestError) as error:
        raise fail(ERROR, str(error)) from None
    except ScepError as error:
        raise fail(ERROR, f"cannot encode or decode a message: {error.detail}") from None


def _source(
    connector: Path | None, device_id: str | None, audience: str | None
) -> ChallengeSource | None:
    """Return the connector that signs the challenge, or None."""
    if connector is not None:
        return ChallengeSource(connector, device_id, audience)
    for option, given in (("--device-id", device_id), ("--audience", audience)):
        if given is not None:
            raise RequestError(f"{option} requires --connector")
    return None


def _challenged(
    device: o.Device, source: ChallengeSource | None, files: Files, *, renew: bool
) -> o.Device:
    """Return the device with the challenge that `source` signs for it; unchanged without one."""
    if source is None:
        return device
    if not renew and not device.cn:
        return device  # refused later without --cn, unless it is a query, which needs no challenge
    if device.challenge is not None:
        raise RequestError("--challenge and --connector are mutually exclusive")
    if renew:
        return replace(device, challenge=source.renewal_challenge(read_certificate(files)))
    return replace(device, challenge=source.challenge(device.cn, device.sans))


def read_certificate(files: Files) -> x509.Certificate:
    """Load the certificate that an earlier run wrote."""
    path = files.certificate
    try:
        with loading():
            return x509.load_pem_x509_certificate(files.read(path))
    except ValueError:
        raise RequestError(f"{path}: contains no PEM certificate") from None


def _style(
    cipher: str | None,
    digest: str | None,
    transport: str | None,
    family: Family,
    *,
    ber: bool,
    get: bool,
) -> Style:
    """Map the names of algorithms to a style."""
    return Style(
        _named(cipher, CIPHER_NAMES, "--cipher") if cipher else None,
        _named(digest, DIGEST_NAMES, "--digest") if digest else None,
        _named(transport, TRANSPORTS, "--transport") if transport else None,
        ber,
        get,
        family,
    )


def _family(name: str | None, key: str) -> Family:
    """Return the family of devices, which must be able to have this type of key."""
    if name is None:
        return DEFAULT
    found = _named(name, FAMILIES, "--as")
    if key not in found.keys:
        raise RequestError(f"--key {key}: --as {name} has one of {', '.join(found.keys)}")
    return found


def _named(name: str, choices: Mapping[str, _T], option: str) -> _T:
    found = choices.get(name)
    if found is None:
        raise RequestError(f"{option} {name}: choose one of {', '.join(choices)}")
    return found


@dataclass(frozen=True)
class Session:
    """One run of the command against one server."""

    url: str
    ca_file: Path | None
    fingerprint: str | None
    device: o.Device
    files: Files
    style: Style
    pss: bool

    def run(self, questions: o.Questions, renewal: o.Renewal, waiting: o.Waiting) -> int:
        """Run the command and return its exit status."""
        if not (questions or renewal.wanted):
            self._check_files(waiting)
        pinned = _trusted(self.ca_file)
        identity = self._identity(questions, renewal, waiting)
        server = self.style.family.server(self.url)
        caps = read_caps(server.get("GetCACaps")[1])
        say("server", f"capabilities: {' '.join(sorted(caps)) or 'none'}")
        if questions.caps:
            return 0
        authority = _authority(server, pinned, self.fingerprint)
        exchange = Exchange(server, authority, identity, caps, self.style, self.device.challenge)
        if questions:
            return self._ask(questions, exchange)
        return self._enroll(exchange, renewal, waiting)

    def _check_files(self, waiting: o.Waiting) -> None:
        if not self.device.cn:
            raise RequestError("--cn is required")
        self.files.check(keep_key=waiting.poll)

    def _identity(self, questions: o.Questions, renewal: o.Renewal, waiting: o.Waiting) -> Identity:
        files = self.files
        if renewal.wanted:
            return self._renewing(renewal, waiting)
        if questions and files.key.exists() and files.certificate.exists():
            key, old = read_key(files.read(files.key), files.key.name), read_certificate(files)
            der = old.public_bytes(Encoding.DER)
            return Identity(key, old.subject, signer_of(key, der, pss=self.pss), key)
        waits, name = waiting.poll and not questions, self.device.cn or "SCEP client"
        key = _kept_or_new(files, files.key, self.device.key, kept=waits)
        form = self.style.family.signer
        identity = make_identity(key, name, now(), pss=self.pss, key_id=form.key_id)
        return identity if questions else self._signed(identity, kept=waits)

    def _signed(self, identity: Identity, *, kept: bool) -> Identity:
        """Return the identity with a separate signer, if the options or the family have one."""
        form, files = self.style.family.signer, self.files
        kind = self.device.signer_key or form.key
        if kind is None:
            return identity
        signer = _kept_or_new(files, files.signer_key, kind, kept=kept)
        files.write(files.signer_key, key_pem(signer))
        name = form.name or _SIGNER_NAME
        made = self_signed(signer, name, now(), pss=self.pss, key_id=form.key_id)
        return signed_by(identity, made)

    def _renewing(self, renewal: o.Renewal, waiting: o.Waiting) -> Identity:
        """Return the identity of a renewal: the new key, signed for by the old one.

        Families that renew afresh sign as they did at first. A key for which an earlier run already
        waits is used again.
        """
        if self.device.signer_key is not None:
            raise RequestError(
                "--signer-key cannot be used with --renew,"
                " which signs with the old certificate's key"
            )
        files = self.files
        old_key = read_key(files.read(files.key), files.key.name)
        if renewal.reuse_key:
            key = old_key
        elif waiting.poll and files.renewal_key.exists():
            key = read_key(files.read(files.renewal_key), files.renewal_key.name)
        else:
            key = make_key(self.device.key)
        old, family = read_certificate(files), self.style.family
        if family.renews_afresh:
            key_id = family.signer.key_id
            afresh = self_signed(key, old.subject, now(), pss=self.pss, key_id=key_id)
            return self._signed(afresh, kept=waiting.poll)
        return renewing(key, old_key, old, pss=self.pss)

    def _ask(self, questions: o.Questions, exchange: Exchange) -> int:
        if questions.next_ca:
            return get_next_ca(exchange.server, exchange.authority, self.files)
        if questions.get_cert:
            return ask_cert(exchange, questions.get_cert, self.files)
        return ask_crl(exchange, self.files)

    def _enroll(self, exchange: Exchange, renewal: o.Renewal, waiting: o.Waiting) -> int:
        identity, files, family = exchange.identity, self.files, self.style.family
        pem = key_pem(identity.key)
        seconds = waiting.seconds if waiting.poll else 0
        if not renewal.wanted:
            csr = make_csr(identity, self.device.challenge, list(self.device.sans), family.csr)
            files.write(files.key, pem)
            reply = ask(exchange, EnrollmentRequest(MessageType.PKCS_REQ, csr, seconds))
            return finish(exchange, reply, files, None)
        names = names_of(read_certificate(files))
        csr = make_renewal_csr(identity, self.device.challenge, names, family.csr)
        files.write(files.renewal_key, pem)
        as_pkcs_req = renewal.as_pkcs_req or family.renews_afresh
        kind = MessageType.PKCS_REQ if as_pkcs_req else MessageType.RENEWAL_REQ
        return finish(exchange, ask(exchange, EnrollmentRequest(kind, csr, seconds)), files, pem)


def _kept_or_new(files: Files, path: Path, kind: str, *, kept: bool) -> Key:
    """Return the key that an earlier run wrote if it is to be `kept` and exists, else a new one."""
    return read_key(files.read(path), path.name) if kept and path.exists() else make_key(kind)


def _trusted(path: Path | None) -> x509.Certificate | None:
    if path is None:
        return None
    try:
        with loading():
            return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise RequestError(f"{path}: contains no PEM certificate") from None


def _authority(
    server: Server, pinned: x509.Certificate | None, fingerprint: str | None
) -> Authority:
    """Fetch and check the server's CA, and print whether it is pinned."""
    try:
        authority = read_authority(server.get("GetCACert")[1])
    except ValueError:
        raise UntrustedError("GetCACert returned unreadable certificates") from None
    trusted = check_pin(authority, pinned, fingerprint)
    said = "pinned" if trusted else "NOT pinned: verify it, then pass --fingerprint"
    say("CA", name_text(authority.ca.subject.public_bytes()))
    say("", f"SHA-256 {authority.fingerprint} ({said})")
    return authority
