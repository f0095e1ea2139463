"""`ca next` keeps the form of the RA that clients know."""

from pathlib import Path

import pytest

from cli.ca.rollover import activate_next, make_next
from cli.toml import set_keys
from cli.up.authority import Authority, make_ra, ra_use
from cli.up.firststart import first_start
from cli.up.layout import Layout, open_directory, write_private
from cli.up.renewal import renew_ra
from services.gateway import settings as gateway
from shared.config.keys import read_ca_key_file, read_certificates
from shared.config.load import load
from tests.support.world import NOW


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A directory whose profile `demo` has one RA certificate for both uses."""
    found = open_directory(tmp_path / "data")
    first_start(found, "ec:p256", None, 20001, NOW)
    key = read_ca_key_file(found.root / "ca" / "ca.key")
    ca = Authority(read_certificates(found.ca_cert)[0], key)
    write_private(found.ra("combined"), make_ra(ca, "combined", NOW))
    keys = {"ra_cert_path": "ra/combined.pem", "ra_key_path": "ra/combined.pem"}
    write_private(found.config, set_keys(found.config.read_text(), "profiles.demo", keys).encode())
    return found


def forms(layout: Layout, number: int) -> dict[str, list[str]]:
    """The uses of each profile's RA pairs from this one on."""
    return {
        name: [ra_use(read_certificates(layout.root / p)[0]) for p in profile.ra_cert_path[number:]]
        for name, profile in load(layout.config).profiles.items()
    }


@pytest.mark.slow
def test_a_combined_ra_stays_combined_and_a_split_one_split(layout: Layout) -> None:
    before = forms(layout, 0)
    make_next(layout.root, "local", "ec:p256", NOW)
    activate_next(layout.root, "local")

    assert before["demo"] == ["combined"]
    assert forms(layout, 1)["demo"] == ["combined"]
    assert forms(layout, 2)["legacy"] == forms(layout, 2)["corp"] == ["signing", "encryption"]
    ca = read_certificates(layout.root / load(layout.config).issuers["local"].ca_cert_path[0])[0]
    for profile in gateway.read_settings(load(layout.config), NOW).profiles.values():
        current = profile.ra.under(ca.public_bytes(gateway.Encoding.DER)).certificates
        assert len(current) == (1 if profile.name == "demo" else 2)
    assert renew_ra(layout, NOW) == []


def test_a_run_file_of_an_up_that_was_killed_signals_nobody(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    signalled: list[int] = []
    monkeypatch.setattr("os.kill", lambda pid, _: signalled.append(pid))
    (layout.root / "run.json").write_text('{"pids": {"issuer": [4711], "gateway": [4712]}}')
    make_next(layout.root, "local", "ec:p256", NOW)
    assert signalled == [4711, 4712]  # this process holds the lock of a running `up`

    (layout.root / "lock").unlink()
    (layout.root / "lock").touch()
    assert activate_next(layout.root, "local").endswith(" at the next start")
    assert signalled == [4711, 4712]


def test_a_process_that_has_just_ended_is_no_error(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(pid: int, _: int) -> None:
        raise ProcessLookupError(pid)

    monkeypatch.setattr("os.kill", gone)
    (layout.root / "run.json").write_text('{"pids": {"issuer": [4711]}}')

    assert make_next(layout.root, "local", "ec:p256", NOW)
