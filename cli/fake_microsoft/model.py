"""The values that the fake keeps and judges. All are frozen: a change makes a new one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

SCEP_SERVICE: Final = "ScepRequestValidationFEService"
REVOCATION_SERVICE: Final = "PkiConnectorFEService"
SCEP_VERSION: Final = "2018-02-20"
REVOCATION_VERSION: Final = "5019-05-05"
SCEP_ROLE: Final = "scep_challenge_provider"
GRAPH_ROLES: Final = (
    "Application.Read.All",
    "DeviceManagementManagedDevices.Read.All",
    "Device.Read.All",
    "User.Read.All",
)
ALL_ROLES: Final = (*GRAPH_ROLES, SCEP_ROLE)
NO_ID: Final = "00000000-0000-0000-0000-000000000000"
# The codes of ScepActions, as Microsoft's library lists them; BadTenantIdInChallenge is not in it.
CODES: Final = (
    "Unknown",
    "Success",
    "CertificateRequestDecodingFailed",
    "ChallengePasswordMissing",
    "ChallengeDeserializationError",
    "ChallengeDecryptionError",
    "ChallengeDecodingError",
    "ChallengeInvalidTimestamp",
    "ChallengeExpired",
    "SubjectNameMissing",
    "SubjectNameMismatch",
    "SubjectAltNameMissing",
    "SubjectAltNameMismatch",
    "KeyUsageMismatch",
    "KeyLengthMismatch",
    "EnhancedKeyUsageMissing",
    "EnhancedKeyUsageMismatch",
    "AadKeyIdentifierListMissing",
    "RegisteredKeyMismatch",
    "SigningCertThumbprintMismatch",
    "ScepProfileNoLongerTargetedToTheClient",
    "BadCertificateRequestIdInChallenge",
    "BadDeviceIdInChallenge",
    "BadUserIdInChallenge",
    "SignatureValidationFailed",
    "BadTenantIdInChallenge",
)
ERROR_CODES: Final[Mapping[str, str]] = {
    "None": "0",
    "NonRetryableServiceException": "4000",
    "DataSerializationError": "4001",
    "ParameterDataInvalidError": "4002",
    "CryptographyError": "4003",
    "CertificateNotFoundError": "4004",
    "ConflictError": "4005",
    "NotSupportedError": "4006",
    "PayloadTooLargeError": "4007",
    "RetryableServiceException": "4100",
    "ServiceUnavailableException": "4101",
    "ServiceTooBusyException": "4102",
    "AuthenticationException": "4103",
}


@dataclass(frozen=True)
class Unit:
    """Where a tenant's services are: a scale unit, and how Graph lists it.

    `uris` replaces the URI of a provider; None leaves the provider out of the list. `old` are
    units that the services left: they answer `old_status`.
    """

    id: str
    old: tuple[str, ...] = ()
    old_status: int = 404
    uris: Mapping[str, str | None] = field(default_factory=dict)
    paged: bool = False
    service_name: bool = False
    trailing_slash: bool = False
    next_link: str | None = None


@dataclass(frozen=True)
class App:
    """A tenant and its app registration, as Entra ID knows them.

    `secrets` are accepted, `expired_secrets` are refused as expired. `certificate` is DER.
    """

    name: str
    id: str
    client_id: str
    secrets: tuple[str, ...]
    certificate: bytes
    unit: Unit
    expired_secrets: tuple[str, ...] = ()
    roles: tuple[str, ...] = ALL_ROLES
    token_lifetime: int = 3599


@dataclass(frozen=True)
class Token:
    """An access token: whom it was issued for, and until when (Unix seconds)."""

    value: str = field(repr=False)
    tenant: str
    audience: str
    roles: tuple[str, ...]
    expires: float


@dataclass(frozen=True)
class Device:
    """A device as Intune (`id`) and Entra ID (`entra_id`) know it. Times are ISO 8601.

    `managed` says whether Intune knows it, `registered` whether Entra ID does.
    """

    tenant: str
    id: str
    entra_id: str
    compliance_state: str = "compliant"
    grace_until: str = "9999-12-31T23:59:59Z"
    enrolled: str = "2024-01-01T00:00:00Z"
    last_sync: str = "2024-01-01T00:00:00Z"
    user: str = ""
    operating_system: str = "Windows"
    management_state: str = "managed"
    account_enabled: bool = True
    is_compliant: bool = True
    is_managed: bool = True
    compliance_expiration: str | None = None
    sid: str | None = None
    managed: bool = True
    registered: bool = True


@dataclass(frozen=True)
class User:
    """A user of Entra ID."""

    tenant: str
    id: str
    upn: str
    sid: str | None = None


@dataclass(frozen=True)
class Challenge:
    """What a challenge says. None means that Intune does not compare this part.

    `sans` are (kind, value); `registered_keys` are the SHA-256 of the SubjectPublicKeyInfo of the
    keys of Windows Hello for Business, in hex.
    """

    id: str
    tenant: str
    device: str
    user: str
    subject: str
    sans: tuple[tuple[str, str], ...] | None
    key_bits: int | None
    key_usage: tuple[str, ...] | None
    eku: tuple[str, ...] | None
    issued: float
    expires: float
    registered_keys: tuple[str, ...] | None = None


@dataclass(frozen=True)
class CsrFacts:
    """What Intune compares of a CSR; `challenge` is None if it has none."""

    subject: tuple[tuple[str, str], ...]
    sans: tuple[tuple[str, str], ...]
    key_bits: int
    key_usage: tuple[str, ...] | None
    eku: tuple[str, ...] | None
    key_sha256: str
    challenge: str | None = field(repr=False, default=None)


@dataclass(frozen=True)
class Validated:
    """A validateRequest that was answered Success."""

    tenant: str
    transaction: str
    csr_sha256: str


@dataclass(frozen=True)
class Notification:
    """A notification as received. `kind` is "success" or "failure"."""

    tenant: str
    kind: str
    transaction: str
    csr_sha256: str
    code: str
    thumbprint: str = ""
    serial: str = ""
    expiration: str = ""
    issuer: str = ""
    ca_configuration: str = ""
    authority: str = ""
    hresult: int = 0
    description: str = ""


@dataclass(frozen=True)
class Revocation:
    """A certificate that Intune wants revoked."""

    context: str
    serial: str
    issuer: str | None = None
    ca_configuration: str | None = None


@dataclass(frozen=True)
class Result:
    """An uploaded result of a revocation; `error_code` is a name of ERROR_CODES."""

    context: str
    succeeded: bool
    error_code: str
    error_message: str


@dataclass(frozen=True)
class Fault:
    """A fault to inject `times` times; `route` and `tenant` may be "*"."""

    route: str
    kind: str
    times: int
    tenant: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """One request of the journal; no challenge, CSR, secret or token is in it.

    `status` is 0 if the connection was cut, `fault` the kind of the fault that was injected.
    `time` is of the virtual clock.
    """

    number: int
    time: float
    tenant: str
    method: str
    route: str
    correlation_id: str = ""
    status: int = 0
    code: str = ""
    transaction_id: str = ""
    csr_sha256: str = ""
    thumbprint: str = ""
    serial: str = ""
    scope: str = ""
    note: str = ""
    fault: str = ""
