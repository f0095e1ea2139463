"""Calls to CAs: what certainly did nothing, and what may have."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from services.issuer.connectors.connector import AnswerLostError, CaUnavailableError
from services.issuer.connectors.http import HttpClient, retry_after
from tests.issuers.tls_front import TlsFiles

NOW = 1767225600.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0), ("0", 0.0), ("-1", 0.0), ("soon", 0.0), ("", 0.0), ("9" * 30, 86400.0),
        ("Thu, 01 Jan 2026 00:00:30 GMT", 30.0), ("Thu, 01 Jan 2020 00:00:00 GMT", 0.0),
        ("Thu, 01 Jan 9999 00:00:00 GMT", 86400.0), ("\u0667", 0.0),
    ],
)  # fmt: skip
def test_a_wish_for_later_is_bounded(value: str, seconds: float) -> None:
    assert retry_after({"retry-after": value}, NOW) == seconds


@asynccontextmanager
async def server(context: ssl.SSLContext) -> AsyncIterator[int]:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    served = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    try:
        yield served.sockets[0].getsockname()[1]
    finally:
        served.close()


def contexts(folder: Path, version: ssl.TLSVersion) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server that requires a client certificate, and a client without one."""
    files = TlsFiles(folder)
    own = files.issue("server")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / own["tls_cert_path"], folder / own["tls_key_path"])
    serving.load_verify_locations(folder / files.ca)
    serving.verify_mode = ssl.CERT_REQUIRED
    serving.minimum_version = serving.maximum_version = version
    return serving, ssl.create_default_context(cafile=str(folder / files.ca))


def refuse(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Handle one connection as web servers do: send the alert, and read what was under way."""
    plain, _ = listener.accept()
    with plain, socket.socket(fileno=os.dup(plain.fileno())) as raw:
        raw.settimeout(5)
        with context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as wrapped:
            with suppress(ssl.SSLError):
                wrapped.do_handshake()
            raw.shutdown(socket.SHUT_WR)
            with suppress(OSError):
                while raw.recv(4096):
                    pass


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_server_that_wants_a_client_certificate_did_nothing(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """With TLS 1.3 its alert arrives when the request was sent."""
    serving, client = contexts(tmp_path, version)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        refusing = asyncio.create_task(asyncio.to_thread(refuse, listener, serving))
        http = HttpClient(f"https://127.0.0.1:{listener.getsockname()[1]}", 5.0, client)
        with pytest.raises(CaUnavailableError, match="TLS"):
            await http.call("POST", "orders", json={"csr": "x"})
        await http.close()
        await refusing


async def test_a_connection_that_ends_without_an_answer_may_have_done_something(
    tmp_path: Path,
) -> None:
    serving, client = contexts(tmp_path, ssl.TLSVersion.TLSv1_3)
    serving.verify_mode = ssl.CERT_NONE
    async with server(serving) as port:
        http = HttpClient(f"https://127.0.0.1:{port}", 5.0, client)
        with pytest.raises(AnswerLostError):
            await http.call("POST", "orders", json={})
        await http.close()


async def test_an_untrusted_server_is_named(tmp_path: Path) -> None:
    serving, _ = contexts(tmp_path, ssl.TLSVersion.TLSv1_3)
    async with server(serving) as port:
        http = HttpClient(f"https://127.0.0.1:{port}", 5.0, ssl.create_default_context())
        with pytest.raises(CaUnavailableError, match="TLS certificate is not trusted"):
            await http.call("GET", "health")
        await http.close()
