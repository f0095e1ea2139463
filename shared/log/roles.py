"""The roles that connect to the log: the services, the provisioner, readers. Pure."""

from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """Roles on the bus: each service in its own account; the provisioner owns the log's account.

    A reader is an outside program that follows the log. It can only read, and only the streams of
    enrollments, CERTS, OPS and DEAD_LETTERS.
    """

    GATEWAY = "gateway"
    VALIDATOR = "validator"
    ISSUER = "issuer"
    AUDIT = "audit"
    PROVISIONER = "provisioner"
    READER = "reader"


SERVICES: Final = (Role.GATEWAY, Role.VALIDATOR, Role.ISSUER, Role.AUDIT)


ACCOUNTS: Final = (*SERVICES, Role.READER)
