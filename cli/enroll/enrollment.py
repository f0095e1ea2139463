"""Enrollment, renewal and polling, from the first request to the files that are written."""

import time
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cli.enroll.client import Exchange
from cli.enroll.console import PENDING, REFUSED, say
from cli.enroll.files import Files
from shared.scep.certificate import read_certificate
from shared.scep.certrep import CertRep, PkiStatus
from shared.scep.pkimessage import MessageType
from shared.x509.names import name_text


@dataclass(frozen=True)
class EnrollmentRequest:
    """A request: its message type, the CSR (DER), and how long to poll (seconds; 0: not at all)."""

    message_type: MessageType
    csr: bytes
    poll_for: int = 0

    @property
    def name(self) -> str:
        """Name of the message in RFC 8894."""
        return "PKCSReq" if self.message_type is MessageType.PKCS_REQ else "RenewalReq"


def ask(exchange: Exchange, request: EnrollmentRequest) -> CertRep:
    """Send a request and return the reply; with polling, wait until it is no longer PENDING.

    How often and when to poll is the family's habit.
    """
    say("sent", f"{request.name}, {exchange.digest.name}, {exchange.cipher.name}")
    reply = exchange.send(request.message_type, request.csr)
    deadline = time.monotonic() + request.poll_for
    for seconds in exchange.style.family.polling.waits():
        left = deadline - time.monotonic()
        if reply.status is not PkiStatus.PENDING or left <= 0:
            break
        say("got", "PENDING; polling")
        time.sleep(min(seconds, left))
        # A poll carries no challenge that could encrypt the reply to an EC key.
        again = (
            exchange.poll
            if exchange.decrypts
            else lambda: exchange.send(request.message_type, request.csr)
        )
        reply = again()
    return reply


def finish(exchange: Exchange, reply: CertRep, files: Files, key: bytes | None) -> int:
    """Write the result and return the exit status; `key` (PEM) replaces the old one on SUCCESS."""
    kept = files.key if key is None else files.renewal_key
    if reply.status is PkiStatus.PENDING:
        say("got", f"PENDING: the key is saved in {kept}; run again with --poll")
        return PENDING
    if reply.status is PkiStatus.FAILURE:
        say_failure(reply)
        kept.unlink(missing_ok=True)  # no longer useful: the next try creates a new one
        return REFUSED
    _write(exchange, exchange.issued(reply), files, key)
    return 0


def say_failure(reply: CertRep) -> None:
    """Print failInfo and failInfoText."""
    name = reply.fail_info.name if reply.fail_info is not None else "no failInfo"
    say("got", f"FAILURE {name} {reply.fail_info_text}".rstrip())


def _write(exchange: Exchange, issued: bytes, files: Files, key: bytes | None) -> None:
    certificate = x509.load_der_x509_certificate(issued)
    chain = b"".join(c.public_bytes(Encoding.PEM) for c in exchange.authority.chain)
    if key is not None:
        files.write(files.key, key)
    files.write(files.certificate, certificate.public_bytes(Encoding.PEM))
    files.write(files.chain, chain)
    files.renewal_key.unlink(missing_ok=True)
    say("got", f"SUCCESS: {name_text(read_certificate(issued).subject)}")
    say("", f"serial {certificate.serial_number:x}")
    say("", f"expires {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    for path in (files.key, files.certificate, files.chain):
        say("wrote", str(path))
