"""The subjects of the log, and how clients' strings become subject tokens. Pure."""

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from shared.log.catalog import (
    ANCHOR_RELOAD,
    API_TOKEN,
    API_TOKEN_REVOCATION,
    CERTIFICATE,
    CERTIFICATE_STATUS,
    CHAIN,
    CHALLENGE,
    CHALLENGE_CANCELLATION,
    CHECKPOINT,
    CRL,
    DEVICE,
    HEARTBEAT,
    KEY,
    KEY_COMPROMISE,
    LEASE,
    NOTICE,
    OCSP_RESPONSE,
    ORDER_CHANGE,
    ORPHAN,
    ORPHAN_REPORT,
    RA_CERTIFICATE,
    RA_RELOAD,
    REPLAY,
    REQUEST,
    RESUME,
    RETRY,
    REVOCATION,
    REVOCATION_REPORT,
    REVOCATION_REQUEST,
    SERVICE_CERTIFICATE,
    WITHDRAWAL,
)
from shared.log.stages import ATTEMPT, Stage

NO_RENEWAL: Final = b"renewal by a stranger"
_TOKEN_CHARS: Final = 26
# Each number has one spelling; otherwise two requests could share a verdict.
_ATTEMPT: Final = re.compile("0|[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class EnrollmentId:
    """One attempt of one enrollment; its subjects differ only in the stage."""

    shard: str
    profile: str
    transaction: str
    csr: str
    attempt: int

    def subject(self, stage: Stage) -> str:
        """Return the subject of this stage's event."""
        return f"{self.prefix()}.{stage}"

    def prefix(self) -> str:
        """Return the common prefix of the subjects of all stages."""
        return ATTEMPT.format(
            shard=self.shard,
            profile=self.profile,
            transaction=self.transaction,
            csr=self.csr,
            attempt=self.attempt,
        )

    def any_attempt(self) -> str:
        """Return the wildcard of the requests of every attempt."""
        return REQUEST.wildcard(
            shard=self.shard, profile=self.profile, transaction=self.transaction, csr=self.csr
        )

    def at(self, attempt: int) -> "EnrollmentId":
        """Return another attempt of the same enrollment."""
        return EnrollmentId(self.shard, self.profile, self.transaction, self.csr, attempt)


def any_request(shard: str, profile: str, transaction: str) -> str:
    """Return the wildcard of every request of a transaction."""
    return REQUEST.wildcard(shard=shard, profile=profile, transaction=transaction)


@lru_cache(maxsize=256)  # each message's subject is parsed several times
def parse_subject(subject: str) -> tuple[EnrollmentId, Stage]:
    """Return the enrollment and stage of a subject; raise ValueError if it is not one."""
    prefix, shard, profile, transaction, csr, attempt, stage = subject.split(".")
    if prefix != "enroll" or not _ATTEMPT.fullmatch(attempt):
        raise ValueError("not an enrollment's subject")
    return EnrollmentId(shard, profile, transaction, csr, int(attempt)), Stage(stage)


def parse_prefix(prefix: str) -> EnrollmentId:
    """Return the enrollment with this subject prefix; raise ValueError if it is not one."""
    return parse_subject(f"{prefix}.{Stage.REQUEST}")[0]


def token(*parts: bytes) -> str:
    """Return a subject token for clients' strings: base32 of a digest of length-prefixed parts."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(4, "big"))
        state.update(part)
    return base64.b32encode(state.digest()).decode("ascii")[:_TOKEN_CHARS].lower()


def transaction_token(profile: str, transaction_id: bytes, signer_spki: bytes) -> str:
    """Return the token of a transaction, made of its profile, transactionID and signer key."""
    return token(profile.encode(), transaction_id, hashlib.sha256(signer_spki).digest())


def csr_token(certification_request_info: bytes, renews: bytes = b"") -> str:
    """Return the token of a CSR, made of its CertificationRequestInfo without the signature.

    `renews` is the serial number of the certificate that signed it, if that is one of ours: the
    same CSR is a different enrollment if it renews a different certificate. A RenewalReq signed by
    an unknown certificate is a separate enrollment too (`NO_RENEWAL`), so that the client may fall
    back to a PKCSReq.
    """
    return (
        token(certification_request_info, renews) if renews else token(certification_request_info)
    )


def same_csr(one: EnrollmentId, other: EnrollmentId) -> bool:
    """Return whether two enrollments share CSR and profile, whoever signed their messages."""
    return (one.profile, one.csr) == (other.profile, other.csr)


def serial_token(contents: bytes) -> str:
    """Return a serial number as subjects and events write it: the INTEGER's contents in hex."""
    return contents.hex()


def certificate_issued(issuer: str, serial: str) -> str:
    """Return the subject of a certificate's record."""
    return CERTIFICATE.subject(issuer=issuer, serial=serial)


def certificate_status(issuer: str, serial: str, number: int | str) -> str:
    """Return the subject of a certificate's status change; `*` as number matches all of them."""
    return CERTIFICATE_STATUS.subject(issuer=issuer, serial=serial, number=number)


def key_issued(spki_sha256: str, issuer: str, serial: str) -> str:
    """Return the subject of a certificate's record under its key; `*` matches any part."""
    return KEY.subject(spki_sha256=spki_sha256, issuer=issuer, serial=serial)


def key_compromised(spki_sha256: str, number: int | str) -> str:
    """Return the subject of a mark that a key is compromised; `*` as number matches all marks."""
    return KEY_COMPROMISE.subject(spki_sha256=spki_sha256, number=number)


def order_change(issuer: str, key: str, number: int | str) -> str:
    """Return the subject of a step of an order; `*` as number matches all of them."""
    return ORDER_CHANGE.subject(issuer=issuer, key=key, number=number)


def possible_orphan(issuer: str, key: str, number: int | str) -> str:
    """Return the subject of a possible orphan of an order; `*` matches any part."""
    return ORPHAN.subject(issuer=issuer, key=key, number=number)


def orphan_command(issuer: str, key: str, attempt: int) -> str:
    """Return the subject of a command to settle a possible orphan."""
    return ORPHAN_REPORT.subject(issuer=issuer, key=key, attempt=attempt)


def revocation_command(issuer: str, serial: str, attempt: int) -> str:
    """Return the subject of a command to revoke; a failed one may be repeated as a new attempt."""
    return REVOCATION.subject(issuer=issuer, serial=serial, attempt=attempt)


def revocation_answer(order: str) -> str:
    """Return the subject of the issuer's answer to the command with this subject."""
    return f"{order.removesuffix('.ordered')}.answered"


def withdrawal_command(issuer: str, serial: str, attempt: int) -> str:
    """Return the subject of a validator's command to revoke a certificate."""
    return WITHDRAWAL.subject(issuer=issuer, serial=serial, attempt=attempt)


def notice_begun(enrollment: EnrollmentId, number: int | str) -> str:
    """Return the subject that records the begin of a notice of an attempt's certificate.

    `*` as number matches any.
    """
    return NOTICE.subject(attempt=token(enrollment.prefix().encode()), number=number)


def connection_lease(connection: str, number: int | str) -> str:
    """Return the subject of a lease of a connection's recurring work; `*` matches any number."""
    return LEASE.subject(connection=connection, number=number)


def revocation_request(connection: str, context: str) -> str:
    """Return the subject of a service's request to revoke; `*` as context matches all of them.

    `context` is the service's own identifier.
    """
    digest = context if context == "*" else token(context.encode())
    return REVOCATION_REQUEST.subject(connection=connection, context=digest)


def revocation_report(connection: str, context: str) -> str:
    """Return the subject of the result that a service received of its request to revoke."""
    return REVOCATION_REPORT.subject(connection=connection, context=token(context.encode()))


def crl_head(issuer: str, ca_spki_sha256: str, number: int | str, partition: str = "") -> str:
    """Return the subject that announces a CRL; `*` as number matches all numbers.

    `partition` is the name of one, "" for the complete CRL of a CA.
    """
    kind = f"head-{partition}" if partition else "head"
    return CRL.subject(issuer=issuer, sha256=ca_spki_sha256, kind=kind, number=number)


def crl_chunk(issuer: str, crl_sha256: str, index: int) -> str:
    """Return the subject of one piece of a CRL, under the digest of the whole."""
    return CRL.subject(issuer=issuer, sha256=crl_sha256, kind="data", number=index)


def ocsp_response(issuer: str, serial: str, number: int | str) -> str:
    """Return the subject of a certificate's OCSP response; `*` matches any part."""
    return OCSP_RESPONSE.subject(issuer=issuer, serial=serial, number=number)


def service_certificate(issuer: str, serial: str) -> str:
    """Return the subject of a certificate that was issued for a service."""
    return SERVICE_CERTIFICATE.subject(issuer=issuer, serial=serial)


def ra_renewed(issuer: str, spki_sha256: str, number: int | str) -> str:
    """Return the subject of an RA key's renewed certificate; `*` as number matches all of them."""
    return RA_CERTIFICATE.subject(issuer=issuer, spki_sha256=spki_sha256, number=number)


def replay_record(kind: str, digest: str, number: int | str) -> str:
    """Return the subject that records which enrollment claimed a challenge; `*` matches any number.

    The first authentic record counts, whatever its number.
    """
    return REPLAY.subject(kind=kind, digest=digest, number=number)


def one_time_created(profile: str, digest: str) -> str:
    """Return the subject of an operator's one-time challenge; `*` as digest matches all of them."""
    return CHALLENGE.subject(profile=profile, digest=digest)


def one_time_cancelled(profile: str, digest: str, number: int | str) -> str:
    """Return the subject of a one-time challenge's cancellation; `*` as number matches any."""
    return CHALLENGE_CANCELLATION.subject(profile=profile, digest=digest, number=number)


def checkpoint(stream: str, sequence: int | str) -> str:
    """Return the subject of a checkpoint of a stream; `*` matches any stream or sequence."""
    return CHECKPOINT.subject(stream=stream, sequence=sequence)


def anchor_reload_command(profile: str, command: str) -> str:
    """Return the subject of a command to reload anchors; `*` matches any profile or command."""
    return ANCHOR_RELOAD.subject(profile=profile, command=command)


def retry_command(enrollment: EnrollmentId) -> str:
    """Return the subject of the command to retry an enrollment as this attempt."""
    return RETRY.subject(
        transaction=enrollment.transaction, csr=enrollment.csr, attempt=enrollment.attempt
    )


def resume_command(enrollment: EnrollmentId, number: int) -> str:
    """Return the subject of the command to resume an attempt; `number` counts them from 0."""
    return RESUME.subject(
        transaction=enrollment.transaction,
        csr=enrollment.csr,
        attempt=enrollment.attempt,
        number=number,
    )


def ra_reload_command(profile: str, command: str) -> str:
    """Return the subject of a command to reload RA certificates; `*` matches any part."""
    return RA_RELOAD.subject(profile=profile, command=command)


def api_token_created(name: str, command: str) -> str:
    """Return the subject of an API token's creation."""
    return API_TOKEN.subject(name=token(name.encode()), command=command)


def api_token_revoked(name: str, command: str) -> str:
    """Return the subject of an API token's revocation."""
    return API_TOKEN_REVOCATION.subject(name=token(name.encode()), command=command)


def reload_answer(order: str, replica: str) -> str:
    """Return the subject of a replica's answer to the reload command with this subject."""
    return f"{order.removesuffix('.all.ordered')}.{replica}.answered"


def chain_subject(issuer: str) -> str:
    """Return the subject of an issuer's CA chain: a key of the CA_CHAINS bucket."""
    return CHAIN.subject(issuer=issuer)


def device_subject(device: str, number: int | str) -> str:
    """Return the subject of a device's window; `*` as number matches all its windows."""
    return DEVICE.subject(device=device, number=number)


def replica_subject(role: str, name: str) -> str:
    """Return the subject of a replica's heartbeat; `*` as name matches all of the role."""
    return HEARTBEAT.subject(role=role, name=name)
