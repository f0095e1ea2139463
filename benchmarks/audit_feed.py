"""Rate at which the audit service stores events: `python -m benchmarks.audit_feed`.

Enrollments have the events of a real system (request, verdict, outcome, two records of the
certificate) and messages of typical size. The code that follows the log stores them; no bus.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from sqlalchemy import Engine

from services.audit.record.write import store
from services.audit.store.engine import migrate, open_engine
from shared.log.envelope import Stored, encode
from shared.log.events.base import EventPayload
from shared.log.events.certificates import CertificateRecorded
from shared.log.events.enrollment import (
    CertificateIssued,
    CertificateTemplate,
    EnrollmentApproved,
    EnrollmentRequested,
    Facts,
    GateResult,
)
from shared.log.events.state import Claim
from shared.log.stages import Stage
from shared.log.streams import CERTS
from shared.log.subjects import EnrollmentId, token

_STREAM = "ENROLL_0"
_EVENTS = 5
_MESSAGE = os.urandom(2600)
_CERTIFICATE = os.urandom(900)
_GATES = tuple(
    GateResult(gate=gate, passed=True, detail="x" * 40)
    for gate in ("key", "subject", "sans", "compromise", "signature", "version", "time", "audience",
                 "binding", "replay", "device_rate")
)  # fmt: skip


def enrollment_events(number: int) -> Iterator[tuple[str, str, EventPayload]]:
    """Yield (stream, subject, event) of one enrollment."""
    digest = token(str(number).encode())
    enrollment = EnrollmentId("0", f"profile-{number % 5}", digest, digest, 0)
    name, sha256, serial = f"device-{number}", f"{number:064x}", f"{number:032x}"
    request = EnrollmentRequested(
        pki_message=_MESSAGE, content_key=_MESSAGE[:80], sealing_key="0" * 16,
        transaction_id=sha256, message_type=19, signer_sha256=sha256, client_address="192.0.2.1",
        gateway="gateway-0", reply_budget_ms=10000,
    )  # fmt: skip
    facts = Facts(
        subject=f"CN={name}, O=Lab", sans=(f"dns:{name}.example",), key_type="rsa", key_bits=2048,
        spki_sha256=sha256, csr_sha256=sha256, challenge="signed", fleet="lab",
    )  # fmt: skip
    template = CertificateTemplate(
        issuer="local", ca_spki_sha256=sha256, subject=_MESSAGE[:60], spki=_MESSAGE[:294],
        not_before=1, not_after=2, extensions=(),
    )  # fmt: skip
    verdict = EnrollmentApproved(
        request_sha256=sha256, gateway="gateway-0", facts=facts, gates=_GATES, template=template,
        valid_until=2, claim=Claim(issuer="connector", subject=sha256[:36], device=name),
    )  # fmt: skip
    outcome = CertificateIssued(
        request_sha256=sha256, issuer="local", serial=serial, certificate=_CERTIFICATE, not_after=2
    )
    record = CertificateRecorded(
        request_sha256=sha256, enrollment=enrollment.prefix(), spki_sha256=sha256,
        subject=facts.subject, not_before=1, not_after=2, serial=serial,
    )  # fmt: skip
    yield _STREAM, enrollment.subject(Stage.REQUEST), request
    yield _STREAM, enrollment.subject(Stage.VERDICT), verdict
    yield CERTS, f"cert.local.{serial}.issued", record
    yield CERTS, f"key.{sha256}.issued.local.{serial}", record
    yield _STREAM, enrollment.subject(Stage.OUTCOME), outcome


def feed(engine: Engine, count: int, batch: int, first: int = 0) -> float:
    """Return the seconds to store the events of `count` enrollments; creating them is not timed."""
    waiting: dict[str, list[Stored]] = {_STREAM: [], CERTS: []}
    sequences, spent = {_STREAM: first * 3, CERTS: first * 2}, 0.0
    for number in range(first, first + count):
        for stream, subject, event in enrollment_events(number):
            sequences[stream] += 1
            message = encode(event)
            moment = 1_767_225_600_000_000_000 + number * 1_000_000
            waiting[stream].append(
                Stored(subject, message.payload, message.headers, sequences[stream], moment)
            )
        for stream, messages in waiting.items():
            if len(messages) >= batch or number == first + count - 1:
                started = time.perf_counter()
                store(engine, stream, messages)
                spent += time.perf_counter() - started
                waiting[stream] = []
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n", type=int, default=20_000, help="enrollments")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--database", help="database URL [SQLite in a temporary directory]")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(arguments.database or f"sqlite:///{Path(folder)}/audit.db")
        migrate(engine)
        seconds = feed(engine, arguments.n, arguments.batch)
        rate = arguments.n / seconds
        console.print(
            f"{engine.dialect.name}: {rate:.0f} enrollments/s, {rate * _EVENTS:.0f} events/s"
        )
        engine.dispose()


if __name__ == "__main__":
    main()
