"""Verifiers of other packages: found by their entry point, named by a profile, as good as ours."""

import importlib.metadata
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.validator import settings as validator
from services.validator.access import Access, verifiers
from services.validator.challenges.kind import VerifierContext
from services.validator.challenges.records import Records
from services.validator.challenges.registry import GROUP, VERIFIERS, find_kind
from services.validator.challenges.verifier import ChallengeResult
from shared.config.load import SettingsError, load
from shared.log.reasons import Reason
from tests.plugins import PLUGINS
from tests.plugins.entry_points import declare
from tests.support.signed_challenges import asked, request
from tests.support.world import (
    NOW,
    TRUSTED_ISSUERS,
    TRUSTED_OPERATORS,
    TRUSTED_VALIDATORS,
    VALIDATOR,
    memory_bus,
)
from tests.unit.shared import configurations
from tests.unit.shared.changed import PROFILE, change

KEY: Final = b"k3y-of-the-v0uchers"
NO_PASSWORD: Final[dict[str, Any]] = {"challenge_password": None}


def install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, package: str = "some"
) -> None:
    """A package with one verifier, as an installer leaves it."""
    monkeypatch.syspath_prepend(declare(folder, GROUP, name, value, package))


@pytest.fixture
def voucher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of tests/plugins, installed."""
    monkeypatch.syspath_prepend(PLUGINS / "voucher")
    monkeypatch.delitem(sys.modules, "scepstream_voucher", raising=False)
    install(tmp_path / "site", monkeypatch, "voucher", "scepstream_voucher:KIND")


@pytest.fixture
def config(tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey) -> Path:
    key = tmp_path / "voucher.key"
    key.touch(0o600)
    key.write_bytes(KEY)
    return configurations.write_all(tmp_path, rsa_key, ec_key)


def access(config: Path, **keys: Any) -> Access:
    return validator.read_settings(load(change(config, **keys), {}), NOW).access[PROFILE]


def complaint(config: Path, **keys: Any) -> str:
    with pytest.raises(SettingsError) as error:
        access(config, **keys)
    return str(error.value)


async def verified(access: Access, kind: str, challenge: str) -> ChallengeResult:
    records = Records(memory_bus(), VALIDATOR, TRUSTED_VALIDATORS, TRUSTED_ISSUERS)
    found = verifiers(access, VerifierContext(PROFILE, records, TRUSTED_OPERATORS))
    return await found[kind].verify(asked(request(password=challenge.encode())))


@pytest.mark.usefixtures("voucher")
async def test_a_verifier_of_another_package_verifies_its_challenges(config: Path) -> None:
    from scepstream_voucher import voucher  # noqa: PLC0415 - installed by the fixture

    found = access(config, **NO_PASSWORD, verifier={"voucher": {"key_path": "voucher.key"}})
    ours = await verified(found, "voucher", voucher(KEY, "device"))
    anothers = await verified(found, "voucher", voucher(KEY, "device-2"))

    assert found.kinds == ("voucher",)
    assert ours.refusal is None
    assert anothers.refusal is not None
    assert anothers.refusal.reason is Reason.CHALLENGE_WRONG


@pytest.mark.usefixtures("voucher")
def test_it_stands_beside_those_that_are_built_in(config: Path) -> None:
    """It recognises its challenges, so it is asked before what takes the rest."""
    found = access(config, verifier={"voucher": {"key_path": "voucher.key"}})

    assert found.kinds == ("voucher", "static")


@pytest.mark.usefixtures("voucher")
@pytest.mark.parametrize("options", [{}, {"key": "x"}, {"key_path": "voucher.key", "more": 1}])
def test_its_options_are_checked_at_start(config: Path, options: dict[str, Any]) -> None:
    assert "verifier.voucher: key_path is the one option" in complaint(
        config, verifier={"voucher": options}
    )


def test_a_verifier_that_no_package_provides_is_an_error_with_its_name(config: Path) -> None:
    found = complaint(config, verifier={"nobody": {}})

    assert "'nobody': no installed package provides it (scepstream.verifiers)" in found


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("no_such_module_here:KIND", "cannot be loaded: ModuleNotFoundError"),
        ("json:no_such_name", "cannot be loaded: AttributeError"),
        ("json:dumps", "is not a VerifierKind whose kind is "),
        ("services.validator.challenges.static:KIND", "is not a VerifierKind whose kind is "),
    ],
)
def test_a_package_that_provides_something_else_is_an_error_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, said: str
) -> None:
    install(tmp_path, monkeypatch, "broken", value)
    with pytest.raises(SettingsError, match=r"'broken'") as error:
        find_kind("broken")

    assert said in str(error.value)


def test_two_packages_of_one_name_are_an_error_with_both_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("one", "other"):
        install(tmp_path / package, monkeypatch, "twice", "json:dumps", package)
    with pytest.raises(SettingsError, match=r"provided by several packages: one, other"):
        find_kind("twice")


def test_no_package_takes_the_place_of_a_built_in_verifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "static", "no_such_module_here:KIND")

    assert find_kind("static") in VERIFIERS


def test_a_package_that_no_profile_names_is_not_imported(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "intruder.py").write_text("raise SystemExit('imported')")
    install(tmp_path, monkeypatch, "intruder", "intruder:KIND")
    assert importlib.metadata.entry_points(group=GROUP, name="intruder")

    assert access(config).kinds == ("static",)


@pytest.mark.usefixtures("voucher")
def test_two_verifiers_that_no_format_tells_apart_are_refused(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "greedy.py").write_text(
        "from services.validator.challenges.kind import VerifierKind\n"
        "KIND = VerifierKind('greedy', lambda *_: None)\n"
    )
    install(tmp_path / "greedy-site", monkeypatch, "greedy", "greedy:KIND", "greedy")
    monkeypatch.syspath_prepend(tmp_path)
    found = complaint(config, verifier={"greedy": {}})

    assert (
        "these verifiers have no distinguishing format and cannot be combined: greedy, static"
        in found
    )


@pytest.mark.parametrize("kind", ["static", "signed", "one_time", "webhook"])
def test_a_built_in_verifier_is_not_enabled_by_a_table(config: Path, kind: str) -> None:
    """Its own keys do that, with their checks."""
    assert (
        f"verifier.{kind}: {kind} is built in: remove this table; its settings belong directly in"
        in complaint(config, verifier={kind: {}})
    )


def test_a_package_that_fails_over_its_options_is_a_sentence(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hasty.py").write_text(
        "from services.validator.challenges.kind import VerifierKind\n"
        "KIND = VerifierKind('hasty', lambda *_: {}['s3cret'], lambda _: True)\n"
    )
    install(tmp_path / "hasty-site", monkeypatch, "hasty", "hasty:KIND", "hasty")
    monkeypatch.syspath_prepend(tmp_path)
    found = complaint(config, verifier={"hasty": {}})

    assert "verifier.hasty: cannot be prepared: KeyError" in found
    assert "s3cret" not in found


def test_options_may_hold_secrets_so_the_file_is_for_its_owner_alone(config: Path) -> None:
    path = change(config, **NO_PASSWORD, verifier={"voucher": {"key": "s3cret"}})
    path.chmod(0o644)
    with pytest.raises(SettingsError, match=r"contains profiles\.corp-2\.verifier.*0644"):
        load(path, {})
