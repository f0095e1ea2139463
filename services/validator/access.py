"""Who may enroll under a profile: its verifiers as configured, and made ready to ask."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from services.validator.anchors import AnchorFiles
from services.validator.challenges.once import OnceVerifier
from services.validator.challenges.one_time import OneTimeVerifier
from services.validator.challenges.records import Records
from services.validator.challenges.signed import SignedVerifier
from services.validator.challenges.static import StaticVerifier
from services.validator.challenges.subject import PLAIN
from services.validator.challenges.token import AnchorPool, TokenRules
from services.validator.challenges.verifier import SIGNED, STATIC, WEBHOOK, Verifier
from services.validator.challenges.webhook import Endpoint, WebhookVerifier
from services.validator.device_state import DeviceStateGate, load_device_state
from shared.config.keys import read_certificates
from shared.config.load import SettingsError, read_file, read_secret_file
from shared.config.profiles import ProfileSection
from shared.config.sections import Configuration
from shared.log.envelope import Trusted
from shared.log.one_time import ONE_TIME


@dataclass(frozen=True)
class SignedAccess:
    """What tokens are held against; `limit` is of enrollments a device and day, 0 for none."""

    files: AnchorFiles
    pool: AnchorPool
    rules: TokenRules
    limit: int
    device_state: DeviceStateGate | None = None


@dataclass(frozen=True)
class Access:
    """A profile's verifiers: passwords, tokens, one-time challenges, a webhook.

    `attributes` are those that a subject may hold beside the CN where a challenge is for a certain
    device; `notify` is who is told of the end of every enrollment.
    """

    passwords: tuple[str, ...] = field(default=(), repr=False)
    signed: SignedAccess | None = None
    one_time: bool = False
    attributes: frozenset[str] = PLAIN
    webhook: Endpoint | None = None
    notify: Endpoint | None = None
    webhook_concurrency: int = 16

    @property
    def asks_outside(self) -> bool:
        """Whether a decision may wait for somebody else's answer."""
        signed = self.signed
        return self.webhook is not None or (signed is not None and signed.device_state is not None)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of challenges that are accepted."""
        accepted = {
            ONE_TIME: self.one_time,
            SIGNED: self.signed is not None,
            STATIC: bool(self.passwords),
            WEBHOOK: self.webhook is not None,
        }
        return tuple(kind for kind, is_accepted in accepted.items() if is_accepted)


def verifiers(
    access: Access, profile: str, records: Records, operators: Trusted
) -> Mapping[str, Verifier]:
    """The verifiers of a profile, by kind."""
    static = StaticVerifier(access.passwords)
    found: dict[str, Verifier] = {STATIC: OnceVerifier(static, records, binds_first=False)}
    if access.one_time:
        found[ONE_TIME] = OneTimeVerifier(records, operators, access.attributes)
    if access.signed is not None:
        signed = access.signed
        found[SIGNED] = SignedVerifier(
            profile, signed.pool, signed.rules, signed.limit, records, signed.device_state
        )
    if access.webhook is not None:
        limit = asyncio.Semaphore(access.webhook_concurrency)
        webhook = WebhookVerifier(access.webhook, limit)
        found[WEBHOOK] = OnceVerifier(webhook, records, binds_first=True)
    return found


def read_access(configuration: Configuration, section: ProfileSection, now: float) -> Access:
    """What a profile accepts, its files read; `SettingsError` names the one that is wrong."""
    return Access(
        passwords=tuple(password for password in section.challenge_password if password),
        signed=_signed(configuration, section, now) if section.intune_enabled else None,
        one_time=section.one_time_enabled,
        attributes=frozenset(section.allowed_subject_attributes),
        webhook=_endpoint(configuration, section, section.webhook_url),
        notify=_endpoint(configuration, section, section.notify_webhook_url),
        webhook_concurrency=section.webhook_concurrency,
    )


def _signed(configuration: Configuration, section: ProfileSection, now: float) -> SignedAccess:
    common = section.intune_connector_cert_path
    files = AnchorFiles(
        configuration.path(common) if common else None,
        {
            tenant: configuration.path(path)
            for tenant, path in section.intune_tenant_cert_paths.items()
        },
    )
    plugin = load_device_state(section.device_state) if section.device_state else None
    return SignedAccess(
        files=files,
        pool=files.read(now),
        rules=TokenRules(
            audience=section.intune_audience,
            validity=int(section.intune_challenge_validity),
            tolerance=int(section.intune_clock_skew_tolerance),
            allow_unclaimed=section.unclaimed_sans == "allow",
            attributes=frozenset(section.allowed_subject_attributes),
        ),
        limit=section.intune_per_device_rate_limit_24h,
        device_state=DeviceStateGate(plugin, section.device_state_timeout) if plugin else None,
    )


def _endpoint(
    configuration: Configuration, section: ProfileSection, url: str | None
) -> Endpoint | None:
    if url is None:
        return None
    return Endpoint(
        url=url,
        timeout=section.webhook_timeout,
        secret=(section.webhook_secret or "").encode(),
        bearer=section.webhook_bearer_token or "",
        tls=_tls(configuration, section) if urlsplit(url).scheme == "https" else None,
    )


def _tls(configuration: Configuration, section: ProfileSection) -> ssl.SSLContext:
    """TLS 1.2 or newer, the server's name checked, a client certificate where one is given."""
    ca = section.webhook_ca_path
    roots = None
    if ca is not None:
        read_certificates(configuration.path(ca))  # nothing in it would mean: the system's
        roots = read_file(configuration.path(ca)).decode("ascii", "replace")
    try:
        context = ssl.create_default_context(cadata=roots)
    except (ValueError, ssl.SSLError):
        raise SettingsError(f"{ca}: no certificate in PEM") from None
    cert, key = section.webhook_client_cert_path, section.webhook_client_key_path
    if cert is not None and key is not None:
        key_path = configuration.path(key)
        read_secret_file(key_path)
        try:
            context.load_cert_chain(configuration.path(cert), key_path, password="")
        except (OSError, ssl.SSLError):
            raise SettingsError(f"{cert}: no certificate with the key {key}") from None
    return context
