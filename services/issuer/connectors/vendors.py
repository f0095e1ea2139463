"""What connectors of commercial CAs share: reading their answers, names, dates and numbers. Pure.

Everything that such a CA returns is untrusted: a value of another shape counts as missing.
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from services.issuer.connectors.connector import (
    AnswerLostError,
    Issued,
    Order,
    Pending,
    Refused,
    Result,
    UnknownOutcome,
)
from services.issuer.connectors.http import Answer
from services.issuer.received import load_draft
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError
from shared.x509.loading import loading

_CLIENT_ERRORS: Final = range(400, 500)
_UNDECIDED: Final = (408, 425, 499)  # the CA, or a proxy before it, gave up waiting
_DER: Final = Encoding.DER
_DAY: Final = 86400
_DIGITS: Final = 18


def read_object(answer: Answer) -> dict[str, Any]:
    """Return the answer's JSON object; raises `AnswerLostError` if it is none."""
    found = answer.json()
    if not isinstance(found, dict):
        raise AnswerLostError(f"the CA's answer ({answer.status}) is not an object")
    return found


def refuses(answer: Answer) -> bool:
    """Return whether the CA certainly refused a call."""
    return answer.status in _CLIENT_ERRORS and answer.status not in _UNDECIDED


def read_list(value: object, name: str) -> list[dict[str, Any]]:
    """Return the objects of a list; raises `AnswerLostError` if it is none."""
    if not isinstance(value, list):
        raise AnswerLostError(f"the CA's answer has no list of {name}")
    return [each for each in value if isinstance(each, dict)]


def part(value: object, name: str) -> dict[str, Any]:
    """Return an object within an object, empty without one."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def text(value: object, name: str) -> str:
    """Return a string within an object, empty without one."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def listed_words(answer: Answer, name: str = "errors", key: str = "message") -> str:
    """Return what a JSON list of errors says, in one line, or the answer itself without one."""
    try:
        found = read_list(read_object(answer).get(name), name)
    except AnswerLostError:
        found = []
    return one_line(answer, "; ".join(filter(None, (text(each, key) for each in found))))


def one_line(answer: Answer, said: str) -> str:
    """Return a CA's words in one printable line of limited length."""
    words = Answer(answer.status, {}, said.encode("utf-8", "replace")).words()
    return words or answer.words() or f"status {answer.status}"


def identifier(value: object) -> str:
    """Return a positive number that a CA gave, as digits; "" if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return ""
    digits = str(value)
    valid = digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS and int(digits) > 0
    return digits if valid else ""


def certificate_for(order: Order, pem_text: object) -> bytes | None:
    """Return the certificate (DER) with the order's key among PEM certificates, or None."""
    if not isinstance(pem_text, str):
        return None
    try:
        with loading():
            found = x509.load_pem_x509_certificates(pem_text.encode("utf-8", "replace"))
            ders = [each.public_bytes(_DER) for each in found]
        return next((d for d in ders if read_certificate(d).spki == order.template.spki), None)
    except (ValueError, ScepError):
        return None


def merged(results: Iterable[Result | None]) -> Result | None:
    """Return what several orders with one tag amount to; None if there is none.

    The certificate that begins first counts; the others are to be revoked.
    """
    found = [each for each in results if each is not None]
    issued = [each.certificate for each in found if isinstance(each, Issued)]
    if issued:
        first, *others = sorted(issued, key=_begins)
        return Issued(first, tuple(others))
    for kind in (Pending, UnknownOutcome, Refused):
        for each in found:
            if isinstance(each, kind):
                return each
    return None


def subject(order: Order, ca: bytes) -> x509.Name:
    """Return the approved subject; `ca` is the issuing CA's certificate (DER)."""
    return load_draft(order.template, ca).subject


def common_name(order: Order, ca: bytes) -> str:
    """Return the approved subject's only common name; "" without one, or with several."""
    found = subject(order, ca).get_attributes_for_oid(NameOID.COMMON_NAME)
    value = found[0].value if len(found) == 1 else ""
    return value if isinstance(value, str) else ""


def serial_digits(serial: str) -> str:
    """Return a serial number (hex of the INTEGER's contents) without the sign's zero octet."""
    digits = serial.upper()
    return digits[2:] if digits.startswith("00") and len(digits) > 2 else digits  # noqa: PLR2004


def same_serial(found: object, serial: str) -> bool:
    """Return whether a CA's hex serial number, however padded or separated, is this one."""
    if not isinstance(found, str):
        return False
    digits = found.replace(":", "").replace(" ", "").lower().lstrip("0")
    return bool(digits) and digits == serial.lower().lstrip("0")


def last_day(not_after: int, margin: int = 0) -> date:
    """Return the last day that is over, in UTC, `margin` seconds before a time (Unix seconds).

    Certificates that a CA lets end with this day end in time.
    """
    return datetime.fromtimestamp(not_after + 1 - margin, UTC).date() - timedelta(days=1)


def is_past(day: date, at: float) -> bool:
    """Return whether a certificate that ends with a day would not be valid for a whole one."""
    return day <= datetime.fromtimestamp(at, UTC).date()


def longest_term(terms: Iterable[int], not_after: int, at: float) -> int:
    """Return the longest term in days that ends in time, 0 if none does.

    A CA may round up to the end of a day.
    """
    return max((t for t in terms if at + (t + 1) * _DAY <= not_after), default=0)


def _begins(der: bytes) -> tuple[float, int]:
    loaded = x509.load_der_x509_certificate(der)
    return loaded.not_valid_before_utc.timestamp(), loaded.serial_number
