"""Addresses are parsed, never compared as text; X-Forwarded-For is one list read from its end."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.addresses import Networks, client_address, parse_address, source_key

PROXY = "10.0.0.1"
PROXIES = Networks.of([PROXY, "10.1.0.0/16", "2001:db8:1::/48"])
ADDRESSES = st.ip_addresses().filter(
    lambda a: not isinstance(a, ipaddress.IPv6Address) or a.ipv4_mapped is None
)


@given(ADDRESSES, st.integers(0, 65535))
def test_an_address_is_read_with_and_without_port_and_brackets(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    text = str(address)
    spellings = [text, f" {text}\t", f"[{text}]:{port}" if ":" in text else f"{text}:{port}"]
    if ":" in text:
        spellings += [f"[{text}]", address.exploded, text.upper(), f"{text}%eth0"]
    for spelling in spellings:
        assert parse_address(spelling) == text


@given(st.ip_addresses(v=4))
def test_a_mapped_address_is_the_ipv4_address(address: ipaddress.IPv4Address) -> None:
    assert parse_address(f"::ffff:{address}") == str(address)
    assert parse_address(f"[::ffff:{address}]:443") == str(address)
    assert f"::ffff:{address}" in Networks.of([f"{address}/32"])
    assert str(address) in Networks.of([f"::ffff:{address}"])
    assert source_key(f"::ffff:{address}") == str(address)


@given(st.text(max_size=100))
def test_whatever_is_read_is_an_address(text: str) -> None:
    found = parse_address(text)
    if found is not None:
        assert str(ipaddress.ip_address(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "unknown", "_hidden", "_SEVKISEK", "localhost", "1.2.3", "1.2.3.4.5", "01.2.3.4",
        "1.2.3.4:", "1.2.3.4:x", "1.2.3.4:123456", "[1.2.3.4]", "[::1", "::1]", "[::1]5", "::1::",
        "1.2.3.4\n", "1.2.3.4\x00", '"1.2.3.4"', "for=1.2.3.4", "1.2.3.4/8", "\u0661.2.3.4",
        "1" * 9000,
    ],
)  # fmt: skip
def test_what_is_no_address_is_none(text: str) -> None:
    assert parse_address(text) is None
    assert source_key(text) == ""
    assert text not in PROXIES


def test_ipv6_sources_count_by_their_64() -> None:
    assert source_key("2001:db8::1") == source_key("2001:db8::ffff:1") == "2001:db8::/64"
    assert source_key("2001:db8:0:1::1") != source_key("2001:db8::1")


@pytest.mark.parametrize(
    "text", ["proxy", "10.0.0.1/8", "10.0.0.0/33", "", "10.0.0.1:80", "::/200"]
)
def test_a_network_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="neither an address nor a network") as caught:
        Networks.of([text])
    assert f'"{text}"' in str(caught.value)


# X-Forwarded-For


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (["192.0.2.9"], "192.0.2.9"),
        (["203.0.113.7", "192.0.2.9"], "192.0.2.9"),  # two lines are one list
        (["203.0.113.7, 192.0.2.9"], "192.0.2.9"),
        (["192.0.2.9", PROXY], "192.0.2.9"),
        (["192.0.2.9, 10.1.2.3", "2001:db8:1::5"], "192.0.2.9"),  # proxies by network
        (["192.0.2.9:4711"], "192.0.2.9"),
        (["[2001:db8::9]:4711"], "2001:db8::9"),
        (["::ffff:192.0.2.9"], "192.0.2.9"),
        (["192.0.2.9,, ,"], "192.0.2.9"),  # empty elements are passed over (RFC 9110 5.6.1)
        (["192.0.2.9, unknown"], PROXY),
        (["192.0.2.9, _hidden, 10.1.2.3"], PROXY),
        (["unknown"], PROXY),
        ([PROXY], PROXY),
        ([""], PROXY),
        ([], PROXY),
        (["192.0.2.9" + f", {PROXY}" * 5000], PROXY),
    ],
)
def test_the_client_is_the_last_hop_that_is_no_proxy(lines: list[str], client: str) -> None:
    assert client_address(PROXY, lines, PROXIES) == client
    assert client_address(f"::ffff:{PROXY}", lines, PROXIES) == client


@given(st.lists(st.text(max_size=60), max_size=4))
def test_nobody_but_a_proxy_names_a_client(lines: list[str]) -> None:
    assert client_address("192.0.2.1", lines, PROXIES) == "192.0.2.1"


HOPS = st.one_of(st.text(max_size=20), st.ip_addresses().map(str))


@given(st.lists(HOPS, max_size=5), st.lists(HOPS, max_size=5))
def test_a_client_is_an_address_and_lines_are_joined(first: list[str], second: list[str]) -> None:
    found = client_address(PROXY, [",".join(first), ",".join(second)], PROXIES)
    assert found == client_address(PROXY, [",".join([*first, *second])], PROXIES)
    assert str(ipaddress.ip_address(found)) == found


def test_a_peer_without_an_address_has_none() -> None:
    assert client_address("", ["192.0.2.9"], PROXIES) == ""
    assert client_address("/run/socket", ["192.0.2.9"], PROXIES) == ""
