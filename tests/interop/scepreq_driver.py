"""One operation of the library scepreq: runs under the Python of its own environment.

Arguments: the operation, the URL, and what the operation's function below takes. key.pem, cert.pem
and self.pem, the certificate of before the first, are in the working directory.
Exit status: 0 answered, 3 refused, 4 pending.
"""

import hashlib
import sys
from pathlib import Path

from scepreq.certificate import Certificate
from scepreq.client import Client
from scepreq.enums import FailInfo, PKIStatus
from scepreq.privatekey import PrivateKey
from scepreq.responses import EnrollmentStatus
from scepreq.signingrequest import SigningRequest

USAGE = {"digital_signature", "key_encipherment"}
CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"
KEY, ISSUED, SELF_SIGNED = Path("key.pem"), Path("cert.pem"), Path("self.pem")


def enrol(client: Client, challenge: str, common_name: str, dns: str, signer: str) -> int:
    """`dns` may be empty; `signer` is whose key signs: "own" or "strange"."""
    key = SigningRequest.generate_pair()
    signing_key = key if signer == "own" else SigningRequest.generate_pair()
    identity, _ = SigningRequest.generate_self_signed(common_name, USAGE, signing_key)
    csr = new_csr(key, challenge, common_name, dns)
    KEY.write_bytes(key.to_pem())
    SELF_SIGNED.write_bytes(identity.to_pem())
    return written(client.enrol(csr, identity, signing_key))


def renew(client: Client, challenge: str, common_name: str) -> int:
    """A new key under the same name, by a PKCSReq that the old certificate signs."""
    old, old_key = identity_in(ISSUED)
    key = SigningRequest.generate_pair()
    status = written(client.enrol(new_csr(key, challenge, common_name), old, old_key))
    KEY.write_bytes(key.to_pem())
    return status


def poll(client: Client) -> int:
    """A CertPoll for what is pending: the transaction is the SHA-1 of the public key."""
    identity, key = identity_in(SELF_SIGNED)
    transaction = hashlib.sha1(key.public_key.to_der(), usedforsecurity=False).hexdigest()
    return written(client.poll(identity, key, identity.subject, transaction))


def get_cert(client: Client, serial: str) -> int:
    """Fetch the certificate of this (decimal) serial number into fetched.pem."""
    answer = client.get_cert(*identity_in(ISSUED), int(serial))
    if answer.status is PKIStatus.SUCCESS:
        Path("fetched.pem").write_bytes(answer.certificates[0].to_pem())
    return ended(answer)


def get_crl(client: Client, serial: str) -> int:
    """Fetch the CRL that the certificate of this serial number would stand in into crl.der."""
    answer = client.get_crl(*identity_in(ISSUED), int(serial))
    if answer.status is PKIStatus.SUCCESS:
        Path("crl.der").write_bytes(answer.crl.to_der())
    return ended(answer)


def new_csr(key: PrivateKey, challenge: str, common_name: str, dns: str = "") -> SigningRequest:
    subject, purposes = f"CN={common_name}", [CLIENT_AUTH]
    made = SigningRequest.generate_csr(
        subject, USAGE, purposes, challenge, key, alt_dns=dns or None
    )
    return made[0]


def identity_in(path: Path) -> tuple[Certificate, PrivateKey]:
    return Certificate.from_pem(path.read_bytes()), PrivateKey.from_pem(KEY.read_bytes())


def written(answer: EnrollmentStatus) -> int:
    if answer.status is PKIStatus.SUCCESS:
        ISSUED.write_bytes(answer.certificates[0].to_pem())
        sys.stdout.write(f"{len(answer.certificates)} certificates\n")
    return ended(answer)


def ended(answer: EnrollmentStatus) -> int:
    if answer.status is PKIStatus.FAILURE:
        sys.stderr.write(f"FAILURE {FailInfo(answer.fail_info).name}\n")
        return 3
    return 4 if answer.status is PKIStatus.PENDING else 0


if __name__ == "__main__":
    OPERATIONS = {f.__name__: f for f in (enrol, renew, poll, get_cert, get_crl)}
    operation, url, *arguments = sys.argv[1:]
    sys.exit(OPERATIONS[operation](Client(url), *arguments))
