"""Settlement of possible orphans: the report, and the wait for the issuer's answer."""

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from services.audit.commands.context import (
    ConflictError,
    MalformedError,
    NotFoundError,
    OperatorContext,
)
from services.audit.commands.revoke import await_answer
from shared.bus.series import Series
from shared.log.events.certificates import OrphanNoted, OrphanSuspected
from shared.log.events.commands import OrphanReported
from shared.log.streams import CERTS
from shared.log.subjects import orphan_command, possible_orphan
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError
from shared.x509.loading import loading

_MOST_ATTEMPTS = 1000
_MOST_CERTIFICATES = 8


async def settle_orphan(
    context: OperatorContext, issuer: str, key: str, certificates: tuple[bytes, ...]
) -> str:
    """Order that certificates (DER) are revoked at the CA; none: it made none beside the device's.

    Return the issuer's answer. Raises `NotFoundError` for an unknown order, `ConflictError` if the
    matter is settled, `CommandError` if the issuer refuses or does not answer in time.
    """
    placement = await _open_placement(context, issuer, key)
    for attempt in range(_MOST_ATTEMPTS):
        command = OrphanReported(
            issuer=issuer,
            key=key,
            attempt=attempt,
            placement=placement,
            certificates=certificates,
            operator=context.operator,
        )
        subject = orphan_command(issuer, key, attempt)
        if await context.append(subject, command):
            return (await await_answer(context, subject)).detail
    raise ConflictError("too many commands for this order")


def read_report(text: str) -> tuple[bytes, ...]:
    """Return the certificates of a PEM text as DER, none of blank text; raises `MalformedError`."""
    if not text.strip():
        return ()
    try:
        with loading():
            loaded = x509.load_pem_x509_certificates(text.encode())
        found = tuple(each.public_bytes(Encoding.DER) for each in loaded)
        for der in found:
            read_certificate(der)
    except (ValueError, ScepError):
        raise MalformedError("not certificates in PEM") from None
    if len(found) > _MOST_CERTIFICATES:
        raise MalformedError(f"more than {_MOST_CERTIFICATES} certificates")
    return found


async def _open_placement(context: OperatorContext, issuer: str, key: str) -> int:
    """Return the placement of the newest suspicion, which is open."""
    if issuer not in context.configuration.issuers:
        raise NotFoundError(f"no such issuer: {issuer}")
    if not key.isascii() or not key.isalnum():
        raise NotFoundError(f"{key}: not the key of an order")
    place = possible_orphan(issuer, key, "*")
    series = Series(context.bus, CERTS, place, OrphanNoted, context.issuers, "order")
    newest = await series.newest()
    if newest is None:
        raise NotFoundError(f"issuer {issuer} has no possible orphan of order {key}")
    if not isinstance(newest.event, OrphanSuspected):
        raise ConflictError("the possible orphan is settled already")
    return newest.event.placement
