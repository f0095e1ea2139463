"""Bodies of the requests to Intune, exactly as Microsoft's library writes them. Pure."""

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Final

from services.validator.microsoft.model import (
    DESCRIPTION_CHARACTERS,
    FailureNotice,
    RevocationResult,
    SuccessNotice,
)
from services.validator.microsoft.parsing import write_time

_SIGN: Final = 2**31
_MESSAGE: Final = 255


def validate_body(transaction_id: str, csr: bytes, caller: str) -> Mapping[str, Any]:
    """Return the body of validateRequest; the CSR goes as received: its signature covers it."""
    return {"request": _common(transaction_id, csr, caller)}


def success_body(notice: SuccessNotice, caller: str, ca_configuration: str) -> Mapping[str, Any]:
    """Return the body of successNotification; `ca_configuration` is the connection's."""
    return {
        "notification": {
            **_common(notice.transaction_id, notice.csr, caller),
            "certificateThumbprint": notice.thumbprint.upper(),
            "certificateSerialNumber": notice.serial.upper(),
            "certificateExpirationDateUtc": write_time(notice.not_after),
            "issuingCertificateAuthority": notice.issuing_ca,
            "caConfiguration": notice.ca_configuration or ca_configuration,
            "certificateAuthority": notice.certificate_authority,
        }
    }


def failure_body(notice: FailureNotice, caller: str) -> Mapping[str, Any]:
    """Return the body of failureNotification; Intune requires a description."""
    return {
        "notification": {
            **_common(notice.transaction_id, notice.csr, caller),
            "hResult": signed_result(notice.h_result),
            "errorDescription": notice.description[:DESCRIPTION_CHARACTERS] or "failed",
        }
    }


def signed_result(h_result: int) -> int:
    """Return an HRESULT as a signed 32-bit number, which fits Int32 and Int64."""
    return (h_result + _SIGN) % (2 * _SIGN) - _SIGN


def download_body(maximum: int) -> Mapping[str, Any]:
    """Return the body of downloadRevocationRequests.

    No `issuerName`: Intune compares it with caConfiguration, and only after it has cut the list.
    """
    return {"downloadParameters": {"maxRequests": maximum, "issuerName": None}}


def upload_body(results: Iterable[RevocationResult]) -> Mapping[str, Any]:
    """Return the body of uploadRevocationResults; error codes go by name."""
    return {
        "results": [
            {
                "requestContext": each.context,
                "succeeded": each.succeeded,
                "errorCode": each.error_code.value,
                "errorMessage": each.error_message[:_MESSAGE],
            }
            for each in results
        ]
    }


def _common(transaction_id: str, csr: bytes, caller: str) -> dict[str, Any]:
    return {
        "transactionId": transaction_id,
        "certificateRequest": base64.b64encode(csr).decode("ascii"),
        "callerInfo": caller,
    }
