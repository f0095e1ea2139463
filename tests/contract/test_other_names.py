"""An event log of a version with other names of subjects and events is refused, and left alone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig

from shared.bus.provision import ForeignLogError
from shared.log.roles import Role
from shared.log.streams import OPS
from tests.support.nats import NatsServer, nats_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    with nats_server(tmp_path) as found:
        yield found


async def test_streams_without_our_mark_are_refused_in_a_sentence(server: NatsServer) -> None:
    client = Client()
    await client.connect(server.url, nkeys_seed_str=server.seeds[Role.PROVISIONER])
    context = client.jetstream()
    before = await context.add_stream(StreamConfig(name=OPS, subjects=["ops.redrive.>"]))
    with pytest.raises(ForeignLogError) as error:
        await server.provision()
    after = await context.stream_info(OPS)
    await client.close()

    assert str(error.value) == (
        "the stream OPS was created by an incompatible version: "
        "use that version or start with an empty event log"
    )
    assert after.config.subjects == before.config.subjects


async def test_our_own_streams_are_brought_up_to_date_as_often_as_one_likes(
    server: NatsServer,
) -> None:
    await server.provision()
    await server.provision()
