"""What profiles accept, written down in one line."""

from services.validator.access import Access
from services.validator.challenges import one_time, signed, static, webhook
from services.validator.challenges.kind import EnabledVerifier
from services.validator.challenges.one_time import OneTimeAccess
from services.validator.challenges.signed import SignedAccess
from services.validator.challenges.static import StaticAccess
from services.validator.challenges.subject import PLAIN
from services.validator.challenges.webhook import WebhookAccess
from shared.runtime.endpoint import Endpoint


def accepting(
    *,
    passwords: tuple[str, ...] = (),
    by_token: SignedAccess | None = None,
    by_one_time: bool = False,
    attributes: frozenset[str] = PLAIN,
    by_webhook: Endpoint | None = None,
    concurrency: int = 16,
    notify: Endpoint | None = None,
) -> Access:
    """A profile with these verifiers."""
    enabled = []
    if by_one_time:
        enabled.append(EnabledVerifier(one_time.KIND, OneTimeAccess(attributes)))
    if by_token is not None:
        enabled.append(EnabledVerifier(signed.KIND, by_token))
    if passwords:
        enabled.append(EnabledVerifier(static.KIND, StaticAccess(passwords)))
    if by_webhook is not None:
        enabled.append(EnabledVerifier(webhook.KIND, WebhookAccess(by_webhook, concurrency)))
    return Access(tuple(enabled), notify)


def passwords_of(access: Access) -> tuple[str, ...]:
    """The challenge passwords that a profile accepts."""
    found = (each.prepared for each in access.enabled)
    return next((each.passwords for each in found if isinstance(each, StaticAccess)), ())


def webhook_of(access: Access) -> Endpoint | None:
    """The service that a profile asks."""
    found = (each.prepared for each in access.enabled)
    return next((each.endpoint for each in found if isinstance(each, WebhookAccess)), None)
