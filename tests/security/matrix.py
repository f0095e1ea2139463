"""What each credential can do on the bus, found by trying; rewrites its table in docs/security.md.

`python -m tests.security.matrix` writes the table, a test compares it.
"""

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.bus.grants import HINTS, grants
from shared.bus.topology import consumers, streams
from shared.log.roles import ACCOUNTS
from tests.security.rights import API, SHARD, filled
from tests.security.wire import ClosedError, RawNats
from tests.support.nats import NatsServer, nats_server

PAGE: Final = Path(__file__).parents[2] / "docs" / "security.md"
BEGIN: Final = "<!-- matrix:begin -->"
END: Final = "<!-- matrix:end -->"
NOBODY: Final = "no key"
WHO: Final = (*(role.value for role in ACCOUNTS), NOBODY)
_BODIES: Final = (b'{"seq":1}', b'{"seq":1,"next_by_subj":">"}', b'{"last_by_subj":">"}')
_GET: Final = "$JS.API.DIRECT.GET."
SETTLED: Final = ".1.1.1.1.0"
MANAGEMENT: Final = (
    "STREAM.CREATE.EVIL",
    "STREAM.UPDATE.ENROLL_0",
    "STREAM.DELETE.ENROLL_0",
    "STREAM.PURGE.ENROLL_0",
    "STREAM.INFO.ENROLL_0",
    "STREAM.NAMES",
    "STREAM.MSG.GET.ENROLL_0",
    "STREAM.MSG.DELETE.ENROLL_0",
    "STREAM.SNAPSHOT.ENROLL_0",
    "STREAM.LEADER.STEPDOWN.ENROLL_0",
    "CONSUMER.CREATE.ENROLL_0.evil",
    "CONSUMER.DELETE.ENROLL_0.validator",
    "CONSUMER.PAUSE.ENROLL_0.validator",
    "CONSUMER.INFO.ENROLL_0.validator",
    "CONSUMER.NAMES.ENROLL_0",
)

Try = Callable[[RawNats], bool]


@dataclass(frozen=True)
class Act:
    """Something to try: of which kind, on what, and how to find out whether it is possible."""

    kind: str
    on: str
    possible: Try


def acts() -> Iterator[Act]:
    """Everything that is tried with each credential."""
    for pattern in dict.fromkeys(_patterns()):
        yield Act("append", pattern, lambda nats, on=pattern: _append(nats, on))
    for stream in streams([SHARD]):
        yield Act("read any subject", stream.name, lambda nats, on=stream.name: _any(nats, on))
    for pattern in dict.fromkeys(_single_reads()):
        yield Act("read by subject", pattern, lambda nats, on=pattern: _by_subject(nats, on))
    for stream in streams([SHARD]):
        yield Act("read all", stream.name, lambda nats, on=stream.name: _on_and_on(nats, on))
    for spec in consumers([SHARD]):
        name = f"{spec.stream}.{spec.durable}"
        yield Act("pull work", name, lambda nats, on=name: _take(nats, on))
        yield Act(
            "acknowledge work", name, lambda nats, on=name: _publish(nats, f"$JS.ACK.{on}{SETTLED}")
        )
    for subject in dict.fromkeys(hint.subject for hint in HINTS):
        yield Act("publish hints", subject, lambda nats, on=subject: _publish(nats, on))
        yield Act("receive hints", subject, lambda nats, on=subject: _hear(nats, on))
    yield from _forbidden()


def _forbidden() -> Iterator[Act]:
    """What nobody is meant to do."""
    for subject in ("_INBOX.>", "_INBOX.*.*", ">"):
        yield Act("receive others' replies", subject, lambda nats, on=subject: _hear(nats, on))
    for subject in ("enroll.>", "ops.>", "$JS.API.>"):
        yield Act("receive others' requests", subject, lambda nats, on=subject: _hear(nats, on))
    yield Act("forge replies", "_INBOX.*.*", lambda nats: _publish(nats, "_INBOX.x.1"))
    for call in MANAGEMENT:
        yield Act("manage", call, lambda nats, on=call: _call(nats, on))


def _patterns() -> list[str]:
    """Every subject that any role may write."""
    return sorted(g.subject for g in grants([SHARD]) if not g.subject.startswith(API))


def _single_reads() -> list[str]:
    """Every stream and subject of it that a role may read without the rest of the stream."""
    granted = (g.subject for g in grants([SHARD]) if g.subject.startswith(_GET))
    patterns = (subject.removeprefix(_GET).replace(".", ": ", 1) for subject in granted)
    return sorted(p for p in patterns if ": " in p and not p.endswith(": >"))


def _append(nats: RawNats, pattern: str) -> bool:
    return not nats.request(filled(pattern), b"{}").refused


def _any(nats: RawNats, stream: str) -> bool:
    return not nats.request(f"{_GET}{stream}.a.b.c.d.e.f.g".encode()).refused


def _by_subject(nats: RawNats, pattern: str) -> bool:
    return not nats.request(filled(_GET + pattern.replace(": ", ".", 1))).refused


def _on_and_on(nats: RawNats, stream: str) -> bool:
    asked = f"{_GET}{stream}".encode()
    return any(not nats.request(asked, body).refused for body in _BODIES)


def _take(nats: RawNats, consumer: str) -> bool:
    asked = f"$JS.API.CONSUMER.MSG.NEXT.{consumer}".encode()
    return not nats.request(asked, b'{"batch":1,"no_wait":true}').refused


def _call(nats: RawNats, call: str) -> bool:
    return not nats.request(f"$JS.API.{call}".encode(), b"{}").refused


def _publish(nats: RawNats, subject: str) -> bool:
    return _unopposed(nats, lambda: nats.publish(subject.replace("*", "x").encode(), b"{}"))


def _hear(nats: RawNats, subject: str) -> bool:
    return _unopposed(nats, lambda: nats.subscribe(subject.encode()))


def _unopposed(nats: RawNats, act: Callable[[], object]) -> bool:
    """Whether the server lets it pass."""
    nats.errors.clear()
    act()
    nats.flush()
    return not nats.errors


def measure(server: NatsServer) -> dict[tuple[str, str], tuple[str, ...]]:
    """Who can do what: (kind, on) to the credentials that can."""
    found: dict[tuple[str, str], list[str]] = {(a.kind, a.on): [] for a in acts()}
    for who in WHO:
        for kind, on in _can(server, who):
            found[kind, on].append(who)
    return {act: tuple(able) for act, able in found.items()}


def _can(server: NatsServer, who: str) -> Iterator[tuple[str, str]]:
    if who == NOBODY:
        try:
            RawNats.connect(server.port)
        except ClosedError:
            return
    seeds = {role.value: seed for role, seed in server.seeds.items()}
    for act in acts():
        with RawNats.connect(server.port, seeds.get(who, "")) as nats:
            if act.possible(nats):
                yield act.kind, act.on


def table(measured: dict[tuple[str, str], tuple[str, ...]]) -> str:
    """As it stands on the page."""
    lines = [_row(("", "", *WHO)), _row(["---"] * (2 + len(WHO)))]
    before = ""
    for (kind, on), able in measured.items():
        cells = ["yes" if who in able else "-" for who in WHO]
        lines.append(_row((kind if kind != before else "", f"`{on}`", *cells)))
        before = kind
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def rewritten(page: str, content: str) -> str:
    """The page with this between its markers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def measured_table(folder: Path) -> str:
    """Try everything on a provisioned server."""
    with nats_server(folder) as server:
        asyncio.run(server.provision())
        return table(measure(server))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(rewritten(PAGE.read_text(), measured_table(Path(folder))))
