"""`command`: a program of the operator is the CA (docs/issuers/command.md).

Theory of operation. Each call runs the program once: PROGRAM [ARGS...] VERB [KEY OR SERIAL], with
one JSON object on standard input and one on standard output. The program promises that one key
gives one certificate and that `status` knows it, so `status` shows what became of an `issue` whose
answer is missing. Without that promise (`idempotent = false`) an order is found only by the handle
that the program gave it.

The program leads a process group. When its time is over, or nobody waits for it any longer, the
whole group is killed. An issuer that is killed itself cannot do that: hence `until` in the input.
"""

import asyncio
import base64
import os
import re
import signal
import stat
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID
from pydantic import Field

from services.issuer.ceilings import sid_of
from services.issuer.connectors.connector import (
    AnswerLostError,
    CaUnavailableError,
    ConnectorKind,
    Issued,
    Order,
    Pending,
    Prepared,
    Recovery,
    Refused,
    Result,
    RevocationRefusedError,
)
from services.issuer.connectors.options import connector_section, read_options
from services.issuer.connectors.pinned import ExternalConnector, read_pinned
from services.issuer.connectors.wanted import pem, wanted
from services.issuer.received import load_draft
from shared.config.fields import Section
from shared.config.load import SettingsError
from shared.config.sections import AnyIssuerSection, Configuration
from shared.limits import shortened
from shared.log.events.commands import RevocationReason
from shared.runtime.process import now
from shared.scep.certificate import read_certificate
from shared.text.printable import visible

_log = structlog.get_logger()
_MAX_OUTPUT: Final = 1024 * 1024
_KEPT_ERRORS: Final = 4096
_CHUNK: Final = 64 * 1024
_WORDS: Final = 300
_HANDLE: Final = re.compile(r"[!-~]{0,400}")
_TEMPFAIL: Final = 75  # EX_TEMPFAIL of sysexits.h
_GRACE: Final = 1.0  # seconds in which a killed process is expected to end
_SHORTEST_SECRET: Final = 4
_LONGEST_WISH: Final = 86400.0
_OPAQUE: Final = re.compile(r"[A-Za-z0-9+/=_-]{40,}")  # keys, tokens, lines of PEM
_ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC"}
_NAMES: Final = {
    x509.DNSName: "dns",
    x509.RFC822Name: "email",
    x509.UniformResourceIdentifier: "uri",
    x509.IPAddress: "ip",
}
_Argument = Annotated[str, Field(pattern=r"^[^\x00]+$", max_length=1024)]
_Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=64)]


class CommandOptions(Section):
    """`[issuers.NAME.options]` of `command`."""

    program: Path
    """The program, as an absolute path. Only its owner may be able to change it."""
    arguments: tuple[_Argument, ...] = Field(default=(), max_length=32)
    """Arguments before the verb. Every user of the host can read them: no secrets."""
    environment: dict[_Variable, str] = Field(default_factory=dict, repr=False)
    """Environment variables, in addition to PATH, LANG and TZ."""
    working_directory: Path = Path("/")
    """Where the program runs, as an absolute path."""
    idempotent: bool = True
    """Whether one key gives one certificate, which `status` finds again."""


class Written(msgspec.Struct, frozen=True):
    """What a program may write; members that a verb does not use are ignored."""

    status: str
    certificate: str = ""
    handle: str = ""
    reason: str = ""
    retry_after: float = 0.0
    chain: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Secrets:
    """What must not appear in a text: values of variables, and the challenge of a CSR."""

    values: tuple[str, ...] = field(default=(), repr=False)

    def line(self, text: str) -> str:
        """Return a text of the program as one printable line of limited length."""
        for value in self.values:
            text = text.replace(value, "[...]")
        words = " ".join(visible(text).split())
        return shortened(_OPAQUE.sub("[...]", words)[:_WORDS])


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended; `output` is the whole standard output, `errors` the end of the other."""

    code: int
    output: bytes = field(repr=False)
    errors: bytes = field(repr=False)


@dataclass(frozen=True)
class CommandConnector(ExternalConnector):
    """See `Connector`."""

    options: CommandOptions

    @property
    def recovery(self) -> Recovery:
        """See `Connector.recovery`."""
        return Recovery.NAMED if self.options.idempotent else Recovery.BLIND

    async def issue(self, order: Order, prepared: Prepared) -> Result:
        """See `Connector.issue`: the verb `issue`."""
        del prepared
        secrets = self._secrets(order.csr)
        asked = self._ordered(order) | {"csr": pem(order.csr, "CERTIFICATE REQUEST")}
        result = self._result(await self._call("issue", order.key, asked, secrets), secrets)
        if isinstance(result, Pending) and not (result.handle or self.options.idempotent):
            raise AnswerLostError("the program gave a pending order no handle")
        return result

    async def find(self, order: Order, handle: str = "") -> Result | None:
        """See `Connector.find`: the verb `status`."""
        asked = self._ordered(order) | {"handle": handle}
        answer = await self._call("status", order.key, asked, self._secrets())
        return None if answer.status == "absent" else self._result(answer, self._secrets())

    async def revoke(
        self, serial: str, ca: str, reason: RevocationReason, certificate: bytes = b""
    ) -> None:
        """See `Connector.revoke`: the verb `revoke`."""
        del certificate
        asked = {"serial": serial, "ca_spki_sha256": ca, "reason": str(reason)}
        answer = await self._call("revoke", serial, asked, self._secrets())
        match answer.status:
            case "revoked":
                return
            case "refused":
                raise RevocationRefusedError(self._reason(answer, self._secrets()))
            case _:
                raise AnswerLostError("the program's answer to revoke has an unknown status")

    async def check(self) -> str:
        """See `Connector.check`: the verb `check`, and the program's chain if it shows one."""
        try:
            answer = await self._call("check", "", {}, self._secrets())
        except AnswerLostError as error:
            raise CaUnavailableError(f"check failed: {error}") from error
        if answer.status != "ok":
            said = self._secrets().line(answer.reason) or "no reason given"
            raise CaUnavailableError(f"the program does not answer check with ok: {said}")
        if not answer.chain:
            return "the program answers; it does not show its CA certificate"
        try:
            shown = read_certificate(_der(answer.chain[0])).spki
        except ValueError:
            raise CaUnavailableError("the chain that the program shows does not parse") from None
        if shown != read_certificate(self.current.chain[0]).spki:
            raise CaUnavailableError("the program's CA is not the CA of ca_cert_path")
        return "the program answers; its CA is the pinned CA"

    def _ordered(self, order: Order) -> dict[str, Any]:
        """Return the input of `issue` and `status`, without the CSR."""
        template = order.template
        asked = wanted(template, self.current.chain[0])
        subject = load_draft(template, self.current.chain[0]).subject
        return {
            "key": order.key,
            "enrollment": order.enrollment,
            "issuer": template.issuer,
            "ca_spki_sha256": template.ca_spki_sha256,
            "subject": subject.rfc4514_string(),
            "subject_der": base64.b64encode(template.subject).decode(),
            "public_key": pem(template.spki, "PUBLIC KEY"),
            "not_before": _written(template.not_before),
            "not_after": _written(template.not_after),
            "key_usages": list(asked.key_usages),
            "extended_key_usages": list(asked.extended_key_usages),
            "subject_alt_names": [_name(each) for each in asked.names],
            "sid": sid_of(template),
        }

    def _result(self, answer: Written, secrets: Secrets) -> Result:
        match answer.status:
            case "issued":
                try:
                    return Issued(_der(answer.certificate))
                except ValueError:
                    raise AnswerLostError("the program's certificate does not parse") from None
            case "pending":
                if _HANDLE.fullmatch(answer.handle) is None:
                    raise AnswerLostError("the program's handle is too long or not printable")
                return Pending(answer.handle)
            case "refused":
                return Refused(self._reason(answer, secrets))
            case _:
                raise AnswerLostError("the program's answer has an unknown status")

    def _reason(self, answer: Written, secrets: Secrets) -> str:
        return secrets.line(answer.reason) or "the program refused, and gave no reason"

    def _secrets(self, csr: bytes = b"") -> Secrets:
        values = self.options.environment.values()
        long = (value for value in values if len(value) >= _SHORTEST_SECRET)
        return Secrets((*long, *_challenges(csr)))

    async def _call(self, verb: str, key: str, asked: dict[str, Any], secrets: Secrets) -> Written:
        """Run the program and return its answer.

        Raises `CaUnavailableError` if it did not start, or says that it did nothing, and
        `AnswerLostError` for everything that is not an answer.
        """
        until = _written(int(now() + self.lease))
        document = msgspec.json.encode({"version": 1, "verb": verb, "until": until, **asked})
        ended = await self._run([verb, key] if key else [verb], document)
        if ended.code:
            said = secrets.line(_last_line(ended.errors))
            _log.warning("ca_program_failed", verb=verb, code=ended.code, said=said)
        if ended.code == _TEMPFAIL:
            raise CaUnavailableError(f"the program is not able to {verb} now (exit {_TEMPFAIL})")
        if ended.code:
            raise AnswerLostError(f"the program failed to {verb}: {_ending(ended.code)}")
        try:
            answer = msgspec.json.decode(ended.output, type=Written)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise AnswerLostError("the program's output is not the expected JSON") from None
        if answer.status == "unavailable":
            said = secrets.line(answer.reason) or "no reason given"
            wish = min(max(answer.retry_after, 0.0), _LONGEST_WISH)
            raise CaUnavailableError(f"the program is not able to {verb} now: {said}", wish)
        return answer

    async def _run(self, arguments: Sequence[str], document: bytes) -> Ended:
        process = await self._start(arguments)
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self.lease):
                return await _finished(process, document)
        except TimeoutError:
            seconds = round(time.monotonic() - begun, 1)
            raise AnswerLostError(f"the program gave no answer within {seconds} s") from None
        finally:
            await asyncio.shield(_end(process))

    async def _start(self, arguments: Sequence[str]) -> Process:
        """Start the program; a cancelled start ends with the whole process group, too."""
        options = self.options
        call = asyncio.create_subprocess_exec(
            options.program,
            *options.arguments,
            *arguments,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
            cwd=options.working_directory,
            env=_ENVIRONMENT | options.environment,
        )
        start = asyncio.ensure_future(call)
        try:
            return await asyncio.shield(start)
        except asyncio.CancelledError:
            with suppress(OSError):
                await _end(await start)
            raise
        except OSError as error:
            raise CaUnavailableError(f"the program does not start: {error.strerror}") from None


async def _finished(process: Process, document: bytes) -> Ended:
    """Give the program its input and wait for its end; raises `AnswerLostError` for long output."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    calls = (
        _feed(process.stdin, document),
        _read(process.stdout),
        _read_end(process.stderr),
    )
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        _, output, errors = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return Ended(await process.wait(), output, errors)


async def _feed(stdin: asyncio.StreamWriter, document: bytes) -> bytes:
    """Write the input; a program need not read it (uvloop's pipe raises RuntimeError then)."""
    with suppress(OSError, RuntimeError):
        stdin.write(document)
        await stdin.drain()
    with suppress(OSError, RuntimeError):
        stdin.close()
    return b""


async def _read(stdout: asyncio.StreamReader) -> bytes:
    content = bytearray()
    while part := await stdout.read(_CHUNK):
        content += part
        if len(content) > _MAX_OUTPUT:
            raise AnswerLostError(f"the program's output is longer than {_MAX_OUTPUT} bytes")
    return bytes(content)


async def _read_end(stderr: asyncio.StreamReader) -> bytes:
    """Read everything, so that the program is not blocked, and keep the end."""
    kept = b""
    while part := await stderr.read(_CHUNK):
        kept = (kept + part)[-_KEPT_ERRORS:]
    return kept


async def _end(process: Process) -> None:
    """Kill the whole process group unless the program has ended by itself, and reap it."""
    assert process.stdout is not None
    assert process.stderr is not None
    pipes = (process.stdout, process.stderr)
    if process.returncode is not None and all(pipe.at_eof() for pipe in pipes):
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(_GRACE):
            await asyncio.gather(*map(_read_end, pipes), process.wait())
    # A process that has left the group may still hold a pipe.
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001


def _last_line(errors: bytes) -> str:
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit status {code}"


def _challenges(csr: bytes) -> tuple[str, ...]:
    """Return the challenge of a CSR (DER) as it may appear in a text."""
    try:
        attributes = x509.load_der_x509_csr(csr).attributes
        value = attributes.get_attribute_for_oid(AttributeOID.CHALLENGE_PASSWORD).value
    except (ValueError, x509.AttributeNotFound):
        return ()
    return tuple({value.decode("utf-8", "replace"), value.decode("latin-1")} - {""})


def _der(text: str) -> bytes:
    """Return a certificate in PEM as DER; raises ValueError."""
    return x509.load_pem_x509_certificate(text.encode()).public_bytes(Encoding.DER)


def _name(name: x509.GeneralName) -> dict[str, str]:
    """Return a subjectAltName as an object with a type."""
    match name:
        case x509.OtherName():
            der = base64.b64encode(name.value).decode()
            return {"type": "other", "oid": name.type_id.dotted_string, "value_der": der}
        case x509.DirectoryName():
            return {"type": "directory", "value": name.value.rfc4514_string()}
        case x509.RegisteredID():
            return {"type": "registered_id", "value": name.value.dotted_string}
        case _:
            return {"type": _NAMES[type(name)], "value": str(name.value)}


def _written(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _check_program(name: str, options: CommandOptions) -> None:
    """Raise `SettingsError` for a program that does not run, or that others may change."""
    place, path = f"issuers.{name}.options.program", options.program
    if not path.is_absolute():
        raise SettingsError(f"{place}: {path} is not an absolute path")
    try:
        found = path.stat()
    except OSError as error:
        raise SettingsError(f"{place}: {path}: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode) or not os.access(path, os.X_OK):
        raise SettingsError(f"{place}: {path} is not an executable file")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(found.st_mode)
        raise SettingsError(f"{place}: {path} is writable by others (mode {mode:04o}): chmod go-w")
    if found.st_uid not in (0, os.geteuid()):
        raise SettingsError(f"{place}: {path} belongs to another user: chown it to root")


def _check_directory(name: str, options: CommandOptions) -> None:
    path = options.working_directory
    if not path.is_absolute() or not path.is_dir():
        place = f"issuers.{name}.options.working_directory"
        raise SettingsError(f"{place}: {path} is not the absolute path of a directory")


def _build(configuration: Configuration, name: str, section: AnyIssuerSection) -> CommandConnector:
    external = connector_section(name, section)
    options = read_options(CommandOptions, name, external)
    _check_program(name, options)
    _check_directory(name, options)
    if any("\0" in value for value in options.environment.values()):
        raise SettingsError(f"issuers.{name}.options.environment: a value contains a NUL character")
    return CommandConnector(
        read_pinned(configuration, section), external.lease, external.pending_limit, options
    )


KIND: Final = ConnectorKind("command", _build)
