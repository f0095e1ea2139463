"""`FakeMicrosoft`: the fake as an object of the process that runs it."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from cryptography import x509

from cli.fake_microsoft import control, faults
from cli.fake_microsoft.app import NAMES, build
from cli.fake_microsoft.files import (
    CONFIGURATION,
    TENANTS,
    TenantFiles,
    configuration,
    make_sealer,
    write_tenant,
    write_tls,
)
from cli.fake_microsoft.judge import discrepancies, thumbprint
from cli.fake_microsoft.model import App, Device, Entry, Notification, Result, Revocation, User
from cli.fake_microsoft.server import Server
from cli.fake_microsoft.world import World
from cli.up.layout import write_private
from shared.runtime.process import now


class FakeMicrosoft:
    """Microsoft's side for two tenants, contoso and fabrikam, over HTTPS on 127.0.0.1.

    A context manager: it serves, in a thread, inside the `with` block. `url` ends with a slash.
    All methods may be called from any thread. See the package's documentation.
    """

    def __init__(self, directory: Path, port: int = 0) -> None:
        """Make keys and certificates, write them to `directory`, and bind the port."""
        self.directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.ca_path, server_path = write_tls(directory, now())
        made = [write_tenant(directory, name, now()) for name in TENANTS]
        self.tenants: Mapping[str, TenantFiles] = {files.name: files for _, files in made}
        self._apps = {app.name: app for app, _ in made}
        self._world = World(now, make_sealer(now()), make_sealer(now()), dict(self._apps))
        listener = socket.create_server(("127.0.0.1", port))
        self.port: int = listener.getsockname()[1]
        self.url = f"https://127.0.0.1:{self.port}/"
        self._server = Server(build(self._world, self.url), listener, server_path)
        self.config_path = directory / CONFIGURATION
        self.config_path.write_text(self.configuration())

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def reset(self) -> None:
        """Return to the state of the start: same keys, tenants and secrets, everything else new."""
        with self._world.lock:
            self._world.reset(dict(self._apps))
        for files in self.tenants.values():
            if files.secret_path.read_text() != files.secret:
                write_private(files.secret_path, files.secret.encode())

    def configuration(self) -> str:
        """Return the configuration of both tenants, as written to DIR/intune.toml."""
        return configuration(self.tenants.values(), self.url, self.ca_path)

    def app(self, tenant: str) -> App:
        """Return a tenant as Entra ID knows it."""
        with self._world.lock:
            return self._world.app(tenant)

    def mint(
        self,
        tenant: str,
        *,
        subject: str,
        sans: Sequence[tuple[str, str] | str] | None = (),
        device_id: str | None = None,
        key_bits: int | None = 2048,
        key_usage: Sequence[str] | None = None,
        eku: Sequence[str] | None = None,
        lifetime: float = 3600,
        size: int = 0,
        **more: Any,
    ) -> str:
        """Issue a challenge; return its text, of at least `size` characters.

        `subject` is in RFC 4514 form, `sans` are (kind, value) or "kind:value". None as `sans`,
        `key_bits`, `key_usage` or `eku` means that Intune does not compare it. `key_usage` has the
        names of asn1crypto ("digital_signature"), `eku` dotted OIDs. Without `device_id` a new,
        compliant device is added; with it no device is. `more`: `user_id`, `registered_keys`
        (Windows Hello for Business: SHA-256 of SubjectPublicKeyInfo, hex) and `flaw`, one of
        base64, cms, signer, signature, encryption, content, future, request-id, device-id, user-id.
        """
        body = {
            "tenant": tenant, "subject": subject, "sans": sans, "key_bits": key_bits,
            "key_usage": key_usage, "eku": eku, "lifetime": lifetime, "size": size,
            "device_id": device_id, **more,
        }  # fmt: skip
        with self._world.lock:
            return str(control.mint(self._world, body)["challenge"])

    def untarget(self) -> None:
        """Unassign the profile: no challenge that was issued until now is valid any longer."""
        with self._world.lock:
            self._world.untargeted.update(self._world.challenges)

    @property
    def access_tokens(self) -> list[str]:
        """All access tokens that were issued, so that a test can search for them."""
        with self._world.lock:
            return list(self._world.tokens)

    def journal(self, *routes: str, tenant: str | None = None) -> list[Entry]:
        """Return the requests in order: all, or those of some routes or of one tenant."""
        with self._world.lock:
            return [
                each
                for each in self._world.entries
                if (not routes or each.route in routes) and tenant in (None, each.tenant)
            ]

    @property
    def counts(self) -> dict[str, int]:
        """Requests by "route", "route:tenant", and for tokens "token:tenant:graph" or ":intune"."""
        with self._world.lock:
            return dict(self._world.counts)

    @property
    def notifications(self) -> list[Notification]:
        """All notifications that were received, in order."""
        with self._world.lock:
            return list(self._world.notifications)

    def discrepancies(self, tenant: str, certificate: x509.Certificate) -> list[str]:
        """Return how a certificate differs from what Intune was notified of; empty if it agrees.

        It must have been the subject of exactly one accepted success notification.
        """
        found = [
            each
            for each in self.notifications
            if (each.tenant, each.kind, each.code) == (tenant, "success", "Success")
            and each.thumbprint.lower() == thumbprint(certificate)
        ]
        if len(found) != 1:
            return [f"{len(found)} success notifications"]
        return discrepancies(found[0], certificate)

    def fault(
        self, route: str, kind: str, times: int = 1, *, tenant: str = "*", **options: Any
    ) -> None:
        """Inject a fault into the next `times` requests of a route ("*": any); -1 is forever."""
        control.check_route(route, NAMES)
        with self._world.lock:
            self._world.faults.append(faults.new_fault(route, kind, times, tenant, options))

    def clear_faults(self) -> None:
        """Remove all faults that are left."""
        with self._world.lock:
            self._world.faults.clear()

    def answer(self, key: str, *codes: Any) -> None:
        """Script the codes of validate, success, failure or a transaction ID; the last one stays.

        Any JSON value is sent as it is, None leaves the member out. Without codes the script ends.
        """
        with self._world.lock:
            if not codes:
                self._world.answers.pop(key, None)
            else:
                self._world.answers[key] = list(codes)

    @property
    def devices(self) -> dict[str, Device]:
        """All devices by Intune ID."""
        with self._world.lock:
            return dict(self._world.devices)

    def set_device(self, tenant: str, device_id: str | None = None, **changes: Any) -> Device:
        """Add a device, or change one; `changes` are members of `Device`."""
        with self._world.lock:
            control_body = {"tenant": tenant, "id": device_id, **changes}
            key = control.set_device(self._world, control_body)["id"]
            return self._world.devices[key]

    @property
    def users(self) -> dict[str, User]:
        """All users by ID."""
        with self._world.lock:
            return dict(self._world.users)

    def set_user(self, tenant: str, upn: str, **members: Any) -> User:
        """Add a user: `id` and `sid` may be given."""
        with self._world.lock:
            added = control.set_user(self._world, {"tenant": tenant, "upn": upn, **members})
            return self._world.users[added["id"]]

    def queue_revocation(self, tenant: str, serial: str, **members: Any) -> Revocation:
        """Queue a revocation; `members` are `issuer`, `ca_configuration` and `context`."""
        with self._world.lock:
            body = {"tenant": tenant, "serial": serial, **members}
            return Revocation(**control.revoke(self._world, body))

    def queued(self, tenant: str) -> list[Revocation]:
        """Return the revocations that are not settled."""
        with self._world.lock:
            return list(self._world.queues.get(tenant, []))

    def uploaded(self, tenant: str) -> list[Result]:
        """Return the results of revocations, in the order of their upload."""
        with self._world.lock:
            return list(self._world.results.get(tenant, []))

    def advance(self, seconds: float) -> None:
        """Move the virtual clock, by which tokens and challenges expire."""
        with self._world.lock:
            self._world.offset += seconds

    def switch(self, **switches: Any) -> None:
        """Change how the fake answers; `switches` are members of `Switches`."""
        with self._world.lock:
            control.switch(self._world, switches)

    @property
    def one_time(self) -> bool:
        """Whether a challenge can be validated only once."""
        return self._world.switches.one_time

    @one_time.setter
    def one_time(self, value: bool) -> None:
        self.switch(one_time=value)

    def rotate_secret(self, tenant: str, *, keep: bool = False) -> str:
        """Make a new secret, write it to the tenant's file and return it.

        The old one is expired, unless `keep`.
        """
        with self._world.lock:
            secret = control.rotate(self._world, tenant, keep=keep)
        write_private(self.tenants[tenant].secret_path, secret.encode())
        return secret

    def consent(self, tenant: str, roles: Sequence[str]) -> None:
        """Set the roles that new tokens get; tokens issued before keep theirs."""
        with self._world.lock:
            self._world.change(tenant, roles=control.check_roles(roles))

    def set_token_lifetime(self, tenant: str, seconds: int) -> None:
        """Set `expires_in` of new tokens."""
        with self._world.lock:
            self._world.change(tenant, token_lifetime=seconds)

    def revoke_tokens(self, tenant: str) -> None:
        """Refuse all tokens of a tenant that were issued until now."""
        with self._world.lock:
            for value, token in list(self._world.tokens.items()):
                if token.tenant == tenant:
                    self._world.tokens[value] = replace(token, expires=0.0)

    def move_service(self, tenant: str, old_status: int = 404) -> None:
        """Move a tenant's services to another scale unit; the old one answers `old_status`."""
        with self._world.lock:
            control.move(self._world, tenant, old_status)

    def set_services(self, tenant: str, **changes: Any) -> None:
        """Change how Graph lists a tenant's services; `changes` are members of `Unit`."""
        with self._world.lock:
            unit = replace(self._world.app(tenant).unit, **changes)
            self._world.change(tenant, unit=unit)
