"""Options of connectors: closed tables, checked when an issuer starts, with files of secrets."""

import ssl
from pathlib import Path
from typing import Annotated, Final, TypeVar

from pydantic import Field, ValidationError

from services.issuer.connectors.http import HttpClient
from shared.config.fields import Section
from shared.config.keys import read_certificates
from shared.config.load import SettingsError, read_file, read_secret_file
from shared.config.sections import AnyIssuerSection, Configuration, ConnectorSection

_O = TypeVar("_O", bound=Section)
_MESSAGES: Final = {"extra_forbidden": "no such option", "missing": "required"}
CaUrl = Annotated[
    str,
    Field(
        pattern=r"^(https://|http://(127\.0\.0\.1|localhost|\[::1\])[:/])[!-?A-~]+$", max_length=255
    ),
]


class HttpOptions(Section):
    """Options of connectors that speak HTTP."""

    url: CaUrl
    """Base URL of the CA's API, https; http only on loopback."""
    tls_ca_path: Path | None = None
    """CAs of the API's TLS certificate, PEM [the system's]."""
    tls_cert_path: Path | None = None
    """Client certificate for TLS, PEM."""
    tls_key_path: Path | None = None
    """Its key, PEM, mode 0600."""


def connector_section(name: str, section: AnyIssuerSection) -> ConnectorSection:
    """Return the section of an external issuer; raises `SettingsError` for that of a local CA."""
    if not isinstance(section, ConnectorSection):
        raise SettingsError(f"issuers.{name}: not the section of an external CA")
    return section


def read_options(kind: type[_O], name: str, section: ConnectorSection) -> _O:
    """Parse `issuers.NAME.options`; `SettingsError` names the option, and never its value."""
    try:
        return kind.model_validate(section.options)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        said = _MESSAGES.get(first["type"], first["msg"])
        raise SettingsError(f"issuers.{name}.options.{place}: {said}") from None


def read_secret(configuration: Configuration, path: Path) -> str:
    """Return the text of a file of mode 0600 without the white space around it."""
    found = configuration.path(path)
    try:
        text = read_secret_file(found).decode("utf-8").strip()
    except UnicodeDecodeError:
        raise SettingsError(f"{found}: not text") from None
    if not text or not text.isprintable():
        raise SettingsError(f"{found}: empty, or more than one line")
    return text


def http_client(
    configuration: Configuration, name: str, options: HttpOptions, timeout: float
) -> HttpClient:
    """Return the client for a CA's API; raises `SettingsError` for TLS files that do not fit."""
    tls = None
    if options.url.startswith("https:"):
        tls = _tls(configuration, name, options)
    elif options.tls_cert_path or options.tls_key_path:
        raise SettingsError(f"issuers.{name}.options: a client certificate needs an https URL")
    return HttpClient(options.url.rstrip("/"), timeout, tls)


def _tls(configuration: Configuration, name: str, options: HttpOptions) -> ssl.SSLContext:
    """Return a context: TLS 1.2 or newer, server name checked, client certificate if configured."""
    roots = None
    if options.tls_ca_path is not None:
        path = configuration.path(options.tls_ca_path)
        read_certificates(path)  # an empty file would mean the system's roots
        roots = read_file(path).decode("ascii", "replace")
    context = ssl.create_default_context(cadata=roots)
    if (options.tls_cert_path is None) != (options.tls_key_path is None):
        raise SettingsError(
            f"issuers.{name}.options: tls_cert_path and tls_key_path belong together"
        )
    if options.tls_cert_path is not None and options.tls_key_path is not None:
        key_path = configuration.path(options.tls_key_path)
        read_secret_file(key_path)
        try:
            context.load_cert_chain(
                configuration.path(options.tls_cert_path), key_path, password=""
            )
        except (OSError, ssl.SSLError):
            raise SettingsError(
                f"{options.tls_cert_path}: no certificate matches the key {options.tls_key_path}"
            ) from None
    return context
