"""A data directory made before its first start, so that tests can write more into it."""

import json
import os
import signal
import subprocess
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from cli.__main__ import app
from cli.toml import set_keys
from cli.up.firststart import first_start
from cli.up.layout import Layout, write_private
from tests.support.system import System

Tables = Mapping[str, Mapping[str, Any]]


def prepared(data: Path, ca: str = "rsa:2048") -> Layout:
    """What `up` makes at its first start."""
    layout = Layout(data)
    first_start(layout, ca, None, 4222, time.time())
    return layout


def add_profiles(layout: Layout, profiles: Tables) -> None:
    """More profiles: demo's keys, and these instead."""
    demo = tomllib.loads(layout.config.read_text())["profiles"]["demo"]
    _append(layout, {f"profiles.{name}": demo | dict(keys) for name, keys in profiles.items()})


def add_kinds(layout: Layout, kinds: Tables) -> None:
    """More certificate profiles: device's keys, and these instead."""
    device = tomllib.loads(layout.config.read_text())["certificate_profiles"]["device"]
    tables = {f"certificate_profiles.{name}": device | dict(k) for name, k in kinds.items()}
    _append(layout, tables)


def _append(layout: Layout, tables: Tables) -> None:
    text = layout.config.read_text()
    for table, keys in tables.items():
        lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        text += "\n".join(["", f"[{table}]", *lines, ""])
    write_private(layout.config, text.encode())


def configure(config: Path, table: str, **keys: Any) -> None:
    """Set keys of a table that is there; None removes one."""
    write_private(config, set_keys(config.read_text(), table, keys).encode())


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A `scepstream` command as System.cli runs it, but in this process: that is faster."""
    done = CliRunner().invoke(app, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def tell_to_reload(system: System, *roles: str) -> None:
    """SIGHUP to all processes of these roles, by default of all that reload."""
    for role in roles or ("issuer", "validator", "gateway"):
        for pid in system.run["pids"][role]:
            os.kill(pid, signal.SIGHUP)
