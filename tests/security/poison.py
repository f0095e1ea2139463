"""Requests that nobody's credential signs and that cost, or grow to, far more than they are."""

import secrets
from collections.abc import Callable
from typing import Final

from tests.support import messages as m
from tests.support.requests import Device, Endpoint, sealed

WRONG: Final = "no such password"
Poison = Callable[[Endpoint, Device], bytes]


def _request(endpoint: Endpoint, device: Device, *attributes: bytes, **options: bytes) -> bytes:
    """A PKCSReq with a wrong password and whatever else it holds."""
    return device.request(sealed(endpoint, device.csr(WRONG, *attributes, **options))).body


def control_characters(endpoint: Endpoint, device: Device) -> bytes:
    """JSON writes each of them in six bytes."""
    name = m.name((m.COMMON_NAME, m.UTF8, b"\x01" * 180_000))
    return _request(endpoint, device, subject=name)


def control_characters_in_a_uri(endpoint: Endpoint, device: Device) -> bytes:
    return _request(endpoint, device, m.extension_request(m.san(m.tlv(0x86, b"\x01" * 190_000))))


def empty_names(endpoint: Endpoint, device: Device) -> bytes:
    return _request(endpoint, device, m.extension_request(m.san(m.tlv(0x81) * 110_000)))


def many_attributes(endpoint: Endpoint, device: Device) -> bytes:
    """Each asks for an extension of its own."""
    asked = (
        m.extension_request(m.extension(f"1.3.6.1.4.1.{number + 1}", b"")) for number in range(5000)
    )
    return _request(endpoint, device, *asked)


def repeated_attributes(endpoint: Endpoint, device: Device) -> bytes:
    return _request(endpoint, device, *([m.extension_request()] * 9846))


def many_rdns(endpoint: Endpoint, device: Device) -> bytes:
    name = m.name(*(((m.COMMON_NAME, m.UTF8, b"x"),) * 12_000))
    return _request(endpoint, device, subject=name)


def huge_oids(endpoint: Endpoint, device: Device) -> bytes:
    """Object identifiers that are long, and each time others."""
    kinds = [m.tlv(6, b"\x2a" + secrets.token_bytes(3000) + b"\x01") for _ in range(50)]
    rdns = (m.tlv(m.SET, m.tlv(m.SEQ, kind, m.tlv(m.UTF8, b"x"))) for kind in kinds)
    return _request(endpoint, device, subject=m.tlv(m.SEQ, *rdns))


def huge_challenge(endpoint: Endpoint, device: Device) -> bytes:
    csr = device.csr("x" * 180_000)
    return device.request(sealed(endpoint, csr)).body


def deep_nesting(endpoint: Endpoint, device: Device) -> bytes:
    nested = b""
    for _ in range(20_000):
        nested = m.tlv(m.SEQ, nested)
        if len(nested) > 150_000:
            break
    return _request(endpoint, device, m.attribute("1.2.3.4", nested))


def padding(endpoint: Endpoint, device: Device) -> bytes:
    """As large as a message may be, and all of it taken for the device's."""
    return _request(
        endpoint, device, m.attribute("1.2.3.4", m.tlv(4, secrets.token_bytes(130_000)))
    )


POISONS: Final[tuple[Poison, ...]] = (
    control_characters,
    control_characters_in_a_uri,
    empty_names,
    many_attributes,
    repeated_attributes,
    many_rdns,
    huge_oids,
    huge_challenge,
    deep_nesting,
    padding,
)
