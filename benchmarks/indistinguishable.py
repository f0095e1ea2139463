"""Test whether time, status or text reveal why a message did not decrypt. Run by hand.

Messages that fail in several ways behind the key transport are sent in random order to a running
system over one connection. For every pair of kinds it prints the two-sample Kolmogorov-Smirnov
statistic of the response times, and then all distinct answers. The key of the CSR signs the
messages, or with --foreign another one. With --polls the messages are CertPolls of an enrollment
that has its certificate, whose envelopes decrypt or do not.
`python -m benchmarks.indistinguishable`
"""

import argparse
import itertools
import os
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import httpx
from cryptography.hazmat.primitives.asymmetric import rsa
from rich.console import Console
from rich.table import Table

from benchmarks import system
from cli.enroll.authority import read_authority
from cli.enroll.identity import Identity, make_csr, make_identity
from shared.scep.algorithms import AES128, PKCS1V15, SHA256
from shared.scep.asn1 import OCTET_STRING, PRINTABLE_STRING, tlv
from shared.scep.certificate import Certificate, read_certificate
from shared.scep.certrep import read_reply
from shared.scep.envelope import ContentEncryption, write_envelope
from shared.scep.pkimessage import MESSAGE_TYPE, SENDER_NONCE, TRANSACTION_ID
from shared.scep.signed_data import attribute, write_signed_data

_KEY: Final = 16
# c(0.01) of the two-sample test: for samples of the same distribution, the statistic is below the
# bound in 99 of 100 pairs.
_COEFFICIENT: Final = 1.628


@dataclass(frozen=True)
class Failing:
    """Creates messages, each of which fails in one way."""

    identity: Identity
    ra: Certificate
    other: Certificate
    csr: bytes
    message_type: bytes = b"19"
    transaction: bytes = b""

    def kinds(self) -> dict[str, Callable[[], bytes]]:
        return {
            "undecryptable": lambda: self._signed(self._garbled()),
            "wrong recipient": lambda: self._signed(self._envelope(self.csr, self.other)),
            "bad padding": lambda: self._signed(self._bad_padding()),
            "CSR garbage": lambda: self._signed(self._envelope(os.urandom(len(self.csr)), self.ra)),
            "CSR signature wrong": lambda: self._signed(self._envelope(self._strange(), self.ra)),
        }

    def polls(self) -> dict[str, Callable[[], bytes]]:
        """Return the kinds of CertPolls, whose envelopes decrypt or fail in one way."""
        return {
            "opens": lambda: self._signed(self._envelope(self.csr, self.ra)),
            "undecryptable": lambda: self._signed(self._garbled()),
            "wrong recipient": lambda: self._signed(self._envelope(self.csr, self.other)),
            "bad padding": lambda: self._signed(self._bad_padding()),
        }

    def _envelope(self, content: bytes, to: Certificate) -> bytes:
        sealing = ContentEncryption(AES128, PKCS1V15, os.urandom(_KEY), os.urandom(_KEY))
        return write_envelope(content, to, sealing)

    def _garbled(self) -> bytes:
        """Return an envelope with a random encrypted key: RSA decryption finds no padding."""
        envelope = bytearray(self._envelope(self.csr, self.ra))
        at = envelope.index(b"\x04\x82\x01\x00") + 5
        envelope[at : at + 200] = os.urandom(200)
        return bytes(envelope)

    def _bad_padding(self) -> bytes:
        """Return an envelope with a random last block: PKCS#7 padding is wrong but for 1 in 256."""
        envelope = self._envelope(self.csr, self.ra)
        return envelope[:-_KEY] + os.urandom(_KEY)

    def _strange(self) -> bytes:
        """Return a CSR with a wrong signature."""
        return self.csr[:-8] + os.urandom(8)

    def _signed(self, content: bytes) -> bytes:
        attributes = (
            attribute(MESSAGE_TYPE, tlv(PRINTABLE_STRING, self.message_type)),
            attribute(TRANSACTION_ID, tlv(PRINTABLE_STRING, self._transaction())),
            attribute(SENDER_NONCE, tlv(OCTET_STRING, os.urandom(16))),
        )
        return write_signed_data(content, attributes, SHA256, self.identity.signer)

    def _transaction(self) -> bytes:
        return self.transaction or os.urandom(8).hex().encode()


def other_certificate() -> Certificate:
    """Return a recipient that the server does not know."""
    return read_certificate(new_identity("another RA").signer.certificate.der)


def new_identity(name: str) -> Identity:
    return make_identity(rsa.generate_private_key(65537, 2048), name, time.time())


def send(client: httpx.Client, url: str, message: bytes) -> httpx.Response:
    return client.post(url, params={"operation": "PKIOperation"}, content=message)


def measure(
    url: str, challenge: str, tries: int, *, foreign: bool, polls: bool
) -> tuple[dict[str, list[float]], set[str]]:
    """Return (milliseconds of each kind, all distinct answers) over one connection."""
    with httpx.Client(trust_env=False, timeout=30) as client:
        authority = read_authority(client.get(url, params={"operation": "GetCACert"}).content)
        identity = new_identity("device")
        csr = make_csr(new_identity("device") if foreign else identity, challenge, [])
        failing = Failing(identity, authority.recipient, other_certificate(), csr)
        kinds = failing.kinds()
        if polls:
            first = replace(failing, transaction=b"polled")
            send(client, url, first.polls()["opens"]())
            kinds = replace(first, message_type=b"20").polls()
        order = [kind for kind in kinds for _ in range(tries)]
        random.SystemRandom().shuffle(order)
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        answers = set()
        for kind in order:
            message = kinds[kind]()
            started = time.perf_counter()
            answer = send(client, url, message)
            times[kind].append((time.perf_counter() - started) * 1000)
            reply = read_reply(answer.content)
            size = len(answer.content)
            answers.add(
                f"{answer.status_code} {reply.status} {reply.fail_info} {size} bytes"
                f" {reply.fail_info_text!r}"
            )
        return times, answers


def statistic(left: list[float], right: list[float]) -> float:
    """Return the two-sample Kolmogorov-Smirnov statistic: the largest distance of the CDFs."""
    left, right = sorted(left), sorted(right)
    largest, i, j = 0.0, 0, 0
    while i < len(left) and j < len(right):
        if left[i] <= right[j]:
            i += 1
        else:
            j += 1
        largest = max(largest, abs(i / len(left) - j / len(right)))
    return largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1000, help="requests of each kind")
    parser.add_argument("--foreign", action="store_true", help="sign with another key")
    parser.add_argument("--polls", action="store_true", help="CertPolls instead of PKCSReqs")
    chosen = parser.parse_args()
    tries = chosen.n
    with system.system() as ours:
        times, answers = measure(
            ours.url, ours.challenge, tries, foreign=chosen.foreign, polls=chosen.polls
        )
    console = Console()
    table = Table("kind", "mean ms", "sd", "median")
    for kind, found in times.items():
        figures = (statistics.mean(found), statistics.stdev(found), statistics.median(found))
        table.add_row(kind, *(f"{figure:.3f}" for figure in figures))
    console.print(table)
    bound = _COEFFICIENT * (2 / tries) ** 0.5
    table = Table("pair", "KS statistic", f"1 % bound {bound:.4f}")
    for left, right in itertools.combinations(times, 2):
        found = statistic(times[left], times[right])
        table.add_row(f"{left} / {right}", f"{found:.4f}", "below" if found < bound else "ABOVE")
    console.print(table)
    console.print("\n".join(sorted(answers)))


if __name__ == "__main__":
    main()
