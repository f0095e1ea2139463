"""Which kind of client a User-Agent names: a label with few values, whatever is sent. Pure."""

from collections.abc import Mapping
from typing import Final

# In this order: the first that is found in the header counts.
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
    """The client's family: "other" for one that is not known, "none" where it does not say."""
    said = user_agent.lower()
    known = next((name for mark, name in _MARKS.items() if mark in said), "other")
    return known if said.strip() else "none"


# RFC 8894 s3.3.2.2 leaves eContent out of FAILURE and PENDING. Of the clients tried, one reads
# only that; certmonger and scepreq read only an empty one, the rest take both.
_WITHOUT_CONTENT: Final = frozenset({"cryptlib"})


def without_content(switch: str, client: str) -> bool:
    """Whether a reply without certificates leaves eContent out: by the profile, else by family."""
    return switch == "absent" or (switch == "auto" and client in _WITHOUT_CONTENT)
