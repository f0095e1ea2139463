"""One-time challenges: how they look, and the digest under which they are known. Pure."""

import re
from typing import Final

from shared.log.subjects import token

# No letter that is taken for another, and every character one of a PrintableString.
ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
GROUPS: Final = 5
ONE_TIME: Final = "one_time"
GROUP_LENGTH: Final = 5
ONE_TIME_SHAPE: Final = re.compile(rf"OT(-[{ALPHABET}]{{{GROUP_LENGTH}}}){{{GROUPS}}}")


def write_one_time(letters: str) -> str:
    """The challenge out of 25 random characters of the alphabet: 125 bits."""
    starts = range(0, GROUPS * GROUP_LENGTH, GROUP_LENGTH)
    return "-".join(["OT", *(letters[start : start + GROUP_LENGTH] for start in starts)])


def one_time_digest(profile: str, challenge: str) -> str:
    """What the log knows of a challenge: 130 bits of a digest of 125 random ones."""
    return token(b"one-time", profile.encode(), challenge.encode("utf-8", "surrogatepass"))
