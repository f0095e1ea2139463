"""Devices that hold a certificate: they renew it, ask for others, and see them revoked."""

import subprocess
import time

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from shared.scep.certrep import CertRep, read_crls
from tests.support import messages as m
from tests.support.prepared import command
from tests.support.requests import (
    Device,
    Endpoint,
    Request,
    ask,
    enroll,
    issued,
    opened,
    sealed,
)
from tests.support.system import System, wait_until

PKCS_REQ, RENEWAL_REQ, GET_CERT, GET_CRL = b"19", b"17", b"21", b"22"


def holding(device: Device, certificate: x509.Certificate) -> Device:
    """The same device and transaction, signing with its certificate instead of a self-signed."""
    return Device(m.Identity(device.identity.key, certificate), device.transaction)


def enrolled(endpoint: Endpoint, device: Device | None = None) -> Device:
    """A device with the certificate that it was just given."""
    device = device or Device.new()
    return holding(device, enroll(endpoint, device))


def renewal(
    endpoint: Endpoint,
    holder: Device,
    key: rsa.RSAPrivateKey,
    message_type: bytes = RENEWAL_REQ,
    challenge: str = "",
    **options: bytes,
) -> Request:
    """A CSR of this key under the holder's name, signed for by its certificate."""
    csr = holder.csr(challenge, key=key, **options)
    return holder.request(sealed(endpoint, csr), message_type)


def renewed(
    endpoint: Endpoint, holder: Device, key: rsa.RSAPrivateKey, reply: CertRep
) -> x509.Certificate:
    """The new certificate of a SUCCESS, which the holder's old key opens."""
    found = issued(holder, reply)
    assert found.public_key() == key.public_key()
    assert found.subject == holder.identity.x509.subject
    found.verify_directly_issued_by(endpoint.ca)
    return found


def query(
    endpoint: Endpoint,
    asking: Device,
    message_type: bytes,
    serial: int,
    issuer: bytes | None = None,
) -> Request:
    """GetCert or GetCRL."""
    issuer = endpoint.ca.subject.public_bytes() if issuer is None else issuer
    payload = m.tlv(m.SEQ, issuer, m.integer(serial))
    return asking.request(sealed(endpoint, payload), message_type)


def get_crl(
    endpoint: Endpoint, asking: Device, ca: x509.Certificate | None = None
) -> x509.CertificateRevocationList:
    """The CRL of the endpoint's CA, or of another one, by GetCRL."""
    ca = ca or endpoint.ca
    wanted = query(endpoint, asking, GET_CRL, ca.serial_number, ca.subject.public_bytes())
    (der,) = read_crls(opened(asking, ask(endpoint, wanted)))
    return x509.load_der_x509_crl(der)


def next_second() -> None:
    """A certificate made within the same second of the same things is the same certificate."""
    now = int(time.time())
    wait_until(lambda: int(time.time()) > now, 5, "the next second")


def revoke(system: System, serial: int, *options: str) -> subprocess.CompletedProcess[str]:
    """`scepstream ca revoke`."""
    return command("ca", "revoke", f"{serial:x}", *options, "--config", str(system.config))
