"""What `up` prints once everything runs: URLs, and commands to try."""

import hashlib
import sys
from pathlib import Path
from typing import Any

from cli.output import heading, say, show_table
from shared.config.keys import read_certificates, spki


def announce(run: dict[str, Any], *, secrets: bool) -> None:
    """Print what runs and how to try it; challenges only with `secrets`.

    `run` is the content of run.json.
    """
    heading("scepstream is up")
    show_table(
        ("profile", "SCEP URL", "challenge"),
        (
            (name, profile["url"], _challenge(profile, secrets=secrets))
            for name, profile in run["profiles"].items()
        ),
        plain=True,
    )
    if not secrets:
        run_file = Path(run["admin_token_file"]).with_name("run.json")
        say(f"passwords  in {run_file}, or shown with --show-secrets")
    for url in (*run["urls"][1:], *run["tls_urls"], *run["mtls_urls"]):
        say(f"also       {url}")
    token = f"sign in with the token in {run['admin_token_file']}"
    say(f"page       {run['admin_url']}/scep  {token}")
    ca = read_certificates(Path(run["ca_file"]))[0]
    say(f"CA         {run['ca_file']}  SHA-256 of its key {_short(spki(ca))}")
    profiles = run["profiles"].values()
    first = next((p for p in profiles if p["challenge"]), None)
    signed = next((p for p in profiles if "connector" in p), None)
    if first:
        challenge = first["challenge"] if secrets else "CHALLENGE"
        _say_try(run, f"{first['url']} --challenge {challenge} --cn device-1")
    if signed:
        _say_try(run, f"{signed['url']} --connector {signed['connector']} --cn device-2")


def _challenge(profile: dict[str, str], *, secrets: bool) -> str:
    if profile["challenge"]:
        return profile["challenge"] if secrets else "a password"
    return "signed by a connector" if "connector" in profile else "not created by `up`"


def _say_try(run: dict[str, Any], arguments: str) -> None:
    """Print an `enroll` command that can be pasted."""
    say(f"try        {_program()} enroll {arguments} --ca-file {run['ca_file']}")


def _program() -> str:
    """Return the path by which this program was called, so that the command can be pasted."""
    return sys.argv[0] if sys.argv[0].endswith("scepstream") else "scepstream"


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
