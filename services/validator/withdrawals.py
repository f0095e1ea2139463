"""Withdrawals: a validator's commands to revoke certificates that a connection's service disowns.

The first authentic command for a certificate counts, and a new one is given only after the one
before was refused. Issuers obey if the connection's service is notified of the certificate.
"""

from dataclasses import dataclass
from typing import Final

from shared.bus.core import Bus, BusUnavailableError
from shared.bus.log import append_first, read_authentic
from shared.limits import WITHDRAWALS
from shared.log.envelope import EventSigner, Stored, Trusted, sign
from shared.log.events.base import NO_REQUEST
from shared.log.events.commands import CommandAnswered, RevocationReason, WithdrawalOrdered
from shared.log.streams import OPS
from shared.log.subjects import revocation_answer, withdrawal_command

UNCONFIRMED: Final = "unconfirmed"
REQUESTED: Final = "requested"
_ALL_FORGED: Final = CommandAnswered(
    request_sha256=NO_REQUEST, done=False, detail="all commands for the certificate are forged"
)


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """The certificate to revoke, and why: `cause` is UNCONFIRMED or REQUESTED."""

    connection: str
    issuer: str
    serial: str
    cause: str


@dataclass(frozen=True)
class Withdrawals:
    """Gives commands and reads their answers."""

    bus: Bus
    signer: EventSigner
    validators: Trusted
    issuers: Trusted

    async def order(self, withdrawal: Withdrawal) -> CommandAnswered | None:
        """Order a withdrawal unless it is ordered; return the answer, None while there is none.

        A refused command is repeated, at most `WITHDRAWALS` times. If all of them are forged, the
        answer is a refusal.
        """
        refused = _ALL_FORGED
        for attempt in range(WITHDRAWALS):
            subject = withdrawal_command(withdrawal.issuer, withdrawal.serial, attempt)
            stored = await self.bus.get_last_or_leader(OPS, subject)
            if stored is None:
                await self._append(withdrawal, attempt, subject)
                return None
            if read_authentic(WithdrawalOrdered, stored, self.validators, "command") is None:
                continue
            answer = await self._answer(stored)
            if answer is None or answer.done:
                return answer
            refused = answer
        return refused

    async def _append(self, withdrawal: Withdrawal, attempt: int, subject: str) -> None:
        event = WithdrawalOrdered(
            issuer=withdrawal.issuer,
            serial=withdrawal.serial,
            attempt=attempt,
            reason=RevocationReason.CESSATION_OF_OPERATION,
            operator=withdrawal.connection,
            cause=withdrawal.cause,
        )
        if not await append_first(self.bus, subject, sign(event, subject, self.signer)):
            raise BusUnavailableError("the conflicting withdrawal is not readable yet")

    async def _answer(self, command: Stored) -> CommandAnswered | None:
        stored = await self.bus.get_last_or_leader(OPS, revocation_answer(command.subject))
        if stored is None:
            return None
        answer = read_authentic(CommandAnswered, stored, self.issuers, "command")
        if answer is None or answer.request_sha256 != command.sha256():
            return CommandAnswered(
                request_sha256=command.sha256(), done=False, detail="the answer is forged"
            )
        return answer
