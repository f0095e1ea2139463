"""Client families from User-Agent headers: a metric label with a fixed set of values. Pure."""

from collections.abc import Mapping
from typing import Final

# Order matters: the first substring found in the header wins.
_MARKS: Final[Mapping[str, str]] = {
    "cros": "chromeos",
    "jamf": "jamf",
    "cfnetwork": "apple",
    "darwin": "apple",
    "mdmclient": "apple",
    "ndes client": "windows",
    "win32": "windows",
    "windows": "windows",
    "okhttp": "android",
    "dalvik": "android",
    "android": "android",
    "cisco": "cisco",
    "certmonger": "certmonger",
    "cryptlib": "cryptlib",
    "sscep": "sscep",
    "strongswan": "strongswan",
    "go-http-client": "go",
    "java": "java",
    "python": "python",
    "curl": "curl",
}
FAMILIES: Final = frozenset({*_MARKS.values(), "other", "none"})


def family(user_agent: str) -> str:
    """Return the client's family: "other" if it is unknown, "none" for a blank header."""
    said = user_agent.lower()
    known = next((name for mark, name in _MARKS.items() if mark in said), "other")
    return known if said.strip() else "none"


# RFC 8894 s3.3.2.2 leaves eContent out of FAILURE and PENDING. Of the clients tested, cryptlib
# requires that; certmonger and scepreq require an empty eContent; the others accept both.
_WITHOUT_CONTENT: Final = frozenset({"cryptlib"})


def without_content(switch: str, client: str) -> bool:
    """Return whether FAILURE and PENDING omit eContent: by the switch, or by family if "auto"."""
    return switch == "absent" or (switch == "auto" and client in _WITHOUT_CONTENT)
