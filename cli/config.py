"""`scepstream config`: check a configuration, print the reference, import one from certctl."""

import os
from pathlib import Path
from typing import Annotated, Any

import tomli_w
import typer

from cli.certctl import DEFAULT, NotImportableError, import_profiles, read_variables
from cli.config_option import config_path
from cli.effective_config import effective
from cli.output import failed, say
from cli.reference import render
from cli.up.layout import write_private
from services.audit.settings import read_settings as read_audit
from services.gateway.settings import read_settings as read_gateway
from services.issuer.settings import read_settings as read_issuer
from services.validator.settings import read_settings as read_validator
from shared.config.keys import read_certificates, spki
from shared.config.load import SettingsError, inherited_environment, load, read_file, read_table
from shared.config.sections import Configuration
from shared.runtime.process import now
from shared.x509.key_ids import spki_sha256
from shared.x509.usages import ANY_ATTRIBUTE

app = typer.Typer(
    no_args_is_help=True,
    help="Check or import a configuration, or print the reference of all keys.",
)


@app.command()
def check(
    config: Annotated[
        Path, typer.Option(envvar="SCEPSTREAM_CONFIG", help="configuration file")
    ] = Path("scepstream.toml"),
) -> None:
    """Check the configuration as every service would, and print it without its secrets.

    Exit status 1, with the reason, if a service would not start.
    """
    try:
        configuration = load(config)
        left_out = {
            **read_gateway(configuration, now()).left_out,
            **read_validator(configuration, now()).left_out,
        }
        read_issuer(configuration)
        read_audit(configuration)
    except SettingsError as error:
        raise failed(error) from None
    good = sorted(set(configuration.profiles) - set(left_out))
    if not good:
        raise failed(next(iter(left_out.values())))
    print(effective(configuration))
    for problem in left_out.values():
        say(f"# left out: {problem}")
    print(f"# {config}: valid; profiles {', '.join(good)}")


@app.command()
def reference() -> None:
    """Print the reference of all keys (docs/configuration.md)."""
    print(render(), end="")


@app.command("import-certctl")
def import_certctl(
    base: Annotated[
        Path | None,
        typer.Option(
            help="configuration file from which all but the profiles is copied"
            " (default: scepstream.toml if it exists, else data/scepstream.toml)"
        ),
    ] = None,
    env_file: Annotated[
        Path | None,
        typer.Option(help="file of CERTCTL_SCEP_* variables (default: the environment)"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="file to write, mode 0600 (default: print)")
    ] = None,
) -> None:
    """Convert CERTCTL_SCEP_* variables to a configuration file, challenges included."""
    try:
        variables = inherited_environment()
        if env_file is not None:
            variables = read_variables(_text(env_file))
        base = config_path(base)
        _check_place(base, out)
        text, notes = _imported(base, variables)
        _check(base, text)
        if out is not None:
            write_private(out, text.encode())
    except (SettingsError, NotImportableError) as error:
        raise failed(error) from None
    except OSError as error:
        raise failed(f"{error.filename}: {error.strerror}") from None
    print("".join(f"# {note}\n" for note in notes) + ("" if out else text), end="")


def _check_place(base: Path, out: Path | None) -> None:
    if out is not None and out.resolve().parent != base.resolve().parent:
        raise SettingsError(
            f"--out {out}: must be in the same directory as {base},"
            f" because the relative paths in {base} are copied unchanged"
        )


def _text(path: Path) -> str:
    try:
        return read_file(path).decode("utf-8")
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: not UTF-8 text") from None


def _check(base: Path, text: str) -> None:
    """Check that the result loads, in a temporary file beside `base`: paths in it are relative."""
    trial = base.with_name(f".{base.name}.trial")
    try:
        write_private(trial, text.encode())
        load(trial, {})
    except SettingsError as error:
        raise SettingsError(str(error).replace(f"{trial}: ", "")) from None
    finally:
        trial.unlink(missing_ok=True)


def _imported(base: Path, variables: dict[str, str]) -> tuple[str, list[str]]:
    """Return (the configuration as TOML, notes on what to review)."""
    configuration = load(base, {})
    table = read_table(base)
    notes: list[str] = []
    profiles = import_profiles(variables)
    table["profiles"] = {
        name: _completed(configuration, name, profile, notes) for name, profile in profiles.items()
    }
    table.setdefault("gateway", {}).pop("default_profile", None)
    if list(profiles) == [DEFAULT]:
        table["gateway"]["default_profile"] = DEFAULT
    return tomli_w.dumps(table), notes


def _completed(
    configuration: Configuration, name: str, profile: dict[str, Any], notes: list[str]
) -> dict[str, Any]:
    """Complete an imported profile: issuers, certificate profiles and the CA's pin are the base's.

    Add what changed or needs a review to `notes`.
    """
    for key, known in (
        ("issuer_id", configuration.issuers),
        ("profile_id", configuration.certificate_profiles),
    ):
        wanted = profile.get(key, "")
        if wanted not in known:
            profile[key] = next(iter(known))
            before = f"{wanted} is unknown" if wanted else "was not set"
            notes.append(f"profiles.{name}.{key}: {before}; now {profile[key]}")
    if profile.get("intune_enabled"):
        profile["allowed_subject_attributes"] = ANY_ATTRIBUTE
        notes.append(
            f'profiles.{name}.allowed_subject_attributes: set to "any", as in certctl: a subject'
            " may have any attribute. Remove it to allow only C, O, L, ST and serialNumber besides"
            " the CN"
        )
    issuer = configuration.issuers[profile["issuer_id"]]
    ca = read_certificates(configuration.path(issuer.ca_cert_path[0]))[0]
    paths = {
        key: str(Path(os.path.abspath(value)))  # noqa: PTH100 - a path need not exist
        for key, value in profile.items()
        if key.endswith("_path")
    }
    return profile | paths | {"ca_spki_sha256": spki_sha256(spki(ca))}
