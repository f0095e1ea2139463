import socket
from pathlib import Path

import pytest

from cli.up.layout import Layout, UpError
from cli.up.ports import (
    Ports,
    bind,
    config_port,
    nats_port,
    read_ports,
    wanted_port,
    write_ports,
)


@pytest.mark.parametrize(
    ("option", "index", "kept", "expected"),
    [
        (None, 0, None, 8080),
        (None, 2, None, 8082),
        (None, 0, 9000, 9000),
        (None, 2, 9000, 9000),
        (9500, 0, None, 9500),
        (9500, 2, None, 9502),
        (9500, 0, 9000, 9500),
        (9500, 2, 9000, 9502),
        (0, 0, None, 0),
        (0, 2, None, 0),
        (0, 0, 9000, 9000),
        (0, 2, 9000, 9000),
    ],
)
def test_the_port_is_as_asked_else_as_kept_else_the_default(
    option: int | None, index: int, kept: int | None, expected: int
) -> None:
    assert wanted_port(option, 8080, index, kept) == expected


def test_chosen_ports_are_kept(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert read_ports(layout) == Ports()
    write_ports(layout, Ports((8080, 8081), 8090, 20001))

    assert read_ports(layout) == Ports((8080, 8081), 8090, 20001)


def test_ports_of_more_gateways_than_run_now_are_kept_too(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write_ports(layout, Ports((1, 2, 3), 8090, 20001))
    write_ports(layout, Ports((9,), 8091, 20002))

    assert read_ports(layout) == Ports((9, 2, 3), 8091, 20002)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"gateways": 3, "admin": 1, "nats": 2}']
)
def test_a_broken_ports_file_is_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "ports.json").write_text(content)

    assert read_ports(Layout(tmp_path)) == Ports()


def test_a_bound_port_listens() -> None:
    with bind("127.0.0.1", 0, "it") as listener:
        socket.create_connection(listener.getsockname()).close()


@pytest.mark.parametrize(
    ("host", "port", "reason"),
    [
        ("127.0.0.1", 70000, "invalid port number"),
        ("192.0.2.1", 0, "this machine does not have the address"),
    ],
)
def test_what_is_in_the_way_of_a_port_is_said(host: str, port: int, reason: str) -> None:
    with pytest.raises(UpError, match=f"the gateway cannot listen on {host}:{port}: {reason}"):
        bind(host, port, "the gateway")


def test_a_taken_port_is_said_to_be_taken() -> None:
    with bind("127.0.0.1", 0, "it") as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UpError, match="the port is in use"):
            bind("127.0.0.1", port, "the admin port")


def test_nats_keeps_its_port_while_it_is_free() -> None:
    free = nats_port(0)
    assert 20000 <= free < 32000
    assert nats_port(free) == free


def test_nats_gets_another_port_where_its_own_is_taken() -> None:
    with bind("127.0.0.1", nats_port(0), "it") as listener:
        taken = listener.getsockname()[1]
        assert nats_port(taken) not in (0, taken)


def test_the_port_of_this_start_is_put_into_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "scepstream.toml"
    config.write_text('# url = "nats://x"\n[bus]\nurl = "nats://127.0.0.1:20000"\n[audit]\n')
    config_port(config, 20001)

    assert (
        config.read_text() == '# url = "nats://x"\n[bus]\nurl = "nats://127.0.0.1:20001"\n[audit]\n'
    )


def test_a_bus_elsewhere_is_left_as_the_operator_wrote_it(tmp_path: Path) -> None:
    config = tmp_path / "scepstream.toml"
    config.write_text('[bus]\nurl = "nats://bus.example:4222"\n')
    config_port(config, 20001)

    assert "bus.example:4222" in config.read_text()
