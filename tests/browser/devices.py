"""Devices that ask a system under names as people give them, and all that happened to them."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from shared.scep.certrep import CertRep, PkiStatus
from tests.support import messages as m
from tests.support.holders import RENEWAL_REQ, holding
from tests.support.requests import (
    Device,
    Endpoint,
    Request,
    ask,
    ended,
    issued,
    recorded,
    sealed,
)
from tests.support.signed_challenges import PrivateKey, mint, p256
from tests.support.system import System
from tests.support.tokens import claims, connector_key

AUDIENCE: Final = "https://scep.branch.example/scep/branch"
_BRANCH_SEED: Final = 4711


@dataclass(frozen=True)
class Asked:
    """A device's request and its first answer."""

    system: System
    endpoint: Endpoint
    name: str
    device: Device
    request: Request
    reply: CertRep

    @property
    def transaction(self) -> str:
        return self.device.transaction.decode()

    def record(self, state: str) -> dict[str, Any]:
        """The record's line, once the request is in that state."""
        return recorded(self.system, self.device, state)

    def path(self, state: str) -> str:
        """Where the page tells of it."""
        return f"/scep/enrollments/{self.record(state)['enrollment']}"

    def end(self) -> CertRep:
        """What the device is told in the end."""
        return ended(self.endpoint, self.request)

    def certificate(self) -> x509.Certificate:
        """What it was given."""
        return issued(self.device, self.end())


@dataclass(frozen=True)
class Fleet:
    """Devices of one key, each with a name and a transaction of its own."""

    system: System
    identity: m.Identity = field(default_factory=lambda: Device.new("fleet").identity)
    _endpoints: dict[str, Endpoint] = field(default_factory=dict)

    def endpoint(self, profile: str) -> Endpoint:
        if profile not in self._endpoints:
            self._endpoints[profile] = Endpoint.of(self.system, profile)
        return self._endpoints[profile]

    def ask(
        self,
        profile: str,
        name: str,
        challenge: str | None = None,
        identity: m.Identity | None = None,
    ) -> Asked:
        """A first certificate under this name, by default with the profile's password."""
        endpoint, device = self.endpoint(profile), Device(identity or self.identity)
        said = endpoint.challenge if challenge is None else challenge
        csr = device.csr(said, subject=m.name((m.COMMON_NAME, m.UTF8, name.encode())))
        request = device.enrollment(endpoint, csr)
        return Asked(self.system, endpoint, name, device, request, ask(endpoint, request))

    def succeed(self, profile: str, name: str, challenge: str | None = None) -> Asked:
        """The same, and the record has it."""
        asked = self.ask(profile, name, challenge)
        assert asked.reply.status is PkiStatus.SUCCESS, asked.reply.fail_info_text
        asked.record("issued")
        return asked

    def hold(self, name: str) -> Asked:
        """One that waits for an operator."""
        asked = self.ask("manual", name)
        assert asked.reply.status is PkiStatus.PENDING, asked.reply.fail_info_text
        asked.record("held")
        return asked

    def renew(self, asked: Asked) -> Asked:
        """The next certificate of one that has one, for another key."""
        holder = Device(holding(asked.device, asked.certificate()).identity)
        key = Device.new().identity.key
        csr = holder.csr("", key=key, subject=m.name((m.COMMON_NAME, m.UTF8, asked.name.encode())))
        request = holder.request(sealed(asked.endpoint, csr), RENEWAL_REQ)
        reply = ask(asked.endpoint, request)
        assert reply.status is PkiStatus.SUCCESS, reply.fail_info_text
        found = Asked(self.system, asked.endpoint, asked.name, holder, request, reply)
        found.record("issued")
        return found

    def token(
        self, name: str, *, profile: str = "corp", key: PrivateKey | None = None, **changes: Any
    ) -> str:
        """A connector's token for this name."""
        said = claims(Device(self.identity), sub=f"guid-{name}", device_name=name)
        if profile == "branch":
            said["aud"] = AUDIENCE
        said = {each: value for each, value in (said | changes).items() if value is not None}
        return mint(said, key or self.connector(profile))

    def connector(self, profile: str) -> PrivateKey:
        return p256(_BRANCH_SEED) if profile == "branch" else connector_key(self.system)

    def intune(self, name: str, profile: str = "corp") -> Asked:
        """One that a connector vouches for."""
        return self.succeed(profile, name, self.token(name, profile=profile))

    def refuse(self, reason: str, name: str) -> Asked:
        """A token that is refused for this reason."""
        asked = self.ask("corp", name, REFUSALS[reason](self, name))
        assert asked.reply.status is PkiStatus.FAILURE, asked.reply.fail_info_text
        assert asked.record("rejected")["result"] == reason
        return asked


def _aged(fleet: Fleet, name: str, start: int, end: int) -> str:
    now = int(datetime.now(UTC).timestamp())
    return fleet.token(name, iat=now + start, exp=now + end)


def _replayed(fleet: Fleet, name: str) -> str:
    token, other = fleet.token(name), Device.new().identity
    assert fleet.ask("corp", name, token, other).reply.status is PkiStatus.SUCCESS
    return token


def _often(fleet: Fleet, name: str) -> str:
    for _ in range(3):
        fleet.intune(name)
    return fleet.token(name)


# Reason to how a connector, or who says to be one, gets there on the profile corp.
REFUSALS: Final[dict[str, Callable[[Fleet, str], str]]] = {
    "malformed": lambda _, name: f"not.a.token.of.{name}",
    "signature_invalid": lambda fleet, name: fleet.token(name, key=p256()),
    "expired": lambda fleet, name: _aged(fleet, name, -600, -120),
    "not_yet_valid": lambda fleet, name: _aged(fleet, name, 600, 1200),
    "claim_mismatch": lambda fleet, name: fleet.token(name, device_name="another"),
    "unknown_version": lambda fleet, name: fleet.token(name, version="v9"),
    "replay": _replayed,
    "rate_limited": _often,
}


def unique(kind: str) -> str:
    """A name that no other device has."""
    return f"{kind}-{secrets.token_hex(3).upper()}"


def write_branch_anchor(
    path: Path, days: int, name: str = "Connector of the branch office"
) -> None:
    """The anchor of the branch's connector, good for so many days yet."""
    key = p256(_BRANCH_SEED)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=300))
        .not_valid_after(now + timedelta(days=days, hours=1))
        .sign(key, hashes.SHA256())
    )
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    path.write_bytes(made.public_bytes(Encoding.PEM))
