"""The nats-servers that a service may use: the URLs of its configuration, validated."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

_SCHEMES: Final = ("nats", "tls")
_PORT: Final = 4222
_MOST: Final = 16


@dataclass(frozen=True, slots=True)
class Servers:
    """The nodes of one cluster, or a single server; `replicated` if streams have replicas."""

    urls: tuple[str, ...]
    replicated: bool = False

    @classmethod
    def of(cls, url: str) -> "Servers":
        """Return a single server, whose streams are not replicated."""
        return cls((url,))

    def shuffled(self) -> list[str]:
        """Return the URLs in random order, so that services spread over the nodes."""
        return random.SystemRandom().sample(self.urls, len(self.urls))


def checked(urls: Sequence[str]) -> tuple[str, ...]:
    """Return the validated URLs of `bus.url`.

    Raises ValueError with what is wrong, without user names or passwords.
    """
    found = tuple(_checked(url.strip()) for each in urls for url in each.split(","))
    if len(found) > _MOST:
        raise ValueError(f"{len(found)} URLs: at most {_MOST} are allowed")
    places = [place(url) for url in found]
    for one in places:
        if places.count(one) > 1:
            raise ValueError(f"{one} is listed twice")
    return found


def _checked(url: str) -> str:
    if not url:
        raise ValueError("an empty URL: write nats://HOST:PORT")
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or "://" not in url:
        raise ValueError("a URL must begin with nats:// or tls://: write nats://HOST:PORT")
    if not parts.hostname or not _is_host(parts.hostname):
        raise ValueError("a URL has no host: write nats://HOST:PORT")
    shown = f"{parts.scheme}://{parts.hostname}"
    if parts.path or parts.query or parts.fragment:
        raise ValueError(f"{shown}: nothing may follow the port")
    try:
        port = _port(parts)
    except ValueError:
        raise ValueError(f"{shown}: the port must be a number from 1 to 65535") from None
    if not port:
        raise ValueError(f"{shown}: the port must be a number from 1 to 65535")
    return url


def _port(parts: SplitResult) -> int:
    if parts.netloc.endswith(":"):
        return 0
    return _PORT if parts.port is None else parts.port


def _is_host(host: str) -> bool:
    return host.isascii() and all(c.isalnum() or c in "-._:%" for c in host)


def place(url: str) -> str:
    """Return HOST:PORT of a URL: the part of it that may be logged."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{_port(parts)}"
