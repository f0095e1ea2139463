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
from shared.bus.log import read_authentic
from shared.log.events.certificates import OrphanNoted, OrphanSuspected
from shared.log.events.commands import OrphanReported
from shared.log.streams import CERTS
from shared.log.subjects import orphan_command, possible_orphan
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError
from shared.x509.loading import loading

_MOST_ATTEMPTS = 1000
_MAX_BYTES = 64 * 1024


async def settle_orphan(context: OperatorContext, issuer: str, key: str, certificate: bytes) -> str:
    """Order that a certificate (DER) is revoked at the CA; b"" reports that the CA made none.

    Return the issuer's answer. Raises `NotFoundError` for an unknown order, `ConflictError` if the
    matter is settled, `CommandError` if the issuer refuses or does not answer in time.
    """
    if certificate:
        _check_certificate(certificate)
    await _check_open(context, issuer, key)
    for attempt in range(_MOST_ATTEMPTS):
        command = OrphanReported(
            issuer=issuer,
            key=key,
            attempt=attempt,
            certificate=certificate,
            operator=context.operator,
        )
        subject = orphan_command(issuer, key, attempt)
        if await context.append(subject, command):
            return (await await_answer(context, subject)).detail
    raise ConflictError("too many commands for this order")


def read_report(text: str) -> bytes:
    """Return a certificate in PEM as DER, b"" for blank text; raises `MalformedError`."""
    if not text.strip():
        return b""
    try:
        with loading():
            loaded = x509.load_pem_x509_certificate(text.encode())
    except ValueError:
        raise MalformedError("not a certificate in PEM") from None
    return loaded.public_bytes(Encoding.DER)


async def _check_open(context: OperatorContext, issuer: str, key: str) -> None:
    if issuer not in context.configuration.issuers:
        raise NotFoundError(f"no such issuer: {issuer}")
    if not key.isascii() or not key.isalnum():
        raise NotFoundError(f"{key}: not the key of an order")
    place = possible_orphan(issuer, key, "*")
    stored = await context.bus.get_last_from_leader(CERTS, place)
    if stored is None:
        raise NotFoundError(f"issuer {issuer} has no possible orphan of order {key}")
    event = read_authentic(OrphanNoted, stored, context.issuers, "order")
    if event is not None and not isinstance(event, OrphanSuspected):
        raise ConflictError("the possible orphan is settled already")


def _check_certificate(der: bytes) -> None:
    if len(der) > _MAX_BYTES:
        raise MalformedError(f"the certificate is longer than {_MAX_BYTES} bytes")
    try:
        read_certificate(der)
    except ScepError as error:
        raise MalformedError(f"not a certificate: {error.detail}") from None
