"""The pages of AD CS web enrollment (certsrv), read without their language. Pure.

Theory of operation. The pages have no documented format, and their sentences are in the language of
the server. What does not change is: the link `certnew.cer?ReqID=N&` of a page about an issued
certificate; the IDs of the labels on an error page (`locDispLabel` and others), each followed by
its value; and in these values the disposition, a number that ICertRequest defines, and HRESULTs.
The request ID of a page that says "pending" or "denied" is only in a sentence. It counts only if
the sentence is Microsoft's English one, or if the page names one such number and no other.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from html.parser import HTMLParser
from typing import Final

from shared.limits import shortened
from shared.text.printable import visible

_WORDS: Final = 300
_LINK: Final = re.compile(r"certnew\.cer\?ReqID=([0-9]{1,10})&", re.IGNORECASE)
_ENGLISH: Final = re.compile(r"Request Id is ([0-9]{1,10})(?![0-9])", re.IGNORECASE)
# "Anforderungs-ID lautet 12": the letters ID, not within a word, and the next number.
_NUMBERED: Final = re.compile(
    r"(?<![a-z])id(?![a-z])[^0-9]{0,40}([1-9][0-9]{0,9})(?![0-9])", re.IGNORECASE
)
_QUOTED: Final = re.compile(r'["\u201c\u201e\u00ab]([^"\u201c\u201d\u201e\u00bb]{3,})')
_RENEWALS: Final = re.compile(r"\bnRenewals\s*=\s*([0-9]{1,4})\s*;")
_LEADING: Final = re.compile(r"\s*(-?[0-9]{1,10})(?![0-9])")
_HRESULT: Final = re.compile(r"0x[0-9a-f]{8}", re.IGNORECASE)
_TITLE: Final = "locPageTitle"
_UNSEEN: Final = frozenset({"script", "style", "title"})


class Disposition(IntEnum):
    """What became of a request (ICertRequest::Submit)."""

    INCOMPLETE = 0
    ERROR = 1
    DENIED = 2
    ISSUED = 3
    ISSUED_OUT_OF_BAND = 4
    UNDER_SUBMISSION = 5
    REVOKED = 6


@dataclass(frozen=True, slots=True)
class Page:
    """A page: the request IDs in its links, its values by the ID of their label, and its text."""

    links: frozenset[str]
    values: Mapping[str, str]
    text: str

    @property
    def request_id(self) -> str:
        """The one request that the page is about, "" if that is not certain."""
        found = self.links or set(_ENGLISH.findall(self.text)) or set(_NUMBERED.findall(self.text))
        return next(iter(found)) if len(found) == 1 else ""

    @property
    def disposition(self) -> Disposition | None:
        """What became of the request, None if the page does not say."""
        found = _LEADING.match(self.values.get("locDispLabel", ""))
        try:
            return Disposition(int(found[1])) if found else None
        except ValueError:
            return None

    @property
    def result(self) -> str:
        """The HRESULT with which the call to the CA ended, "0x" and lower case; "" if not said."""
        found = _HRESULT.search(self.values.get("locResultLabel", ""))
        return found[0].lower() if found else ""

    @property
    def words(self) -> str:
        """What the CA says, in one printable line of limited length."""
        said = [self.values.get(label, "") for label in ("locDispMsgLabel", "locLastStatLabel")]
        found = ": ".join(dict.fromkeys(filter(None, said))) or self.values.get("locResultLabel")
        quoted = _QUOTED.search(self.text)
        return _line(found or (quoted[1] if quoted else self.text))


def read_page(content: bytes) -> Page:
    """Return what a page says; any bytes are a page, if only an empty one."""
    text = content.decode("utf-8", "replace")
    reader = _Reader()
    reader.feed(text)
    reader.close()
    values = {label: " ".join(parts).strip() for label, parts in reader.values.items()}
    return Page(frozenset(_LINK.findall(text)), values, " ".join(" ".join(reader.text).split()))


def newest_ca(content: bytes) -> str:
    """Return the number of the CA's newest certificate as certcarc.asp names it; "" if not said."""
    found = _RENEWALS.search(content.decode("utf-8", "replace"))
    return found[1] if found else ""


def _line(text: str) -> str:
    return shortened(" ".join(visible(text).split())[:_WORDS])


class _Reader(HTMLParser):
    """Collects the text below the title, and the text of each DD by the ID of the DT before it."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, list[str]] = {}
        self.text: list[str] = []
        self._label = ""
        self._in_value = False
        self._unseen = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note which label or value begins."""
        name = dict(attrs).get("id") or ""
        if tag in _UNSEEN:
            self._unseen = tag
        elif tag == "dt":
            self._label, self._in_value = name, False
        elif tag == "dd":
            self._in_value = bool(self._label)
        elif tag == "dl":
            self._label, self._in_value = "", False
        if name.startswith(_TITLE):
            self.text.clear()  # what is above it is the name of the CA

    def handle_endtag(self, tag: str) -> None:
        """Note which value ends."""
        if tag == self._unseen:
            self._unseen = ""
        elif tag in {"dd", "dl"}:
            self._label, self._in_value = "", False

    def handle_data(self, data: str) -> None:
        """Collect text that a reader sees."""
        if self._unseen or not (seen := " ".join(data.split())):
            return
        self.text.append(seen)
        if self._in_value:
            self.values.setdefault(self._label, []).append(seen)
