"""What goes to and comes from Microsoft, and the error if it does not work. Pure.

Nothing here prints a CSR: it contains the device's challenge, which is a credential.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

SUCCESS: Final = "Success"
DESCRIPTION_CHARACTERS: Final = 255  # of a failure notification
MAX_REVOCATIONS: Final = 500


class Problem(StrEnum):
    """Why Microsoft could not be asked, or did not answer as it should."""

    OUTAGE = "outage"
    CREDENTIALS = "credentials"
    PERMISSION = "permission"
    NOT_LICENSED = "not_licensed"
    PROTOCOL = "protocol"


class MicrosoftUnavailableError(Exception):
    """Raised if a call has no answer that can be used.

    `detail` says what happened, `hint` what an operator can do about it ("" if nothing is known).
    `sent` says whether the call may have been carried out nevertheless. None of them contains a
    CSR, a secret, a token or the body of an answer.
    """

    def __init__(self, kind: Problem, detail: str, hint: str = "", *, sent: bool = False) -> None:
        super().__init__(f"{detail}: {hint}" if hint else detail)
        self.kind, self.detail, self.hint, self.sent = kind, detail, hint, sent


@dataclass(frozen=True, slots=True)
class Answer:
    """Intune's answer to a SCEP action.

    `code` is exactly as sent, if it is short printable ASCII, "" otherwise; only "Success" admits.
    `description` is one printable line. `activity_id` names the call in Microsoft's logs.
    """

    code: str
    description: str = ""
    activity_id: str = ""

    @property
    def accepted(self) -> bool:
        """Whether Intune agrees; an answer without a code does not."""
        return self.code == SUCCESS


@dataclass(frozen=True, slots=True)
class SuccessNotice:
    """A certificate that was issued for a validated request.

    `csr` is the PKCS#10 as received (DER), `thumbprint` the SHA-1 of the certificate and `serial`
    its serial number, both in hexadecimal; `not_after` in Unix seconds. An empty `ca_configuration`
    stands for the connection's.
    """

    transaction_id: str
    csr: bytes = field(repr=False)
    thumbprint: str
    serial: str
    not_after: float
    issuing_ca: str
    ca_configuration: str = ""
    certificate_authority: str = ""


@dataclass(frozen=True, slots=True)
class FailureNotice:
    """A validated request that got no certificate; `h_result` is a 32-bit HRESULT, signed or not.

    `description` is for administrators; only its first 255 characters are sent.
    """

    transaction_id: str
    csr: bytes = field(repr=False)
    h_result: int
    description: str


class RevocationError(StrEnum):
    """Names by which Intune knows why a certificate was not revoked."""

    NONE = "None"
    NON_RETRYABLE = "NonRetryableServiceException"
    DATA_SERIALIZATION = "DataSerializationError"
    INVALID_PARAMETER = "ParameterDataInvalidError"
    CRYPTOGRAPHY = "CryptographyError"
    NOT_FOUND = "CertificateNotFoundError"
    CONFLICT = "ConflictError"
    NOT_SUPPORTED = "NotSupportedError"
    PAYLOAD_TOO_LARGE = "PayloadTooLargeError"
    RETRYABLE = "RetryableServiceException"
    UNAVAILABLE = "ServiceUnavailableException"
    TOO_BUSY = "ServiceTooBusyException"
    AUTHENTICATION = "AuthenticationException"


@dataclass(frozen=True, slots=True)
class RevocationAsked:
    """A request of Intune to revoke a certificate; `context` is opaque and names the request.

    `serial` is as sent, "" if it is unusable; the others are "" if absent.
    """

    context: str
    serial: str
    issuer_name: str = ""
    ca_configuration: str = ""


@dataclass(frozen=True, slots=True)
class RevocationResult:
    """What became of a request; only a failure has an error code and a message."""

    context: str
    succeeded: bool
    error_code: RevocationError = RevocationError.NONE
    error_message: str = ""


@dataclass(frozen=True, slots=True)
class ManagedDevice:
    """A device as Intune knows it; times in Unix seconds, 0 if unknown.

    `compliance` is one of Intune's states, "unknown" for one that is not known here.
    """

    id: str
    entra_id: str
    compliance: str
    grace_until: float
    enrolled_at: float
    last_sync_at: float
    user: str
    os: str


@dataclass(frozen=True, slots=True)
class EntraDevice:
    """A device as Entra ID knows it; None: Entra ID does not say."""

    id: str
    entra_id: str
    enabled: bool | None
    compliant: bool | None
    managed: bool | None
    compliance_expires_at: float


@dataclass(frozen=True, slots=True)
class LastError:
    """The newest failed call of a connection, and when it failed (Unix seconds)."""

    kind: Problem
    sentence: str
    at: float


@dataclass(frozen=True, slots=True)
class TenantHealth:
    """How a connection does, for operators; times in Unix seconds, 0 if there is none.

    `credential` counts from 1. `calls` maps outcomes ("success", "refused" and `Problem`) to the
    number of calls since the start.
    """

    credential_kind: str
    credential: int
    credential_not_after: float
    token_at: float
    token_error: str
    discovered_at: float
    last_ok: float
    last_error: LastError | None
    breaker_open_until: float
    throttled_until: float
    calls: Mapping[str, int]
