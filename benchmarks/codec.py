"""CPU time of one enrollment in the codec, relative to the crypto floor: -m benchmarks.codec."""

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from rich.console import Console
from rich.table import Table

from benchmarks.floor import floor, steps
from benchmarks.sample import Sample, Server, counted, dissect, new_sample
from benchmarks.timing import interleave
from shared.scep import certrep, pkimessage, signed_data
from shared.scep.algorithms import AES128, PKCS1V15, SHA256, AlgorithmPolicy
from shared.scep.certificate import read_certificate
from shared.scep.envelope import ContentEncryption
from shared.x509 import csr

GOAL = 1.4
_POLICY = AlgorithmPolicy()
_DER, _BER = "codec, DER request", "codec, BER request"


@dataclass(frozen=True, slots=True)
class CodecFigures:
    """CPU time per enrollment in milliseconds, and its ratios to the floor."""

    floor_ms: float
    floor_best_ms: float
    der_ms: float
    ber_ms: float
    der_ratio: float
    ber_ratio: float
    der_best_ratio: float
    ber_best_ratio: float
    private_key_uses: dict[str, int]
    floor_steps_ms: dict[str, float]


def codec(server: Server, message: bytes) -> Callable[[], bytes]:
    """Return the path from request to CertRep; the CA's part is the floor's raw signature."""
    ra = read_certificate(server.ra.der)
    keys = (pkimessage.DecryptionKey(server.ra.key, ra),)
    signer = signed_data.Signer(server.ra.key, ra)

    def enroll() -> bytes:
        request = pkimessage.read_message(message)
        pkimessage.verify(request, _POLICY)
        enveloped = pkimessage.read_envelope(request, _POLICY)
        key = pkimessage.unwrap_content_key(enveloped, keys, os.urandom(32))
        csr.verify_self_signature(csr.read_csr(enveloped.decrypt(key)))
        server.ca.key.sign(server.tbs, padding.PKCS1v15(), hashes.SHA256())
        to = certrep.reply_to(request, os.urandom(certrep.NONCE_SIZE), SHA256, int(time.time()))
        content = signed_data.write_certs_only([server.issued])
        seal = ContentEncryption(AES128, PKCS1V15, os.urandom(16), os.urandom(16))
        return certrep.success(to, content, request.signer, seal, signer)

    return enroll


def private_key_uses(sample: Sample) -> dict[str, int]:
    """Return how often one enrollment uses each private key.

    `RuntimeError` if floor and codec differ: their ratio would be meaningless.
    """
    pieces = dissect(sample)
    bare: Counter[str] = Counter()
    operations = floor(counted(sample.server, bare), pieces)
    bare.clear()  # decrypting the sample's content key has used the RA's key too
    operations()
    for enrollment in (sample.der, sample.ber):
        ours: Counter[str] = Counter()
        codec(counted(sample.server, ours), enrollment.message)()
        if ours != bare:
            raise RuntimeError(f"codec uses {dict(ours)}, floor {dict(bare)}")
    return dict(bare)


def measure(rounds: int = 80, batch: int = 25) -> CodecFigures:
    """Measure floor and codec in turns, then each step of the floor."""
    sample = new_sample()
    uses, pieces = private_key_uses(sample), dissect(sample)
    subjects: dict[str, Callable[[], object]] = {
        "floor": floor(sample.server, pieces),
        _DER: codec(sample.server, sample.der.message),
        _BER: codec(sample.server, sample.ber.message),
    }
    timed = interleave(subjects, rounds, batch)
    parts = interleave(steps(sample.server, pieces), rounds=20, batch=batch)
    bare, der, ber = timed["floor"], timed[_DER], timed[_BER]
    return CodecFigures(
        floor_ms=bare.median,
        floor_best_ms=bare.best,
        der_ms=der.median,
        ber_ms=ber.median,
        der_ratio=der.ratio(bare),
        ber_ratio=ber.ratio(bare),
        der_best_ratio=der.best / bare.best,
        ber_best_ratio=ber.best / bare.best,
        private_key_uses=uses,
        floor_steps_ms={name: timing.median for name, timing in parts.items()},
    )


def table(figures: CodecFigures) -> Table:
    rows = Table(title="One enrollment, CPU time of one thread (RSA-2048, AES-128, SHA-256)")
    for heading in ("", "ms (median)", "x floor", "x floor (best of)"):
        rows.add_column(heading, justify="right" if heading else "left")
    for step, spent in figures.floor_steps_ms.items():
        rows.add_row(f"  {step}", f"{spent:.4f}", "", "", style="dim")
    rows.add_row("crypto floor", f"{figures.floor_ms:.3f}", "1", "1")
    for name, spent, ratio, best in (
        (_DER, figures.der_ms, figures.der_ratio, figures.der_best_ratio),
        (_BER, figures.ber_ms, figures.ber_ratio, figures.ber_best_ratio),
    ):
        style = "green" if ratio <= GOAL else "red"
        rows.add_row(name, f"{spent:.3f}", f"{ratio:.2f}", f"{best:.2f}", style=style)
    uses = ", ".join(f"{count} {use}" for use, count in figures.private_key_uses.items())
    rows.caption = f"goal: {GOAL} x floor; private key uses on either side: {uses}"
    return rows


if __name__ == "__main__":
    Console().print(table(measure()))
