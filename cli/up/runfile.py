"""run.json, which says what runs where, for users and tools. Writing it is retried."""

import asyncio
import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cli.up.children import Child, Notice, say
from cli.up.layout import Layout, write_private
from cli.up.plan import Plan
from shared.config.profiles import ProfileSection
from shared.config.sections import Configuration

_RETRY_SECONDS: Final = 1.0


@dataclass
class RunFile:
    """The file at `path`; `table` returns its current contents."""

    path: Path
    table: Callable[[], dict[str, Any]]
    notice: Notice = say
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def first(self) -> dict[str, Any]:
        """Write the file for the first time, on failure leave it to `keep`; return its contents."""
        table = self.table()
        try:
            self._write(table)
        except OSError as error:
            self.notice(f"cannot write {self.path}, retrying: {error}")
            self.changed()
        return table

    def changed(self) -> None:
        """Have `keep` write the file again."""
        self._changed.set()

    def _write(self, table: dict[str, Any]) -> None:
        """Replace the file atomically."""
        write_private(self.path, json.dumps(table, indent=2).encode())

    async def keep(self) -> None:
        """Write the file after every change until cancelled; report a failure once and retry."""
        said = ""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                self._write(self.table())
                said = ""
            except Exception as error:  # noqa: BLE001 - no file may end supervision
                text = f"cannot write {self.path}, retrying: {error}"
                if text != said:
                    self.notice(text)
                said = text
                self._changed.set()
                await asyncio.sleep(_RETRY_SECONDS)


def run_table(
    plan: Plan,
    configuration: Configuration,
    children: Sequence[Child],
    operations: Mapping[str, int],
) -> dict[str, Any]:
    """Return the contents of run.json; `operations` maps services to their metrics ports."""
    layout, issuers = plan.layout, configuration.issuers
    issuer = issuers.get("local") or next(iter(issuers.values()))
    urls = [f"http://{_host(s.scep)}/scep" for s in plan.gateways]
    return {
        "scep_url": urls[0],
        "profiles": {
            name: {"url": f"{urls[0]}/{name}", **_test_credentials(layout, profile)}
            for name, profile in configuration.profiles.items()
        },
        "admin_url": f"http://{_host(plan.admin)}",
        "admin_token": layout.admin_token.read_text(),
        "admin_token_file": str(layout.admin_token),
        "ca_file": str(configuration.path(issuer.ca_cert_path[0])),
        "urls": urls,
        "tls_urls": [f"https://{_host(s.tls)}/scep" for s in plan.gateways if s.tls],
        "mtls_urls": [f"https://{_host(s.mtls)}/scep-mtls" for s in plan.gateways if s.mtls],
        "metrics_urls": {
            name: f"http://127.0.0.1:{port}/metrics" for name, port in operations.items()
        },
        "pids": _pids(children),
    }


def _pids(children: Sequence[Child]) -> dict[str, Any]:
    pids: dict[str, Any] = {"supervisor": os.getpid()}
    pids["nats"] = next(child.pid for child in children if child.role == "nats")
    for role in ("gateway", "validator", "issuer", "audit"):
        pids[role] = [child.pid for child in children if child.role == role]
    return pids


def _test_credentials(layout: Layout, profile: ProfileSection) -> dict[str, str]:
    """Return what a test enrollment needs: the password, or the stand-in connector's directory."""
    if profile.challenge_password:
        return {"challenge": profile.challenge_password[0]}
    if profile.intune_enabled and layout.connector.exists():
        return {"challenge": "", "connector": str(layout.connector)}
    return {"challenge": ""}


def _host(sock: socket.socket) -> str:
    """Return host:port of a bound socket for a URL, with loopback for a wildcard address."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 - compared, not bound
    return f"{host}:{port}"
