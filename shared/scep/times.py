"""Times in certificates, CRLs and CMS (RFC 5280 s4.1.2.5, RFC 5652 s11.3)."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from shared.scep.asn1 import tlv
from shared.scep.errors import ScepError

_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18
_FIRST_GENERALIZED_YEAR: Final = 2050


@lru_cache(maxsize=256)  # certificates issued in the same second share their times
def write_time(seconds: int) -> bytes:
    """Encode Unix seconds: UTCTime through 2049, then GeneralizedTime (RFC 5280 s4.1.2.5)."""
    moment = datetime.fromtimestamp(seconds, UTC)
    if moment.year < _FIRST_GENERALIZED_YEAR:
        return tlv(_UTC_TIME, moment.strftime("%y%m%d%H%M%SZ").encode("ascii"))
    return tlv(_GENERALIZED_TIME, moment.strftime("%Y%m%d%H%M%SZ").encode("ascii"))


def read_time(tag: int, contents: bytes) -> int:
    """Return a UTCTime or GeneralizedTime as Unix seconds; `ScepError` if it is malformed."""
    year = "%y" if tag == _UTC_TIME else "%Y"
    try:
        moment = datetime.strptime(contents.decode("ascii"), f"{year}%m%d%H%M%S%z")
    except (ValueError, UnicodeDecodeError):
        raise ScepError("not a time") from None
    if tag == _UTC_TIME and moment.year >= _FIRST_GENERALIZED_YEAR:
        moment = moment.replace(year=moment.year - 100)
    return int(moment.timestamp())
