"""The AsyncAPI 3.0 document of the event log, generated from the event types."""

from typing import Any, Final

import msgspec

from shared.log import catalog
from shared.log.catalog import EVENT_TYPES, VERSIONS
from shared.log.channels import Channel
from shared.log.envelope import KEY, SIGNATURE, TYPE, VERSION
from shared.log.roles import Role
from shared.observe.tracing import TRACEPARENT

# The channels that the audit service records; the others are private to the services.
CHANNELS: Final = tuple(row for row in catalog.CHANNELS.rows if Role.AUDIT in row.consumers)


def document() -> dict[str, Any]:
    """Return the document; its schemas are those of the types that the services use."""
    kinds = sorted({kind.__name__ for row in CHANNELS for kind in row.events})
    _, schemas = msgspec.json.schema_components(
        [EVENT_TYPES[kind] for kind in kinds], ref_template="#/components/schemas/{name}"
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "scepstream event log",
            "version": "1",
            "description": "Every message is a JSON object; bytes are base64. A subject holds at"
            " most one message, which never changes. Readers must ignore unknown fields.",
        },
        "channels": {_name(row.address): _describe(row) for row in CHANNELS},
        "components": {"messages": {kind: _message(kind) for kind in kinds}, "schemas": schemas},
    }


def _name(address: str) -> str:
    """Return a name made of the fixed parts of an address."""
    return "_".join(part for part in address.split(".") if not part.startswith("{"))


def _describe(row: Channel) -> dict[str, Any]:
    names = sorted(kind.__name__ for kind in row.events)
    return {
        "address": row.address,
        "description": f"In stream {row.stream}.",
        "parameters": {name: {} for name in row.fields()},
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
