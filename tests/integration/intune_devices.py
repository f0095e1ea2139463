"""Devices with challenges of the fake Intune, and what the Intune tests ask of a system."""

import base64
import itertools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from cryptography import x509

from cli.fake_microsoft.fake import FakeMicrosoft
from cli.fake_microsoft.model import Notification
from services.audit.query.lookup import recent
from services.audit.settings import database_url
from services.audit.store.engine import open_engine
from shared.config.load import load
from shared.scep.certrep import CertRep, PkiStatus
from shared.scep.errors import FailInfo
from tests.support import messages as m
from tests.support.holders import GET_CERT, get_crl, query
from tests.support.requests import Device, Endpoint, Request, ask, certificate
from tests.support.system import System, wait_until

_INTUNE = {"challenge_password": [], "reply_budget": "20s"}
_CONTOSO = _INTUNE | {"intune_connection": "contoso"}
_STRICT = _CONTOSO | {"compliance": "intune"}
# Connections beside those of the fake: another name and other keys for one of its tenants.
CONNECTIONS = {
    "quick": ("contoso", {"budget": "2s"}),
    "brief": ("fabrikam", {"budget": "2s"}),
    "broken": ("contoso", {"budget": "2s"}),
    "outage": ("contoso", {"budget": "2s"}),
    "throttled": ("contoso", {"budget": "2s"}),
    "locked": ("contoso", {"budget": "2s"}),
    "slow": ("contoso", {"budget": "2s"}),
}
KINDS = {"account": {"sid_extension": True}}
PROFILES = {
    "windows": _CONTOSO,
    "fabrikam": _INTUNE | {"intune_connection": "fabrikam"},
    "quick": _INTUNE | {"intune_connection": "quick"},
    "brief": _INTUNE | {"intune_connection": "brief"},
    "broken": _INTUNE | {"intune_connection": "broken"},
    "throttled": _INTUNE | {"intune_connection": "throttled"},
    "locked": _INTUNE | {"intune_connection": "locked"},
    "slow": _INTUNE | {"intune_connection": "slow"},
    "plain": _STRICT,
    "strict": _STRICT | {"compliance_grace": "1h"},
    "custom": _STRICT
    | {
        "reply_budget": "2s",
        "compliance_policy.compliant": "deny",
        "compliance_policy.noncompliant": "allow",
        "compliance_policy.error": "defer",
        "compliance_not_found": "allow",
    },
    "refusing": _STRICT | {"intune_connection": "outage"},
    "lenient": _STRICT | {"intune_connection": "outage", "compliance_on_error": "allow"},
    "entra": _CONTOSO | {"compliance": "entra"},
    "user": _CONTOSO | {"profile_id": "account", "sid_lookup": "user"},
    "computer": _CONTOSO | {"profile_id": "account", "sid_lookup": "device"},
    "eager": _CONTOSO | {"intune_wait_for_success_notification": False},
}
MINTED: list[str] = []  # every challenge of a run: none may be found anywhere afterwards
_THREADS = 6
_identities = itertools.cycle([Device.new().identity for _ in range(4)])
_Result = TypeVar("_Result")
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Intune:
    """A running system with connections to the tenants of a fake."""

    system: System
    fake: FakeMicrosoft
    endpoints: dict[tuple[str, int], Endpoint] = field(default_factory=dict)

    def endpoint(self, profile: str, challenge: str = "", gateway: int = 0) -> Endpoint:
        """The SCEP URL of a profile, with a challenge."""
        place = profile, gateway
        if place not in self.endpoints:
            self.endpoints[place] = Endpoint.of(self.system, profile, gateway)
        return replace(self.endpoints[place], challenge=challenge)

    def notifications(self, device: Device, *kinds: str) -> list[Notification]:
        """What Intune was notified of about a device's transaction."""
        transaction = device.transaction.decode()
        return [
            each
            for each in self.fake.notifications
            if each.transaction == transaction and (not kinds or each.kind in kinds)
        ]

    def asked(self, device: Device, *routes: str) -> int:
        """How many requests of these routes were about a device's transaction."""
        transaction = device.transaction.decode()
        return sum(each.transaction_id == transaction for each in self.fake.journal(*routes))

    def failure_notified(self, device: Device) -> Notification:
        """The one failure notification about a device, once it has arrived."""
        what = f"a failure notification about {device.name}"
        (found,) = wait_until(lambda: self.notifications(device, "failure"), 10, what)
        return found


@dataclass(frozen=True)
class Managed:
    """A device with a challenge of Intune, the SANs that Intune expects, and its Intune ID."""

    device: Device
    challenge: str
    names: tuple[bytes, ...] = ()
    extensions: tuple[bytes, ...] = ()
    id: str = ""

    def request(self, endpoint: Endpoint) -> Request:
        """A PKCSReq with the challenge and the SANs."""
        asked = [*([m.san(*self.names)] if self.names else []), *self.extensions]
        attributes = [m.extension_request(*asked)] if asked else []
        csr = self.device.csr(self.challenge, *attributes)
        return self.device.enrollment(endpoint, csr)

    def enroll(self, intune: Intune, profile: str = "windows", gateway: int = 0) -> CertRep:
        """Ask for a certificate; return the answer."""
        endpoint = intune.endpoint(profile, self.challenge, gateway)
        return ask(endpoint, self.request(endpoint))

    def certificate(self, intune: Intune, profile: str = "windows") -> x509.Certificate:
        """Enroll, and return the certificate."""
        return certificate(intune.endpoint(profile), self.device, self.enroll(intune, profile))


def quick_device() -> Device:
    """A device of its own name and transaction, but with a key that others have too."""
    return Device(next(_identities))


def managed(
    intune: Intune,
    tenant: str = "contoso",
    *,
    device: Device | None = None,
    uris: Iterable[str] = (),
    upn: str = "",
    extensions: tuple[bytes, ...] = (),
    **options: object,
) -> Managed:
    """A device for which Intune has issued a challenge; `options` are those of `mint`."""
    device = device or Device.new()
    uris = tuple(uris)
    sans = [f"uri:{uri}" for uri in uris] + ([f"upn:{upn}"] if upn else [])
    names = tuple(m.tlv(0x86, uri.encode()) for uri in uris)
    if upn:
        text = m.tlv(0xA0, m.tlv(m.UTF8, upn.encode()))
        names += (m.tlv(0xA0, m.oid("1.3.6.1.4.1.311.20.2.3"), text),)
    options = {"subject": f"CN={device.name}", "sans": sans} | options
    minted = intune.fake.mint(tenant, **options)  # type: ignore[arg-type]
    MINTED.append(minted)
    return Managed(device, minted, names, extensions)


def in_state(intune: Intune, tenant: str = "contoso", **state: object) -> Managed:
    """A device that Intune knows in a state; its certificate names it as Intune suggests."""
    known = intune.fake.set_device(tenant, **state)  # type: ignore[arg-type]
    one = managed(intune, tenant, uris=[f"IntuneDeviceId://{known.id}"], device_id=known.id)
    return replace(one, id=known.id)


def serials(intune: Intune, devices: Iterable[Device]) -> set[int]:
    """The serial numbers of certificates that were made for devices and not confirmed."""
    engine = open_engine(database_url(load(intune.system.config)))

    def found(device: Device) -> list[int]:
        lines = recent(engine, 10, search=device.transaction.decode())
        return [int(line.serial, 16) for line in lines if line.serial and line.state == "failed"]

    try:
        every = [wait_until(partial(found, each), 30, f"{each.name}'s end") for each in devices]
    finally:
        engine.dispose()
    return {serial for (serial,) in every}


def at_once(
    work: Callable[[_Item], _Result], items: Iterable[_Item], threads: int = _THREADS
) -> list[_Result]:
    """The results of work on many items, some of them at the same time."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


def refusal(reply: CertRep) -> FailInfo | None:
    """The failInfo of an answer that must be a FAILURE and hold no certificate."""
    assert reply.status is PkiStatus.FAILURE
    assert not reply.signed.content
    return reply.fail_info


def revoked(intune: Intune, serials: Iterable[int], profile: str = "windows") -> bool:
    """Whether the CRL has all of these serials."""
    crl = get_crl(intune.endpoint(profile), quick_device())
    return all(crl.get_revoked_certificate_by_serial_number(each) for each in serials)


def given_out(intune: Intune, serial: int, profile: str) -> CertRep:
    """The answer to GetCert."""
    endpoint = intune.endpoint(profile)
    return ask(endpoint, query(endpoint, quick_device(), GET_CERT, serial))


def spellings(secret: str) -> list[bytes]:
    """A secret as it may be found in a file: as text, and in base64 at each of three offsets."""
    encoded = [base64.b64encode(b"?" * at + secret.encode())[4:-4] for at in range(3)]
    return [secret.encode(), *encoded]
