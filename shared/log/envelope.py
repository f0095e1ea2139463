"""Events as stored in the log: JSON, signed for one subject, authenticated when read."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared.log.catalog import EVENT_TYPES, STAGES, VERSIONS
from shared.log.events.base import EventPayload, SignedEvent
from shared.log.stages import Stage

NANOSECONDS: Final = 1_000_000_000  # per second
TYPE: Final = "Scepstream-Type"
VERSION: Final = "Scepstream-Version"
KEY: Final = "Scepstream-Key"
SIGNATURE: Final = "Scepstream-Signature"
SUBJECT: Final = "Scepstream-Subject"
_CONTEXT: Final = b"scepstream/1\0"
STAGE_TYPES: Final[Mapping[Stage, frozenset[str]]] = {
    stage: frozenset(kind.__name__ for kind in row.events) for stage, row in STAGES.items()
}
_Signed = TypeVar("_Signed", bound=SignedEvent)
_ENCODER: Final = msgspec.json.Encoder()
_DECODERS: Final = {name: msgspec.json.Decoder(kind) for name, kind in EVENT_TYPES.items()}


class UnreadableEventError(Exception):
    """Raised for stored bytes that are not one of our events or are not authentic."""


@dataclass(frozen=True, slots=True)
class Message:
    """An event as sent: its payload bytes and its headers."""

    payload: bytes
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as stored in a stream; `time` is the server's, in Unix nanoseconds."""

    subject: str
    payload: bytes
    headers: Mapping[str, str]
    sequence: int
    time: int

    @property
    def seconds(self) -> int:
        """The storage time in whole Unix seconds."""
        return self.time // NANOSECONDS

    def sha256(self) -> str:
        """Return the digest of the payload, in hex; other events refer to a request by it."""
        return hashlib.sha256(self.payload).hexdigest()


def key_id(public_key: Ed25519PublicKey) -> str:
    """Return the id by which events name the key that signed them."""
    return hashlib.sha256(public_key.public_bytes_raw()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class EventSigner:
    """A role's Ed25519 key and its id."""

    key: Ed25519PrivateKey
    id: str

    @classmethod
    def of(cls, key: Ed25519PrivateKey) -> "EventSigner":
        """Return the signer for a key."""
        return cls(key, key_id(key.public_key()))


def encode(event: EventPayload) -> Message:
    """Return an event as an unsigned message; `sign` adds a signature."""
    kind = type(event).__name__
    headers = {TYPE: kind, VERSION: str(VERSIONS[kind])}
    return Message(_ENCODER.encode(event), headers)


def sign(event: SignedEvent, subject: str, signer: EventSigner) -> Message:
    """Return an event as a message signed for one subject and the stored request it names."""
    message = encode(event)
    signature = signer.key.sign(signed_bytes(subject, event.request_sha256, message.payload))
    message.headers[KEY] = signer.id
    message.headers[SIGNATURE] = base64.b64encode(signature).decode("ascii")
    return message


def signed_bytes(subject: str, request_sha256: str, payload: bytes) -> bytes:
    """Return the bytes to sign; unambiguous: no subject has a NUL, the digest has a fixed size."""
    return b"".join((_CONTEXT, subject.encode(), b"\0", bytes.fromhex(request_sha256), payload))


def decode(payload: bytes, headers: Mapping[str, str]) -> EventPayload:
    """Parse an event without checking its signature; raise `UnreadableEventError` if invalid."""
    decoder = _DECODERS.get(headers.get(TYPE, ""))
    if decoder is None:
        raise UnreadableEventError("unknown event type")
    try:
        return decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise UnreadableEventError("payload does not fit its type") from None


Trusted = Mapping[str, Ed25519PublicKey]


def authenticate(
    stored: Stored, trusted: Trusted, stage: Stage, request_sha256: str | None = None
) -> EventPayload:
    """Return the event if a trusted key signed it for exactly this subject, request and stage.

    `request_sha256` is the digest of the stored request. A caller that has not read the request
    passes None and relies on the digest in the event, which the signature covers. Raises
    `UnreadableEventError`.
    """
    event = decode(stored.payload, stored.headers)
    if stored.headers[TYPE] not in STAGE_TYPES[stage] or not stored.subject.endswith(f".{stage}"):
        raise UnreadableEventError("event type does not belong to the stage")
    if not isinstance(event, SignedEvent):
        raise UnreadableEventError("this event carries no signature")
    if request_sha256 not in (None, event.request_sha256):
        raise UnreadableEventError("event belongs to another request")
    _check_signature(stored, trusted, event.request_sha256)
    return event


def authenticate_any(stored: Stored, trusted: Trusted) -> SignedEvent:
    """Return the event, of any kind, if a trusted key signed it for exactly this subject.

    Raises `UnreadableEventError`.
    """
    event = decode(stored.payload, stored.headers)
    if not isinstance(event, SignedEvent):
        raise UnreadableEventError("this event carries no signature")
    _check_signature(stored, trusted, event.request_sha256)
    return event


def authenticate_as(kind: type[_Signed], stored: Stored, trusted: Trusted) -> _Signed:
    """Return the event if it is of this kind and a trusted key signed it for exactly this subject.

    Raises `UnreadableEventError`.
    """
    event = decode(stored.payload, stored.headers)
    if not isinstance(event, kind):
        raise UnreadableEventError("unexpected event type")
    _check_signature(stored, trusted, event.request_sha256)
    return event


def _check_signature(stored: Stored, trusted: Trusted, request_sha256: str) -> None:
    public_key = trusted.get(stored.headers.get(KEY, ""))
    if public_key is None:
        raise UnreadableEventError("signed by an unknown key")
    try:
        signature = base64.b64decode(stored.headers.get(SIGNATURE, ""), validate=True)
        public_key.verify(signature, signed_bytes(stored.subject, request_sha256, stored.payload))
    except (ValueError, InvalidSignature):
        raise UnreadableEventError("signature does not verify") from None
