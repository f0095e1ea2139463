"""The services and who else connects to the log. Pure."""

from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """The services, each in an account of its own; the provisioner owns the log's account.

    The reader is whoever outside follows the log: it can read all of it and nothing else.
    """

    GATEWAY = "gateway"
    VALIDATOR = "validator"
    ISSUER = "issuer"
    AUDIT = "audit"
    PROVISIONER = "provisioner"
    READER = "reader"


SERVICES: Final = (Role.GATEWAY, Role.VALIDATOR, Role.ISSUER, Role.AUDIT)


ACCOUNTS: Final = (*SERVICES, Role.READER)
