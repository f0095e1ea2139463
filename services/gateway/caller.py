"""The caller of a PKIOperation. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Caller:
    """The client's address, the gateway's name, and the deadline (loop time) for an answer."""

    address: str
    gateway: str
    deadline: float
