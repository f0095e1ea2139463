"""Intune as a validator's tests see it: calls without HTTP, and a journal of what it was asked."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Final, cast

from services.validator.access import Access
from services.validator.challenges.intune import KIND, IntuneAccess, IntuneRules
from services.validator.challenges.kind import EnabledVerifier
from services.validator.microsoft.connection import TenantConnection
from services.validator.microsoft.model import Answer, FailureNotice, SuccessNotice
from tests.fakes.bus_through import Step
from tests.support.messages import (
    PRINTABLE,
    Identity,
    challenge,
    csr,
    extension_request,
    san,
    tlv,
)

BUDGET: Final = 25.0
TENANT: Final = "contoso"
ANOTHER_TENANT: Final = "fabrikam"


async def nothing() -> None:
    """A step at which nothing happens."""


@dataclass
class Journal:
    """What Intune was asked, by whoever asked it; the serial numbers of accepted certificates."""

    validated: list[str] = field(default_factory=list)
    succeeded: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    code: str = "Success"


@dataclass
class Intune:
    """A connection to Intune; `step` is awaited before each call and before its answer."""

    journal: Journal
    step: Step = nothing

    async def validate(self, transaction_id: str, csr: bytes) -> Answer:
        del csr
        await self.step()
        self.journal.validated.append(transaction_id)
        await self.step()
        return Answer("Success")

    async def tell_success(self, notice: SuccessNotice, deadline: float | None = None) -> Answer:
        del deadline
        await self.step()
        if self.journal.code == "Success":
            self.journal.succeeded.append(int(notice.serial, 16))
        answer = Answer(self.journal.code)
        await self.step()
        return answer

    async def tell_failure(self, notice: FailureNotice) -> Answer:
        await self.step()
        self.journal.failed.append(notice.transaction_id)
        await self.step()
        return Answer("Success")


def intune_access(name: str = TENANT) -> Access:
    """A profile whose challenges are all validated by this connection's Intune."""
    tenant = cast("TenantConnection", SimpleNamespace(name=name, budget=BUDGET))
    return Access((EnabledVerifier(KIND, IntuneAccess(IntuneRules(name), tenant)),))


def intune_csr(device: Identity, password: str = "A") -> bytes:
    """A CSR with a challenge that only Intune can read, made of a letter; or with a password."""
    return csr(
        device.key,
        challenge(PRINTABLE, (password if len(password) > 1 else password * 400).encode()),
        extension_request(san(tlv(0x82, b"device.example"))),
    )
