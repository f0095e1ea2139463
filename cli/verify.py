"""`scepstream audit replay|verify|checkpoint|export|asyncapi`: work with the whole event log."""

import json
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli.asyncapi import document
from cli.config_option import Config, config_path
from cli.operator import with_operator
from cli.output import counted, failed, say
from services.audit.commands.context import CommandError, OperatorContext
from services.audit.proof.checkpoints import Checkpoints
from services.audit.proof.export import Form, lines
from services.audit.proof.log_verifier import Keys, LogVerifier
from services.audit.proof.verify import Verification, verify_after
from services.audit.proof.verify import verify as verify_log
from services.audit.proof.window import Window, moment
from services.audit.record.catch_up import fill
from services.audit.record.event_row import DecodedMessage
from services.audit.record.log_reader import last_sequence, read
from services.audit.record.positions import Position
from services.audit.record.write import position
from services.audit.store.engine import (
    DatabaseError,
    Engine,
    migrate,
    open_engine,
    open_existing,
    open_scratch,
    snapshot,
)
from shared.ca.chains import UntrustedChainError, read_chain
from shared.config.load import SettingsError
from shared.config.sections import Configuration
from shared.config.urls import masked_url
from shared.log.streams import CA_CHAINS
from shared.log.subjects import chain_subject
from shared.runtime.process import now

_console = Console(stderr=True, highlight=False)
_SHOWN = 20
_CHECKPOINT = re.compile(
    r"(?P<stream>[A-Z0-9_a-z-]{1,64}) (?P<sequence>\d{1,18}) (?P<digest>[0-9a-f]{64}|-)"
)
Profile = Annotated[str | None, typer.Option(help="only this SCEP profile")]
From = Annotated[str | None, typer.Option("--from", help="from this time (RFC 3339), inclusive")]
Until = Annotated[str | None, typer.Option(help="until this time (RFC 3339), exclusive")]


def replay(
    into: Annotated[str, typer.Option(help="URL of a database, empty or from an earlier replay")],
    config: Config = None,
    profile: Profile = None,
    since: From = None,
    until: Until = None,
) -> None:
    """Build a read model in another database from the event log.

    An interrupted replay can be resumed.
    """
    window = _window(profile, since, until)
    try:
        engine = open_engine(into)
    except SettingsError as error:
        raise typer.BadParameter(f"--into: {error}") from None
    try:
        migrate(engine)
        count = with_operator(config_path(config), lambda context: _replay(context, engine, window))
    except DatabaseError as error:
        raise failed(f"--into: the database cannot be used: {type(error).__name__}") from None
    finally:
        engine.dispose()
    print(f"stored {counted(count, 'event')} in {masked_url(into)}")


def _window(profile: str | None, since: str | None, until: str | None) -> Window:
    try:
        return Window(profile, moment(since), moment(until))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


async def _replay(context: OperatorContext, engine: Engine, window: Window) -> int:
    """Return how many events were stored."""
    ends = {s: await last_sequence(context.bus, s) for s in context.settings.streams}
    done = sum(position(engine, stream) for stream in ends)
    count = 0

    def is_selected(found: DecodedMessage) -> bool:
        nonlocal count
        selected = window.holds(found)
        count += selected
        return selected

    async with bar("events", sum(ends.values()) - done) as advance:
        for stream, last in ends.items():
            async for stored in fill(context.bus, engine, stream, last, is_selected):
                advance(stored)
    return count


def verify(
    config: Config = None,
    every: Annotated[
        bool, typer.Option("--all", help=f"print all findings, not just the first {_SHOWN}")
    ] = False,
    after: Annotated[
        Path | None,
        typer.Option(help="file with the output of `audit checkpoint`: verify what follows"),
    ] = None,
) -> None:
    """Verify the log's signatures and checkpoints, and compare the database with it.

    Print findings in the order in which they are found. Exit status 1 if there are any. With
    --after, only later events are verified and compared, not the tables that are derived from them.
    """
    if after is not None:
        raise typer.Exit(
            with_operator(config_path(config), partial(_after, path=after, every=every))
        )

    async def work(context: OperatorContext) -> int:
        with tempfile.TemporaryDirectory(prefix="scepstream-verify-") as folder:
            scratch = open_scratch(Path(folder) / "scratch.db")
            kept = open_existing(context.settings.database_url)
            try:
                migrate(scratch)
                return await _verify(context, kept, scratch, every=every)
            finally:
                scratch.dispose()
                kept.dispose()

    raise typer.Exit(with_operator(config_path(config), work))


async def _verify(context: OperatorContext, kept: Engine, scratch: Engine, *, every: bool) -> int:
    streams, keys = context.settings.streams, await _keys(context)
    total = sum(position(kept, stream) for stream in streams)
    with snapshot(kept) as connection:
        async with bar("events", total) as advance:
            found = await verify_log(
                context.bus, connection, scratch, streams, LogVerifier(keys), advance
            )
    return _told(found, every=every)


async def _after(context: OperatorContext, path: Path, *, every: bool) -> int:
    begins = _checkpoints(path, context.settings.streams)
    kept = open_existing(context.settings.database_url)
    try:
        verifier = LogVerifier(await _keys(context))
        total = sum(position(kept, stream) - begin.sequence for stream, begin in begins.items())
        with snapshot(kept) as connection:
            async with bar("events", max(0, total)) as advance:
                found = await verify_after(context.bus, connection, begins, verifier, advance)
    finally:
        kept.dispose()
    return _told(found, every=every)


def _checkpoints(path: Path, streams: Sequence[str]) -> dict[str, Position]:
    """Read the output of `audit checkpoint`; a stream that it does not name begins at 0."""
    found = dict.fromkeys(streams, Position())
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"--after: {path}: {type(error).__name__}") from None
    for line in filter(None, map(str.strip, lines)):
        match = _CHECKPOINT.fullmatch(line)
        if match is None or match["stream"] not in found:
            raise typer.BadParameter(f"--after: {path}: not a checkpoint of this log: {line[:80]}")
        digest = "" if match["digest"] == "-" else match["digest"]
        found[match["stream"]] = Position(int(match["sequence"]), digest)
    return found


def _told(found: Verification, *, every: bool) -> int:
    """Print what a verification found; return the command's exit status."""
    shown = found.findings if every else found.findings[:_SHOWN]
    for finding in shown:
        say(finding)
    if len(found.findings) > len(shown):
        print(f"... and {len(found.findings) - len(shown)} more; --all prints them")
    for stream, count in found.unrecorded.items():
        if count:
            are = "is" if count == 1 else "are"
            print(f"{stream}: {counted(count, 'event')} of the log {are} not in the database yet")
    verdict = "verification failed" if found.findings else "verified"
    print(
        f"{verdict}: {counted(found.events, 'event')}, {counted(found.checkpoints, 'checkpoint')},"
        f" {counted(len(found.unfinished), 'unfinished enrollment')}"
    )
    return 1 if found.findings else 0


async def _keys(context: OperatorContext) -> Keys:
    authorities = await _authorities(context)
    return Keys(context.validators, context.issuers, context.operators, authorities)


async def _authorities(context: OperatorContext) -> dict[str, tuple[bytes, ...]]:
    """Return each issuer's CA certificates (DER) as published and as far as profiles pin them."""
    found: dict[str, tuple[bytes, ...]] = {}
    for issuer, pins in _pins(context.configuration).items():
        stored = await context.bus.get_last_or_leader(CA_CHAINS, chain_subject(issuer))
        try:
            chain = read_chain(stored, pins) if stored else None
        except UntrustedChainError as error:
            raise CommandError(f"issuer {issuer}: {error}") from None
        found[issuer] = (chain.der[0], *chain.previous) if chain else ()
    return found


def _pins(configuration: Configuration) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for profile in configuration.profiles.values():
        found.setdefault(profile.issuer_id, set()).update(profile.ca_spki_sha256)
    return found


def checkpoint(config: Config = None) -> None:
    """Sign a checkpoint of every stream. Keep a copy of the output elsewhere."""

    async def work(context: OperatorContext) -> list[tuple[str, int, str]]:
        engine = open_existing(context.settings.database_url)
        streams = context.settings.streams
        keeper = Checkpoints(context.bus, engine, context.settings.signer, streams, now)
        try:
            return [(stream, *await keeper.sign(stream)) for stream in streams]
        finally:
            engine.dispose()

    for stream, sequence, digest in with_operator(config_path(config), work):
        print(f"{stream} {sequence} {digest or '-'}")


def export(
    config: Config = None,
    form: Annotated[
        Form, typer.Option("--format", help="output format; each prints one event per line")
    ] = Form.JSONL,
    profile: Profile = None,
    since: From = None,
    until: Until = None,
) -> None:
    """Print the events of the log for a SIEM, as JSON Lines or CloudEvents 1.0."""
    window = _window(profile, since, until)
    to_terminal = sys.stdout.isatty()  # a terminal would interpret control characters

    async def work(context: OperatorContext) -> None:
        for stream in context.settings.streams:
            last = await last_sequence(context.bus, stream)
            async for batch in read(context.bus, stream, 1, last):
                for found in filter(window.holds, map(DecodedMessage.of, batch)):
                    line = json.dumps(lines(form, stream, found), ensure_ascii=to_terminal)
                    print(line.replace("\x7f", "\\u007f"))

    with_operator(config_path(config), work)


def asyncapi() -> None:
    """Print the event log's AsyncAPI document (docs/asyncapi.json)."""
    print(render_asyncapi(), end="")


def render_asyncapi() -> str:
    """Return docs/asyncapi.json."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


@asynccontextmanager
async def bar(noun: str, total: int | None) -> AsyncIterator[Callable[[int], None]]:
    """Show a progress bar on standard error if that is a terminal; yield its advance function."""
    columns: list[Any] = [TextColumn(noun), BarColumn(), MofNCompleteColumn()]
    with Progress(*columns, TimeRemainingColumn(), console=_console, transient=True) as progress:
        task = progress.add_task(noun, total=total)
        yield lambda count: progress.advance(task, count)
