"""Enrolling with the library pyscep: runs under the Python of its own environment.

Arguments: the URL, the challenge, the common name, and whose key signs ("own" or "strange").
Exit status: 0 issued (cert.pem, key.pem), 3 refused, 4 pending.
"""

import sys
from pathlib import Path

from scep.Client.client import Client
from scep.Client.enums import PKIStatus
from scep.Client.signingrequest import SigningRequest

USAGE = {"digital_signature", "key_encipherment"}


def enrol(url: str, challenge: str, common_name: str, signer: str) -> int:
    csr, key = SigningRequest.generate_csr(cn=common_name, key_usage=USAGE, password=challenge)
    own = key if signer == "own" else None
    identity, identity_key = SigningRequest.generate_self_signed(
        cn="identity", key_usage=USAGE, private_key=own
    )
    answer = Client(url).enrol(csr=csr, identity=identity, identity_private_key=identity_key)
    if answer.status is PKIStatus.FAILURE:
        sys.stderr.write(f"FAILURE {answer.fail_info}\n")
        return 3
    if answer.status is PKIStatus.PENDING:
        return 4
    Path("key.pem").write_bytes(key.to_pem())
    Path("cert.pem").write_bytes(answer.certificates[0].to_pem())
    return 0


if __name__ == "__main__":
    sys.exit(enrol(*sys.argv[1:]))
