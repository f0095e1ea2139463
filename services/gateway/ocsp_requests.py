"""Reads OCSP requests, and writes the answers that no CA signs. Pure (RFC 6960 s4.1, RFC 5019)."""

from dataclasses import dataclass
from typing import Final

from asn1crypto import ocsp

from shared.limits import OCSP_REQUEST_BYTES
from shared.x509.cert_ids import CaId


class MalformedRequestError(Exception):
    """Raised if bytes are not an OCSP request about at least one certificate."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks about: the CA as the client names it, and an INTEGER's contents."""

    ca: CaId
    serial: bytes


def read_request(der: bytes) -> Asked | None:
    """Return the certificate that a request is about; None for a request about several.

    No response that was signed beforehand answers those (RFC 5019 s2.1.1). A nonce, a signature and
    every other extension are ignored. Raises `MalformedRequestError`.
    """
    if len(der) > OCSP_REQUEST_BYTES:
        raise MalformedRequestError
    try:
        requests = ocsp.OCSPRequest.load(der, strict=True)["tbs_request"]["request_list"]
        if len(requests) != 1:
            if not requests:
                raise MalformedRequestError
            return None
        asked = requests[0]["req_cert"]
        ca = CaId(
            asked["hash_algorithm"]["algorithm"].native,
            asked["issuer_name_hash"].native,
            asked["issuer_key_hash"].native,
        )
        return Asked(ca, bytes(asked["serial_number"].contents))
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError):
        raise MalformedRequestError from None


def _error(status: str) -> bytes:
    encoded: bytes = ocsp.OCSPResponse({"response_status": status}).dump()
    return encoded


MALFORMED: Final = _error("malformed_request")
TRY_LATER: Final = _error("try_later")
UNAUTHORIZED: Final = _error("unauthorized")
