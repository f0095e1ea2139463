"""Microsoft's clouds: where tokens, Graph and Intune are, and which hosts may get a token. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_HTTPS_PORT: Final = 443
_PORTS: Final = range(1, 65536)


@dataclass(frozen=True, slots=True)
class Cloud:
    """The addresses of one cloud; "" and () are not documented by Microsoft.

    URLs end in "/". `service_hosts` are domains under which Intune's services are.
    """

    login_url: str
    graph_url: str
    resource_url: str
    service_hosts: tuple[str, ...]


CLOUDS: Final = {
    "public": Cloud(
        "https://login.microsoftonline.com/",
        "https://graph.microsoft.com/",
        "https://api.manage.microsoft.com/",
        ("manage.microsoft.com",),
    ),
    "gcc_high": Cloud(
        "https://login.microsoftonline.us/",
        "https://graph.microsoft.us/",
        "https://api.manage.microsoft.us/",
        ("manage.microsoft.us",),
    ),
    "dod": Cloud(
        "https://login.microsoftonline.us/",
        "https://dod-graph.microsoft.us/",
        "https://api.manage.microsoft.us/",
        ("manage.microsoft.us",),
    ),
    "china": Cloud(
        "https://login.partner.microsoftonline.cn/",
        "https://microsoftgraph.chinacloudapi.cn/",
        "",
        (),
    ),
}


def may_get_token(url: str, hosts: Sequence[str]) -> bool:
    """Return whether a bearer token may be sent to a URL that another party named.

    It must be https, without credentials, and its host one of `hosts` or a name under one.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        return False
    if parts.scheme != "https" or "@" in parts.netloc or parts.query or parts.fragment:
        return False
    if (port or _HTTPS_PORT) not in _PORTS or not url.isascii() or not url.isprintable():
        return False
    if any(c in url for c in '\\ <>"'):
        return False
    return any(host == each or host.endswith(f".{each}") for each in hosts)


def same_origin(url: str, other: str) -> bool:
    """Return whether two URLs have the same scheme, host and port."""
    try:
        left, right = urlsplit(url), urlsplit(other)
        ports = (left.port or _HTTPS_PORT, right.port or _HTTPS_PORT)
    except ValueError:
        return False
    return (
        left.scheme == right.scheme == "https"
        and "@" not in left.netloc
        and (left.hostname or "") == (right.hostname or "")
        and ports[0] == ports[1]
    )
