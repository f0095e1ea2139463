"""The log as an AsyncAPI 3.0 document, made from the event types themselves."""

from typing import Any, Final

import msgspec

from shared.log.catalog import EVENT_TYPES, VERSIONS
from shared.log.envelope import KEY, SIGNATURE, STAGE_TYPES, TYPE, VERSION
from shared.observe.tracing import TRACEPARENT

_STAGES: Final = {
    f"enroll.{{shard}}.{{profile}}.{{transaction}}.{{csr}}.{{attempt}}.{stage}": sorted(kinds)
    for stage, kinds in STAGE_TYPES.items()
}
# Address to the events that stand there, by stream.
CHANNELS: Final[dict[str, dict[str, list[str]]]] = {
    "ENROLL_{shard}": _STAGES,
    "CERTS": {
        "cert.{issuer}.{serial}.issued": ["CertificateRecorded"],
        "cert.{issuer}.{serial}.status.{number}": ["CertificateStatusChanged"],
        "key.{spki_sha256}.issued.{issuer}.{serial}": ["CertificateRecorded"],
        "key.{spki_sha256}.compromised.{number}": ["KeyCompromised"],
    },
    "OPS": {
        "ops.revoke.{issuer}.{serial}.{attempt}.order": ["RevocationOrdered"],
        "ops.revoke.{issuer}.{serial}.{attempt}.answer": ["OrderAnswered"],
        "ops.redrive.{transaction}.{csr}.{attempt}.order": ["RedriveOrdered"],
        "ops.resume.{transaction}.{csr}.{attempt}-{number}.order": ["ResumeOrdered"],
        "ops.ra.{profile}.{order}.all.order": ["ReloadOrdered"],
        "ops.ra.{profile}.{order}.{replica}.answer": ["OrderAnswered"],
        "ops.reload.{profile}.{order}.all.order": ["ReloadOrdered"],
        "ops.reload.{profile}.{order}.{replica}.answer": ["OrderAnswered"],
        "ops.challenge.{profile}.{digest}.0.created": ["ChallengeCreated"],
        "ops.challenge.{profile}.{digest}.{number}.cancelled": ["ChallengeCancelled"],
        "ops.token.{name}.{order}.0.created": ["ApiTokenCreated"],
        "ops.token.{name}.{order}.0.revoked": ["ApiTokenRevoked"],
        "ops.checkpoint.{stream}.{sequence}.audit.signed": ["CheckpointSigned"],
    },
    "DEAD_LETTERS": {"dead.{role}.{stream}.{sequence}": ["DeadLetter"]},
}


def document() -> dict[str, Any]:
    """The whole document; its schemas are those that the services read and write by."""
    kinds = sorted({k for each in CHANNELS.values() for names in each.values() for k in names})
    _, schemas = msgspec.json.schema_components(
        [EVENT_TYPES[kind] for kind in kinds], ref_template="#/components/schemas/{name}"
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "scepstream event log",
            "version": "1",
            "description": "Every message is a JSON object; bytes are base64. A subject holds one"
            " message, for ever. Unknown fields are to be ignored: new ones may come.",
        },
        "channels": {
            _channel(address): _describe(stream, address, names)
            for stream, addresses in CHANNELS.items()
            for address, names in addresses.items()
        },
        "components": {"messages": {kind: _message(kind) for kind in kinds}, "schemas": schemas},
    }


def _channel(address: str) -> str:
    """A name out of an address's fixed parts."""
    return "_".join(part for part in address.split(".") if not part.startswith("{"))


def _describe(stream: str, address: str, names: list[str]) -> dict[str, Any]:
    parameters = [part[1:-1] for part in address.split(".") if part.startswith("{")]
    return {
        "address": address,
        "description": f"In stream {stream}.",
        "parameters": {name: {} for name in parameters},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
    }


def _message(kind: str) -> dict[str, Any]:
    text = {"type": "string"}
    headers = {
        TYPE: {"const": kind},
        VERSION: {"const": str(VERSIONS[kind])},
        KEY: text,
        SIGNATURE: text,
        TRACEPARENT: text,
    }
    return {
        "contentType": "application/json",
        "summary": (EVENT_TYPES[kind].__doc__ or "").strip().partition("\n")[0],
        "headers": {"type": "object", "properties": headers, "required": [TYPE, VERSION]},
        "payload": {"$ref": f"#/components/schemas/{kind}"},
    }
