"""One-time challenges: their format, and the digest by which the log knows them. Pure."""

import re
from typing import Final

from shared.log.subjects import token

# No letters that are easily confused, and only characters of a PrintableString.
ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
GROUPS: Final = 5
ONE_TIME: Final = "one_time"
GROUP_LENGTH: Final = 5
ONE_TIME_SHAPE: Final = re.compile(rf"OT(-[{ALPHABET}]{{{GROUP_LENGTH}}}){{{GROUPS}}}")


def write_one_time(letters: str) -> str:
    """Format a challenge from 25 random characters of the alphabet (125 bits)."""
    starts = range(0, GROUPS * GROUP_LENGTH, GROUP_LENGTH)
    return "-".join(["OT", *(letters[start : start + GROUP_LENGTH] for start in starts)])


def one_time_digest(profile: str, challenge: str) -> str:
    """Return the digest by which the log knows a challenge: 130 bits, of 125 random ones."""
    return token(b"one-time", profile.encode(), challenge.encode("utf-8", "surrogatepass"))
