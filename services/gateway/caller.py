"""Who asks a gateway. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Caller:
    """Who asks, through which gateway, and until when (loop time) an answer is of use."""

    address: str
    gateway: str
    deadline: float
