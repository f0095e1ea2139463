"""PKIOperation: open -> record -> wait -> answer. What a kill leaves behind, a retry picks up."""

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from services.gateway.outcomes import End, Outcomes, Request
from services.gateway.replies import Mirror, Replier
from services.gateway.settings import Profile, Settings
from shared.bus.core import AppendConflictError, Bus, BusUnavailableError
from shared.bus.topology import enroll_stream
from shared.chains import Chain
from shared.csr import CertificationRequest, read_csr, verify_self_signature
from shared.enrollment import Answer, TryAnew, Wait, on_repeat
from shared.events import EnrollmentRequested, Stored, encode
from shared.reasons import Reason
from shared.scep.errors import FailInfo, ScepError
from shared.scep.pkimessage import (
    MessageType,
    PkiMessage,
    read_envelope,
    read_message,
    unwrap_content_key,
    verify,
)
from shared.seal import seal
from shared.shards import shards_for
from shared.subjects import (
    EnrollmentId,
    Stage,
    any_request,
    csr_token,
    parse_subject,
    transaction_token,
)
from shared.telemetry import REFUSED

_log = structlog.get_logger()
_MAX_KEY = 32


class UnanswerableError(Exception):
    """Raised where no transaction is known to answer: HTTP 400."""


@dataclass(frozen=True)
class Opened:
    """A request the gateway has opened: its CSR, its content key, how to encrypt the reply."""

    message: PkiMessage
    pki_message: bytes
    csr: CertificationRequest
    content_key: bytes
    mirror: Mirror


@dataclass(frozen=True)
class Caller:
    """Who asks, through which gateway, and until when (loop time) an answer is of use."""

    address: str
    gateway: str
    deadline: float


@dataclass(frozen=True)
class Job:
    """An opened request, for whom, and under which profile and CA."""

    profile: Profile
    chain: Chain
    opened: Opened
    caller: Caller

    def request(self, enrollment: EnrollmentId, sha256: str) -> Request:
        """The stored request whose end is wanted."""
        return Request(enrollment, sha256, self.opened.csr.spki, self.profile)


@dataclass
class Enroller:
    """Takes pkiMessages to CertReps by way of the log."""

    bus: Bus
    settings: Settings
    outcomes: Outcomes
    gateway: str
    clock: Callable[[], float]

    async def answer(self, profile: Profile, chain: Chain, body: bytes, address: str) -> bytes:
        """The CertRep for a pkiMessage; `UnanswerableError`, or `BusUnavailableError`."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            message = read_message(body)
        except ScepError as error:
            self._refused(profile, Reason.BAD_MESSAGE, error.detail)
            raise UnanswerableError from None
        replier = Replier(profile, message)
        try:
            verify(message, profile.algorithms)
        except ScepError as error:
            return self._refuse(replier, error)
        caller = Caller(address, self.gateway, started + profile.reply_budget)
        if message.message_type == MessageType.CERT_POLL:
            return await self._poll(replier, chain)
        if message.message_type != MessageType.PKCS_REQ:
            self._refused(profile, Reason.UNSUPPORTED_MESSAGE, f"type {message.message_type}")
            return replier.refusal(Reason.UNSUPPORTED_MESSAGE, "message type not supported here")
        return await self._pkcs_req(replier, chain, body, caller)

    async def _pkcs_req(self, replier: Replier, chain: Chain, body: bytes, caller: Caller) -> bytes:
        floor = asyncio.get_running_loop().time() + self.settings.limits.failure_floor
        try:
            opened = self._open(replier.profile, replier.message, body)
        except ScepError as error:
            if error.fail_info is FailInfo.BAD_ALG:
                return self._refuse(replier, error)
            self._refused(replier.profile, Reason.BAD_MESSAGE, "does not open")
            # One answer at one time for every failure behind the key transport (RFC 3218).
            await asyncio.sleep(floor - asyncio.get_running_loop().time())
            return replier.refusal(Reason.BAD_MESSAGE, "")
        end = await self._enroll(Job(replier.profile, chain, opened, caller))
        if end.terminal is None:
            return replier.pending()
        return replier.terminal(end.terminal, chain, opened.mirror)

    def _open(self, profile: Profile, message: PkiMessage, body: bytes) -> Opened:
        """Decrypt, parse the CSR, check possession and the tie to the signer.

        badAlg comes out only where the envelope's algorithms, which anyone can read, are at fault.
        """
        envelope = read_envelope(message, profile.algorithms)
        fallback = secrets.token_bytes(_MAX_KEY)
        content_key = unwrap_content_key(envelope, profile.ra.decryption, fallback)
        mirror = Mirror(envelope.cipher)
        if envelope.recipients:
            mirror = Mirror(envelope.cipher, envelope.recipients[0].transport)
        try:
            csr = read_csr(envelope.decrypt(content_key))
            verify_self_signature(csr)
        except ScepError as error:
            raise ScepError(error.detail) from None
        if csr.spki != message.signer.spki:
            raise ScepError("signed by another key than the CSR's")
        return Opened(message, body, csr, content_key, mirror)

    async def _enroll(self, job: Job) -> End:
        """Append the request, or find it on the log; then its end within the reply budget."""
        profile, message = job.profile, job.opened.message
        transaction = transaction_token(
            profile.name, message.transaction_id.value, message.signer.spki
        )
        csr = csr_token(job.opened.csr.info)
        shard, *older = self._shards(profile, transaction)
        for old in older:
            enrollment = EnrollmentId(old, profile.name, transaction, csr, 0)
            if await self.bus.get_last(enroll_stream(old), enrollment.any_attempt()):
                return await self._resume(job, enrollment)
        enrollment = EnrollmentId(shard, profile.name, transaction, csr, 0)
        return await self._attempt(job, enrollment) or await self._resume(job, enrollment)

    def _shards(self, profile: Profile, transaction: str) -> tuple[str, ...]:
        settings = self.settings
        return shards_for(
            settings.epochs, profile.name, transaction, self.clock(), settings.retry_window
        )

    async def _attempt(self, job: Job, enrollment: EnrollmentId) -> End | None:
        """Append one attempt and wait for its end; None where the attempt is there already."""
        event = encode(self._event(job, enrollment))
        with self.outcomes.waiter(enrollment) as hint:
            try:
                await self.bus.append(enrollment.subject(Stage.REQUEST), event)
            except AppendConflictError:
                return None
            request = job.request(enrollment, hashlib.sha256(event.payload).hexdigest())
            return await self.outcomes.wait(request, job.chain, hint, job.caller.deadline)

    def _event(self, job: Job, enrollment: EnrollmentId) -> EnrollmentRequested:
        opened, subject = job.opened, enrollment.subject(Stage.REQUEST)
        return EnrollmentRequested(
            pki_message=opened.pki_message,
            content_key=seal(opened.content_key, subject, self.settings.sealing_key),
            sealing_key=self.settings.sealing_key_id,
            transaction_id=opened.message.transaction_id.text(),
            message_type=opened.message.message_type,
            signer_sha256=hashlib.sha256(opened.message.signer.der).hexdigest(),
            client_address=job.caller.address,
            gateway=job.caller.gateway,
            reply_budget_ms=int(job.profile.reply_budget * 1000),
        )

    async def _resume(self, job: Job, enrollment: EnrollmentId) -> End:
        """Go on from what is stored: wait for it, repeat its answer, or try anew."""
        while True:
            newest, stored = await self._newest(enrollment)
            request = job.request(newest, stored.sha256())
            with self.outcomes.waiter(newest) as hint:
                end = await self.outcomes.read(request, job.chain)
                now = self.clock()
                step = on_repeat(newest.attempt, end.terminal, now - end.time, now)
                if end.forged:
                    step = TryAnew(newest.attempt + 1)
                if isinstance(step, Answer):
                    return end
                if isinstance(step, Wait):
                    return await self.outcomes.wait(request, job.chain, hint, job.caller.deadline)
            found = await self._attempt(job, newest.at(step.attempt))
            if found is not None:
                return found

    async def _newest(self, enrollment: EnrollmentId) -> tuple[EnrollmentId, Stored]:
        """The newest attempt; counted up one by one where a subject is planted among them."""
        stream = enroll_stream(enrollment.shard)
        stored = await self.bus.get_last(stream, enrollment.any_attempt())
        newest = _parsed(stored)
        if stored is not None and newest is not None:
            return newest, stored
        found: tuple[EnrollmentId, Stored] | None = None
        while stored := await self.bus.get_last(stream, enrollment.subject(Stage.REQUEST)):
            found = enrollment, stored
            enrollment = enrollment.at(enrollment.attempt + 1)
        if found is None:
            raise BusUnavailableError("a conflicting request cannot be read yet")
        return found

    async def _poll(self, replier: Replier, chain: Chain) -> bytes:
        """CertPoll: by transactionID and signer key; its issuer and subject are often wrong."""
        profile, message = replier.profile, replier.message
        spki = message.signer.spki
        transaction = transaction_token(profile.name, message.transaction_id.value, spki)
        for shard in self._shards(profile, transaction):
            wildcard = any_request(shard, profile.name, transaction)
            stored = await self.bus.get_last(enroll_stream(shard), wildcard)
            if stored is None:
                continue
            enrollment = _parsed(stored)
            if enrollment is None:  # planted: the device's next PKCSReq finds the true one
                return replier.pending()
            request = Request(enrollment, stored.sha256(), spki, profile)
            end = await self.outcomes.read(request, chain)
            if end.terminal is None:
                return replier.pending()
            return replier.terminal(end.terminal, chain, _poll_mirror(profile, message))
        self._refused(profile, Reason.NO_SUCH_TRANSACTION, "poll")
        return replier.refusal(Reason.NO_SUCH_TRANSACTION, "no such transaction")

    def _refuse(self, replier: Replier, error: ScepError) -> bytes:
        algorithm = error.fail_info is FailInfo.BAD_ALG
        reason = Reason.BAD_ALGORITHM if algorithm else Reason.BAD_MESSAGE
        self._refused(replier.profile, reason, error.detail)
        return replier.refusal(reason, error.detail if algorithm else "", error.fail_info)

    def _refused(self, profile: Profile, reason: Reason, detail: str) -> None:
        """A counter and one line for what never comes on the log."""
        REFUSED.labels(profile.name, reason).inc()
        _log.info("refused", profile=profile.name, reason=reason.value, detail=detail)


def _parsed(stored: Stored | None) -> EnrollmentId | None:
    """What a stored request is about; None where a gateway taken over made its subject up."""
    try:
        return parse_subject(stored.subject)[0] if stored is not None else None
    except ValueError:
        return None


def _poll_mirror(profile: Profile, message: PkiMessage) -> Mirror:
    """The poll's own envelope says how to encrypt the answer, where it can be read."""
    try:
        envelope = read_envelope(message, profile.algorithms)
    except ScepError:
        return Mirror()
    transport = envelope.recipients[0].transport if envelope.recipients else Mirror().transport
    return Mirror(envelope.cipher, transport)
