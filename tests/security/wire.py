"""A NATS client that obeys nothing: plain sockets, an nkey, and any bytes at all."""

import base64
import contextlib
import json
import secrets
import socket
import time
from dataclasses import dataclass, field
from typing import Any, Final, Self

import nkeys

TIMEOUT: Final = 5.0
_BLANK: Final = b" \r\n\t"


class ClosedError(ConnectionError):
    """Raised where the server has hung up."""


@dataclass(frozen=True)
class Heard:
    """A message as it came: header block and payload are not interpreted."""

    subject: bytes
    reply: bytes
    head: bytes
    payload: bytes

    @property
    def status(self) -> str:
        """The status of the header's first line, "" where there is none."""
        first = self.head.partition(b"\r\n")[0].split()
        return first[1].decode("latin-1") if len(first) > 1 else ""

    @property
    def json(self) -> dict[str, Any]:
        """The payload as a JSON object, empty where it is none."""
        try:
            found = json.loads(self.payload)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Answer:
    """What became of one publish: `kind` says it in a word, `message` is what came back."""

    kind: str
    message: Heard | None = None
    detail: str = ""

    @property
    def refused(self) -> bool:
        """Whether it never reached the log."""
        return self.kind in ("denied", "nobody", "no jetstream", "closed")


def head_of(*lines: bytes) -> bytes:
    """A header block of these lines, whatever they hold."""
    return b"NATS/1.0\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


@dataclass
class RawNats:
    """One connection; `errors` collects what the server complained of."""

    port: int
    seed: str = ""
    inbox_root: str = "_INBOX"
    errors: list[str] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    _socket: socket.socket | None = None
    _buffer: bytearray = field(default_factory=bytearray)
    _subscriptions: int = 0
    _pongs: int = 0
    inbox: bytes = b""

    @classmethod
    def connect(cls, port: int, seed: str = "", **changes: Any) -> Self:
        """Say INFO/CONNECT with the nkey's signature, subscribe to an inbox of our own."""
        found = cls(port, seed)
        try:
            found._open(changes)
        except BaseException:
            found.close()
            raise
        return found

    def _open(self, changes: dict[str, Any]) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT)
        info = json.loads(self._line()[len(b"INFO ") :])
        said: dict[str, Any] = {
            "verbose": False, "pedantic": False, "headers": True, "no_responders": True,
            "lang": "raw", "version": "0", "protocol": 1, "echo": True, "name": "raw",
        }  # fmt: skip
        public = ""
        if self.seed:
            pair = nkeys.from_seed(bytearray(self.seed.encode()))
            signature = pair.sign(info.get("nonce", "").encode())
            public = pair.public_key.decode()
            said |= {"nkey": public, "sig": base64.b64encode(signature).decode()}
        self.send(b"CONNECT " + json.dumps(said | changes).encode() + b"\r\n")
        self.inbox = f"{self.inbox_root}.{public or 'nobody'}.{secrets.token_hex(8)}".encode()
        self.subscribe(self.inbox + b".>")
        self.flush()

    def close(self) -> None:
        """Hang up without a word."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Writing

    def send(self, *parts: bytes) -> None:
        """These bytes and no others."""
        assert self._socket is not None
        try:
            self._socket.sendall(b"".join(parts))
        except OSError as error:
            raise ClosedError(str(error)) from error

    def publish(
        self, subject: bytes, payload: bytes = b"", reply: bytes = b"", head: bytes = b""
    ) -> None:
        """PUB, or HPUB where there is a header block."""
        self.send(frame(subject, payload, reply, head))

    def subscribe(self, subject: bytes) -> bytes:
        """SUB; the id of the subscription."""
        self._subscriptions += 1
        sid = str(self._subscriptions).encode()
        self.send(b"SUB " + subject + b" " + sid + b"\r\n")
        return sid

    # Reading

    def flush(self, seconds: float = TIMEOUT) -> None:
        """Wait until the server has read all that was sent; what it complained of is known."""
        self.send(b"PING\r\n")
        wanted = self._pongs + 1
        deadline = time.monotonic() + seconds
        while self._pongs < wanted:
            self._read_one(deadline)

    def listen(self, seconds: float, least: int = 0) -> list[Heard]:
        """What comes within so many seconds, or until `least` messages are there."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError):
            while not least or len(self.heard) < least:
                self._read_one(deadline)
        found, self.heard = self.heard, []
        return found

    def request(
        self, subject: bytes, payload: bytes = b"", head: bytes = b"", seconds: float = 1.0
    ) -> Answer:
        """Publish with a reply subject of ours; what the server makes of it."""
        reply = self.inbox + b"." + secrets.token_hex(4).encode()
        complaints = len(self.errors)
        try:
            self.publish(subject, payload, reply, head)
            self.flush()
            if len(self.errors) > complaints:
                return Answer("denied", detail=self.errors[-1])
            deadline = time.monotonic() + seconds
            while True:
                for message in self.heard:
                    if message.subject == reply:
                        self.heard.remove(message)
                        return _judged(message)
                self._read_one(deadline)
        except TimeoutError:
            return Answer("silence")
        except ClosedError as error:
            return Answer("closed", detail=str(error))

    def _read_one(self, deadline: float) -> None:
        line = self._line(deadline)
        word, _, rest = line.partition(b" ")
        if word in (b"MSG", b"HMSG"):
            self._message(word, rest.split(), deadline)
        elif word == b"PING":
            self.send(b"PONG\r\n")
        elif word == b"PONG":
            self._pongs += 1
        elif word == b"-ERR":
            self.errors.append(rest.decode("utf-8", "replace"))

    def _message(self, word: bytes, parts: list[bytes], deadline: float) -> None:
        sizes = 2 if word == b"HMSG" else 1
        reply = parts[2] if len(parts) == 3 + sizes else b""
        total = int(parts[-1])
        head = int(parts[-2]) if sizes == 2 else 0
        data = self._exactly(total + 2, deadline)
        self.heard.append(Heard(parts[0], reply, data[:head], data[head:total]))

    def _line(self, deadline: float = 0.0) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._fill(deadline)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line.strip(_BLANK)

    def _exactly(self, count: int, deadline: float) -> bytes:
        while len(self._buffer) < count:
            self._fill(deadline)
        found = bytes(self._buffer[:count])
        del self._buffer[:count]
        return found

    def _fill(self, deadline: float) -> None:
        assert self._socket is not None
        left = deadline - time.monotonic() if deadline else TIMEOUT
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        try:
            got = self._socket.recv(1 << 16)
        except TimeoutError:
            raise
        except OSError as error:
            raise ClosedError(str(error)) from error
        finally:
            self._socket.settimeout(TIMEOUT)
        if not got:
            raise ClosedError(self.errors[-1] if self.errors else "hung up")
        self._buffer += got


def frame(subject: bytes, payload: bytes, reply: bytes = b"", head: bytes = b"") -> bytes:
    """One PUB or HPUB as bytes."""
    names = subject + (b" " + reply if reply else b"")
    total = len(head) + len(payload)
    if head:
        return b"HPUB %b %d %d\r\n%b%b\r\n" % (names, len(head), total, head, payload)
    return b"PUB %b %d\r\n%b\r\n" % (names, total, payload)


def _judged(message: Heard) -> Answer:
    """What an answer says: stored, conflict, error, message, nothing there, nobody, or denied."""
    if message.status == "503" and not message.payload:
        return Answer("nobody", message)
    if message.status == "404":
        return Answer("nothing there", message)
    said = message.json
    error = said.get("error")
    if isinstance(error, dict):
        code = error.get("err_code", 0)
        kind = "no jetstream" if code == 10039 else f"error {code}"
        return Answer(kind, message, str(error.get("description", "")))
    if "seq" in said and "stream" in said:
        return Answer("stored", message)
    return Answer("message", message)
