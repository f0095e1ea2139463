"""An order to revoke, given and waited for."""

import re
from typing import Final

from services.audit.office import NotThereError, Office, OrderError
from shared.bus.topology import CERTS, OPS
from shared.order_events import OrderAnswered, RevocationOrdered, RevocationReason
from shared.stored import Stored, authenticate_as
from shared.subjects import certificate_issued, revocation_answer, revocation_order

_ANSWER_SECONDS: Final = 30.0
_HEX: Final = re.compile("[0-9a-f]{1,64}")


async def revoke_certificate(
    office: Office, issuer: str, serial: str, reason: RevocationReason
) -> str:
    """What there is to say of it.

    An order that failed before is given again, and one that knew nothing of a compromise.
    """
    token = written_serial(serial)
    if issuer not in office.configuration.issuers:
        raise NotThereError(f"no such issuer: {issuer}")
    if await office.bus.get_last(CERTS, certificate_issued(issuer, token)) is None:
        raise NotThereError(f"{serial}: no such certificate of issuer {issuer}")
    attempt = 0
    while True:
        subject = revocation_order(issuer, token, attempt)
        order = RevocationOrdered(
            issuer=issuer, serial=token, attempt=attempt, reason=reason, operator=office.operator
        )
        first = await office.append(subject, order)
        answer = await _answer(office, subject)
        if first or (answer.done and not await _is_news(office, subject, reason)):
            break
        attempt += 1
    if not answer.done:
        raise OrderError(f"not revoked: {answer.detail}")
    return answer.detail if first else f"was revoked before: {answer.detail}"


async def _is_news(office: Office, order: str, reason: RevocationReason) -> bool:
    """Whether an order obeyed before said nothing of a compromise that is known now."""
    stored = await office.bus.get_last(OPS, order)
    if stored is None or reason is not RevocationReason.KEY_COMPROMISE:
        return False
    return authenticate_as(RevocationOrdered, stored, office.operators).reason is not reason


async def _answer(office: Office, order: str) -> OrderAnswered:
    stored: Stored | None = await office.until(OPS, revocation_answer(order), _ANSWER_SECONDS)
    if stored is None:
        raise OrderError("the order stands on the log; no issuer has answered it yet")
    return authenticate_as(OrderAnswered, stored, office.issuers)


def written_serial(text: str) -> str:
    """A serial number as the log writes it, an INTEGER's contents in hex, from how people do."""
    digits = text.strip().lower().removeprefix("0x").replace(":", "")
    if not _HEX.fullmatch(digits):
        raise NotThereError(f"{text}: not a serial number in hex")
    number = int(digits, 16)
    return number.to_bytes(number.bit_length() // 8 + 1, "big").hex()
