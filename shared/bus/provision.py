"""Creation of the topology's streams and consumers, and of nats-server's configuration."""

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    StoreCompression,
    StreamConfig,
)
from nats.js.errors import NotFoundError

from shared.bus.grants import HINTS, Grant, grants
from shared.bus.servers import Servers
from shared.bus.topology import (
    ACK_WAIT_SECONDS,
    ConsumerSpec,
    Quota,
    StreamSpec,
    ask_subject,
    confirmers,
    consumers,
    notifiers,
    streams,
)
from shared.bus.users import User, publishes, subscribes
from shared.bus.waiting import until_it_answers
from shared.limits import EVENT_BYTES
from shared.log.roles import ACCOUNTS, Role

_LOG_ACCOUNT = "LOG"
# Of issuers, more: orders that an external CA has not decided wait as unacknowledged messages.
_MAX_ACK_PENDING = (16384, 262_144)
_HEADER_LINES = 64  # the version line and the end of the headers, which EVENT_BYTES does not count
# Large enough that only the streams' limits apply; the server's default shrinks as the disk fills.
_MAX_FILE_STORE = "8TB"


# Version of the names of subjects, events and their fields, and of the digests that checkpoints
# sign; streams with another are refused.
_NAMES_KEY = "scepstream-names"
_NAMES = "2"


class ForeignLogError(Exception):
    """Raised for streams that another version created; retrying does not help."""


def stream_config(
    spec: StreamSpec, replicas: int, max_bytes: Mapping[Quota, int] | None = None
) -> StreamConfig:
    """Return a stream's configuration: nothing in it can be deleted, purged or rolled up.

    A full stream refuses new messages; nothing is ever dropped to make room.
    """
    first = spec.keep == "first"
    return StreamConfig(
        name=spec.name,
        subjects=[*spec.subjects, ask_subject(spec.name)],
        max_msgs_per_subject=1,
        max_bytes=(max_bytes or {}).get(spec.quota) or -1,
        max_msgs=spec.max_msgs or -1,
        max_msg_size=EVENT_BYTES + _HEADER_LINES,
        discard=DiscardPolicy.NEW,
        discard_new_per_subject=first,
        allow_direct=True,
        deny_delete=True,
        deny_purge=True,
        allow_rollup_hdrs=False,
        num_replicas=replicas,
        max_age=spec.max_age,
        allow_msg_ttl=spec.own_ends or None,
        compression=StoreCompression.S2 if spec.compressed else None,
        metadata={_NAMES_KEY: _NAMES},
    )


def consumer_config(spec: ConsumerSpec) -> ConsumerConfig:
    """Return a durable consumer's configuration: it redelivers forever; workers end poison."""
    return ConsumerConfig(
        durable_name=spec.durable,
        filter_subjects=list(spec.filters),
        deliver_policy=DeliverPolicy.NEW if spec.from_now else DeliverPolicy.ALL,
        ack_policy=AckPolicy.ALL if spec.ack_all else AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_SECONDS,
        max_deliver=-1,
        max_ack_pending=_MAX_ACK_PENDING[spec.role is Role.ISSUER],
    )


async def provision(
    servers: Servers,
    seed: str,
    shards: Sequence[str],
    replicas: int,
    notified: Sequence[str] = (),
    max_bytes: Mapping[Quota, int] | None = None,
    confirmed: Sequence[str] = (),
) -> None:
    """Create or update every stream and consumer; wait for a cluster to form. Idempotent.

    `seed` is the provisioner's nkey; running services have no key that could do this. `notified`
    are the SCEP profiles with notifications, `confirmed` those with a connection. Raises
    `ForeignLogError` for streams of a version with other names.
    """
    client = Client()
    await client.connect(
        list(servers.urls), nkeys_seed_str=seed, name="provisioner", max_reconnect_attempts=40,
        reconnect_time_wait=1, error_cb=_ignore,
    )  # fmt: skip
    try:
        context = client.jetstream(timeout=5)
        for stream in streams(shards):
            config = stream_config(stream, replicas, max_bytes)
            await until_it_answers(partial(_stream, context, config))
        for spec in consumers(shards):
            made = partial(context.add_consumer, spec.stream, consumer_config(spec))
            await until_it_answers(made)
        for spec in (*notifiers(shards, notified), *confirmers(shards, confirmed)):
            await until_it_answers(partial(_notifier, context, spec))
    finally:
        await client.close()


async def _ignore(_: Exception) -> None:
    """Ignore refused connections while the server starts: `connect` raises in the end."""


async def _stream(context: JetStreamContext, config: StreamConfig) -> None:
    try:
        info = await context.stream_info(config.name or "")
    except NotFoundError:
        await context.add_stream(config)
        return
    if (info.config.metadata or {}).get(_NAMES_KEY) != _NAMES:
        raise ForeignLogError(
            f"the stream {config.name} was created by an incompatible version: "
            "use that version or start with an empty event log"
        )
    await context.update_stream(config)


async def _notifier(context: JetStreamContext, spec: ConsumerSpec) -> None:
    """Create a consumer of some profiles' results, or delete one that no profile needs any more.

    If it stayed, it would later deliver the results of old enrollments.
    """
    if spec.filters:
        await context.add_consumer(spec.stream, consumer_config(spec))
        return
    with contextlib.suppress(NotFoundError):
        await context.delete_consumer(spec.stream, spec.durable)


def server_config(
    users: Sequence[User],
    shards: Sequence[str],
    store: Path,
    listen: str,
    sync_interval: str,
) -> str:
    """Render nats-server's configuration: one account per role, importing only what it may use.

    Permissions alone are not enough: the server does not check reply subjects, so a role could have
    a PubAck or a direct get's reply written into a stream. Across accounts it cannot. Within an
    account, permissions keep users from forging each other's replies.
    """
    table = grants(shards)
    accounts = "\n".join(
        _service_account(role, [u for u in users if u.role is role], shards) for role in ACCOUNTS
    )
    owners = ", ".join(f"{{nkey: {u.public_key}}}" for u in users if u.role is Role.PROVISIONER)
    return f"""# Made by `scepstream provision` from shared/bus/topology.py; changes here are lost.
listen: "{listen}"
server_name: scepstream
max_payload: 1MB
jetstream {{
  store_dir: "{store}"
  sync_interval: {sync_interval}
  max_file_store: {_MAX_FILE_STORE}
}}
accounts {{
{_log_account(owners, table)}
{accounts}
}}
"""


def _log_account(owners: str, table: Sequence[Grant]) -> str:
    exports: dict[tuple[str, str], list[str]] = {}
    for grant in table:
        answers = "response_type: stream, " if grant.answers == "stream" else ""
        roles = exports.setdefault((grant.subject, answers), [])
        roles.append(grant.role.upper())
    lines = "\n".join(
        f'      {{service: "{subject}", {answers}accounts: [{", ".join(roles)}]}}'
        for (subject, answers), roles in exports.items()
    )
    return f"""  {_LOG_ACCOUNT} {{
    jetstream: enabled
    users: [{owners}]
    exports: [
{lines}
    ]
  }}"""


def _service_account(role: Role, users: Sequence[User], shards: Sequence[str]) -> str:
    imports = [
        f'      {{service: {{account: {_LOG_ACCOUNT}, subject: "{grant.subject}"}}{_local(grant)}}}'
        for grant in grants(shards)
        if grant.role is role
    ]
    imports += [
        f'      {{stream: {{account: {hint.publisher.upper()}, subject: "{hint.subject}"}}}}'
        for hint in HINTS
        if hint.listener is role
    ]
    exports: dict[str, list[str]] = {}
    for hint in HINTS:
        if hint.publisher is role:
            exports.setdefault(hint.subject, []).append(hint.listener.upper())
    exported = "\n".join(
        f'      {{stream: "{subject}", accounts: [{", ".join(listeners)}]}}'
        for subject, listeners in exports.items()
    )
    return "\n".join(
        (
            f"  {role.upper()} {{",
            "    users: [",
            *(_user(user, shards) for user in users),
            "    ]",
            "    imports: [",
            *imports,
            "    ]",
            "    exports: [",
            *([exported] if exported else []),
            "    ]",
            "  }",
        )
    )


def _local(grant: Grant) -> str:
    return f', to: "{grant.local}"' if grant.local else ""


def _user(user: User, shards: Sequence[str]) -> str:
    return f"""      {{nkey: {user.public_key}, permissions: {{
        publish: [{_quoted(publishes(user, shards))}]
        subscribe: [{_quoted(subscribes(user))}]
      }}}}"""


def _quoted(subjects: Sequence[str]) -> str:
    return ", ".join(f'"{subject}"' for subject in subjects)
