"""The calls of a connection that the rest of the validator uses."""

from collections.abc import Sequence
from typing import Protocol

from services.validator.microsoft.model import (
    Answer,
    EntraDevice,
    FailureNotice,
    ManagedDevice,
    RevocationAsked,
    RevocationResult,
    SuccessNotice,
    TenantHealth,
)


class Microsoft(Protocol):
    """One tenant's Intune and Graph; all calls raise `MicrosoftUnavailableError`."""

    async def validate(self, transaction_id: str, csr: bytes) -> Answer:
        """Ask Intune whether a CSR (DER) may have a certificate."""

    async def tell_success(self, notice: SuccessNotice, deadline: float | None = None) -> Answer:
        """Notify Intune of a certificate, before a deadline (Unix seconds) if one is given."""

    async def tell_failure(self, notice: FailureNotice) -> Answer:
        """Notify Intune that a validated request got no certificate."""

    async def download_revocations(self, maximum: int) -> tuple[RevocationAsked, ...]:
        """Return certificates that Intune asks to revoke."""

    async def upload_results(self, results: Sequence[RevocationResult]) -> None:
        """Report what became of such requests."""

    async def managed_device(self, intune_id: str) -> ManagedDevice | None:
        """Return the device with this Intune ID."""

    async def managed_device_of(self, entra_id: str) -> ManagedDevice | None:
        """Return the device with this Entra ID as Intune knows it."""

    async def entra_device(self, entra_id: str) -> EntraDevice | None:
        """Return the device with this Entra ID."""

    async def user_sid(self, user: str) -> str | None:
        """Return the on-premises SID of a user, by UPN or ID."""

    async def device_sid(self, entra_id: str) -> str | None:
        """Return the on-premises SID of a device."""


class Client(Microsoft, Protocol):
    """A connection's client, with what only its owner uses."""

    def health(self) -> TenantHealth:
        """Return how the connection does."""

    async def close(self) -> None:
        """Close its connections."""
