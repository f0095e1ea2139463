"""Enroll once with the library scepreq: runs under the Python of its own environment.

Arguments: URL, challenge, common name, DNS name ("" for none), and whose key signs: "own" or
"strange".
Leaves key.pem and cert.pem in the working directory. Exit status: 0 issued, 3 refused.
"""

import sys
from pathlib import Path

from scepreq.client import Client
from scepreq.enums import FailInfo, PKIStatus
from scepreq.signingrequest import SigningRequest

USAGE = {"digital_signature", "key_encipherment"}
CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"


def main(url: str, challenge: str, common_name: str, dns: str, signer: str) -> int:
    key = SigningRequest.generate_pair()
    csr, _ = SigningRequest.generate_csr(
        f"CN={common_name}", USAGE, [CLIENT_AUTH], challenge, key, alt_dns=dns or None
    )
    signing_key = key if signer == "own" else SigningRequest.generate_pair()
    identity, _ = SigningRequest.generate_self_signed(common_name, USAGE, signing_key)
    Path("key.pem").write_bytes(key.to_pem())
    status = Client(url).enrol(csr, identity, signing_key)
    if status.status is not PKIStatus.SUCCESS:
        info = getattr(status, "fail_info", None)
        sys.stderr.write(f"{status.status.name} {FailInfo(info).name if info else ''}\n")
        return 3
    Path("cert.pem").write_bytes(status.certificates[0].to_pem())
    sys.stdout.write(f"{len(status.certificates)} certificates\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
