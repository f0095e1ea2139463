"""The streams of the log by name. Pure."""

from typing import Final

CA_CHAINS: Final = "KV_CA_CHAINS"


CERTS: Final = "CERTS"


CRLS: Final = "CRLS"


OPS: Final = "OPS"


DEAD_LETTERS: Final = "DEAD_LETTERS"


REPLAYS: Final = "REPLAYS"


DEVICES: Final = "KV_DEVICES"


REPLICAS: Final = "KV_REPLICAS"


def enroll_stream(shard: str) -> str:
    """The stream of a shard."""
    return f"ENROLL_{shard}"


def stream_of(subject: str) -> str | None:
    """The stream that keeps the first message on this subject, where a role may read it back."""
    first, _, rest = subject.partition(".")
    if first == "enroll":
        return enroll_stream(rest.partition(".")[0])
    return {"cert": CERTS, "key": CERTS, "crl": CRLS, "ops": OPS, "replay": REPLAYS}.get(first)
