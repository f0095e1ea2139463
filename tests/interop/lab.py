"""The system that the clients meet: a profile for each RA form, of today and of yesterday.

On each the same with an operator's approval. All of them let a certificate be renewed at any time.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cli.up.authority import Authority, make_ra
from cli.up.firststart import first_start
from cli.up.layout import Layout, write_private
from shared.config.keys import read_ca_key_file, read_certificates
from shared.config.load import load
from shared.log.enrollment import State
from tests.interop.clients import ended
from tests.interop.verify import record
from tests.support.prepared import configure
from tests.support.system import System, running

SPLIT, COMBINED = "split", "combined"
BOTH = "servers"  # for clients that ask for serverAuth beside clientAuth
_BOTH_USAGES = f"""
[certificate_profiles.{BOTH}]
extended_key_usages = ["serverAuth", "clientAuth"]
"""
NATS_PORT = 4222  # of the text only: a start takes one that is free


@dataclass(frozen=True)
class Side:
    """The endpoints that show one form of RA certificates; "demo" is the split one of `up`."""

    system: System
    ra: str

    def profile(self, *, legacy: bool = False, manual: bool = False) -> str:
        return name_of_profile(self.ra, legacy=legacy, manual=manual)

    def url(self, *, legacy: bool = False, manual: bool = False) -> str:
        return self.system.url(self.profile(legacy=legacy, manual=manual))

    def challenge(self, *, legacy: bool = False, manual: bool = False) -> str:
        return self.system.challenge(self.profile(legacy=legacy, manual=manual))

    def approve(self, name: str) -> None:
        """Let the held enrollment of this device go on, as soon as it is on record."""
        self._decide("approve", name)

    def deny(self, name: str, note: str) -> None:
        self._decide("deny", name, "--note", note)

    def _decide(self, command: str, name: str, *options: str) -> None:
        record(self.system, name, State.HELD)
        ended(self.system.cli(command, name, "--config", str(self.system.config), *options), 0)


def name_of_profile(ra: str, *, legacy: bool, manual: bool) -> str:
    parts = [part for part, wanted in (("legacy", legacy), ("manual", manual)) if wanted]
    return "-".join([COMBINED, *parts] if ra == COMBINED else parts or ["demo"])


@contextmanager
def laboratory(data: Path) -> Iterator[System]:
    """A system with all these profiles, all of whose replies carry an OCSP response."""
    layout = Layout(data)
    first_start(layout, "rsa:2048", None, NATS_PORT, time.time())
    write_private(layout.ra(COMBINED), combined_ra(layout))
    layout.config.write_text(with_profiles(layout.config.read_text()))
    configure(layout.config, "issuers.local", ocsp_validity="4d")
    for name in load(layout.config).profiles:
        configure(layout.config, f"profiles.{name}", staple_ocsp=True)
    with running(data) as system:
        yield system


def with_profiles(text: str) -> str:
    """The configuration of a first start with its two password profiles multiplied."""
    head, *first, corp = re.split(r"^(?=\[profiles\.)", text, flags=re.MULTILINE)
    assert len(first) == 2
    assert corp.startswith("[profiles.corp]")
    ways = [(ra, manual) for ra in (SPLIT, COMBINED) for manual in (False, True)]
    multiplied = [changed(block, ra, manual=manual) for block in first for ra, manual in ways]
    servers = changed(first[0], SPLIT, manual=False).replace(
        "[profiles.demo]", f"[profiles.{BOTH}]"
    )
    servers = re.sub(r"^profile_id = .*", f'profile_id = "{BOTH}"', servers, flags=re.MULTILINE)
    return "".join(
        [head, *multiplied, servers, corp.rstrip(), '\nrenewal_window = "0s"\n', _BOTH_USAGES]
    )


def changed(block: str, ra: str, *, manual: bool) -> str:
    """A profile's table under another name, with another RA or with an operator's approval."""
    legacy = "legacy = true" in block
    name = name_of_profile(ra, legacy=legacy, manual=manual)
    block = re.sub(r"^\[profiles\.\w+\]", f"[profiles.{name}]", block)
    if ra == COMBINED:
        block = re.sub(
            r"^(ra_\w+_path) = .*", rf'\1 = "ra/{COMBINED}.pem"', block, flags=re.MULTILINE
        )
    approval = 'approval = "manual"\n' if manual else ""
    return f'{block.rstrip()}\nrenewal_window = "0s"\n{approval}\n'


def combined_ra(layout: Layout) -> bytes:
    """One RA certificate with both usages, and its key."""
    ca = Authority(
        read_certificates(layout.ca_cert)[0], read_ca_key_file(layout.root / "ca" / "ca.key")
    )
    return make_ra(ca, COMBINED, time.time())
