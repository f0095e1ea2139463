"""PKIOperation: handle a pkiMessage by way of the log and return its CertRep.

Theory of operation. `answer` verifies the message and dispatches by messageType.

* PKCSReq and RenewalReq are decrypted, their CSR is checked, and the request is appended under a
  subject made of profile, transaction, CSR and attempt. The append is the only write. When the same
  request arrives again, at any gateway, its append conflicts with that subject and the gateway
  continues from what is stored (`_resume`): it returns the stored answer, waits for it, or starts
  the next attempt if the last one's end permits a retry (`shared/log/enrollment.py`).
* The gateway then waits for the outcome: a hint wakes it, and it also reads the log every second.
  After the profile's reply budget the device receives PENDING and polls.
* A gateway that crashes at any point leaves either the request on the log or nothing. The device's
  next request continues from there. An append whose acknowledgement was lost is repeated in the
  background (`resend.py`), since the device may not come back.
* CertPoll finds the newest attempt of a transaction. GetCert and GetCRL only read.
* All failures after key transport look the same and take the same time, so that the gateway is no
  decryption oracle (`_one_answer`; see docs/decisions/0013-queries-have-one-refusal.md).
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from services.gateway.attempts import attempts_of, is_unopenable
from services.gateway.caller import Caller
from services.gateway.lookups import Lookups
from services.gateway.opening import (
    DecryptedRequest,
    VerifiedRequestError,
    open_enrollment,
    open_query,
    poll_reply_encryption,
)
from services.gateway.outcomes import EnrollmentStatus, Outcomes, PendingRequest, enrollment_in
from services.gateway.quota import Quota
from services.gateway.refusals import RefusalLog
from services.gateway.replies import Replier, ReplyEncryption
from services.gateway.resend import Resender
from services.gateway.settings import Profile, Settings
from shared.bus.core import Bus, BusUnavailableError
from shared.bus.log import append_first
from shared.ca.chains import Chain
from shared.log.enrollment import Answer, NextAttempt, on_repeat
from shared.log.envelope import Stored, encode
from shared.log.events.enrollment import CertificateIssued, EnrollmentRequested
from shared.log.reasons import REFUSALS, Reason
from shared.log.seal import seal
from shared.log.shards import all_shards, begun, shards_for
from shared.log.stages import Stage
from shared.log.streams import enroll_stream
from shared.log.subjects import EnrollmentId, any_request, csr_token, transaction_token
from shared.observe.tracing import annotate
from shared.runtime.live import Live
from shared.scep.errors import FailInfo, ScepError
from shared.scep.pkimessage import MessageType, read_message, verify
from shared.scep.request import read_issuer_and_serial


class UnanswerableError(Exception):
    """Raised for a message without a readable transaction to reply to: HTTP 400."""


@dataclass(frozen=True)
class EnrollmentContext:
    """A decrypted request with its caller, SCEP profile and CA chain."""

    profile: Profile
    chain: Chain
    opened: DecryptedRequest
    caller: Caller

    def request(self, enrollment: EnrollmentId, sha256: str) -> PendingRequest:
        """Return the stored request to wait for; `sha256` is that of its stored event."""
        return PendingRequest(enrollment, sha256, self.opened.csr.spki, self.profile)


@dataclass
class Enroller:
    """Handles pkiMessages by way of the log and returns CertReps."""

    bus: Bus
    live: Live[Settings]
    outcomes: Outcomes
    lookups: Lookups
    gateway: str
    clock: Callable[[], float]
    refusals: RefusalLog = field(default_factory=lambda: RefusalLog(time.monotonic))

    def __post_init__(self) -> None:
        self.quota = Quota(self.bus, self.live, self.clock)
        self.resender = Resender(self.bus)

    async def answer(
        self, profile: Profile, chain: Chain, body: bytes, address: str, client: str = "none"
    ) -> bytes:
        """Return the CertRep for a pkiMessage.

        `client` is the client's family, a metric label. Raises `UnanswerableError` if there is no
        transaction to reply to, `BusUnavailableError` if the log cannot be used.
        """
        started = asyncio.get_running_loop().time()
        try:
            message = read_message(body)
        except ScepError as error:
            self.refusals.add(profile.name, Reason.BAD_MESSAGE, detail=error.detail)
            raise UnanswerableError from None
        ra = profile.ra.under(chain.der[0]).addressed(message, self.clock())
        replier = Replier(profile, ra, message, client, clock=self.clock)
        caller = Caller(address, self.gateway, started + profile.reply_budget)
        try:
            verify(message, profile.algorithms)
            if message.message_type in (MessageType.PKCS_REQ, MessageType.RENEWAL_REQ):
                return await self._enrollment(replier, chain, body, caller)
            if message.message_type == MessageType.CERT_POLL:
                return await self._poll(replier, chain)
            if message.message_type in (MessageType.GET_CERT, MessageType.GET_CRL):
                return await self._query(replier, chain)
        except ScepError as error:
            return self._refuse(replier, error)
        kind = f"type {message.message_type}"
        self.refusals.add(profile.name, Reason.UNSUPPORTED_MESSAGE, detail=kind)
        return replier.refusal(Reason.UNSUPPORTED_MESSAGE, "message type not supported")

    def _refuse(self, replier: Replier, error: ScepError) -> bytes:
        """Return FAILURE for an unrecorded request; a bad message gets no failInfoText."""
        reason = REFUSALS.get(error.fail_info, Reason.BAD_MESSAGE)
        self.refusals.add(replier.profile.name, reason, detail=error.detail)
        silent = reason is Reason.BAD_MESSAGE
        return replier.refusal(reason, "" if silent else error.detail, error.fail_info)

    async def _enrollment(
        self, replier: Replier, chain: Chain, body: bytes, caller: Caller
    ) -> bytes:
        profile, message = replier.profile, replier.message
        async with self._one_answer():
            opened = open_enrollment(profile, chain, message, body)
        end = await self._enroll(EnrollmentContext(profile, chain, opened, caller))
        if end.terminal is None:
            return replier.pending()
        return replier.terminal(end.terminal, chain, opened.encryption)

    async def _query(self, replier: Replier, chain: Chain) -> bytes:
        """Answer GetCert or GetCRL. Nothing is recorded: clients use a fixed transactionID.

        Every failure, from the key transport to an unknown serial number, gets the same reply
        after the same time: nothing ties the envelope to its signer, so anyone may send an altered
        one.
        """
        floor = asyncio.get_running_loop().time() + self.live.current.limits.failure_floor
        try:
            answer = await self._answer_query(replier, chain)
        except ScepError as error:
            if error.fail_info is FailInfo.BAD_ALG:
                raise
            answer = None
        if answer is not None:
            return answer
        await asyncio.sleep(floor - asyncio.get_running_loop().time())
        self.refusals.add(replier.profile.name, Reason.NO_SUCH_CERTIFICATE, detail="query")
        return replier.refusal(Reason.NO_SUCH_CERTIFICATE, "no such certificate")

    async def _answer_query(self, replier: Replier, chain: Chain) -> bytes | None:
        profile = replier.profile
        payload, encryption = open_query(profile, chain, replier.message)
        issuer, serial = read_issuer_and_serial(payload)
        if replier.message.message_type == MessageType.GET_CERT:
            found = await self.lookups.certificate(profile, chain, issuer, serial)
            return replier.fetched(found, encryption) if found is not None else None
        found = await self.lookups.crl(profile.issuer, chain, issuer, serial)
        return replier.crl(found, encryption) if found is not None else None

    @asynccontextmanager
    async def _one_answer(self) -> AsyncIterator[None]:
        """Make all failures after key transport the same error at the same time (RFC 3218).

        badAlg about fields that anyone can read is raised immediately. A problem with a CSR that
        verifies keeps its error, but is raised no earlier than the others.
        """
        loop = asyncio.get_running_loop()
        floor = loop.time() + self.live.current.limits.failure_floor
        try:
            yield
        except VerifiedRequestError:
            await asyncio.sleep(floor - loop.time())
            raise
        except ScepError as error:
            if error.fail_info is FailInfo.BAD_ALG:
                raise
            await asyncio.sleep(floor - loop.time())
            raise ScepError("cannot be decrypted or verified") from None

    async def _enroll(self, context: EnrollmentContext) -> EnrollmentStatus:
        """Append the request or find it on the log; return its status within the reply budget."""
        profile, message = context.profile, context.opened.message
        transaction = transaction_token(
            profile.name, message.transaction_id.value, message.signer.spki
        )
        csr = csr_token(context.opened.csr.info, context.opened.renews)
        shard, *older = self._shards(profile, transaction)
        for old in older:
            enrollment = EnrollmentId(old, profile.name, transaction, csr, 0)
            if await self.bus.get_last_from_leader(enroll_stream(old), enrollment.any_attempt()):
                return await self._resume(context, enrollment)
        enrollment = EnrollmentId(shard, profile.name, transaction, csr, 0)
        return await self._attempt(context, enrollment) or await self._resume(context, enrollment)

    def _shards(self, profile: Profile, transaction: str) -> tuple[str, ...]:
        settings = self.live.current
        return shards_for(
            settings.epochs, profile.name, transaction, self.clock(), settings.retry_window
        )

    async def _attempt(
        self, context: EnrollmentContext, enrollment: EnrollmentId
    ) -> EnrollmentStatus | None:
        """Append one attempt and wait for its end; return None if the attempt exists already."""
        event, subject = encode(self._event(context, enrollment)), enrollment.subject(Stage.REQUEST)
        await self.quota.check(enrollment)
        annotate(enrollment=enrollment.prefix())
        with self.outcomes.waiter(enrollment) as hint:
            try:
                if not await append_first(self.bus, subject, event):
                    return None
            except BusUnavailableError:
                self.resender.keep(subject, event)
                raise
            request = context.request(enrollment, hashlib.sha256(event.payload).hexdigest())
            return await self.outcomes.wait(request, context.chain, hint, context.caller.deadline)

    def _event(self, context: EnrollmentContext, enrollment: EnrollmentId) -> EnrollmentRequested:
        opened, subject = context.opened, enrollment.subject(Stage.REQUEST)
        return EnrollmentRequested(
            pki_message=opened.pki_message,
            content_key=seal(opened.content_key, subject, self.live.current.sealing_key),
            sealing_key=self.live.current.sealing_key_id,
            transaction_id=opened.message.transaction_id.text(),
            message_type=opened.message.message_type,
            signer_sha256=hashlib.sha256(opened.message.signer.der).hexdigest(),
            client_address=context.caller.address,
            gateway=context.caller.gateway,
            reply_budget_ms=int(context.profile.reply_budget * 1000),
        )

    async def _resume(
        self, context: EnrollmentContext, enrollment: EnrollmentId
    ) -> EnrollmentStatus:
        """Continue from what is stored: wait, repeat the answer, or start another attempt."""
        occupied, loop = False, asyncio.get_running_loop()
        while True:
            known = await attempts_of(self.bus, self.outcomes, enrollment, thoroughly=occupied)
            if known.newest is not None and known.stored is not None:
                end = await self._repeat(context, known.newest, known.stored)
                if end is not None:
                    return end
            elif not known.free:
                raise BusUnavailableError("the conflicting request is not readable yet")
            end = await self._attempt(context, enrollment.at(known.free))
            if end is not None:
                return end
            if loop.time() >= context.caller.deadline:
                raise BusUnavailableError(
                    "could not append a new attempt: every number was already used"
                )
            occupied = True

    async def _repeat(
        self, context: EnrollmentContext, newest: EnrollmentId, stored: Stored
    ) -> EnrollmentStatus | None:
        """Return the newest attempt's status within the budget; None to start another attempt."""
        request = context.request(newest, stored.sha256())
        with self.outcomes.waiter(newest) as hint:
            end = await self.outcomes.read(request, context.chain)
            if end.held:
                return end
            now = self.clock()
            step = on_repeat(newest.attempt, end.terminal, now - end.time, now)
            if end.forged or isinstance(step, NextAttempt) or is_unopenable(end.terminal):
                return None
            if isinstance(step, Answer):
                return end
            end = await self.outcomes.wait(request, context.chain, hint, context.caller.deadline)
        return None if is_unopenable(end.terminal) else end

    async def _poll(self, replier: Replier, chain: Chain) -> bytes:
        """Answer CertPoll by transactionID and signer key; its names are often wrong."""
        profile, message = replier.profile, replier.message
        spki = message.signer.spki
        transaction = transaction_token(profile.name, message.transaction_id.value, spki)
        stored = await self._newest(profile, transaction)
        if stored is None:
            self.refusals.add(profile.name, Reason.NO_SUCH_TRANSACTION, detail="poll")
            return replier.refusal(Reason.NO_SUCH_TRANSACTION, "no such transaction")
        found = enrollment_in(stored)
        known = found and await attempts_of(self.bus, self.outcomes, found)
        if not known or known.newest is None or known.stored is None:
            return replier.pending()  # forged: the device's next PKCSReq finds its own
        request = PendingRequest(known.newest, known.stored.sha256(), b"", profile)
        end = await self.outcomes.polled(request, chain)
        if end.terminal is None or is_unopenable(end.terminal):
            return replier.pending()
        if not isinstance(end.terminal, CertificateIssued):
            return replier.terminal(end.terminal, chain, ReplyEncryption())
        return replier.terminal(end.terminal, chain, poll_reply_encryption(profile, message))

    async def _newest(self, profile: Profile, transaction: str) -> Stored | None:
        """Return a transaction's newest request. A held one may be on any earlier shard."""
        near = self._shards(profile, transaction)
        every = all_shards(begun(self.live.current.epochs, self.clock()))
        for shard in dict.fromkeys((*near, *every)):
            wildcard = any_request(shard, profile.name, transaction)
            stored = await self.bus.get_last_from_leader(enroll_stream(shard), wildcard)
            if stored is not None:
                return stored
        return None
