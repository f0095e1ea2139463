"""What Intune decides: whether a challenge fits a CSR, and whether a message is well-formed."""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final

from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from cli.fake_microsoft.csr import name_parts
from cli.fake_microsoft.model import (
    ERROR_CODES,
    Challenge,
    CsrFacts,
    Notification,
    Result,
    Revocation,
    Validated,
)

GUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,7})?Z")
_THUMBPRINT: Final = re.compile(r"[0-9A-Fa-f]{40}")
_SERIAL: Final = re.compile(r"[0-9A-Fa-f]{1,40}")
_UNCOMPARABLE: Final = frozenset("+,;=")
_MAX_DESCRIPTION: Final = 255
_MAX_REQUESTS: Final = 500
_RETRYABLE: Final = "41"
# Members of each message: required ones, then optional ones. Optional ones may be null.
_MEMBERS: Final[Mapping[str, tuple[frozenset[str], frozenset[str]]]] = {
    "validate": (
        frozenset({"transactionId", "certificateRequest", "callerInfo"}),
        frozenset(),
    ),
    "success": (
        frozenset({
            "transactionId", "certificateRequest", "certificateThumbprint",
            "certificateSerialNumber", "certificateExpirationDateUtc",
            "issuingCertificateAuthority", "callerInfo",
        }),
        frozenset({"caConfiguration", "certificateAuthority"}),
    ),
    "failure": (
        frozenset({
            "transactionId", "certificateRequest", "hResult", "errorDescription", "callerInfo",
        }),
        frozenset(),
    ),
}  # fmt: skip


class BadRequestError(ValueError):
    """Raised for a body that Intune answers with HTTP 400; the message says what is wrong."""


@dataclass(frozen=True)
class Known:
    """What Intune knows when it judges a challenge.

    `issued` is the challenge as it was issued under this id, None if there is none. `token_tenant`
    is the tenant of the access token.
    """

    now: float
    token_tenant: str
    issued: Challenge | None
    targeted: bool
    used: bool


def judge(challenge: Challenge, csr: CsrFacts, known: Known) -> str:
    """Return Intune's code for a challenge that was opened and the CSR that it came in."""
    return _ids(challenge, known) or _times(challenge, known) or _names(challenge, csr) or _key(
        challenge, csr
    ) or _usages(challenge, csr) or "Success"  # fmt: skip


def _ids(challenge: Challenge, known: Known) -> str:
    if challenge.tenant != known.token_tenant:
        return "BadTenantIdInChallenge"
    if known.issued is None or known.used:
        return "BadCertificateRequestIdInChallenge"
    if challenge.device != known.issued.device:
        return "BadDeviceIdInChallenge"
    if challenge.user != known.issued.user:
        return "BadUserIdInChallenge"
    return "" if known.targeted else "ScepProfileNoLongerTargetedToTheClient"


def _times(challenge: Challenge, known: Known) -> str:
    if challenge.issued > known.now or challenge.expires <= challenge.issued:
        return "ChallengeInvalidTimestamp"
    return "ChallengeExpired" if challenge.expires <= known.now else ""


def _names(challenge: Challenge, csr: CsrFacts) -> str:
    expected = subject_parts(challenge.subject)
    if expected and not csr.subject:
        return "SubjectNameMissing"
    # Intune compares text: a value with one of these characters never matches.
    escaped = any(_UNCOMPARABLE.intersection(value) for _, value in expected)
    if escaped or sorted(expected) != sorted(csr.subject):
        return "SubjectNameMismatch"
    if challenge.sans is None:
        return ""
    if challenge.sans and not csr.sans:
        return "SubjectAltNameMissing"
    return "" if sorted(challenge.sans) == sorted(csr.sans) else "SubjectAltNameMismatch"


def _key(challenge: Challenge, csr: CsrFacts) -> str:
    if challenge.key_bits is not None and challenge.key_bits != csr.key_bits:
        return "KeyLengthMismatch"
    if challenge.registered_keys is None:
        return ""
    if not challenge.registered_keys:
        return "AadKeyIdentifierListMissing"
    return "" if csr.key_sha256 in challenge.registered_keys else "RegisteredKeyMismatch"


def _usages(challenge: Challenge, csr: CsrFacts) -> str:
    if challenge.key_usage is not None and set(challenge.key_usage) != set(csr.key_usage or ()):
        return "KeyUsageMismatch"
    if challenge.eku is None:
        return ""
    if challenge.eku and csr.eku is None:
        return "EnhancedKeyUsageMissing"
    return "" if set(challenge.eku) == set(csr.eku or ()) else "EnhancedKeyUsageMismatch"


def subject_parts(subject: str) -> tuple[tuple[str, str], ...]:
    """Return (OID, text) of each attribute of a name in RFC 4514 form; `ValueError` if bad."""
    der = x509.Name.from_rfc4514_string(subject).public_bytes() if subject else b"\x30\x00"
    return tuple(name_parts(asn1_x509.Name.load(der)))


def read_action(action: str, body: Any) -> dict[str, Any]:
    """Return the members of a ScepActions message; `BadRequestError` if it is not one."""
    wrapper = "request" if action == "validate" else "notification"
    if not isinstance(body, dict) or set(body) != {wrapper}:
        raise BadRequestError(f"the body is not an object with one member, {wrapper}")
    members = body[wrapper]
    if not isinstance(members, dict):
        raise BadRequestError(f"{wrapper} is not an object")
    required, optional = _MEMBERS[action]
    if missing := required - set(members):
        raise BadRequestError(f"missing: {', '.join(sorted(missing))}")
    if unknown := set(members) - required - optional:
        raise BadRequestError(f"unknown: {', '.join(sorted(unknown))}")
    _check_types(members, required - {"hResult"}, optional & set(members))
    _check_details(action, members)
    return members


def _check_types(
    members: Mapping[str, Any], required: AbstractSet[str], optional: AbstractSet[str]
) -> None:
    for name in sorted(required):
        if not isinstance(members[name], str) or not members[name]:
            raise BadRequestError(f"{name} is not a non-empty string")
    for name in sorted(optional):
        if not isinstance(members[name], str | None):
            raise BadRequestError(f"{name} is neither a string nor null")


def _check_details(action: str, members: Mapping[str, Any]) -> None:
    if action == "success":
        for name, form in (
            ("certificateThumbprint", _THUMBPRINT),
            ("certificateSerialNumber", _SERIAL),
            ("certificateExpirationDateUtc", _TIME),
        ):
            if not form.fullmatch(members[name]):
                raise BadRequestError(f"{name} is malformed")
    if action == "failure":
        number = members["hResult"]
        if type(number) is not int or not -(2**31) <= number < 2**32 or number == 0:
            raise BadRequestError("hResult is not a 32-bit number of a failure")
        if len(members["errorDescription"]) > _MAX_DESCRIPTION:
            raise BadRequestError(f"errorDescription is longer than {_MAX_DESCRIPTION}")


def read_base64(text: str) -> bytes:
    """Decode base64 of the standard alphabet without line breaks."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequestError("certificateRequest is not base64 without line breaks") from None


def judge_notification(
    validated: Validated | None, csr_sha256: str, earlier: Sequence[Notification], kind: str
) -> str:
    """Return what is wrong with a notification: empty, or one of the journal's notes."""
    if validated is None:
        return "no prior Success for this transactionId"
    if validated.csr_sha256 != csr_sha256:
        return "another certificateRequest than the validated one"
    kinds = [each.kind for each in earlier]
    if kind in kinds:
        return f"repeated {kind}"
    return f"{kind} after {kinds[0]}" if kinds else ""


def thumbprint(certificate: x509.Certificate) -> str:
    """Return the SHA-1 of a certificate in lower-case hex."""
    return certificate.fingerprint(hashes.SHA1()).hex()  # noqa: S303 - the API's thumbprint


def discrepancies(notification: Notification, certificate: x509.Certificate) -> list[str]:
    """Return in what a success notification differs from the certificate that a device got."""
    found = []
    if notification.thumbprint.lower() != thumbprint(certificate):
        found.append("thumbprint")
    if int(notification.serial, 16) != certificate.serial_number:
        found.append("serial")
    end = certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%S")
    if notification.expiration.rstrip("Z").partition(".")[0] != end:
        found.append("expiration")
    return found


def read_download(body: Any) -> tuple[int, str | None]:
    """Return (maxRequests, issuerName) of a download; `BadRequestError` if it is not one."""
    parameters = _lowered(_lowered(body).get("downloadparameters"))
    most, issuer = parameters.get("maxrequests"), parameters.get("issuername")
    if type(most) is not int or not 1 <= most <= _MAX_REQUESTS:
        raise BadRequestError("maxRequests is not a number from 1 to 500")
    if not isinstance(issuer, str | None):
        raise BadRequestError("issuerName is neither a string nor null")
    return most, issuer


def download(queue: Sequence[Revocation], most: int, issuer: str | None) -> list[Revocation]:
    """Return what a download answers, with the bugs of the service.

    It truncates before it filters, and `issuer` is compared with the CA configuration.
    """
    return [each for each in queue[:most] if issuer is None or each.ca_configuration == issuer]


def read_upload(body: Any) -> list[Result]:
    """Return the results of an upload; `BadRequestError` if one is malformed."""
    results = _lowered(body).get("results")
    if not isinstance(results, list) or not results:
        raise BadRequestError("results is not a non-empty list")
    return [_result(_lowered(each)) for each in results]


def _result(members: Mapping[str, Any]) -> Result:
    context, succeeded = members.get("requestcontext"), members.get("succeeded")
    message = members.get("errormessage") or ""
    names = {number: name for name, number in ERROR_CODES.items()} | {n: n for n in ERROR_CODES}
    code = names.get(str(members.get("errorcode", "None") or "None"))
    if not isinstance(context, str) or type(succeeded) is not bool:
        raise BadRequestError("requestContext or succeeded is malformed")
    if code is None or not isinstance(message, str):
        raise BadRequestError("errorCode or errorMessage is malformed")
    if succeeded and (code != "None" or message):
        raise BadRequestError("succeeded with an error")
    if not succeeded and code == "None":
        raise BadRequestError("failed without an errorCode")
    return Result(context, succeeded, code, message)


def is_settled(result: Result) -> bool:
    """Return whether a revocation with this result is not delivered again."""
    return result.succeeded or not ERROR_CODES[result.error_code].startswith(_RETRYABLE)


def _lowered(value: Any) -> dict[str, Any]:
    """Return an object with names in lower case: the service ignores the case."""
    if not isinstance(value, dict):
        raise BadRequestError("the body is malformed")
    return {name.lower(): each for name, each in value.items()}
