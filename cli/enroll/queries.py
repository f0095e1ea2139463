"""Operations other than enrollment: GetCert, GetCRL, GetNextCACert."""

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cli.enroll.authority import Authority
from cli.enroll.client import BadReplyError, Exchange
from cli.enroll.console import REFUSED, say
from cli.enroll.enrollment import say_failure
from cli.enroll.files import Files
from cli.enroll.http import Server
from cli.enroll.identity import RequestError
from shared.scep.cacert import read_next_ca_certs
from shared.scep.certrep import PkiStatus
from shared.scep.errors import ScepError
from shared.scep.pkimessage import MessageType
from shared.x509.loading import loading


def get_cert(exchange: Exchange, serial: str, files: Files) -> int:
    """Fetch a certificate by its serial number (hex) into <serial>.pem; return the exit status."""
    try:
        number = int(serial.replace(":", ""), 16)
    except ValueError:
        raise RequestError(f"--get-cert {serial}: not a serial number in hex") from None
    say("sent", f"GetCert, {exchange.digest.name}, {exchange.cipher.name}")
    reply = exchange.query(MessageType.GET_CERT, number)
    if reply.status is not PkiStatus.SUCCESS:
        say_failure(reply)
        return REFUSED
    certificate = x509.load_der_x509_certificate(exchange.fetched(reply, number))
    say("got", f"SUCCESS: {certificate.subject.rfc4514_string()}")
    path = files.directory / f"{number:x}.pem"
    files.write(path, certificate.public_bytes(Encoding.PEM))
    say("wrote", str(path))
    return 0


def get_crl(exchange: Exchange, files: Files) -> int:
    """Fetch the CA's CRL into crl.pem; return the exit status."""
    say("sent", f"GetCRL, {exchange.digest.name}, {exchange.cipher.name}")
    reply = exchange.query(MessageType.GET_CRL, exchange.authority.ca.serial_number)
    if reply.status is not PkiStatus.SUCCESS:
        say_failure(reply)
        return REFUSED
    crl = x509.load_der_x509_crl(exchange.crl(reply))
    say("got", f"SUCCESS: {len(crl)} revoked, next update {crl.next_update_utc:%Y-%m-%d %H:%M} UTC")
    path = files.directory / "crl.pem"
    files.write(path, crl.public_bytes(Encoding.PEM))
    say("wrote", str(path))
    return 0


def get_next_ca(server: Server, authority: Authority, files: Files) -> int:
    """Fetch the next CA's certificates, which the CA or its RA must sign, into next-ca.pem."""
    _, body = server.get("GetNextCACert")
    try:
        ca = authority.ca.public_bytes(Encoding.DER)
        found = read_next_ca_certs(body, ca, *authority.signers)
        with loading():
            certificates = [x509.load_der_x509_certificate(der) for der in found]
    except (ScepError, ValueError):
        raise BadReplyError("GetNextCACert's answer is not signed by the CA or its RA") from None
    for certificate in certificates:
        say("next CA", certificate.subject.rfc4514_string())
    path = files.directory / "next-ca.pem"
    files.write(path, b"".join(c.public_bytes(Encoding.PEM) for c in certificates))
    say("wrote", str(path))
    return 0
