import contextlib
import sys
from collections.abc import Callable
from types import FrameType
from typing import Self

import pytest

from shared.scep import ber, certificate, cms, envelope, pkimessage
from shared.scep.errors import ScepError
from shared.x509 import csr, names
from tests.support.messages import (
    SEQ,
    Identity,
    device_csr,
    enveloped,
    indefinite,
    length,
    recipient,
    segments,
    signed,
    tlv,
)


def nested(levels: int, wrap: Callable[[int, bytes], bytes]) -> bytes:
    data = b"\x05\x00"
    for _ in range(levels):
        data = wrap(SEQ, data)
    return data


def deep(levels: int) -> bytes:
    """Definite nesting, built without rewriting all levels for each."""
    parts = [b"\x05\x00"]
    size = 2
    for _ in range(levels):
        head = bytes((SEQ,)) + length(size)
        parts.append(head)
        size += len(head)
    return b"".join(reversed(parts))


@pytest.fixture(scope="module")
def ber_message(device: Identity, ra: Identity) -> bytes:
    inner = enveloped(device_csr(device), recipient(ra), form="ber")
    return signed(inner, device, ber=True)


@pytest.fixture(scope="module")
def der_message(device: Identity, ra: Identity) -> bytes:
    return signed(enveloped(device_csr(device), recipient(ra)), device)


def test_der_keeps_its_bytes(der_message: bytes) -> None:
    assert ber.normalise(der_message) == der_message


def test_indefinite_lengths_become_definite() -> None:
    data = indefinite(SEQ, b"\x02\x01\x05", indefinite(0xA0, tlv(4, b"abc")))
    assert ber.normalise(data) == tlv(SEQ, b"\x02\x01\x05", tlv(0xA0, tlv(4, b"abc")))


def test_lengths_become_minimal() -> None:
    octets = b"\x04" + length(3, 2) + b"abc"
    assert ber.normalise(b"\x30" + length(len(octets), 4) + octets) == b"\x30\x05\x04\x03abc"


def test_octet_string_segments_are_joined() -> None:
    assert ber.normalise(segments(0x24, b"abcdefg", 3)) == tlv(4, b"abcdefg")
    definite = tlv(0x24, tlv(4, b"ab"), tlv(4, b"cd"))
    assert ber.normalise(definite) == tlv(4, b"abcd")
    assert ber.normalise(indefinite(0x24)) == tlv(4)


def test_segments_within_segments_are_joined() -> None:
    data = indefinite(
        0x24, tlv(4, b"a"), tlv(0x24, tlv(4, b"b"), tlv(4, b"c")), segments(0x24, b"d")
    )
    assert ber.normalise(data) == tlv(4, b"abcd")


def test_long_segments_are_joined() -> None:
    data = bytes(range(256)) * 300
    assert ber.normalise(segments(0x24, data, 40_000)) == tlv(4, data)


@pytest.mark.parametrize("child", [b"\x02\x01\x05", b"\x05\x00", b"\x30\x00", b"\x0c\x01a"])
def test_segment_of_another_type_is_refused(child: bytes) -> None:
    with pytest.raises(ScepError):
        ber.normalise(tlv(0x24, tlv(4, b"a"), child))


def test_line_ends_after_the_message_are_ignored(ber_message: bytes) -> None:
    expected = ber.normalise(ber_message)
    for tail in (b"\r\n", b"\n", b"\r\n\r\n"):
        assert ber.normalise(ber_message + tail) == expected


@pytest.mark.parametrize("tail", [b"\0", b"\0\0", b" ", b"\r\n\0", b"\x05\x00", b"x\r\n"])
def test_anything_else_after_the_message_is_refused(ber_message: bytes, tail: bytes) -> None:
    with pytest.raises(ScepError):
        ber.normalise(ber_message + tail)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x30\x01",
        b"\x30\x02\x04",
        b"\x30\x03\x04\x02a",
        b"\x30\x03\x04\x82\x00",
        b"\x04\x84\xff\xff\xff\xff",
        b"\x30\x84\xff\xff\xff\xff\x05\x00",
        b"\x30\x85\x00\x00\x00\x00\x02\x05\x00",
        b"\x30\xff" + b"\xff" * 127,
        b"\x30\x82\x01",
    ],
)
def test_length_beyond_the_data_is_refused(data: bytes) -> None:
    with pytest.raises(ScepError):
        ber.normalise(data)


@pytest.mark.parametrize("tag", [0x02, 0x04, 0x05, 0x0C, 0x80, 0x00])
def test_indefinite_length_of_a_primitive_is_refused(tag: int) -> None:
    with pytest.raises(ScepError):
        ber.normalise(bytes((tag, 0x80)) + b"\x04\x01a\0\0")


@pytest.mark.parametrize(
    "data",
    [
        b"\x30\x80",
        b"\x30\x80\x00",
        b"\x30\x80\x05\x00",
        b"\x30\x80\x05\x00\x00",
        b"\x30\x80\x30\x80\x00\x00",
        b"\x30\x02\x30\x80",
    ],
)
def test_missing_end_of_contents_is_refused(data: bytes) -> None:
    with pytest.raises(ScepError):
        ber.normalise(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x30\x03\x30\x80\x00" + b"\x00",
        b"\x30\x80\x30\x03\x30\x80\x00" + b"\x00\x00\x00",
        b"\x30\x05\x30\x80\x05\x00\x00" + b"\x00",
        b"\x30\x80\x30\x02\x30\x80" + b"\x00\x00" + b"\x00\x00",
    ],
)
def test_end_of_contents_beyond_its_container_is_refused(data: bytes) -> None:
    """Its octets, or the second of them, stand outside of the definite length around it."""
    with pytest.raises(ScepError):
        ber.normalise(data)


@pytest.mark.parametrize("tag", [0x1F, 0x3F, 0xBF])
def test_multi_byte_tag_is_refused(tag: int) -> None:
    with pytest.raises(ScepError):
        ber.normalise(bytes((tag, 0x02, 0x01, 0x00)))


@pytest.mark.parametrize("wrap", [tlv, indefinite])
def test_nesting_is_bounded(wrap: Callable[[int, bytes], bytes]) -> None:
    good = nested(ber.MAX_DEPTH, wrap)
    assert ber.normalise(good) == nested(ber.MAX_DEPTH, tlv)
    with pytest.raises(ScepError):
        ber.normalise(nested(ber.MAX_DEPTH + 1, wrap))


@pytest.mark.parametrize("read", [ber.normalise, pkimessage.read_message, envelope.read_envelope])
@pytest.mark.parametrize(
    "data",
    [
        deep(10_000),
        b"\x30\x80" * 10_000 + b"\0\0" * 10_000,
        b"\x30\x80" * 10_000,
        b"\x24\x80" * 10_000 + b"\x04\x01a" + b"\0\0" * 10_000,
    ],
    ids=["definite", "indefinite", "unclosed", "segments"],
)
def test_ten_thousand_levels_are_refused(read: Callable[[bytes], object], data: bytes) -> None:
    with pytest.raises(ScepError):
        read(data)


def test_message_cut_anywhere_is_refused(ber_message: bytes, der_message: bytes) -> None:
    for message in (ber_message, der_message):
        for end in range(len(message)):
            with pytest.raises(ScepError):
                ber.normalise(message[:end])


def test_ber_message_reads_as_its_der(ber_message: bytes) -> None:
    from_ber = pkimessage.read_message(ber_message)
    from_der = pkimessage.read_message(ber.normalise(ber_message))
    assert from_ber == from_der


def test_strict_der_is_tried_first(monkeypatch: pytest.MonkeyPatch, der_message: bytes) -> None:
    def refuse(data: bytes) -> bytes:
        raise AssertionError(data)

    monkeypatch.setattr(ber, "normalise", refuse)
    assert cms.read_der_or_ber(der_message, lambda der: der.element()) == der_message


class Work:
    """Calls and bytes copied while in the context: what time is made of, without a clock."""

    def __init__(self) -> None:
        self.calls = 0
        self.copied = 0

    def __enter__(self) -> Self:
        self._former = sys.getprofile()
        sys.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._former)

    def _count(self, frame: FrameType, event: str, value: object) -> None:
        if event == "call" and "shared" in frame.f_code.co_filename:
            self.calls += 1
        if event == "return" and isinstance(value, bytes):
            self.copied += len(value)


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "tiny elements": lambda n: tlv(SEQ, b"\x05\x00" * (n // 2)),
    "tiny constructed elements": lambda n: tlv(SEQ, b"\x30\x00" * (n // 2)),
    "tiny indefinite elements": lambda n: indefinite(SEQ, b"\x30\x80\0\0" * (n // 4)),
    "tiny segments": lambda n: indefinite(0x24, b"\x04\x00" * (n // 2)),
    "one large element at the bottom": lambda n: (
        b"\x30\x80" * ber.MAX_DEPTH + tlv(4, bytes(n)) + b"\0\0" * ber.MAX_DEPTH
    ),
    "segments at every level": lambda n: (
        b"\x24\x80" * ber.MAX_DEPTH + tlv(4, bytes(n)) + b"\0\0" * ber.MAX_DEPTH
    ),
    "unclosed": lambda n: b"\x30\x80" * (n // 2),
    "unclosed siblings": lambda n: b"\x30\x80" + b"\x30\x80\0\0" * (n // 4),
    "long object identifier": lambda n: tlv(SEQ, tlv(6, b"\x81" * n)),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize(
    "read",
    [
        ber.normalise,
        pkimessage.read_message,
        envelope.read_envelope,
        certificate.read_certificate,
        csr.read_csr,
        names.read_name,
        names.read_general_names,
    ],
)
def test_work_is_linear_in_the_length(
    read: Callable[[bytes], object], make: Callable[[int], bytes]
) -> None:
    size = 20_000
    data = make(size)
    with Work() as work, contextlib.suppress(ScepError):
        read(data)
    assert work.calls <= 6 * len(data) + 200
    assert work.copied <= (3 * ber.MAX_DEPTH + 10) * len(data) + 1000
