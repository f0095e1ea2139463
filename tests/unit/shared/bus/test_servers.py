"""Where the event log is: one nats-server, or the nodes of a cluster."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.servers import Servers, checked, place
from shared.config.load import SettingsError, load
from tests.unit.shared.configurations import text

HOSTS = st.sampled_from(["nats.example", "127.0.0.1", "[::1]", "a-b_c", "node.1"])
URLS = st.builds(
    lambda scheme, user, host, port: f"{scheme}://{user}{host}{port}",
    st.sampled_from(["nats", "tls"]),
    st.sampled_from(["", "user:secret@", "token@"]),
    HOSTS,
    st.one_of(st.just(""), st.integers(1, 65535).map(":{}".format)),
)


@given(st.lists(URLS, min_size=1, max_size=4, unique_by=place))
def test_a_list_and_the_same_with_commas_are_the_same_nodes(urls: list[str]) -> None:
    assert checked(urls) == checked([", ".join(urls)]) == tuple(urls)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("http://secret@nats.example:4222", "must begin with nats:// or tls://"),
        ("nats.example:4222", "must begin with nats:// or tls://"),
        ("nats:nats.example:4222", "must begin with nats:// or tls://"),
        ("nats://secret@:4222", "a URL has no host"),
        ("nats://a b:4222", "a URL has no host"),
        ("nats://secret@nats.example:0", "the port must be a number from 1 to 65535"),
        ("nats://secret@nats.example:65536", "the port must be a number from 1 to 65535"),
        ("nats://secret@nats.example:x", "the port must be a number from 1 to 65535"),
        ("nats://secret@nats.example:", "the port must be a number from 1 to 65535"),
        ("nats://secret@nats.example:4222/js", "nothing may follow the port"),
        ("nats://secret@nats.example:4222?tls", "nothing may follow the port"),
        ("nats://a:1,", "an empty URL"),
        ("", "an empty URL"),
        ("nats://secret@a:4222,nats://a", "a:4222 is listed twice"),
        (",".join(f"nats://a:{port}" for port in range(1, 20)), "at most 16"),
    ],
)
def test_what_is_no_node_is_refused_without_telling_a_secret(url: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as raised:
        checked([url])
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("nats://u:p@nats.example", "nats.example:4222"),
        ("nats://[::1]:9", "[::1]:9"),
        ("tls://t@10.0.0.1:5", "10.0.0.1:5"),
    ],
)
def test_of_a_url_host_and_port_are_logged_alone(url: str, found: str) -> None:
    assert place(url) == found


def configured(directory: Path, line: str, replicas: int = 1, **environment: str) -> Servers:
    config = directory / "scepstream.toml"
    config.write_text(
        text().replace('url = "nats://127.0.0.1:4222"', line) + f"\n[log]\nreplicas = {replicas}\n"
    )
    return load(config, environment).servers()


def test_the_nodes_of_a_cluster_are_a_list_in_the_file(tmp_path: Path) -> None:
    found = configured(tmp_path, 'url = ["nats://a:1", "nats://b:2"]', 3)

    assert found == Servers(("nats://a:1", "nats://b:2"), replicated=True)


def test_in_the_environment_they_stand_with_commas(tmp_path: Path) -> None:
    found = configured(tmp_path, 'url = "nats://a:1"', SCEPSTREAM_BUS_URL="nats://b:2, nats://c:3")

    assert found == Servers(("nats://b:2", "nats://c:3"), replicated=False)


def test_a_refusal_names_the_key_and_not_the_value(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"bus\.url: .*must begin with nats://") as raised:
        configured(tmp_path, 'url = "http://secret@b:2"')
    assert "secret" not in str(raised.value)
