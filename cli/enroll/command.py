"""The `enroll` command: options in, files and an exit status out."""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from rich.console import Console

from cli.enroll.authority import Authority, UntrustedError, check_pin, read_authority
from cli.enroll.client import BadReplyError, Exchange, Issued
from cli.enroll.http import Server, ServerError, UnreachableError
from cli.enroll.identity import (
    Identity,
    RequestError,
    key_pem,
    make_csr,
    make_identity,
    make_key,
    read_key,
)
from shared.names import name_text
from shared.process import now
from shared.scep.cacaps import read_caps
from shared.scep.certificate import read_certificate
from shared.scep.certrep import CertRep, PkiStatus
from shared.scep.errors import ScepError

ERROR: Final = 1
REFUSED: Final = 3
PENDING: Final = 4
UNREACHABLE: Final = 5
_POLL_SECONDS: Final = 5.0
_console = Console(highlight=False)


@dataclass(frozen=True)
class Files:
    """Where key, certificate and chain go; nothing is overwritten unless told to."""

    directory: Path
    force: bool

    @property
    def key(self) -> Path:
        """The private key, mode 0600."""
        return self.directory / "key.pem"

    @property
    def certificate(self) -> Path:
        """The device's certificate."""
        return self.directory / "cert.pem"

    @property
    def chain(self) -> Path:
        """The CA and what stands above it."""
        return self.directory / "chain.pem"

    def check(self, *, keep_key: bool) -> None:
        """Refuse before anything is sent."""
        taken = [self.certificate, self.chain] + ([] if keep_key else [self.key])
        for path in taken:
            if path.exists() and not self.force:
                raise RequestError(f"{path} exists: --force overwrites it")

    def write(self, path: Path, data: bytes) -> None:
        """Write a file, the key readable to its owner alone."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            mode = 0o600 if path == self.key else 0o644
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as out:
                os.fchmod(out.fileno(), mode)  # an existing file keeps its mode otherwise
                out.write(data)
        except OSError as error:
            raise RequestError(f"{path}: {error.strerror}") from None


def enroll(
    url: Annotated[str, typer.Argument(help="SCEP URL of a profile")],
    cn: Annotated[str, typer.Option(help="common name of the device")],
    challenge: Annotated[
        str | None, typer.Option(envvar="SCEP_CHALLENGE", help="challenge password")
    ] = None,
    san: Annotated[list[str] | None, typer.Option(help="dns:, email:, ip:, uri:, upn:")] = None,
    key: Annotated[str, typer.Option(help="rsa:2048, rsa:3072 or rsa:4096")] = "rsa:2048",
    out: Annotated[Path | None, typer.Option(help="directory for the files [./<cn>]")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="the CA to trust, as PEM")] = None,
    fingerprint: Annotated[str | None, typer.Option(help="or its SHA-256 fingerprint")] = None,
    force: Annotated[bool, typer.Option(help="overwrite files")] = False,
    poll: Annotated[bool, typer.Option(help="wait while pending; go on with a kept key")] = False,
    poll_for: Annotated[int, typer.Option(help="seconds to poll at most")] = 600,
) -> None:
    """Enroll a device: key, request, and everything in the answer verified.

    Exit status: 0 issued, 1 error, 3 refused, 4 pending, 5 unreachable.
    """
    files = Files(out or Path(re.sub(r"[^\w.-]", "_", cn)), force)
    try:
        files.check(keep_key=poll)
        exchange = _exchange(url, _trusted(ca_file), fingerprint, _identity(files, key, cn, poll))
        csr = make_csr(exchange.identity, challenge, san or [])
        files.write(files.key, key_pem(exchange.identity.key))
        _say("sent", f"PKCSReq, {exchange.digest.name}, {exchange.cipher.name}")
        reply = exchange.enroll(csr)
        if poll:
            reply = _poll(exchange, reply, poll_for)
        raise typer.Exit(_finish(exchange, reply, files))
    except UnreachableError as error:
        raise _fail(UNREACHABLE, f"cannot reach the server: {error}") from None
    except (ServerError, UntrustedError, BadReplyError, RequestError) as error:
        raise _fail(ERROR, str(error)) from None
    except ScepError as error:
        raise _fail(ERROR, f"GetCACert makes no sense: {error.detail}") from None


def _identity(files: Files, kind: str, cn: str, resume: bool) -> Identity:  # noqa: FBT001 - private
    """A new key, or with --poll the one that is waited for."""
    kept = resume and files.key.exists()
    private = read_key(files.key.read_bytes()) if kept else make_key(kind)
    return make_identity(private, cn, now())


def _trusted(path: Path | None) -> x509.Certificate | None:
    if path is None:
        return None
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise RequestError(f"{path}: no certificate in PEM") from None


def _exchange(
    url: str, pinned: x509.Certificate | None, fingerprint: str | None, identity: Identity
) -> Exchange:
    """Ask what the server can do and who it is, and say so."""
    server = Server(url)
    caps = read_caps(server.get("GetCACaps")[1])
    _say("server", f"can do {' '.join(sorted(caps)) or 'nothing it tells'}")
    try:
        authority = read_authority(server.get("GetCACert")[1])
    except ValueError:
        raise UntrustedError("GetCACert holds no readable certificates") from None
    trusted = check_pin(authority, pinned, fingerprint)
    _say("CA", name_text(authority.ca.subject.public_bytes()))
    _say("", f"SHA-256 {authority.fingerprint} ({_trust(trusted)})")
    return Exchange(server, authority, identity, caps)


def _trust(pinned: bool) -> str:  # noqa: FBT001 - private
    return "pinned" if pinned else "NOT pinned: compare it, then pass --fingerprint"


def _poll(exchange: Exchange, reply: CertRep, seconds: int) -> CertRep:
    deadline = time.monotonic() + seconds
    while reply.status is PkiStatus.PENDING and time.monotonic() < deadline:
        _say("got", "PENDING; asking again")
        time.sleep(_POLL_SECONDS)
        reply = exchange.poll()
    return reply


def _finish(exchange: Exchange, reply: CertRep, files: Files) -> int:
    if reply.status is PkiStatus.PENDING:
        _say("got", f"PENDING: the key is kept in {files.key}; run again with --poll")
        return PENDING
    if reply.status is PkiStatus.FAILURE:
        name = reply.fail_info.name if reply.fail_info is not None else "no failInfo"
        _say("got", f"FAILURE {name} {reply.fail_info_text}".rstrip())
        files.key.unlink(missing_ok=True)  # of no use to anyone: the next try makes a new one
        return REFUSED
    issued = exchange.open(reply)
    _write(exchange.authority, issued, files)
    return 0


def _write(authority: Authority, issued: Issued, files: Files) -> None:
    certificate = x509.load_der_x509_certificate(issued.certificate)
    chain = b"".join(c.public_bytes(Encoding.PEM) for c in authority.chain)
    files.write(files.certificate, certificate.public_bytes(Encoding.PEM))
    files.write(files.chain, chain)
    _say("got", f"SUCCESS: {name_text(read_certificate(issued.certificate).subject)}")
    _say("", f"serial {certificate.serial_number:x}")
    _say("", f"until  {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    for path in (files.key, files.certificate, files.chain):
        _say("wrote", str(path))


def _say(label: str, text: str) -> None:
    _console.print(f"[bold]{label:>8}[/bold]  ", end="")
    _console.print(text, markup=False, soft_wrap=True)


def _fail(code: int, text: str) -> typer.Exit:
    Console(stderr=True, highlight=False).print(
        f"scepstream enroll: {text}", markup=False, soft_wrap=True
    )
    return typer.Exit(code)
