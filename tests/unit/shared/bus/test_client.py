"""The bus's client: whose callback a message is for, from the first one on."""

from typing import Any

import pytest
from nats.aio.msg import Msg

from shared.bus.client import TolerantClient


async def test_what_arrives_while_a_subscription_is_sent_is_called_back_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, heard = TolerantClient(lambda: None), []

    async def callback(msg: Msg) -> None:
        heard.append(msg.data)

    async def sent(*_: Any, **__: Any) -> None:
        await client._process_msg(1, b"a", b"", b"first", b"")

    async def flushed(*_: Any, **__: Any) -> None:
        """Nothing is connected."""

    monkeypatch.setattr(client, "_status", TolerantClient.CONNECTED)
    monkeypatch.setattr(client, "_send_command", sent)
    monkeypatch.setattr(client, "_flush_pending", flushed)
    subscription = await client.listen("a", callback)
    await client._process_msg(1, b"a", b"", b"second", b"")
    assert heard == [b"first", b"second"]

    monkeypatch.setattr(client, "_send_command", flushed)
    await subscription.unsubscribe()
    await client._process_msg(1, b"a", b"", b"late", b"")
    assert heard == [b"first", b"second"]
