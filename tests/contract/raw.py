"""A role's credential over the bare NATS protocol: any bytes, as no client library would send."""

import base64
import json
import socket

import nkeys

from shared.log.roles import Role
from tests.support.nats import NatsServer


class RawClient:
    """One authenticated connection; what is sent is sent as it is."""

    def __init__(self, server: NatsServer, role: Role) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        self._lines = self._socket.makefile("rb")
        nonce = json.loads(self._lines.readline().removeprefix(b"INFO "))["nonce"]
        pair = nkeys.from_seed(bytearray(server.seeds[role].encode()))
        signature = base64.urlsafe_b64encode(pair.sign(nonce.encode())).rstrip(b"=").decode()
        options = {"nkey": pair.public_key.decode(), "sig": signature, "headers": True,
                   "verbose": False, "pedantic": False, "lang": "raw", "version": "0"}  # fmt: skip
        self.send(b"CONNECT " + json.dumps(options).encode() + b"\r\n")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def publish(self, subject: bytes, payload: bytes = b"{}", headers: bytes = b"") -> None:
        """PUB, or HPUB with this whole header block."""
        if headers:
            sizes = f"{len(headers)} {len(headers) + len(payload)}".encode()
            self.send(b"HPUB " + subject + b" " + sizes + b"\r\n" + headers + payload + b"\r\n")
        else:
            size = str(len(payload)).encode()
            self.send(b"PUB " + subject + b" " + size + b"\r\n" + payload + b"\r\n")

    def settle(self) -> None:
        """Wait until the server has taken all that was sent before."""
        self.send(b"PING\r\n")
        while (line := self._lines.readline()) != b"PONG\r\n":
            assert line, "the server closed the connection"

    def close(self) -> None:
        self._lines.close()
        self._socket.close()
