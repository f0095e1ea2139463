"""The names of the log's streams. Pure."""

from typing import Final

CA_CHAINS: Final = "KV_CA_CHAINS"


CERTS: Final = "CERTS"


CRLS: Final = "CRLS"


OCSP: Final = "OCSP"


OPS: Final = "OPS"


DEAD_LETTERS: Final = "DEAD_LETTERS"


REPLAYS: Final = "REPLAYS"


DEVICES: Final = "KV_DEVICES"


REPLICAS: Final = "KV_REPLICAS"


_FIRST_TOKENS: Final = {
    "cert": CERTS, "key": CERTS, "order": CERTS, "orphan": CERTS, "service": CERTS, "ra": CERTS,
    "crl": CRLS, "ocsp": OCSP, "ops": OPS, "replay": REPLAYS, "notice": REPLAYS, "lease": REPLAYS,
}  # fmt: skip


def enroll_stream(shard: str) -> str:
    """Return the name of a shard's stream."""
    return f"ENROLL_{shard}"


def stream_of(subject: str) -> str | None:
    """Return the stream that keeps the first message on a subject, None for any other subject.

    Only streams that the writing role may also read back are included.
    """
    first, _, rest = subject.partition(".")
    if first == "enroll":
        return enroll_stream(rest.partition(".")[0])
    return _FIRST_TOKENS.get(first)
