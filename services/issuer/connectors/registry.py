"""The kinds of connectors: those that are built in, and those that packages add."""

from importlib import import_module
from typing import Final

from services.issuer.connectors.connector import Connector, ConnectorKind
from shared.config.load import SettingsError
from shared.config.plugins import load_plugin
from shared.config.sections import Configuration

GROUP: Final = "scepstream.issuers"
# A module is imported only when an issuer has its kind.
BUILT_IN: Final = {
    "local": "local",
    "openbao": "openbao",
    "ejbca": "ejbca",
    "step-ca": "step_ca",
    "adcs": "adcs",
    "aws-pca": "aws_pca",
    "google-cas": "google_cas",
    "digicert": "digicert",
    "sectigo": "sectigo",
    "entrust-ca-gateway": "entrust_ca_gateway",
    "entrust-ecs": "entrust_ecs",
    "globalsign-atlas": "globalsign_atlas",
    "acme": "acme_ca",
    "command": "command",
    "kubernetes": "kubernetes",
}
_MEMBERS: Final = tuple(name for name in vars(Connector) if not name.startswith("_"))


def read_connector(configuration: Configuration, name: str) -> Connector:
    """Read an issuer's connector; raises `SettingsError` naming what is wrong."""
    section = configuration.issuers[name]
    kind = _kind(section.kind)
    try:
        found = kind.build(configuration, name, section)
    except SettingsError:
        raise
    except Exception as error:
        detail = f"cannot be built: {type(error).__name__}"
        raise SettingsError(f"issuers.{name}: {section.kind} {detail}") from error
    if getattr(found, "needs_csr", False) and not (
        configuration.issuer.opening_key_path and configuration.trust.issuer_sealing_key
    ):
        raise SettingsError(
            f"issuers.{name}: {section.kind} passes the CSR on to the CA: set "
            "issuer.opening_key_path and trust.issuer_sealing_key"
        )
    if missing := [each for each in _MEMBERS if not hasattr(found, each)]:
        raise SettingsError(
            f"issuers.{name}: the package of {section.kind} is for another version of scepstream: "
            f"its connector lacks {', '.join(missing)}"
        )
    return found


def _kind(name: str) -> ConnectorKind:
    if module := BUILT_IN.get(name):
        found = import_module(f"services.issuer.connectors.{module}").KIND
        assert isinstance(found, ConnectorKind)
        return found
    return load_plugin(GROUP, name, ConnectorKind)
