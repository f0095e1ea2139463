"""The subjects of the log: what each is about, and how strings become tokens. Pure."""

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
    RA_RELOAD,
    REPLAY,
    REQUEST,
    RESUME,
    RETRY,
    REVOCATION,
)
from shared.log.stages import ATTEMPT, Stage

NO_RENEWAL: Final = b"renewal by a stranger"
_TOKEN_CHARS: Final = 26
# One way to write a number: else two requests could share one verdict.
_ATTEMPT: Final = re.compile("0|[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class EnrollmentId:
    """One attempt of one enrollment; its subjects differ in the stage alone."""

    shard: str
    profile: str
    transaction: str
    csr: str
    attempt: int

    def subject(self, stage: Stage) -> str:
        """The subject of this stage's event."""
        return f"{self.prefix()}.{stage}"

    def prefix(self) -> str:
        """What the subjects of all stages begin with."""
        return ATTEMPT.format(
            shard=self.shard,
            profile=self.profile,
            transaction=self.transaction,
            csr=self.csr,
            attempt=self.attempt,
        )

    def any_attempt(self) -> str:
        """The wildcard over the requests of every attempt."""
        return REQUEST.wildcard(
            shard=self.shard, profile=self.profile, transaction=self.transaction, csr=self.csr
        )

    def at(self, attempt: int) -> "EnrollmentId":
        """The same enrollment, another attempt."""
        return EnrollmentId(self.shard, self.profile, self.transaction, self.csr, attempt)


def any_request(shard: str, profile: str, transaction: str) -> str:
    """The wildcard over every request of a transaction."""
    return REQUEST.wildcard(shard=shard, profile=profile, transaction=transaction)


@lru_cache(maxsize=256)  # each message's subject is parsed several times
def parse_subject(subject: str) -> tuple[EnrollmentId, Stage]:
    """The enrollment and stage that a subject names; ValueError where it names none."""
    prefix, shard, profile, transaction, csr, attempt, stage = subject.split(".")
    if prefix != "enroll" or not _ATTEMPT.fullmatch(attempt):
        raise ValueError("not an enrollment's subject")
    return EnrollmentId(shard, profile, transaction, csr, int(attempt)), Stage(stage)


def parse_prefix(prefix: str) -> EnrollmentId:
    """The enrollment whose subjects begin so; ValueError where there is none."""
    return parse_subject(f"{prefix}.{Stage.REQUEST}")[0]


def token(*parts: bytes) -> str:
    """A subject token for strings of clients: base32 of a digest of length-prefixed parts."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(4, "big"))
        state.update(part)
    return base64.b32encode(state.digest()).decode("ascii")[:_TOKEN_CHARS].lower()


def transaction_token(profile: str, transaction_id: bytes, signer_spki: bytes) -> str:
    """The token of a transaction: its profile, transactionID and signer key."""
    return token(profile.encode(), transaction_id, hashlib.sha256(signer_spki).digest())


def csr_token(certification_request_info: bytes, renews: bytes = b"") -> str:
    """The token of a CSR: its CertificationRequestInfo, not its signature.

    `renews` is the serial of the certificate that signed it, where that is one of ours: the same
    CSR is another enrollment when it renews another certificate. A RenewalReq by a stranger is one
    of its own too (`NO_RENEWAL`), so that the client may fall back to a PKCSReq.
    """
    return (
        token(certification_request_info, renews) if renews else token(certification_request_info)
    )


def same_csr(one: EnrollmentId, other: EnrollmentId) -> bool:
    """Whether two enrollments are of one CSR on one profile, whoever signed the messages."""
    return (one.profile, one.csr) == (other.profile, other.csr)


def serial_token(contents: bytes) -> str:
    """How subjects and events write a serial number: an INTEGER's contents in hex."""
    return contents.hex()


def certificate_issued(issuer: str, serial: str) -> str:
    """Where a certificate is recorded."""
    return CERTIFICATE.subject(issuer=issuer, serial=serial)


def certificate_status(issuer: str, serial: str, number: int | str) -> str:
    """Where a change of a certificate's status is recorded; `*` for the number finds the last."""
    return CERTIFICATE_STATUS.subject(issuer=issuer, serial=serial, number=number)


def key_issued(spki_sha256: str, issuer: str, serial: str) -> str:
    """Where a certificate is recorded under its key; `*` for issuer and serial finds the last."""
    return KEY.subject(spki_sha256=spki_sha256, issuer=issuer, serial=serial)


def key_compromised(spki_sha256: str, number: int | str) -> str:
    """Where it stands that a key must never be certified again; `*` finds the last such mark."""
    return KEY_COMPROMISE.subject(spki_sha256=spki_sha256, number=number)


def revocation_command(issuer: str, serial: str, attempt: int) -> str:
    """Return the subject of a command to revoke; one that failed may be given again."""
    return REVOCATION.subject(issuer=issuer, serial=serial, attempt=attempt)


def revocation_answer(order: str) -> str:
    """Return the subject of the issuer's answer to a command (its subject)."""
    return f"{order.removesuffix('.ordered')}.answered"


def crl_head(issuer: str, ca_spki_sha256: str, number: int | str) -> str:
    """Where a complete CRL is announced; `*` for the number finds the newest."""
    return CRL.subject(issuer=issuer, sha256=ca_spki_sha256, kind="head", number=number)


def crl_chunk(issuer: str, crl_sha256: str, index: int) -> str:
    """Where a piece of a CRL stands, under the digest of the whole."""
    return CRL.subject(issuer=issuer, sha256=crl_sha256, kind="data", number=index)


def replay_record(kind: str, digest: str, number: int | str) -> str:
    """Where it stands which enrollment a challenge of this kind belongs to; `*` finds the last.

    The first authentic record counts, whatever its number.
    """
    return REPLAY.subject(kind=kind, digest=digest, number=number)


def one_time_created(profile: str, digest: str) -> str:
    """Where an operator's one-time challenge stands; `*` for the digest is all of them."""
    return CHALLENGE.subject(profile=profile, digest=digest)


def one_time_cancelled(profile: str, digest: str, number: int | str) -> str:
    """Return the subject of its cancellation; `*` for the number finds the last one."""
    return CHALLENGE_CANCELLATION.subject(profile=profile, digest=digest, number=number)


def checkpoint(stream: str, sequence: int | str) -> str:
    """Where a checkpoint of a stream stands; `*` for both is any, for the sequence the last."""
    return CHECKPOINT.subject(stream=stream, sequence=sequence)


def anchor_reload_command(profile: str, command: str) -> str:
    """Return the subject of a command to reload anchors; `*` for both is any."""
    return ANCHOR_RELOAD.subject(profile=profile, command=command)


def retry_command(enrollment: EnrollmentId) -> str:
    """Return the subject of a command to make this attempt of an enrollment."""
    return RETRY.subject(
        transaction=enrollment.transaction, csr=enrollment.csr, attempt=enrollment.attempt
    )


def resume_command(enrollment: EnrollmentId, number: int) -> str:
    """Return the subject of the command of this number to resume an attempt."""
    return RESUME.subject(
        transaction=enrollment.transaction,
        csr=enrollment.csr,
        attempt=enrollment.attempt,
        number=number,
    )


def ra_reload_command(profile: str, command: str) -> str:
    """Return the subject of a command to reload RA certificates; `*` for both is any."""
    return RA_RELOAD.subject(profile=profile, command=command)


def api_token_created(name: str, command: str) -> str:
    """Where it stands that an API token of this name was made."""
    return API_TOKEN.subject(name=token(name.encode()), command=command)


def api_token_revoked(name: str, command: str) -> str:
    """Return the subject of its revocation."""
    return API_TOKEN_REVOCATION.subject(name=token(name.encode()), command=command)


def reload_answer(order: str, replica: str) -> str:
    """Return the subject of a replica's answer to such a command (its subject)."""
    return f"{order.removesuffix('.all.ordered')}.{replica}.answered"


def chain_subject(issuer: str) -> str:
    """Where an issuer publishes its CA chain: a key of the CA_CHAINS bucket."""
    return CHAIN.subject(issuer=issuer)


def device_subject(device: str, number: int | str) -> str:
    """Where a device's window stands; `*` for the number finds the last one."""
    return DEVICE.subject(device=device, number=number)


def replica_subject(role: str, name: str) -> str:
    """Where a running replica says that it is there; `*` for the name is all of them."""
    return HEARTBEAT.subject(role=role, name=name)
