"""The state of the fake: tenants, tokens, challenges, devices, revocations, faults, journal."""

import base64
import hashlib
import hmac
import json
import secrets
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from cli.fake_microsoft.challenge import FLAWS, Sealer
from cli.fake_microsoft.identity import Grant
from cli.fake_microsoft.model import (
    ALL_ROLES,
    NO_ID,
    App,
    Challenge,
    Device,
    Entry,
    Fault,
    Notification,
    Result,
    Revocation,
    Token,
    Unit,
    User,
    Validated,
)

# What a forged challenge may say wrongly, besides the flaws of its layers.
_WRONG_IDS: Final = {"request-id": "id", "device-id": "device", "user-id": "user"}
_FUTURE: Final = 3600


def guid() -> str:
    """Return a random GUID."""
    return str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))


@dataclass(frozen=True)
class Switches:
    """How the fake answers where Microsoft's behaviour is not documented."""

    one_time: bool = False
    repeated_success: str = "Success"
    upload_answer: Any = True
    pascal_case: bool = False


@dataclass
class World:
    """Everything that changes. Hold `lock` while reading or changing it."""

    clock: Callable[[], float]
    sealer: Sealer
    stranger: Sealer
    apps: dict[str, App]
    lock: threading.RLock = field(default_factory=threading.RLock)
    offset: float = 0.0
    switches: Switches = field(default_factory=Switches)
    tokens: dict[str, Token] = field(default_factory=dict)
    assertions: set[str] = field(default_factory=set)
    challenges: dict[str, Challenge] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    untargeted: set[str] = field(default_factory=set)
    validated: dict[tuple[str, str], Validated] = field(default_factory=dict)
    notifications: list[Notification] = field(default_factory=list)
    answers: dict[str, list[Any]] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    queues: dict[str, list[Revocation]] = field(default_factory=dict)
    contexts: dict[str, set[str]] = field(default_factory=dict)
    results: dict[str, list[Result]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    request_ids: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def reset(self, apps: dict[str, App]) -> None:
        """Forget everything but the keys; hold the lock."""
        fresh = World(self.clock, self.sealer, self.stranger, apps, self.lock)
        for each in fields(self):
            setattr(self, each.name, getattr(fresh, each.name))

    def now(self) -> float:
        """Return the time of the virtual clock."""
        return self.clock() + self.offset

    def app_of(self, tenant_id: str) -> App | None:
        """Return the tenant with this id, or None."""
        return next((app for app in self.apps.values() if app.id == tenant_id), None)

    def change(self, tenant: str, **changes: Any) -> App:
        """Replace parts of a tenant."""
        self.apps[tenant] = replace(self.app(tenant), **changes)
        return self.apps[tenant]

    def app(self, tenant: str) -> App:
        """Return a tenant by its name; `ValueError` if there is none."""
        if tenant not in self.apps:
            raise ValueError(f"unknown tenant {tenant}: choose one of {', '.join(self.apps)}")
        return self.apps[tenant]

    def issue(self, app: App, grant: Grant) -> Token:
        """Issue an access token, a JWT that only the fake verifies."""
        expires = self.now() + app.token_lifetime
        claims = {
            "aud": grant.audience, "iss": app.id, "tid": app.id, "appid": app.client_id,
            "iat": int(self.now()), "exp": int(expires), "jti": secrets.token_hex(8),
        }  # fmt: skip
        roles = {"roles": list(grant.roles)} if grant.roles else {}
        head, body = _part({"alg": "HS256", "typ": "JWT"}), _part(claims | roles)
        mac = hmac.digest(self.key, f"{head}.{body}".encode(), "sha256")
        value = f"{head}.{body}.{_encode(mac)}"
        token = Token(value, app.name, grant.audience, grant.roles, expires)
        self.tokens[value] = token
        if grant.jti:
            self.assertions.add(grant.jti)
        return token

    def mint(self, tenant: str, **parts: Any) -> tuple[Challenge, str]:
        """Issue a challenge; return what it says, and its text. See `FakeMicrosoft.mint`."""
        flaw, size = parts.pop("flaw", None), parts.pop("size", 0)
        app, lifetime = self.app(tenant), parts.pop("lifetime", 3600)
        device = parts.pop("device_id", None)
        if device is None:
            device = guid()
            self.devices[device] = Device(app.name, device, guid())
        issued = Challenge(
            id=guid(), tenant=app.id, device=device, user=parts.pop("user_id", NO_ID),
            issued=self.now(), expires=self.now() + lifetime, **parts,
        )  # fmt: skip
        self.challenges[issued.id] = issued
        return issued, self._text(issued, flaw, size)

    def _text(self, issued: Challenge, flaw: str | None, size: int) -> str:
        if flaw is None:
            return self.sealer.seal(issued, size)
        if flaw == "future":
            later = replace(
                issued, issued=issued.issued + _FUTURE, expires=issued.expires + _FUTURE
            )
            return self.sealer.seal(later, size)
        if flaw in _WRONG_IDS:
            changes: dict[str, Any] = {_WRONG_IDS[flaw]: guid()}
            return self.sealer.seal(replace(issued, **changes), size)
        if flaw not in FLAWS:
            every = ", ".join((*FLAWS, *_WRONG_IDS, "future"))
            raise ValueError(f"unknown flaw {flaw}: choose one of {every}")
        return self.sealer.forge(issued, flaw, self.stranger)

    def answer_for(self, route: str, transaction: str) -> tuple[Any, ...]:
        """Return the scripted code for a request as a tuple of one, or an empty tuple."""
        for key in (transaction, route):
            if scripted := self.answers.get(key):
                return (scripted.pop(0) if len(scripted) > 1 else scripted[0],)
        return ()

    def fault_for(self, route: str, tenant: str) -> Fault | None:
        """Return the fault to inject into a request, and count it."""
        for number, each in enumerate(self.faults):
            if each.route in ("*", route) and each.tenant in ("*", tenant):
                if each.times == 1:
                    del self.faults[number]
                else:
                    self.faults[number] = replace(each, times=each.times - 1)
                return each
        return None

    def record(self, entry: Entry) -> None:
        """Add a request to the journal, and count it."""
        self.entries.append(replace(entry, number=len(self.entries) + 1))
        self.counts[entry.route] += 1
        self.counts[f"{entry.route}:{entry.tenant}"] += 1
        if entry.scope:
            self.counts[f"{entry.route}:{entry.tenant}:{entry.scope}"] += 1

    def queue(self, tenant: str, revocation: Revocation) -> None:
        """Queue a revocation for delivery."""
        self.queues.setdefault(self.app(tenant).name, []).append(revocation)
        self.contexts.setdefault(tenant, set()).add(revocation.context)


def new_app(name: str, secret: str, certificate: bytes) -> App:
    """Return a tenant with consent to all roles."""
    return App(name, guid(), guid(), (secret,), certificate, Unit(guid()), roles=ALL_ROLES)


def digest(data: bytes) -> str:
    """Return a SHA-256 in hex, as the journal names a CSR."""
    return hashlib.sha256(data).hexdigest()


def _part(value: dict[str, Any]) -> str:
    return _encode(json.dumps(value).encode())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
